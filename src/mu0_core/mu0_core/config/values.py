"""Check the values of a configuration, and convert it from and to plain ones."""

import dataclasses
import enum
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mu0_core.config.schema import REQUIRED, Field, Option, choices, fields
from mu0_core.errors import ConfigError, unknown_name_message

T = TypeVar("T")
_NOUNS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}


def validate(config: Any, *faults: str | None) -> None:
    """Check every field of a configuration; call it from `__post_init__`.

    Integers in float fields become floats, lists in tuple fields become tuples.

    Args:
        config: The configuration under construction.
        faults: What rules across fields found ("field: expected ..., got ..."), None for nothing.

    Raises:
        ConfigError: If there is any fault; its message has one line for each.
    """
    found: list[str] = []
    for field in fields(type(config)):
        value = _field_value(field, getattr(config, field.path), field.path, REQUIRED, found)
        object.__setattr__(config, field.path, value)
    found += [fault for fault in faults if fault]
    if found:
        raise ConfigError("\n".join(found))


def from_dict(cls: type[T], mapping: Mapping[str, Any], base: T | None = None) -> T:
    """Build a configuration from plain values.

    Args:
        cls: The configuration class.
        mapping: Values by field name, nested for nested configurations.
        base: Where values that are not given come from; without it, the defaults.

    Returns:
        The configuration.

    Raises:
        ConfigError: For unknown, missing, wrongly typed or out-of-bounds values: all of them.
    """
    faults: list[str] = []
    config = _build(cls, mapping, "", REQUIRED if base is None else base, faults)
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain values that YAML and `from_dict` understand."""
    return {field.path: plain(getattr(config, field.path)) for field in fields(type(config))}


def plain(value: Any) -> Any:
    """Return one value as YAML and ROS know it: enums as texts, tuples as lists."""
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def set_nested(values: dict[str, Any], path: str, value: Any) -> None:
    """Put a value into nested dictionaries under a dotted path."""
    *parents, name = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[name] = value


def _build(cls: Any, mapping: Any, path: str, base: Any, faults: list[str]) -> Any:
    """Build a configuration; values that are not given come from `base`, unless REQUIRED."""
    if not isinstance(mapping, Mapping):
        faults.append(f"{path or 'top level'}: expected names with values, got {mapping!r}")
        return None
    before = len(faults)
    known = {field.path: field for field in fields(cls)}
    for name in mapping:
        if name not in known:
            faults.append(f"{_join(path, name)}: {unknown_name_message('key', str(name), known)}")
    values = {}
    for name, field in known.items():
        default = field.default if base is REQUIRED else getattr(base, name)
        if name in mapping:
            value = _field_value(field, mapping[name], _join(path, name), default, faults)
        elif default is REQUIRED and field.is_nested:
            value = _build(field.kind, {}, _join(path, name), REQUIRED, faults)
        elif default is REQUIRED:
            details = field.option.description
            faults.append(f"{_join(path, name)}: required, but not given ({details})")
            continue
        else:
            value = default
        values[name] = value
    if len(faults) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as error:
        faults += [_join(path, line) for line in str(error).splitlines()]
        return None


def _field_value(field: Field, value: Any, path: str, default: Any, faults: list[str]) -> Any:
    """Bring a value to the type of its field and check the bounds."""
    if value is None and field.optional:
        return None
    if field.is_nested and not isinstance(value, field.kind):
        return _build(field.kind, value, path, default, faults)
    before = len(faults)
    value = _converted(field.kind, value, path, faults)
    if len(faults) == before:
        for item in value if isinstance(value, tuple) else (value,):
            faults += _bound_faults(field.option, item, path)
    return value


def _bound_faults(limits: Option, value: Any, path: str) -> list[str]:
    if limits.low is not None and value < limits.low:
        rule = f"at least {limits.with_unit(limits.low)}"
    elif limits.high is not None and value > limits.high:
        rule = f"at most {limits.with_unit(limits.high)}"
    else:
        return []
    return [f"{path}: expected {rule}, got {limits.with_unit(value)}"]


def _converted(kind: Any, value: Any, path: str, faults: list[str]) -> Any:
    """Bring a value to a type, or add to the faults."""
    if typing.get_origin(kind) is tuple:
        return _converted_tuple(kind, value, path, faults)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    elif dataclasses.is_dataclass(kind):
        return _build(kind, value, path, REQUIRED, faults)
    elif choices(kind):
        if value in choices(kind):
            return kind(value)
        faults.append(f"{path}: {unknown_name_message('choice', str(value), choices(kind))}")
        return None
    elif kind is Path and isinstance(value, str):
        return Path(value)
    faults.append(f"{path}: expected {_NOUNS.get(kind, 'a path')}, got {value!r}{_hint(value)}")
    return None


def _converted_tuple(kind: Any, value: Any, path: str, faults: list[str]) -> Any:
    args = typing.get_args(kind)
    length = None if args[-1] is Ellipsis else len(args)
    if isinstance(value, str) or not isinstance(value, Sequence):
        faults.append(f"{path}: expected a list, got {value!r}")
        return None
    if length not in (None, len(value)):
        faults.append(f"{path}: expected {length} values, got {len(value)}: {list(value)}")
        return None
    return tuple(_converted(args[0], v, f"{path}[{i}]", faults) for i, v in enumerate(value))


def _hint(value: Any) -> str:
    """Explain YAML's commonest surprise: 1e-3, without a dot, is a text."""
    try:
        return f", a text; write {float(value)!r}" if isinstance(value, str) else ""
    except ValueError:
        return ""


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
