"""A hidden node for one command, and bounded waits for what others have.

The real command asks a daemon that knows the graph; here each call discovers it anew, which takes
up to a few seconds: lists wait until nothing more has appeared for a while, searches until they
have found what they look for, both at most `--spin-time`.
"""

import argparse
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.topic_or_service_is_hidden import topic_or_service_is_hidden

from ros2cli.verbs import CommandError

_DISCOVERY_SECONDS = 4.0  # participants announce themselves every 3 s
_QUIET_SECONDS = 1.5  # longer than most gaps between the answers of other participants


def add_node_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that looks at the graph."""
    parser.add_argument(
        "--spin-time",
        type=float,
        default=_DISCOVERY_SECONDS,
        metavar="S",
        help="longest wait for discovery, in s (default: %(default)s)",
    )
    parser.add_argument("-s", "--use-sim-time", action="store_true", help="follow /clock")
    parser.add_argument("--no-daemon", action="store_true", help="accepted: there is no daemon")


@contextmanager
def cli_node(
    args: argparse.Namespace,
    name: str | None = None,
    signals: SignalHandlerOptions = SignalHandlerOptions.ALL,
) -> Iterator[Node]:
    """Provide a node that other commands hide (its name starts with an underscore)."""
    rclpy.init(args=[], signal_handler_options=signals)
    try:
        yield rclpy.create_node(
            name or f"_ros2cli_{os.getpid()}",
            start_parameter_services=False,
            parameter_overrides=[
                Parameter("use_sim_time", value=getattr(args, "use_sim_time", False))
            ],
        )
    finally:
        rclpy.try_shutdown()


def stop_on_signals() -> list[int]:
    """Return a list that a signal to end fills, so that nothing is torn in the middle."""
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: received.append(n))
    return received


def wait_for(found: Callable[[], Any], seconds: float) -> Any:
    """Return the first true answer of `found`, or the last one when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while not (answer := found()) and time.monotonic() < deadline:
        time.sleep(0.02)
        if not rclpy.ok():
            raise ExternalShutdownException
    return answer


def discover(node: Node, seconds: float) -> None:
    """Wait until some node is known and the graph has stopped changing, at most `seconds`."""
    seen, since = None, time.monotonic()

    def quiet() -> bool:
        nonlocal seen, since
        graph = (
            node.get_node_names_and_namespaces(),
            node.get_topic_names_and_types(),
            node.get_service_names_and_types(),
        )
        if graph != seen:
            seen, since = graph, time.monotonic()
        return bool(node_names(node)) and time.monotonic() - since > _QUIET_SECONDS

    wait_for(quiet, seconds)


def visible(names_and_types: list, *, include_hidden: bool) -> list:
    """Leave out names with a part that starts with an underscore, unless asked for."""
    return [
        (name, types)
        for name, types in names_and_types
        if include_hidden or not topic_or_service_is_hidden(name)
    ]


def absolute(name: str) -> str:
    """Return a name as the graph spells it."""
    return name if name.startswith("/") else f"/{name}"


def node_names(node: Node, *, include_hidden: bool = False) -> list[str]:
    """Return the full names of all nodes, sorted."""
    return sorted(
        f"{namespace.rstrip('/')}/{name}"
        for name, namespace in node.get_node_names_and_namespaces()
        if include_hidden or not name.startswith("_")
    )


def require_node(node: Node, name: str, seconds: float) -> str:
    """Wait for a node and return its full name.

    Raises:
        CommandError: it did not appear; the text lists the nodes that did.
    """
    full = absolute(name)
    if not wait_for(lambda: full in node_names(node, include_hidden=True), seconds):
        known = ", ".join(node_names(node)) or "none"
        raise CommandError(f"Node not found: '{full}' (waited {seconds:g} s; nodes: {known})")
    return full


def topic_types(node: Node, topic: str) -> list[str]:
    """Return the types of a topic; empty while nobody publishes or subscribes."""
    return dict(node.get_topic_names_and_types()).get(absolute(topic), [])


def complete(node: Node, future: Any, what: str, seconds: float = 10.0) -> Any:
    """Spin until a future has its result and return it.

    Raises:
        CommandError: no answer came in time; the text names `what`.
    """
    rclpy.spin_until_future_complete(node, future, timeout_sec=seconds)
    if not future.done():
        raise CommandError(f"No answer from {what} within {seconds:g} s")
    return future.result()
