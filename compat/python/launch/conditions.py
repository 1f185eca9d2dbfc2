"""Conditions: whether an action runs."""

import warnings

from launch._missing import missing_attribute
from launch.launch_context import LaunchContext
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.utilities import describe, normalize_to_list_of_substitutions, perform_any


class InvalidConditionExpressionError(Exception):
    """A condition is neither true nor false."""


class IfCondition:
    """True if the expression is 'true' or '1', false if it is 'false' or '0'."""

    def __init__(self, predicate_expression: SomeSubstitutionsType) -> None:
        self._expression = normalize_to_list_of_substitutions(predicate_expression)

    def evaluate(self, context: LaunchContext) -> bool:
        """Return the truth of the condition."""
        text = perform_any(context, self._expression).strip().lower()
        if text not in ("true", "1", "false", "0"):
            raise InvalidConditionExpressionError(
                f"invalid condition expression, expanded to '{text}' from "
                f"({describe(self._expression)}), expected 'true', '1', 'false' or '0'"
            )
        return text in ("true", "1")


class UnlessCondition(IfCondition):
    """The opposite of IfCondition."""

    def evaluate(self, context: LaunchContext) -> bool:
        """Return the truth of the condition."""
        return not super().evaluate(context)


class LaunchConfigurationEquals:
    """True if a launch configuration has the given value (None: is not set). Deprecated."""

    def __init__(
        self, launch_configuration_name: str, expected_value: SomeSubstitutionsType | None
    ) -> None:
        warnings.warn(
            "LaunchConfigurationEquals and LaunchConfigurationNotEquals are deprecated, "
            "use IfCondition(EqualsSubstitution(...)) instead",
            UserWarning,
            stacklevel=2,
        )
        self._name, self._expected = launch_configuration_name, expected_value

    def evaluate(self, context: LaunchContext) -> bool:
        """Return the truth of the condition."""
        expected = None if self._expected is None else perform_any(context, self._expected)
        return context.launch_configurations.get(self._name) == expected


class LaunchConfigurationNotEquals(LaunchConfigurationEquals):
    """The opposite of LaunchConfigurationEquals."""

    def evaluate(self, context: LaunchContext) -> bool:
        """Return the truth of the condition."""
        return not super().evaluate(context)


__getattr__ = missing_attribute(__name__)
