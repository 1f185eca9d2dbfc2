"""List actions and send goals."""

import argparse
import sys
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from rclpy.action import (
    ActionClient,
    get_action_client_names_and_types_by_node,
    get_action_names_and_types,
    get_action_server_names_and_types_by_node,
)
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from ros2cli.graph import (
    absolute,
    add_node_arguments,
    cli_node,
    complete,
    discover,
    stop_on_signals,
)
from ros2cli.interfaces import load_interface
from ros2cli.verbs import CommandError, Verbs, main
from ros2cli.yaml_messages import parse_and_fill, to_yaml

__all__ = ["add_arguments", "main"]

_STATUS = {
    GoalStatus.STATUS_ACCEPTED: "ACCEPTED",
    GoalStatus.STATUS_EXECUTING: "EXECUTING",
    GoalStatus.STATUS_CANCELING: "CANCELING",
    GoalStatus.STATUS_SUCCEEDED: "SUCCEEDED",
    GoalStatus.STATUS_CANCELED: "CANCELED",
    GoalStatus.STATUS_ABORTED: "ABORTED",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = Verbs(parser)
    listing = verbs.add("list", list_actions)
    listing.add_argument("-t", "--show-types", action="store_true", help="show the types too")
    listing.add_argument("-c", "--count-actions", action="store_true", help="the number only")

    info = verbs.add("info", show_info)
    info.add_argument("action_name")
    info.add_argument("-t", "--show-types", action="store_true", help="show the types too")
    for verb in (listing, info):
        add_node_arguments(verb)

    send = verbs.add("send_goal", send_goal)
    send.add_argument("action_name")
    send.add_argument("action_type")
    goal = send.add_mutually_exclusive_group()
    goal.add_argument("goal", nargs="?", default="{}", help="the goal in YAML")
    goal.add_argument("--stdin", action="store_true", help="read the goal from stdin")
    send.add_argument("-f", "--feedback", action="store_true", help="print feedback")


def list_actions(args: argparse.Namespace) -> None:
    """Output a list of action names."""
    with cli_node(args) as node:
        discover(node, args.spin_time)
        actions = get_action_names_and_types(node)
    if args.count_actions:
        print(len(actions))
        return
    for name, types in actions:
        print(f"{name} [{', '.join(types)}]" if args.show_types else name)


def show_info(args: argparse.Namespace) -> None:
    """Print which nodes serve and use an action."""
    name = absolute(args.action_name)
    print(f"Action: {args.action_name}")
    with cli_node(args) as node:
        discover(node, args.spin_time)
        for title, by_node in (
            ("Action clients", get_action_client_names_and_types_by_node),
            ("Action servers", get_action_server_names_and_types_by_node),
        ):
            users = [
                (f"{namespace.rstrip('/')}/{other}", types)
                for other, namespace in node.get_node_names_and_namespaces()
                for action, types in by_node(node, other, namespace)
                if action == name
            ]
            print(f"{title}: {len(users)}")
            for user, types in users:
                print(f"    {user}" + (f" [{', '.join(types)}]" if args.show_types else ""))


def send_goal(args: argparse.Namespace) -> None:
    """Send an action goal and wait for its result; Ctrl-C cancels it."""
    action = load_interface(args.action_type, "action")
    goal = action.Goal()
    parse_and_fill(goal, sys.stdin.read() if args.stdin else args.goal)
    # The context must outlive Ctrl-C, or the goal could not be cancelled.
    stop = stop_on_signals()
    with cli_node(args, signals=SignalHandlerOptions.NO) as node:
        client = ActionClient(node, action, args.action_name)
        print("Waiting for an action server to become available...")
        while not client.wait_for_server(timeout_sec=0.5):
            if stop:
                raise KeyboardInterrupt
        print(f"Sending goal:\n     {to_yaml(goal)}")
        feedback = _print_feedback if args.feedback else None
        handle = complete(node, client.send_goal_async(goal, feedback), args.action_name)
        if not handle.accepted:
            raise CommandError("Goal was rejected.")
        print(f"Goal accepted with ID: {bytes(handle.goal_id.uuid).hex()}\n")
        result = handle.get_result_async()
        while not result.done() and not stop:
            rclpy.spin_until_future_complete(node, result, timeout_sec=0.2)
        if not result.done():
            _cancel(node, handle, args.action_name)
            raise KeyboardInterrupt
    response = result.result()
    print(f"Result:\n    {to_yaml(response.result)}")
    print(f"Goal finished with status: {_STATUS.get(response.status, 'UNKNOWN')}")


def _cancel(node: Node, handle: Any, name: str) -> None:
    print("Canceling goal...")
    if not complete(node, handle.cancel_goal_async(), name).goals_canceling:
        raise CommandError("Failed to cancel goal")
    print("Goal canceled.")


def _print_feedback(message: Any) -> None:
    print(f"Feedback:\n    {to_yaml(message.feedback)}")
