"""Event handlers: entities that are visited when an event happens."""

from collections.abc import Callable
from typing import Any

from launch._missing import missing_attribute
from launch.events import Shutdown
from launch.events.process import ProcessExited, ProcessStarted
from launch.launch_context import LaunchContext


class BaseEventHandler:
    """Handle events of one class: visit fixed entities or those that a function returns."""

    def __init__(
        self,
        event_class: type,
        response: Any,
        *,
        target_action: Any = None,
        handle_once: bool = False,
    ) -> None:
        self._event_class = event_class
        self._target = target_action
        self._handle_once = handle_once
        self._function: Callable[[Any, LaunchContext], Any] | None = None
        self.entities: list[Any] = []
        if callable(response):
            self._function = response
        else:
            self.entities = as_entities(response)

    def matches(self, event: object) -> bool:
        """Say whether this handler wants the event."""
        if type(event) is not self._event_class:
            return False
        if self._target is None:
            return True
        action = event.action  # type: ignore[attr-defined]
        return self._target(action) if callable(self._target) else action is self._target

    def handle(self, event: object, context: LaunchContext) -> list[Any]:
        """Return the entities to visit for the event."""
        context.extend_locals({"event": event})
        if self._handle_once:
            context.unregister_event_handler(self)
        return as_entities(self._function(event, context)) if self._function else self.entities


class OnProcessStart(BaseEventHandler):
    """Handle the start of a process."""

    def __init__(
        self, *, target_action: Any = None, on_start: Any, handle_once: bool = False
    ) -> None:
        super().__init__(
            ProcessStarted, on_start, target_action=target_action, handle_once=handle_once
        )


class OnProcessExit(BaseEventHandler):
    """Handle the end of a process."""

    def __init__(
        self, *, target_action: Any = None, on_exit: Any, handle_once: bool = False
    ) -> None:
        super().__init__(
            ProcessExited, on_exit, target_action=target_action, handle_once=handle_once
        )


class OnShutdown(BaseEventHandler):
    """Handle the end of the launch."""

    def __init__(self, *, on_shutdown: Any, handle_once: bool = False) -> None:
        super().__init__(Shutdown, on_shutdown, handle_once=handle_once)


def as_entities(response: Any) -> list[Any]:
    """Return one entity, several or none as a list."""
    if response is None:
        return []
    return [response] if hasattr(response, "visit") else [r for r in response if r is not None]


__getattr__ = missing_attribute(__name__)
