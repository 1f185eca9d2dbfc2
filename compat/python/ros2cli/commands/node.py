"""List nodes and show what they offer."""

import argparse

from rclpy.action import (
    get_action_client_names_and_types_by_node,
    get_action_server_names_and_types_by_node,
)

from ros2cli.graph import (
    add_node_arguments,
    cli_node,
    discover,
    node_names,
    require_node,
    visible,
    wait_for,
)
from ros2cli.verbs import Verbs, main

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = Verbs(parser)
    listing = verbs.add("list", list_nodes)
    listing.add_argument("-a", "--all", action="store_true", help="show hidden nodes too")
    listing.add_argument("-c", "--count-nodes", action="store_true", help="show the number only")
    add_node_arguments(listing)

    info = verbs.add("info", show_info)
    info.add_argument("node_name")
    info.add_argument("--include-hidden", action="store_true", help="show hidden names too")
    add_node_arguments(info)


def list_nodes(args: argparse.Namespace) -> None:
    """Output a list of available nodes."""
    with cli_node(args) as node:
        discover(node, args.spin_time)
        names = node_names(node, include_hidden=args.all)
    for line in [len(names)] if args.count_nodes else names:
        print(line)


def show_info(args: argparse.Namespace) -> None:
    """Output information about a node."""
    with cli_node(args) as node:
        full = require_node(node, args.node_name, args.spin_time)
        namespace, _, name = full.rpartition("/")
        who = (name, namespace or "/")
        # A node's name may be known a moment before its topics and services.
        wait_for(lambda: node.get_service_names_and_types_by_node(*who), 1.0)
        print(full)
        for title, names_and_types in (
            ("Subscribers", node.get_subscriber_names_and_types_by_node(*who)),
            ("Publishers", node.get_publisher_names_and_types_by_node(*who)),
            ("Service Servers", node.get_service_names_and_types_by_node(*who)),
            ("Service Clients", node.get_client_names_and_types_by_node(*who)),
            ("Action Servers", get_action_server_names_and_types_by_node(node, *who)),
            ("Action Clients", get_action_client_names_and_types_by_node(node, *who)),
        ):
            print(f"  {title}:")
            shown = visible(names_and_types, include_hidden=args.include_hidden)
            print(*(f"    {name}: {', '.join(types)}" for name, types in shown), sep="\n")
