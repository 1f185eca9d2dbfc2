"""Quality of service from options, or fitting the publishers that are there."""

import argparse
from collections.abc import Sequence

from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSHistoryPolicy,
    QoSPresetProfiles,
    QoSProfile,
    QoSReliabilityPolicy,
)
from rclpy.topic_endpoint_info import TopicEndpointInfo


def add_qos_arguments(parser: argparse.ArgumentParser, preset: str) -> None:
    """Add the --qos-* options."""
    parser.add_argument(
        "--qos-profile",
        choices=QoSPresetProfiles.short_keys(),
        default=preset,
        help="preset to start from (default: %(default)s)",
    )
    parser.add_argument("--qos-depth", type=int, metavar="N", help="queue size")
    parser.add_argument("--qos-history", choices=QoSHistoryPolicy.short_keys())
    parser.add_argument("--qos-reliability", choices=QoSReliabilityPolicy.short_keys())
    parser.add_argument("--qos-durability", choices=QoSDurabilityPolicy.short_keys())


def profile_from(args: argparse.Namespace) -> QoSProfile:
    """Return the preset with the options that were given."""
    profile = QoSPresetProfiles.get_from_short_key(args.qos_profile)
    if args.qos_history:
        profile.history = QoSHistoryPolicy.get_from_short_key(args.qos_history)
    if args.qos_reliability:
        profile.reliability = QoSReliabilityPolicy.get_from_short_key(args.qos_reliability)
    if args.qos_durability:
        profile.durability = QoSDurabilityPolicy.get_from_short_key(args.qos_durability)
    if args.qos_depth:
        profile.depth = args.qos_depth
    return profile


def any_given(args: argparse.Namespace) -> bool:
    """Tell whether an option beyond the preset was given."""
    options = (args.qos_depth, args.qos_history, args.qos_reliability, args.qos_durability)
    return any(option is not None for option in options)


def fitting(profile: QoSProfile, publishers: Sequence[TopicEndpointInfo]) -> QoSProfile:
    """Ask for reliability and durability only where every publisher offers them."""
    if publishers:
        offers = [publisher.qos_profile for publisher in publishers]
        reliable = all(o.reliability == QoSReliabilityPolicy.RELIABLE for o in offers)
        latched = all(o.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL for o in offers)
        profile.reliability = (
            QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT
        )
        profile.durability = (
            QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE
        )
    return profile
