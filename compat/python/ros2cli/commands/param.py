"""Get, set, list and dump parameters of running nodes."""

import argparse

import yaml
from rcl_interfaces.msg import Parameter, ParameterType
from rclpy.node import Node
from rclpy.parameter import get_parameter_value, parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient

from ros2cli.graph import (
    add_node_arguments,
    cli_node,
    complete,
    discover,
    node_names,
    require_node,
)
from ros2cli.verbs import CommandError, Verbs, main

__all__ = ["add_arguments", "main"]

_LABELS = {
    ParameterType.PARAMETER_BOOL: "Boolean value is:",
    ParameterType.PARAMETER_INTEGER: "Integer value is:",
    ParameterType.PARAMETER_DOUBLE: "Double value is:",
    ParameterType.PARAMETER_STRING: "String value is:",
    ParameterType.PARAMETER_BYTE_ARRAY: "Byte values are:",
    ParameterType.PARAMETER_BOOL_ARRAY: "Boolean values are:",
    ParameterType.PARAMETER_INTEGER_ARRAY: "Integer values are:",
    ParameterType.PARAMETER_DOUBLE_ARRAY: "Double values are:",
    ParameterType.PARAMETER_STRING_ARRAY: "String values are:",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = Verbs(parser)
    get = verbs.add("get", get_parameter)
    get.add_argument("node_name")
    get.add_argument("parameter_name")
    get.add_argument("--hide-type", action="store_true", help="print the value only")

    set_ = verbs.add("set", set_parameter)
    set_.add_argument("node_name")
    set_.add_argument("parameter_name")
    set_.add_argument("value", help="in YAML")

    listing = verbs.add("list", list_parameters)
    listing.add_argument("node_name", nargs="?", help="default: all nodes")

    dump = verbs.add("dump", dump_parameters)
    dump.add_argument("node_name")
    for verb in (get, set_, listing, dump):
        add_node_arguments(verb)


def get_parameter(args: argparse.Namespace) -> None:
    """Get a parameter."""
    with cli_node(args) as node:
        client = _client(node, require_node(node, args.node_name, args.spin_time))
        values = complete(
            node, client.get_parameters([args.parameter_name]), args.node_name
        ).values
    if not values:
        raise CommandError("Parameter not set")
    value = _to_python(values[0])
    if args.hide_type:
        print(value)
    elif value is None:
        print("Parameter not set.")
    else:
        print(_LABELS[values[0].type], value)


def set_parameter(args: argparse.Namespace) -> None:
    """Set a parameter."""
    parameter = Parameter(name=args.parameter_name, value=get_parameter_value(args.value))
    with cli_node(args) as node:
        client = _client(node, require_node(node, args.node_name, args.spin_time))
        (result,) = complete(node, client.set_parameters([parameter]), args.node_name).results
    reason = f": {result.reason}" if result.reason else ""
    if not result.successful:
        raise CommandError(f"Setting parameter failed{reason}")
    print(f"Set parameter successful{reason}")


def list_parameters(args: argparse.Namespace) -> None:
    """Output a list of available parameters."""
    with cli_node(args) as node:
        if args.node_name:
            nodes = [require_node(node, args.node_name, args.spin_time)]
        else:
            discover(node, args.spin_time)
            nodes = node_names(node)
        for full in nodes:
            names = _names(node, full)
            if names and not args.node_name:
                print(f"{full}:")
            for name in names:
                print(f"  {name}")


def dump_parameters(args: argparse.Namespace) -> None:
    """Show all parameters of a node as a parameter file."""
    with cli_node(args) as node:
        full = require_node(node, args.node_name, args.spin_time)
        names = _names(node, full)
        values = complete(node, _client(node, full).get_parameters(names), full).values
    tree: dict = {}
    for name, value in zip(names, values, strict=True):
        *groups, last = name.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[last] = _to_python(value)
    print(yaml.dump({full: {"ros__parameters": tree}}, default_flow_style=False))


def _client(node: Node, full: str) -> AsyncParameterClient:
    client = AsyncParameterClient(node, full)
    if not client.wait_for_services(timeout_sec=5.0):
        raise CommandError(
            f"Wait for service timed out waiting for parameter services for node {full}"
        )
    return client


def _names(node: Node, full: str) -> list[str]:
    return sorted(complete(node, _client(node, full).list_parameters(), full).result.names)


def _to_python(value: object) -> object:
    plain = parameter_value_to_python(value)
    return plain.tolist() if hasattr(plain, "tolist") else plain
