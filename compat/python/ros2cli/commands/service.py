"""List services, show their types and call them."""

import argparse
import sys
import time

import rclpy

from ros2cli.graph import absolute, add_node_arguments, cli_node, discover, visible, wait_for
from ros2cli.interfaces import load_interface
from ros2cli.verbs import CommandError, Verbs, main, positive_float
from ros2cli.yaml_messages import parse_and_fill

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = Verbs(parser)
    listing = verbs.add("list", list_services)
    listing.add_argument("-t", "--show-types", action="store_true", help="show the types too")
    listing.add_argument("-c", "--count-services", action="store_true", help="the number only")
    listing.add_argument("--include-hidden-services", action="store_true")
    add_node_arguments(listing)

    type_ = verbs.add("type", show_type)
    type_.add_argument("service_name")
    add_node_arguments(type_)

    call = verbs.add("call", call_service)
    call.add_argument("service_name")
    call.add_argument("service_type")
    values = call.add_mutually_exclusive_group()
    values.add_argument("values", nargs="?", default="{}", help="the request in YAML")
    values.add_argument("--stdin", action="store_true", help="read the values from stdin")
    call.add_argument("-r", "--rate", type=positive_float, metavar="HZ", help="call repeatedly")


def list_services(args: argparse.Namespace) -> None:
    """Output a list of available services."""
    with cli_node(args) as node:
        discover(node, args.spin_time)
        services = visible(
            node.get_service_names_and_types(), include_hidden=args.include_hidden_services
        )
    if args.count_services:
        print(len(services))
        return
    for name, types in services:
        print(f"{name} [{', '.join(types)}]" if args.show_types else name)


def show_type(args: argparse.Namespace) -> None:
    """Output a service's type."""
    name = absolute(args.service_name)
    with cli_node(args) as node:
        types = wait_for(
            lambda: dict(node.get_service_names_and_types()).get(name, []), args.spin_time
        )
    if not types:
        raise CommandError(f"Service not found: '{name}' (waited {args.spin_time:g} s)")
    print(*types, sep="\n")


def call_service(args: argparse.Namespace) -> None:
    """Call a service, waiting for it as long as it takes."""
    service = load_interface(args.service_type, "srv")
    request = service.Request()
    parse_and_fill(request, sys.stdin.read() if args.stdin else args.values)
    with cli_node(args) as node:
        client = node.create_client(service, args.service_name)
        if not client.service_is_ready():
            print("waiting for service to become available...")
            client.wait_for_service()
        while True:
            print(f"requester: making request: {request!r}\n")
            start = time.monotonic()
            future = client.call_async(request)
            rclpy.spin_until_future_complete(node, future)
            print(f"response:\n{future.result()!r}\n")
            if args.rate is None:
                return
            time.sleep(max(0.0, start + 1.0 / args.rate - time.monotonic()))
