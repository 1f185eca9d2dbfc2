"""Read configurations from the command line."""

import argparse
from typing import Any, TypeVar

from mu0_core.config.schema import REQUIRED, Field, choices, element_type, leaves
from mu0_core.config.values import from_dict, plain, set_nested

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add one option per value to a command line, spelled as in YAML: `--camera.rate_hz 10`.

    Nothing is required here, so that `from_namespace` can fill up from a file. A value that may
    be None takes the word none; a tuple takes several words.
    """
    for leaf in leaves(cls):
        element, is_tuple = element_type(leaf.kind)
        arguments: dict[str, Any] = {
            "dest": leaf.path,
            "default": argparse.SUPPRESS,
            "help": _help(leaf).replace("%", "%%"),
        }
        if element is bool and not is_tuple and not leaf.optional:
            arguments["action"] = argparse.BooleanOptionalAction
        else:
            arguments["type"] = _Word(element, optional=leaf.optional)
            arguments["metavar"] = "|".join(choices(element)) or element.__name__.upper()
            arguments["choices"] = choices(element) or None
            arguments["nargs"] = "*" if is_tuple else None
        parser.add_argument(f"--{leaf.path}", **arguments)


def from_namespace(cls: type[T], namespace: argparse.Namespace, base: T | None = None) -> T:
    """Build a configuration from parsed arguments.

    Args:
        cls: The configuration class that `add_arguments` got.
        namespace: What the parser returned; other names in it are ignored.
        base: Where values that were not given come from; without it, the defaults.

    Raises:
        ConfigError: As `from_dict`.
    """
    values: dict[str, Any] = {}
    given = vars(namespace)
    for leaf in leaves(cls):
        if leaf.path in given:
            set_nested(values, leaf.path, given[leaf.path])
    return from_dict(cls, values, base)


def _help(leaf: Field) -> str:
    unit = f" [{leaf.option.unit}]" if leaf.option.unit else ""
    default = "required" if leaf.default is REQUIRED else f"default: {plain(leaf.default)}"
    return f"{leaf.option.description}{unit} ({default})"


class _Word:
    """Turn a word of the command line into a value; argparse names it in errors by `__name__`."""

    def __init__(self, kind: Any, *, optional: bool) -> None:
        self._kind, self._optional = str if choices(kind) else kind, optional
        self.__name__ = kind.__name__

    def __call__(self, word: str) -> Any:
        if self._optional and word == "none":
            return None
        if self._kind is bool:
            return {"true": True, "false": False}.get(word, word)
        return self._kind(word)
