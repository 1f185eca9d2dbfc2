"""Parameters of nodes as launch files describe them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from launch._missing import missing, missing_attribute
from launch.launch_context import LaunchContext
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.substitution import Substitution
from launch.utilities import SCALAR_TYPES, perform_any, perform_typed

_PATH_TYPES = str | os.PathLike | Substitution | list | tuple


class ParameterValue:
    """A value with its type; without a type YAML's rules decide."""

    def __init__(self, value: Any, *, value_type: Any = None) -> None:
        self.value, self.value_type = value, value_type

    def evaluate(self, context: LaunchContext) -> Any:
        """Return the value in the given context."""
        return perform_typed(context, self.value, self.value_type)


class ParameterFile:
    """A YAML file of parameters."""

    def __init__(
        self,
        param_file: SomeSubstitutionsType | os.PathLike[str],
        *,
        allow_substs: bool = False,
    ) -> None:
        if allow_substs:
            raise NotImplementedError(missing("ParameterFile(allow_substs=True)"))
        if not isinstance(param_file, _PATH_TYPES):
            raise TypeError(f"expected a path or a dict of parameters, got {param_file!r}")
        self.param_file = param_file

    def evaluate(self, context: LaunchContext) -> Path:
        """Return the path in the given context."""
        if isinstance(self.param_file, os.PathLike):
            return Path(self.param_file)
        return Path(perform_any(context, self.param_file))


def evaluate_parameters(context: LaunchContext, parameters: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a dict of parameters with dotted names and plain values."""
    return dict(_flatten(context, parameters, prefix=""))


def _flatten(
    context: LaunchContext, parameters: Mapping[Any, Any], prefix: str
) -> Iterator[tuple[str, Any]]:
    for key, value in parameters.items():
        name = prefix + perform_any(context, key)
        if isinstance(value, Mapping):
            yield from _flatten(context, value, f"{name}.")
        else:
            yield name, _value(context, name, value)


def _value(context: LaunchContext, name: str, value: Any) -> Any:
    if isinstance(value, ParameterValue):
        return value.evaluate(context)
    if isinstance(value, (bytes, *SCALAR_TYPES)):
        return value
    if isinstance(value, Substitution):
        return _from_yaml(name, perform_any(context, value))
    if isinstance(value, Sequence):
        return _from_sequence(context, name, value)
    raise TypeError(f"Unexpected type for parameter value {value!r} of '{name}'")


def _from_sequence(context: LaunchContext, name: str, value: Sequence[Any]) -> Any:
    """Texts with a substitution among them make one text; anything else makes a list."""
    if any(isinstance(v, Substitution) for v in value) and all(
        isinstance(v, str | Substitution) for v in value
    ):
        return _from_yaml(name, perform_any(context, value))
    if all(type(v) in (int, float) for v in value) and any(type(v) is float for v in value):
        return [float(v) for v in value]
    items = [
        v if isinstance(v, SCALAR_TYPES) else yaml.safe_load(perform_any(context, v))
        for v in value
    ]
    return _uniform(name, items)


def _from_yaml(name: str, text: str) -> Any:
    """Return the value of a performed substitution by YAML's rules."""
    hint = (
        "If the parameter is meant to be a string, try wrapping it in "
        "launch_ros.parameter_descriptions.ParameterValue(value, value_type=str)"
    )
    try:
        value = yaml.safe_load(text) if text else text
    except yaml.YAMLError as error:
        raise TypeError(
            f"Unable to parse the value of parameter {name} as yaml. {hint}"
        ) from error
    if isinstance(value, list):
        return _uniform(name, value)
    if not isinstance(value, (bytes, *SCALAR_TYPES)):
        raise TypeError(
            "Allowed value types are bytes, bool, int, float, str, Sequence[bool], "
            "Sequence[int], Sequence[float], Sequence[str]. "
            f'Got {type(value)} for "{name}". {hint}'
        )
    return value


def _uniform(name: str, items: list[Any]) -> list[Any]:
    if len({type(v) for v in items}) != 1 or not isinstance(items[0], SCALAR_TYPES):
        raise TypeError(
            "Expected a non-empty sequence, with items of uniform type. Allowed sequence item "
            f'types are bool, int, float, str. Got inconsistent input for "{name}"'
        )
    return items


__getattr__ = missing_attribute(__name__)
