"""Bind a typed configuration (mu0_core.config) to the parameters of a node.

Each value of the dataclass is one parameter, nested ones with dots ("camera.rate_hz"), enums as
texts. A value that may be None is two parameters: the switch "x.enabled" and "x.value". Types,
defaults and rules stand in the dataclass alone: what it refuses, the node refuses in its words.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from mu0_core.config import (
    REQUIRED,
    Field,
    Option,
    choices,
    element_type,
    from_dict,
    leaves,
    plain,
    set_nested,
)
from mu0_core.errors import ConfigError, unknown_name_message

T = TypeVar("T")
_ROS_NAMES = ("use_sim_time", "start_type_description_service")
_ROS_PREFIX = "qos_overrides."
_LARGEST = {int: 2**63 - 1, float: sys.float_info.max}
_SCALARS = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
}
_ARRAYS = {
    bool: Parameter.Type.BOOL_ARRAY,
    int: Parameter.Type.INTEGER_ARRAY,
    float: Parameter.Type.DOUBLE_ARRAY,
    str: Parameter.Type.STRING_ARRAY,
}


class Parameters(Generic[T]):
    """Hold a configuration as the parameters of a node, and keep both equal.

    A change at run time is judged as a whole, also of several parameters at once: a candidate
    configuration is built from it, and if the dataclass refuses that, nothing changes.

    Args:
        node: The node that gets the parameters; its overrides from launch or YAML are applied.
        config: The configuration class, or an instance whose values are the defaults.

    Raises:
        ConfigError: The overrides do not fit; the message has one line for each fault.
    """

    def __init__(self, node: Node, config: type[T] | T) -> None:
        self._config_type: type[T] = config if isinstance(config, type) else type(config)
        self._leaves = list(leaves(config))
        self._slots = {slot.name: slot for leaf in self._leaves for slot in _slots(leaf)}
        for name, slot in self._slots.items():
            if node.has_parameter(name):
                node.set_descriptor(name, _untyped_descriptor())
            else:
                node.declare_parameter(name, slot.default, _untyped_descriptor())
        self._stored = {name: _read(node.get_parameter(name)) for name in self._slots}
        self._value = self._build(self._stored)
        self._settle(node)
        node.add_on_set_parameters_callback(self._judge)
        node.add_post_set_parameters_callback(self._commit)

    @property
    def value(self) -> T:
        """The configuration as the parameters say now."""
        return self._value

    @property
    def names(self) -> list[str]:
        """The names of the parameters."""
        return list(self._slots)

    def _build(self, stored: dict[str, Any]) -> T:
        """Build the configuration from stored parameter values, None = not set."""
        values: dict[str, Any] = {}
        for leaf in self._leaves:
            if leaf.optional:
                set_nested(values, leaf.path, _optional_value(leaf.path, stored))
            elif stored[leaf.path] is not None:
                set_nested(values, leaf.path, stored[leaf.path])
        return from_dict(self._config_type, values)

    def _settle(self, node: Node) -> None:
        """Give the parameters their final types (10 -> 10.0, empty lists), then descriptors."""
        typed = [slot.parameter(self._stored[name]) for name, slot in self._slots.items()]
        now = {p.name: p.type_ for p in node.get_parameters(list(self._slots))}
        node.set_parameters_atomically([p for p in typed if p.type_ != now[p.name]])
        for name, slot in self._slots.items():
            node.set_descriptor(name, slot.descriptor())

    def _changed(self, parameters: Iterable[Parameter]) -> dict[str, Any]:
        mine = {p.name: _read(p) for p in parameters if p.name in self._slots}
        return self._stored | mine

    def _judge(self, parameters: list[Parameter]) -> SetParametersResult:
        """Refuse a change that the configuration refuses."""
        removed = [p.name for p in parameters if p.name in self._slots and p.value is None]
        if removed:
            return SetParametersResult(
                successful=False, reason=f"{', '.join(removed)}: cannot be removed"
            )
        try:
            self._build(self._changed(parameters))
        except ConfigError as error:
            return SetParametersResult(successful=False, reason="; ".join(str(error).splitlines()))
        return SetParametersResult(successful=True)

    def _commit(self, parameters: list[Parameter]) -> None:
        """Take over a change that every callback of the node accepted."""
        self._stored = self._changed(parameters)
        self._value = self._build(self._stored)


def refuse_unknown(node: Node, known: Iterable[str]) -> None:
    """Refuse parameters that were given to a node but that nothing reads.

    The node has to be made with `automatically_declare_parameters_from_overrides`.

    Args:
        node: The node.
        known: The names of its parameters, without those that ROS adds.

    Raises:
        ConfigError: One line for each unknown parameter.
    """
    names = {*known, *_ROS_NAMES}
    faults = [
        unknown_name_message("parameter", name, names)
        for name in node.list_parameters([], 0).names
        if name not in names and not name.startswith(_ROS_PREFIX)
    ]
    if faults:
        raise ConfigError("\n".join(faults))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    """Describe one ROS parameter: a leaf of the configuration, or a half of an optional one."""

    name: str
    kind: Any
    default: Any
    option: Option

    @property
    def type_(self) -> Parameter.Type:
        element, is_tuple = element_type(self.kind)
        if issubclass(element, Enum | Path):
            element = str
        return (_ARRAYS if is_tuple else _SCALARS)[element]

    def parameter(self, value: Any) -> Parameter:
        """Return the parameter with a value of its final type; the value was checked before."""
        if self.type_ is Parameter.Type.DOUBLE:
            value = float(value)
        elif self.type_ is Parameter.Type.DOUBLE_ARRAY:
            value = [float(item) for item in value]
        return Parameter(self.name, self.type_, value)

    def descriptor(self) -> ParameterDescriptor:
        """Describe the parameter for tools.

        Floats stay dynamically typed, since rclpy would refuse an integer for them.
        """
        floating = self.type_ in (Parameter.Type.DOUBLE, Parameter.Type.DOUBLE_ARRAY)
        unit = f" [{self.option.unit}]" if self.option.unit else ""
        descriptor = ParameterDescriptor(
            name=self.name,
            type=self.type_.value,
            description=f"{self.option.description}{unit}",
            read_only=self.option.read_only,
            dynamic_typing=floating,
        )
        element, is_tuple = element_type(self.kind)
        if choices(element):
            descriptor.additional_constraints = f"one of: {', '.join(choices(element))}"
        low, high = self.option.low, self.option.high
        if is_tuple or (low is None and high is None):
            return descriptor
        first = -_LARGEST[self.kind] if low is None else self.kind(low)
        last = _LARGEST[self.kind] if high is None else self.kind(high)
        if self.kind is int:
            descriptor.integer_range = [IntegerRange(from_value=first, to_value=last, step=0)]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=first, to_value=last, step=0.0)
            ]
        return descriptor


def _slots(leaf: Field) -> Iterator[_Slot]:
    """Yield the parameter of a leaf, or the two of an optional one."""
    default = None if leaf.default is REQUIRED else plain(leaf.default)
    if not leaf.optional:
        yield _Slot(name=leaf.path, kind=leaf.kind, default=default, option=leaf.option)
        return
    switch = Option(
        description=f"Whether {leaf.path}.value counts", read_only=leaf.option.read_only
    )
    yield _Slot(name=f"{leaf.path}.enabled", kind=bool, default=default is not None, option=switch)
    value = _placeholder(leaf) if default is None else default
    yield _Slot(name=f"{leaf.path}.value", kind=leaf.kind, default=value, option=leaf.option)


def _placeholder(leaf: Field) -> Any:
    """Return a value of the right type for an optional parameter that is switched off."""
    element, is_tuple = element_type(leaf.kind)
    if is_tuple:
        return []
    if choices(element):
        return choices(element)[0]
    if issubclass(element, Path):
        return ""
    bound = leaf.option.low if leaf.option.low is not None else leaf.option.high
    return element() if bound is None else element(bound)


def _optional_value(path: str, stored: dict[str, Any]) -> Any:
    enabled = stored[f"{path}.enabled"]
    if not isinstance(enabled, bool):
        raise ConfigError(f"{path}.enabled: expected true or false, got {enabled!r}")
    return stored[f"{path}.value"] if enabled else None


def _read(parameter: Parameter) -> Any:
    """Return the value of a parameter as plain Python."""
    if parameter.type_ in (*_ARRAYS.values(), Parameter.Type.BYTE_ARRAY):
        return list(parameter.value)
    return parameter.value


def _untyped_descriptor() -> ParameterDescriptor:
    """Let any type in at first: the configuration judges all values together."""
    return ParameterDescriptor(dynamic_typing=True)
