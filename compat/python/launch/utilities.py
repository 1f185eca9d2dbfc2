"""Turn texts, substitutions and lists of them into values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args, get_origin

import yaml
from launch._missing import missing_attribute
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.substitution import Substitution

if TYPE_CHECKING:
    from launch.launch_context import LaunchContext

SCALAR_TYPES = (bool, int, float, str)


def normalize_to_list_of_substitutions(subs: SomeSubstitutionsType) -> list[Substitution]:
    """Return the given text, substitution or mixed list as a list of substitutions."""
    from launch.substitutions import TextSubstitution

    parts = [subs] if isinstance(subs, str | Substitution) else subs
    if not isinstance(parts, Iterable):
        raise TypeError(f"expected a str, a Substitution or a list of these, got {subs!r}")
    normalized: list[Substitution] = []
    for part in parts:
        if isinstance(part, str):
            part = TextSubstitution(text=part)
        if not isinstance(part, Substitution):
            raise TypeError(
                f"Failed to normalize given item of type '{type(part)}', when only "
                "'str' or 'launch.Substitution' were expected."
            )
        normalized.append(part)
    return normalized


def perform_substitutions(context: LaunchContext, subs: Iterable[Substitution]) -> str:
    """Return the joined texts of the substitutions."""
    return "".join(context.perform_substitution(sub) for sub in subs)


def perform_any(context: LaunchContext, subs: SomeSubstitutionsType) -> str:
    """Return the text of whatever a launch file may pass as one."""
    return perform_substitutions(context, normalize_to_list_of_substitutions(subs))


def describe(subs: SomeSubstitutionsType) -> str:
    """Return the description of whatever a launch file may pass as text."""
    return " + ".join(s.describe() for s in normalize_to_list_of_substitutions(subs))


def is_substitution(value: object) -> bool:
    """Say whether the value is a substitution or a mixed list with at least one of them."""
    if isinstance(value, Substitution):
        return True
    return (
        isinstance(value, list | tuple)
        and any(isinstance(v, Substitution) for v in value)
        and all(isinstance(v, str | Substitution) for v in value)
    )


def coerce_to_type(text: str, data_type: Any = None) -> Any:
    """Return the text as `data_type` (bool, int, float, str, list[...]; None: YAML's rules)."""
    if data_type is str:
        return text
    if data_type in (int, float):
        return data_type(text)
    if data_type is bool:
        text = {"1": "true", "0": "false"}.get(text, text)
    try:
        value = yaml.safe_load(text) if text else text
    except yaml.YAMLError as error:
        raise ValueError(f"Failed to convert '{text}' using yaml rules: {error}") from error
    if data_type is None:
        fits = _is_scalar_or_uniform_list(value)
    elif get_origin(data_type) is list:
        fits = isinstance(value, list) and all(type(v) in get_args(data_type) for v in value)
    else:
        fits = isinstance(value, data_type)
    if not fits:
        raise ValueError(f"Cannot convert value '{text}' to '{data_type}'")
    return value


def perform_typed(context: LaunchContext, value: Any, data_type: Any) -> Any:
    """Return a value that is either of `data_type` already or a substitution for one."""
    if is_substitution(value):
        return coerce_to_type(perform_any(context, value), data_type)
    if isinstance(value, list | tuple):
        item_type = get_args(data_type)[0] if get_args(data_type) else None
        return [perform_typed(context, item, item_type) for item in value]
    if data_type is not None and type(value) is not data_type:
        raise TypeError(f"value='{value}' is not an instance of {data_type}")
    return value


def _is_scalar_or_uniform_list(value: object) -> bool:
    if isinstance(value, list):
        return len({type(v) for v in value}) == 1 and isinstance(value[0], SCALAR_TYPES)
    return isinstance(value, SCALAR_TYPES)


__getattr__ = missing_attribute(__name__)
