"""Actions: what a launch file can do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from launch._missing import missing_attribute
from launch._process import ExecuteProcess
from launch.action import Action
from launch.event_handlers import BaseEventHandler
from launch.events import Shutdown as ShutdownEvent
from launch.events import _Visit
from launch.events.process import ProcessExited
from launch.launch_context import LaunchContext
from launch.launch_description_sources import AnyLaunchDescriptionSource, LaunchDescriptionSource
from launch.logging import get_logger
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.substitution import Substitution
from launch.utilities import (
    is_substitution,
    normalize_to_list_of_substitutions,
    perform_any,
    perform_typed,
)

__all__ = ["ExecuteProcess"]


class DeclareLaunchArgument(Action):
    """Declare an argument: set the configuration of that name to its default if it is unset."""

    def __init__(
        self,
        name: str,
        *,
        default_value: SomeSubstitutionsType | None = None,
        description: str | None = None,
        choices: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if choices is not None and len(choices) == 0:
            raise RuntimeError(
                "Provided choices arg is empty. Use None to ignore the choice list."
            )
        if choices is not None and isinstance(default_value, str) and default_value not in choices:
            raise RuntimeError(
                f'Provided default_value "{default_value}" is not in provided choices "{choices}".'
            )
        self.name = name
        self.choices = choices
        self.description = _description(description, choices)
        self.default_value: list[Substitution] | None = None
        if default_value is not None:
            self.default_value = normalize_to_list_of_substitutions(default_value)
        self.conditionally_included = False

    def execute(self, context: LaunchContext) -> None:
        values = context.launch_configurations
        if self.name not in values:
            if self.default_value is None:
                raise RuntimeError(f'Required launch argument "{self.name}" was not provided.')
            values[self.name] = perform_any(context, self.default_value)
        if self.choices is not None and values[self.name] not in self.choices:
            message = (
                f'Argument "{self.name}" provided value "{values[self.name]}" is not valid. '
                f"Valid options are: {self.choices}"
            )
            get_logger("launch.actions.declare_launch_argument").error(message)
            raise RuntimeError(message)


class _Set(Action):
    def __init__(
        self, name: SomeSubstitutionsType, value: SomeSubstitutionsType, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._name = normalize_to_list_of_substitutions(name)
        self._value = normalize_to_list_of_substitutions(value)

    def _set_in(self, context: LaunchContext, values: MutableMapping[str, str]) -> None:
        values[perform_any(context, self._name)] = perform_any(context, self._value)


class SetLaunchConfiguration(_Set):
    """Set a launch configuration."""

    def execute(self, context: LaunchContext) -> None:
        self._set_in(context, context.launch_configurations)


class SetEnvironmentVariable(_Set):
    """Set an environment variable for the processes that follow."""

    def execute(self, context: LaunchContext) -> None:
        self._set_in(context, context.environment)


class UnsetLaunchConfiguration(Action):
    """Remove a launch configuration."""

    def __init__(self, name: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._name = normalize_to_list_of_substitutions(name)

    def execute(self, context: LaunchContext) -> None:
        context.launch_configurations.pop(perform_any(context, self._name), None)


class AppendEnvironmentVariable(Action):
    """Append or prepend to an environment variable that is a list."""

    def __init__(
        self,
        name: SomeSubstitutionsType,
        value: SomeSubstitutionsType,
        prepend: bool | SomeSubstitutionsType = False,
        separator: SomeSubstitutionsType = os.pathsep,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._name, self._value = name, value
        self._prepend, self._separator = prepend, separator

    def execute(self, context: LaunchContext) -> None:
        name, value = perform_any(context, self._name), perform_any(context, self._value)
        parts = [value]
        if name in context.environment:
            parts = [context.environment[name], value]
            if perform_typed(context, self._prepend, bool):
                parts.reverse()
        context.environment[name] = perform_any(context, self._separator).join(parts)


class LogInfo(Action):
    """Log a message."""

    def __init__(self, *, msg: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._msg = normalize_to_list_of_substitutions(msg)

    def execute(self, context: LaunchContext) -> None:
        get_logger("launch.user").info(perform_any(context, self._msg))


class OpaqueFunction(Action):
    """Call a function with the context; it may return entities to visit."""

    def __init__(
        self,
        *,
        function: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        **left_over_kwargs: Any,
    ) -> None:
        super().__init__(**left_over_kwargs)
        if not callable(function):
            raise TypeError(f"OpaqueFunction expected a callable for 'function', got {function!r}")
        self._function, self._args, self._kwargs = function, args or (), kwargs or {}

    def execute(self, context: LaunchContext) -> Iterable[Any] | None:
        return self._function(context, *self._args, **self._kwargs)


class GroupAction(Action):
    """Visit several actions; what they set ends with the group if `scoped`."""

    def __init__(
        self,
        actions: Iterable[Any],
        *,
        scoped: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._actions = list(actions)
        self._scoped = scoped

    def get_sub_entities(self) -> list[Any]:
        return self._actions

    def execute(self, context: LaunchContext) -> list[Any]:
        if not self._scoped:
            return self._actions
        push = OpaqueFunction(function=LaunchContext._push_scope)
        pop = OpaqueFunction(function=LaunchContext._pop_scope)
        return [push, *self._actions, pop]


class IncludeLaunchDescription(Action):
    """Visit the entities of another launch file, in the same scope."""

    def __init__(
        self,
        launch_description_source: LaunchDescriptionSource | SomeSubstitutionsType,
        *,
        launch_arguments: Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(launch_description_source, LaunchDescriptionSource):
            launch_description_source = AnyLaunchDescriptionSource(launch_description_source)
        self._source = launch_description_source
        self._arguments = tuple(launch_arguments or ())

    def get_sub_entities(self) -> list[Any]:
        description = self._source.try_get_launch_description_without_context()
        return [] if description is None else [description]

    def execute(self, context: LaunchContext) -> list[Any]:
        description = self._source.get_launch_description(context)
        context.extend_locals(
            {
                "current_launch_file_path": self._source.location,
                "current_launch_file_directory": os.path.dirname(self._source.location),
            }
        )
        for argument, includes in description.get_arguments_with_includes():
            given = [n for include in (self, *includes) for n in include._names(context)]
            optional = argument.conditionally_included or argument.default_value is not None
            if not optional and argument.name not in given:
                raise RuntimeError(
                    f"Included launch description missing required argument '{argument.name}' "
                    f"(description: '{argument.description}'), given: [{', '.join(given)}]"
                )
        return [*(SetLaunchConfiguration(n, v) for n, v in self._arguments), description]

    def _names(self, context: LaunchContext) -> list[str]:
        return [perform_any(context, name) for name, _ in self._arguments]


class RegisterEventHandler(Action):
    """Add an event handler."""

    happens_later = True

    def __init__(self, event_handler: BaseEventHandler, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._handler = event_handler

    def get_sub_entities(self) -> list[Any]:
        return self._handler.entities

    def execute(self, context: LaunchContext) -> None:
        context.register_event_handler(self._handler)


class TimerAction(Action):
    """Visit actions after `period` seconds, unless the launch ends before."""

    happens_later = True

    def __init__(
        self,
        *,
        period: float | SomeSubstitutionsType,
        actions: Iterable[Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(period, float | str) and not is_substitution(period):
            raise TypeError(f"TimerAction 'period' must be a float or a substitution: {period!r}")
        self._period = float(period) if isinstance(period, str) else period
        self._actions = list(actions)
        self._canceled = asyncio.Event()

    def cancel(self) -> None:
        """Do not fire any more."""
        self._canceled.set()

    def get_sub_entities(self) -> list[Any]:
        return self._actions

    def execute(self, context: LaunchContext) -> None:
        seconds = perform_typed(context, self._period, float)
        context._start(self._fire(context, seconds, context.get_locals_as_dict()))

    async def _fire(self, context: LaunchContext, seconds: float, names: dict[str, Any]) -> None:
        ends = [asyncio.ensure_future(e.wait()) for e in (context._shutdown, self._canceled)]
        ended, _ = await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        if not ended:
            context.emit_event_sync(_Visit(self._actions, names))


class EmitEvent(Action):
    """Emit an event."""

    def __init__(self, *, event: object, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(event, ShutdownEvent):
            raise TypeError(f"EmitEvent of this stand-in knows launch.events.Shutdown: {event!r}")
        self._event = event

    def execute(self, context: LaunchContext) -> None:
        context.emit_event_sync(self._event)


class Shutdown(EmitEvent):
    """End the launch."""

    def __init__(self, *, reason: str = "reason not given", **kwargs: Any) -> None:
        super().__init__(event=ShutdownEvent(reason=reason), **kwargs)

    def execute(self, context: LaunchContext) -> None:
        cause = context.get_locals_as_dict().get("event")
        if isinstance(cause, ProcessExited):
            get_logger().info(
                f"process[{cause.process_name}] was required: shutting down launched system"
            )
        super().execute(context)


def _description(text: str | None, choices: list[str] | None) -> str:
    if text is None:
        return "no description given" if choices is None else f"One of: {choices}"
    if choices is None:
        return text
    return f"{text}{'' if text.endswith('.') else '.'} Valid choices are: {choices}"


__getattr__ = missing_attribute(__name__)
