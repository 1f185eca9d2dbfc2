"""Declare the fields of a configuration, and look at them."""

import dataclasses
import enum
import types
import typing
from collections.abc import Iterator
from typing import Any

REQUIRED = dataclasses.MISSING
_METADATA_KEY = "mu0_option"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Describe one field beyond its type and default.

    Attributes:
        description: What the field means, in a few words.
        unit: SI unit of the value, empty for none.
        low: Smallest allowed value, inclusive; of a tuple, of each element.
        high: Largest allowed value, inclusive; of a tuple, of each element.
        read_only: Whether a running node refuses to change it.
    """

    description: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    read_only: bool = False

    def with_unit(self, value: object) -> str:
        """Write a value with the unit."""
        return f"{value} {self.unit}" if self.unit else str(value)


def option(
    default: Any = REQUIRED,
    *,
    description: str,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    read_only: bool = False,
) -> Any:
    """Declare a field of a configuration.

    Args:
        default: The value when none is given; leave it out where no value is sane.
        description: As in Option, like all that follow.
        unit: SI unit.
        low: Inclusive bound.
        high: Inclusive bound.
        read_only: Whether a running node refuses to change it.

    Returns:
        A dataclass field.
    """
    details = Option(description=description, unit=unit, low=low, high=high, read_only=read_only)
    return dataclasses.field(default=default, metadata={_METADATA_KEY: details})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Describe one field of a configuration class.

    Attributes:
        path: Its name; below another configuration with dots, such as "camera.rate_hz".
        kind: Its type without `| None`.
        optional: Whether it may be None.
        default: Its default, or REQUIRED.
        option: Description, unit and bounds.
    """

    path: str
    kind: Any
    optional: bool
    default: Any
    option: Option

    @property
    def is_nested(self) -> bool:
        """Whether the field is a configuration itself."""
        return dataclasses.is_dataclass(self.kind) and not self.optional


def fields(cls: type) -> tuple[Field, ...]:
    """List the fields of a configuration class."""
    hints = typing.get_type_hints(cls)
    return tuple(_field(field, hints[field.name]) for field in dataclasses.fields(cls))


def leaves(config: Any) -> Iterator[Field]:
    """List the values of a configuration in order.

    Args:
        config: A configuration class, or an instance whose values then are the defaults.

    Yields:
        The field of each value that is no configuration itself, its path with dots.

    Raises:
        TypeError: A field is a tuple of configurations or an optional one; only dictionaries and
            YAML can hold these.
    """
    cls, instance = (config, None) if isinstance(config, type) else (type(config), config)
    for field in fields(cls):
        default = field.default if instance is None else getattr(instance, field.path)
        if field.is_nested:
            for leaf in leaves(field.kind if default is REQUIRED else default):
                yield dataclasses.replace(leaf, path=f"{field.path}.{leaf.path}")
        elif dataclasses.is_dataclass(element_type(field.kind)[0]):
            raise TypeError(f"{cls.__name__}.{field.path}: expected one value, got {field.kind}")
        else:
            yield dataclasses.replace(field, default=default)


def element_type(kind: Any) -> tuple[Any, bool]:
    """Return the type of one element, and whether `kind` is a tuple of them."""
    is_tuple = typing.get_origin(kind) is tuple
    return (typing.get_args(kind)[0] if is_tuple else kind), is_tuple


def choices(kind: Any) -> list[str]:
    """Return the values of an Enum, nothing for other types."""
    return [member.value for member in kind] if issubclass(kind, enum.Enum) else []


def _field(field: dataclasses.Field[Any], hint: Any) -> Field:
    kind, optional = hint, False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (kind,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        optional = True
    return Field(
        path=field.name,
        kind=kind,
        optional=optional,
        default=field.default,
        option=field.metadata.get(_METADATA_KEY, Option()),
    )
