"""What a bag stores beside messages: definitions of types and qualities of service."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from rclpy.duration import Duration
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSHistoryPolicy,
    QoSLivelinessPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
)
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosidl_parser.definition import AbstractNestedType, NamespacedType

from ros2cli.interfaces import load_interface

_SEPARATOR = "=" * 80
_DEPTH = 100  # covers stalls of about a second on camera streams


def message_definition(type_name: str) -> str:
    """Return a type's .msg text followed by those of the types it uses (as MCAP's `ros2msg`).

    Raises:
        CommandError: the type is not in this environment.
    """
    texts = [_text(type_name)]
    texts += [f"MSG: {name.replace('/msg/', '/')}\n{_text(name)}" for name in _used(type_name)]
    return f"\n{_SEPARATOR}\n".join(texts)


def _text(type_name: str) -> str:
    package, _, name = type_name.split("/")
    share = Path(get_package_share_directory(package))
    return (share / "msg" / f"{name}.msg").read_text(encoding="utf-8")


def _used(type_name: str) -> list[str]:
    """Return the message types inside a type, each once, in the order of their first use."""
    found: dict[str, None] = {}
    open_types = [type_name]
    while open_types:
        for slot in load_interface(open_types.pop(0), "msg").SLOT_TYPES:
            base = slot.value_type if isinstance(slot, AbstractNestedType) else slot
            name = "/".join(base.namespaced_name()) if isinstance(base, NamespacedType) else ""
            if name and name not in found:
                found[name] = None
                open_types.append(name)
    return list(found)


def stored_qos(profile: QoSProfile) -> Qos:
    """Return a publisher's offer as a bag stores it."""

    def time(duration: Duration) -> QosTime:
        return QosTime(*divmod(duration.nanoseconds, 1_000_000_000))

    return Qos(
        history=QosHistory(profile.history.value),
        depth=profile.depth,
        reliability=QosReliability(profile.reliability.value),
        durability=QosDurability(profile.durability.value),
        deadline=time(profile.deadline),
        lifespan=time(profile.lifespan),
        liveliness=QosLiveliness(profile.liveliness.value),
        liveliness_lease_duration=time(profile.liveliness_lease_duration),
        avoid_ros_namespace_conventions=profile.avoid_ros_namespace_conventions,
    )


def playing_qos(offers: Sequence[Qos]) -> QoSProfile:
    """Return what to offer for a recorded topic: what its publishers offered, if they agreed.

    Publishers that disagreed, or an unknown policy, give reliable and volatile, which serves most
    subscriptions.
    """

    def agreed(values: set, policy: Any, default: Any) -> Any:
        name = values.pop().name if len(values) == 1 else "UNKNOWN"
        return default if name in ("UNKNOWN", "SYSTEM_DEFAULT") else policy[name]

    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=_DEPTH,
        reliability=agreed(
            {offer.reliability for offer in offers},
            QoSReliabilityPolicy,
            QoSReliabilityPolicy.RELIABLE,
        ),
        durability=agreed(
            {offer.durability for offer in offers},
            QoSDurabilityPolicy,
            QoSDurabilityPolicy.VOLATILE,
        ),
        liveliness=QoSLivelinessPolicy.AUTOMATIC,
    )


def recording_qos() -> QoSProfile:
    """Return a profile to fit to the publishers of a topic."""
    return QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=_DEPTH)
