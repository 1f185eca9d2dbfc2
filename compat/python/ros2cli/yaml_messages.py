"""Messages to and from YAML, laid out as the real command prints and reads them."""

import array
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import yaml
from rosidl_parser.definition import (
    AbstractNestedType,
    Array,
    BoundedSequence,
    NamespacedType,
)

from ros2cli.interfaces import load_interface
from ros2cli.verbs import CommandError

Setter = Callable[[Any], None]


def fill(message: Any, values: Any) -> list[Setter]:
    """Set fields from plain values; return setters for stamps written as `now` or `auto`.

    Raises:
        CommandError: a field does not exist or a value does not fit; the text names it.
    """
    setters: list[Setter] = []
    _fill(message, values, type(message).__name__, setters)
    return setters


def parse_and_fill(message: Any, text: str) -> list[Setter]:
    """Set fields from YAML text.

    Raises:
        CommandError: the text is not YAML, or as for `fill`.
    """
    try:
        return fill(message, yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise CommandError(f"The passed value is not YAML: {error}") from error


def to_yaml(message: Any, *, longest: int | None = None, no_arr: bool = False) -> str:
    """Print a message; sequences and strings longer than `longest` end in '...'."""
    return yaml.dump(
        _plain(message, longest, no_arr),
        allow_unicode=True,
        width=sys.maxsize,
        default_flow_style=False,
        sort_keys=False,
    )


def _fill(message: Any, values: Any, where: str, setters: list[Setter]) -> None:
    if not isinstance(values, dict):
        raise CommandError(
            f"Failed to populate field: {where} expects a dictionary in YAML format, "
            f"got {values!r}"
        )
    slots = _slots(message)
    for name, value in values.items():
        if name not in slots:
            raise CommandError(
                f"Failed to populate field: {where} has no field '{name}', only {', '.join(slots)}"
            )
        field, place = getattr(message, name), f"{where}.{name}"
        if value == "auto" and slots[name] == "std_msgs/msg/Header":
            setters.append(partial(setattr, field, "stamp"))
        elif value == "now" and slots[name] == "builtin_interfaces/msg/Time":
            setters.append(partial(setattr, message, name))
        elif _is_message(field):
            _fill(field, value, place, setters)
        else:
            try:
                setattr(message, name, _value(field, value, slots[name], place, setters))
            except (TypeError, ValueError, AssertionError, OverflowError) as error:
                raise CommandError(f"Failed to populate field: {place}: {error}") from error


def _value(field: Any, value: Any, element: str, place: str, setters: list[Setter]) -> Any:
    """Convert a plain value to what a field, now `field`, takes."""
    if isinstance(field, array.array):
        return array.array(field.typecode, value)
    if isinstance(field, np.ndarray):
        return np.array(value, dtype=field.dtype)
    if isinstance(field, list) and "/" in element:
        items = [load_interface(element, "msg")() for _ in value]
        for index, (item, values) in enumerate(zip(items, value, strict=True)):
            _fill(item, values, f"{place}[{index}]", setters)
        return items
    return value if type(value) is type(field) else type(field)(value)


def _slots(message: Any) -> dict[str, str]:
    """Return each field's type name; for sequences that of an element, '' for plain types."""
    names = {}
    for field, slot in zip(message.get_fields_and_field_types(), message.SLOT_TYPES, strict=True):
        base = slot.value_type if isinstance(slot, AbstractNestedType) else slot
        names[field] = "/".join(base.namespaced_name()) if isinstance(base, NamespacedType) else ""
    return names


def _is_message(value: Any) -> bool:
    return hasattr(value, "get_fields_and_field_types")


def _plain(value: Any, longest: int | None, no_arr: bool) -> Any:
    """Turn a message or one of its values into what YAML knows."""
    if _is_message(value):
        fields = zip(value.get_fields_and_field_types(), value.SLOT_TYPES, strict=True)
        return {
            name: _array_summary(getattr(value, name), slot)
            if no_arr and isinstance(slot, AbstractNestedType)
            else _plain(getattr(value, name), longest, no_arr)
            for name, slot in fields
        }
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        return value if longest is None or len(value) <= longest else value[:longest] + "..."
    if isinstance(value, (list, tuple, array.array, np.ndarray)):
        shown = value if longest is None else value[:longest]
        items = [_plain(item, longest, no_arr) for item in shown]
        return items if len(shown) == len(value) else [*items, "..."]
    return value.item() if isinstance(value, np.generic) else value


def _array_summary(value: Any, slot: AbstractNestedType) -> str:
    element = slot.value_type
    name = (
        "/".join(element.namespaced_name())
        if isinstance(element, NamespacedType)
        else getattr(element, "typename", "string")
    )
    if isinstance(slot, Array):
        return f"<array type: {name}[{slot.size}]>"
    bound = f"[{slot.maximum_size}]" if isinstance(slot, BoundedSequence) else ""
    return f"<sequence type: {name}{bound}, length: {len(value)}>"
