"""Substitutions: texts that are computed when a launch file runs."""

from __future__ import annotations

import importlib
import math
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from typing import Any

from launch._missing import missing_attribute
from launch.launch_context import LaunchContext
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.substitution import Substitution
from launch.utilities import (
    coerce_to_type,
    describe,
    is_substitution,
    normalize_to_list_of_substitutions,
    perform_any,
)


class SubstitutionFailure(RuntimeError):  # noqa: N818
    """A substitution has no text in this context."""


class TextSubstitution(Substitution):
    """A fixed text."""

    def __init__(self, *, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"TextSubstitution expected a str for 'text', got {text!r}")
        self.text = text

    def perform(self, context: LaunchContext) -> str:
        return self.text

    def describe(self) -> str:
        return f"'{self.text}'"


class LaunchConfiguration(Substitution):
    """The value of a launch configuration (a launch argument, mostly)."""

    def __init__(self, variable_name: SomeSubstitutionsType, *, default: Any = None) -> None:
        self._name = normalize_to_list_of_substitutions(variable_name)
        self._default = None if default is None else _texts(default)

    def perform(self, context: LaunchContext) -> str:
        name = perform_any(context, self._name)
        if name in context.launch_configurations:
            return context.launch_configurations[name]
        if self._default is None:
            raise SubstitutionFailure(f"launch configuration '{name}' does not exist")
        return perform_any(context, self._default)

    def describe(self) -> str:
        return f"LaunchConfig({describe(self._name)})"


class EnvironmentVariable(Substitution):
    """The value of an environment variable."""

    def __init__(
        self, name: SomeSubstitutionsType, *, default_value: SomeSubstitutionsType | None = None
    ) -> None:
        self._name = normalize_to_list_of_substitutions(name)
        self._default = default_value

    def perform(self, context: LaunchContext) -> str:
        name = perform_any(context, self._name)
        if name in context.environment:
            return context.environment[name]
        if self._default is None:
            raise SubstitutionFailure(f"environment variable '{name}' does not exist")
        return perform_any(context, self._default)

    def describe(self) -> str:
        return f"EnvVar({describe(self._name)})"


class PathJoinSubstitution(Substitution):
    """The parts joined as a path."""

    def __init__(self, substitutions: Iterable[str | Substitution]) -> None:
        self._parts = normalize_to_list_of_substitutions(substitutions)

    def perform(self, context: LaunchContext) -> str:
        return os.path.join(*(part.perform(context) for part in self._parts))

    def describe(self) -> str:
        return f"PathJoin('{describe(self._parts)}')"


class ThisLaunchFileDir(Substitution):
    """The folder of the launch file included last."""

    def perform(self, context: LaunchContext) -> str:
        try:
            return context.get_locals_as_dict()["current_launch_file_directory"]
        except KeyError:
            raise SubstitutionFailure(
                "ThisLaunchFileDir used outside of a launch file (in a script)"
            ) from None


class PythonExpression(Substitution):
    """The value of a Python expression; names of the `math` module are known in it."""

    def __init__(
        self,
        expression: SomeSubstitutionsType,
        python_modules: SomeSubstitutionsType = ("math",),
    ) -> None:
        self._expression = normalize_to_list_of_substitutions(expression)
        self._modules = normalize_to_list_of_substitutions(python_modules)

    def perform(self, context: LaunchContext) -> str:
        names: dict[str, Any] = {}
        for substitution in self._modules:
            module = importlib.import_module(substitution.perform(context))
            names |= vars(math) if module is math else {}
            names[module.__name__] = module
        return str(eval(perform_any(context, self._expression), {}, names))

    def describe(self) -> str:
        modules = ", ".join(m.describe() for m in self._modules)
        return f"PythonExpr({describe(self._expression)}, [{modules}])"


class FindExecutable(Substitution):
    """The path of a command on PATH."""

    def __init__(self, *, name: SomeSubstitutionsType) -> None:
        self._name = normalize_to_list_of_substitutions(name)

    def perform(self, context: LaunchContext) -> str:
        name = perform_any(context, self._name)
        path = shutil.which(name)
        if path is None:
            raise SubstitutionFailure(f"executable '{name}' not found on the PATH")
        return path


