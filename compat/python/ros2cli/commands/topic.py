"""List, inspect, print, measure and publish topics."""

import argparse
import math
import sys
import time
from collections import deque
from functools import partial
from typing import Any

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from ros2cli import qos
from ros2cli.graph import (
    absolute,
    add_node_arguments,
    cli_node,
    discover,
    topic_types,
    visible,
    wait_for,
)
from ros2cli.interfaces import load_interface
from ros2cli.verbs import CommandError, Verbs, main, positive_float, positive_int
from ros2cli.yaml_messages import parse_and_fill, to_yaml

__all__ = ["add_arguments", "main"]

_LONGEST_SHOWN = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = Verbs(parser)
    listing = verbs.add("list", list_topics)
    listing.add_argument("-t", "--show-types", action="store_true", help="show the types too")
    listing.add_argument("-c", "--count-topics", action="store_true", help="show the number only")
    listing.add_argument("--include-hidden-topics", action="store_true")
    add_node_arguments(listing)

    info = verbs.add("info", show_info)
    info.add_argument("topic_name")
    info.add_argument("-v", "--verbose", action="store_true", help="show every endpoint's QoS")
    add_node_arguments(info)

    echo = verbs.add("echo", echo_topic)
    echo.add_argument("topic_name")
    echo.add_argument("message_type", nargs="?")
    echo.add_argument("--field", help="show this field only; dots select sub-fields")
    echo.add_argument("--once", action="store_true", help="end after the first message")
    echo.add_argument("--timeout", type=positive_float, metavar="S", help="end after S seconds")
    echo.add_argument("--no-arr", action="store_true", help="show the sizes of arrays only")
    echo.add_argument("-f", "--full-length", action="store_true", help="show whole arrays")
    echo.add_argument("-l", "--truncate-length", type=int, default=_LONGEST_SHOWN, metavar="N")
    qos.add_qos_arguments(echo, "sensor_data")
    add_node_arguments(echo)

    rate = verbs.add("hz", measure_rate)
    rate.add_argument("topic_name")
    rate.add_argument("-w", "--window", type=positive_int, default=10000, help="messages to use")
    rate.add_argument("--wall-time", action="store_true", help="measure by the wall clock")
    add_node_arguments(rate)

    _add_pub_arguments(verbs.add("pub", publish))


def _add_pub_arguments(pub: argparse.ArgumentParser) -> None:
    pub.add_argument("topic_name")
    pub.add_argument("message_type")
    values = pub.add_mutually_exclusive_group()
    values.add_argument(
        "values", nargs="?", default="{}", help="YAML; a Header may be 'auto', a stamp 'now'"
    )
    values.add_argument("--stdin", action="store_true", help="read the values from stdin")
    pub.add_argument("-r", "--rate", type=positive_float, default=1.0, metavar="HZ")
    pub.add_argument("-p", "--print", type=int, default=1, metavar="N", help="show every Nth")
    times = pub.add_mutually_exclusive_group()
    times.add_argument("-1", "--once", action="store_true", help="publish once and end")
    times.add_argument("-t", "--times", type=int, default=0, metavar="N")
    pub.add_argument(
        "-w",
        "--wait-matching-subscriptions",
        type=int,
        metavar="N",
        help="first wait for N subscriptions (default: 1 with --once or --times, else 0)",
    )
    pub.add_argument("--max-wait-time-secs", type=positive_float, metavar="S")
    pub.add_argument(
        "--keep-alive",
        type=positive_float,
        default=0.1,
        metavar="S",
        help="live on for S seconds after the last message (default: 0.1)",
    )
    pub.add_argument("-n", "--node-name")
    qos.add_qos_arguments(pub, "default")
    add_node_arguments(pub)


def list_topics(args: argparse.Namespace) -> None:
    """Output a list of available topics."""
    with cli_node(args) as node:
        discover(node, args.spin_time)
        topics = visible(
            node.get_topic_names_and_types(), include_hidden=args.include_hidden_topics
        )
    if args.count_topics:
        print(len(topics))
        return
    for name, types in topics:
        print(f"{name} [{', '.join(types)}]" if args.show_types else name)


def show_info(args: argparse.Namespace) -> None:
    """Print information about a topic."""
    with cli_node(args) as node:
        discover(node, args.spin_time)
        topic = absolute(args.topic_name)
        types = topic_types(node, topic)
        if not types:
            raise CommandError(f"Unknown topic '{args.topic_name}'")
        end = "\n\n" if args.verbose else "\n"
        print(f"Type: {types[0] if len(types) == 1 else types}", end=end)
        for label, endpoints in (
            ("Publisher", node.get_publishers_info_by_topic(topic)),
            ("Subscription", node.get_subscriptions_info_by_topic(topic)),
        ):
            print(f"{label} count: {len(endpoints)}", end=end)
            for endpoint in endpoints if args.verbose else ():
                print(endpoint, end=end)


def echo_topic(args: argparse.Namespace) -> None:
    """Output messages from a topic."""
    with cli_node(args) as node:
        message_class = _class_of(node, args)
        topic = absolute(args.topic_name)
        profile = qos.profile_from(args)
        if not qos.any_given(args):
            # The type may be known from another subscription before any publisher is.
            publishers = wait_for(lambda: node.get_publishers_info_by_topic(topic), 3.0)
            profile = qos.fitting(profile, publishers)
        messages: deque[Any] = deque()
        node.create_subscription(
            message_class, args.topic_name, lambda message: messages.append(message), profile
        )
        deadline = time.monotonic() + (args.timeout or math.inf)
        while (left := deadline - time.monotonic()) > 0.0:
            rclpy.spin_once(node, timeout_sec=min(left, 1.0))
            while messages:
                _print_message(messages.popleft(), args)
                if args.once:
                    return


