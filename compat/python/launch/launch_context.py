"""The state of one launch: configurations, environment, events, running tasks."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Coroutine, MutableMapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from launch.substitution import Substitution

if TYPE_CHECKING:
    from launch.event_handlers import BaseEventHandler


class LaunchContext:
    """What actions and substitutions read and change while a launch runs."""

    def __init__(self, *, argv: list[str] | None = None, noninteractive: bool = False) -> None:
        self.argv = argv or []
        self.noninteractive = noninteractive
        self.launch_configurations: dict[str, Any] = {}
        self._scopes: list[tuple[dict[str, Any], dict[str, str]]] = []
        self._locals: dict[str, Any] = {}
        self._handlers: deque[BaseEventHandler] = deque()
        self._events: deque[object] = deque()
        self._woken = asyncio.Event()
        self._shutdown = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._processes: set[Any] = set()

    @property
    def environment(self) -> MutableMapping[str, str]:
        """The environment that new processes inherit."""
        return os.environ

    @property
    def is_shutdown(self) -> bool:
        """Whether the launch is ending."""
        return self._shutdown.is_set()

    @property
    def asyncio_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that runs the launch."""
        return asyncio.get_running_loop()

    @property
    def locals(self) -> SimpleNamespace:
        """Values that hold while one event is handled, such as `event`."""
        return SimpleNamespace(**self._locals)

    def get_locals_as_dict(self) -> dict[str, Any]:
        """Return a copy of the locals."""
        return dict(self._locals)

    def extend_locals(self, extensions: dict[str, Any]) -> None:
        """Add locals until the event at hand has been handled."""
        self._locals.update(extensions)

    def perform_substitution(self, substitution: Substitution) -> str:
        """Return the text of one substitution."""
        return substitution.perform(self)

    def register_event_handler(self, event_handler: BaseEventHandler) -> None:
        """Add a handler; the newest is asked first."""
        self._handlers.appendleft(event_handler)

    def unregister_event_handler(self, event_handler: BaseEventHandler) -> None:
        """Remove a handler."""
        self._handlers.remove(event_handler)

    def emit_event_sync(self, event: object) -> None:
        """Queue an event."""
        self._events.append(event)
        self._woken.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine; the launch lasts until it is done."""
        self._tasks.add(asyncio.get_running_loop().create_task(work))
        self._woken.set()

    def _push_scope(self) -> None:
        self._scopes.append((dict(self.launch_configurations), dict(os.environ)))

    def _pop_scope(self) -> None:
        self.launch_configurations, environment = self._scopes.pop()
        os.environ.clear()
        os.environ.update(environment)
