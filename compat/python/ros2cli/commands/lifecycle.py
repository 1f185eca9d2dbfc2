"""Show and change the states of lifecycle nodes."""

import argparse
from typing import Any

from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from rclpy.node import Node

from ros2cli.graph import (
    add_node_arguments,
    cli_node,
    complete,
    discover,
    require_node,
    wait_for,
)
from ros2cli.verbs import CommandError, Verbs, main

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = Verbs(parser)
    nodes = verbs.add("nodes", list_nodes)
    nodes.add_argument("-c", "--count-nodes", action="store_true", help="show the number only")

    get = verbs.add("get", get_states)
    get.add_argument("node_name", nargs="?", help="default: all lifecycle nodes")

    listing = verbs.add("list", list_transitions)
    listing.add_argument("node_name")
    listing.add_argument("-a", "--all", action="store_true", help="those of other states too")

    set_ = verbs.add("set", change_state)
    set_.add_argument("node_name")
    set_.add_argument("transition", help="label or number")
    for verb in (nodes, get, listing, set_):
        add_node_arguments(verb)


def list_nodes(args: argparse.Namespace) -> None:
    """Output a list of nodes with lifecycle."""
    with cli_node(args) as node:
        discover(node, args.spin_time)
        names = _lifecycle_nodes(node)
    for line in [len(names)] if args.count_nodes else names:
        print(line)


def get_states(args: argparse.Namespace) -> None:
    """Get the state of one lifecycle node or of all."""
    with cli_node(args) as node:
        if args.node_name:
            names = [_require(node, args)]
        else:
            discover(node, args.spin_time)
            names = _lifecycle_nodes(node)
        for name in names:
            state = _call(node, GetState, f"{name}/get_state", GetState.Request()).current_state
            print(f"{'' if args.node_name else f'{name}: '}{state.label} [{state.id}]")


def list_transitions(args: argparse.Namespace) -> None:
    """Output a list of available transitions."""
    with cli_node(args) as node:
        which = "get_transition_graph" if args.all else "get_available_transitions"
        for t in _transitions(node, _require(node, args), which):
            print(
                f"- {t.transition.label} [{t.transition.id}]\n"
                f"\tStart: {t.start_state.label}\n\tGoal: {t.goal_state.label}"
            )


def change_state(args: argparse.Namespace) -> None:
    """Trigger a lifecycle state transition."""
    with cli_node(args) as node:
        name = _require(node, args)
        known = [t.transition for t in _transitions(node, name, "get_available_transitions")]
        by_name = {str(t.id): t for t in known} | {t.label: t for t in known}
        if args.transition not in by_name:
            raise CommandError(
                "Unknown transition requested, available ones are:"
                + "".join(f"\n- {t.label} [{t.id}]" for t in known)
            )
        request = ChangeState.Request(transition=by_name[args.transition])
        if not _call(node, ChangeState, f"{name}/change_state", request, 120.0).success:
            raise CommandError("Transitioning failed")
    print("Transitioning successful")


def _lifecycle_nodes(node: Node) -> list[str]:
    ending = "/get_state"
    return sorted(
        service.removesuffix(ending)
        for service, types in node.get_service_names_and_types()
        if service.endswith(ending) and "lifecycle_msgs/srv/GetState" in types
    )


def _require(node: Node, args: argparse.Namespace) -> str:
    full = require_node(node, args.node_name, args.spin_time)
    if not wait_for(lambda: full in _lifecycle_nodes(node), args.spin_time):
        raise CommandError(f"Node not found: '{full}' has no lifecycle")
    return full


def _transitions(node: Node, name: str, which: str) -> list:
    request = GetAvailableTransitions.Request()
    response = _call(node, GetAvailableTransitions, f"{name}/{which}", request)
    return response.available_transitions


def _call(node: Node, kind: type, service: str, request: object, seconds: float = 10.0) -> Any:
    client = node.create_client(kind, service)
    if not client.wait_for_service(timeout_sec=5.0):
        raise CommandError(f"Service {service} did not appear within 5 s")
    return complete(node, client.call_async(request), service, seconds)