def _class_of(node: Node, args: argparse.Namespace) -> Any:
    """Return the message class that was named, or that of the topic once it appears."""
    if args.message_type is not None:
        return load_interface(args.message_type, "msg")
    types = wait_for(partial(topic_types, node, args.topic_name), args.spin_time)
    if not types:
        print(
            f"WARNING: topic [{args.topic_name}] does not appear to be published yet",
            file=sys.stderr,
        )
        raise CommandError("Could not determine the type for the passed topic")
    if len(types) > 1:
        raise CommandError(
            f"Cannot echo topic '{args.topic_name}', as it contains more than one type: "
            f"[{', '.join(types)}]"
        )
    return load_interface(types[0], "msg")


def _print_message(message: Any, args: argparse.Namespace) -> None:
    for part in (args.field or "").split("."):
        if part and not hasattr(message, part):
            raise CommandError(f"Invalid field '{args.field}': no '{part}' in {message!r:.200}")
        message = getattr(message, part) if part else message
    if not hasattr(message, "get_fields_and_field_types"):
        print(message, end="\n---\n")
        return
    longest = None if args.full_length else args.truncate_length
    print(to_yaml(message, longest=longest, no_arr=args.no_arr), end="---\n")


def measure_rate(args: argparse.Namespace) -> None:
    """Print the average publishing rate of a topic until interrupted."""
    with cli_node(args) as node:
        types = topic_types(node, args.topic_name)
        if not types and not wait_for(partial(topic_types, node, args.topic_name), 3.0):
            print(f"WARNING: topic [{args.topic_name}] does not appear to be published yet")
        while not types:
            types = wait_for(partial(topic_types, node, args.topic_name), 1.0)
        clock = Clock(clock_type=ClockType.SYSTEM_TIME) if args.wall_time else node.get_clock()
        meter = RateMeter(args.window)
        node.create_subscription(
            load_interface(types[0], "msg"),
            args.topic_name,
            lambda _: meter.add(clock.now().nanoseconds),
            qos_profile_sensor_data,
            raw=True,  # the content does not matter: nothing is deserialised
        )
        while rclpy.ok():
            rclpy.spin_once(node)
            if (line := meter.report()) is not None:
                print(line)


class RateMeter:
    """Intervals between arrivals, reported once a second of their own clock."""

    def __init__(self, window: int) -> None:
        self._intervals_ns: deque[int] = deque(maxlen=window)
        self._last_ns = self._reported_ns = 0

    def add(self, now_ns: int) -> None:
        """Count an arrival; a clock that went back starts anew."""
        if now_ns == 0:
            return
        if self._last_ns == 0 or now_ns < self._last_ns:
            self._intervals_ns.clear()
            self._reported_ns = now_ns
        else:
            self._intervals_ns.append(now_ns - self._last_ns)
        self._last_ns = now_ns

    def report(self) -> str | None:
        """Return the two lines of statistics when a second has passed since the last ones."""
        if not self._intervals_ns or self._last_ns < self._reported_ns + 1_000_000_000:
            return None
        self._reported_ns = self._last_ns
        seconds = [interval * 1e-9 for interval in self._intervals_ns]
        mean = sum(seconds) / len(seconds)
        deviation = math.sqrt(sum((s - mean) ** 2 for s in seconds) / len(seconds))
        return (
            f"average rate: {1.0 / mean if mean else 0.0:.3f}\n"
            f"\tmin: {min(seconds):.3f}s max: {max(seconds):.3f}s "
            f"std dev: {deviation:.5f}s window: {len(seconds)}"
        )


def publish(args: argparse.Namespace) -> None:
    """Publish a message to a topic."""
    message = load_interface(args.message_type, "msg")()
    stamps = parse_and_fill(message, sys.stdin.read() if args.stdin else args.values)
    times = 1 if args.once else args.times
    with cli_node(args, args.node_name) as node:
        publisher = node.create_publisher(type(message), args.topic_name, qos.profile_from(args))
        wanted = args.wait_matching_subscriptions
        _wait_for_subscriptions(
            publisher, int(times != 0) if wanted is None else wanted, args.max_wait_time_secs
        )
        print("publisher: beginning loop")
        next_time, count = time.monotonic(), 0
        while times == 0 or count < times:
            rclpy.spin_once(node, timeout_sec=max(0.0, next_time - time.monotonic()))
            if time.monotonic() < next_time:
                continue
            for set_stamp in stamps:
                set_stamp(node.get_clock().now().to_msg())
            count += 1
            if args.print and count % args.print == 0:
                print(f"publishing #{count}: {message!r}\n")
            publisher.publish(message)
            next_time += 1.0 / args.rate
        time.sleep(args.keep_alive)


def _wait_for_subscriptions(publisher: Any, wanted: int, longest: float | None) -> None:
    deadline = time.monotonic() + (longest or math.inf)
    while (count := publisher.get_subscription_count()) < wanted:
        print(f"Waiting for at least {wanted} matching subscription(s)...")
        if time.monotonic() >= deadline:
            raise CommandError(
                f"Timed out waiting for subscribers: Expected {wanted} subscribers but only got "
                f"{count} subscribers"
            )
        wait_for(
            lambda: publisher.get_subscription_count() >= wanted,
            min(1.0, max(0.0, deadline - time.monotonic())),
        )