class Command(Substitution):
    """What a command prints. Output on stderr is a failure unless `on_stderr` says otherwise."""

    def __init__(
        self, command: SomeSubstitutionsType, *, on_stderr: SomeSubstitutionsType = "fail"
    ) -> None:
        self._command = normalize_to_list_of_substitutions(command)
        self._on_stderr = normalize_to_list_of_substitutions(on_stderr)

    def perform(self, context: LaunchContext) -> str:
        from launch.logging import get_logger

        command = perform_any(context, self._command)
        on_stderr = perform_any(context, self._on_stderr)
        if on_stderr not in ("fail", "ignore", "warn", "capture"):
            raise SubstitutionFailure(
                "expected 'on_stderr' to be one of: 'fail', 'ignore', 'warn' or 'capture', "
                f"got '{on_stderr}'"
            )
        stderr = subprocess.STDOUT if on_stderr == "capture" else subprocess.PIPE
        try:
            result = subprocess.run(
                shlex.split(command), stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        except FileNotFoundError as error:
            raise SubstitutionFailure(f"file not found: {error}") from error
        noise = f"Command: {command}\nCaptured stderr output:\n{result.stderr}"
        if result.returncode != 0:
            raise SubstitutionFailure(f"executed command failed. {noise}")
        if result.stderr and on_stderr == "fail":
            raise SubstitutionFailure(f"executed command showed stderr output. {noise}")
        if result.stderr and on_stderr == "warn":
            get_logger().warning(f"executed command showed stderr output. {noise}")
        return result.stdout


class _Comparison(Substitution):
    def __init__(self, left: Any, right: Any) -> None:
        self._left, self._right = _comparable(left), _comparable(right)

    def _equal(self, context: LaunchContext) -> bool:
        left, right = perform_any(context, self._left), perform_any(context, self._right)
        booleans = ("true", "false", "1", "0")
        if left.lower() in booleans and right.lower() in booleans:
            return (left.lower() in ("true", "1")) == (right.lower() in ("true", "1"))
        try:
            return math.isclose(float(left), float(right))
        except ValueError:
            return left == right


class EqualsSubstitution(_Comparison):
    """'true' if both sides are the same text, number or truth value, else 'false'."""

    def perform(self, context: LaunchContext) -> str:
        return _text_of(self._equal(context))


class NotEqualsSubstitution(_Comparison):
    """'false' if both sides are the same text, number or truth value, else 'true'."""

    def perform(self, context: LaunchContext) -> str:
        return _text_of(not self._equal(context))


def _truth(context: LaunchContext, subs: SomeSubstitutionsType) -> bool:
    try:
        return coerce_to_type(perform_any(context, subs), bool)
    except (TypeError, ValueError) as error:
        raise SubstitutionFailure(error) from error


class NotSubstitution(Substitution):
    """'true' for a false value, 'false' for a true one."""

    def __init__(self, value: SomeSubstitutionsType) -> None:
        self._value = normalize_to_list_of_substitutions(value)

    def perform(self, context: LaunchContext) -> str:
        return _text_of(not _truth(context, self._value))


class AndSubstitution(Substitution):
    """'true' if both values are true."""

    def __init__(self, left: SomeSubstitutionsType, right: SomeSubstitutionsType) -> None:
        self._sides = [normalize_to_list_of_substitutions(side) for side in (left, right)]

    def perform(self, context: LaunchContext) -> str:
        return _text_of(all([_truth(context, side) for side in self._sides]))


class OrSubstitution(AndSubstitution):
    """'true' if one of the values is true."""

    def perform(self, context: LaunchContext) -> str:
        return _text_of(any([_truth(context, side) for side in self._sides]))


class IfElseSubstitution(Substitution):
    """One of two texts, by a condition."""

    def __init__(
        self,
        condition: SomeSubstitutionsType,
        if_value: SomeSubstitutionsType = "",
        else_value: SomeSubstitutionsType = "",
    ) -> None:
        if if_value == else_value == "":
            raise RuntimeError("One of if_value and else_value must be specified")
        self._condition = normalize_to_list_of_substitutions(condition)
        self._if = normalize_to_list_of_substitutions(if_value)
        self._else = normalize_to_list_of_substitutions(else_value)

    def perform(self, context: LaunchContext) -> str:
        return perform_any(context, self._if if _truth(context, self._condition) else self._else)


def _text_of(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _comparable(side: Any) -> list[Substitution]:
    if is_substitution(side):
        return normalize_to_list_of_substitutions(side)
    return normalize_to_list_of_substitutions("" if side is None else _text_of(side))


def _texts(default: Any) -> list[Substitution]:
    parts = default if isinstance(default, list | tuple) else [default]
    return normalize_to_list_of_substitutions(
        [p if isinstance(p, Substitution) else str(p) for p in parts]
    )


__getattr__ = missing_attribute(__name__)
