"""Bind frozen dataclasses to dictionaries, YAML files and the command line.

A configuration is a frozen dataclass whose fields are made by `option` and whose `__post_init__`
calls `validate`:

    @dataclass(frozen=True, slots=True, kw_only=True)
    class CameraConfig:
        rate_hz: float = option(10.0, description="Pictures a second", unit="Hz", low=0.1)

        def __post_init__(self) -> None:
            validate(self)

Fields may be bool, int, float, str, Path, a string Enum, tuples of these, `T | None` and other
configurations. One rule for types holds everywhere: an integer is taken for a float, nothing else
is converted, and floats are finite. ROS parameters are bound in `mu0_core.ros.params`.
"""

from mu0_core.config.arguments import add_arguments, from_namespace
from mu0_core.config.files import dump_yaml, load_yaml
from mu0_core.config.schema import (
    REQUIRED,
    Field,
    Option,
    choices,
    element_type,
    leaves,
    option,
)
from mu0_core.config.values import from_dict, plain, set_nested, to_dict, validate

__all__ = [
    "REQUIRED",
    "Field",
    "Option",
    "add_arguments",
    "choices",
    "dump_yaml",
    "element_type",
    "from_dict",
    "from_namespace",
    "leaves",
    "load_yaml",
    "option",
    "plain",
    "set_nested",
    "to_dict",
    "validate",
]
