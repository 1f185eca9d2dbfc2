"""LaunchService: the loop that visits entities, handles events and ends processes."""

from __future__ import annotations

import asyncio
import logging as python_logging
import signal
import traceback
from typing import Any

from launch.action import LaunchDescriptionEntity
from launch.events import Shutdown, _Visit
from launch.launch_context import LaunchContext
from launch.logging import get_logger, log_dir, set_level


class LaunchService:
    """Run launch descriptions until they are done."""

    def __init__(
        self,
        *,
        argv: list[str] | None = None,
        noninteractive: bool = False,
        debug: bool = False,
    ) -> None:
        set_level(python_logging.DEBUG if debug else python_logging.INFO)
        self._logger = get_logger()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._returncode = 0
        self._interrupted = False
        self.context = LaunchContext(argv=argv, noninteractive=noninteractive)

    def include_launch_description(self, launch_description: LaunchDescriptionEntity) -> None:
        """Queue a launch description to be visited by `run`."""
        self.emit_event(_Visit([launch_description]))

    def emit_event(self, event: object) -> None:
        """Queue an event; other threads may call this while the launch runs."""
        if self._loop is None:
            self.context.emit_event_sync(event)
        else:
            self._loop.call_soon_threadsafe(self.context.emit_event_sync, event)

    def shutdown(self) -> None:
        """End the launch; other threads may call this."""
        if self._loop is not None:
            self.emit_event(Shutdown(reason="LaunchService.shutdown() called"))

    def run(self, *, shutdown_when_idle: bool = True) -> int:
        """Run until everything is done; return 0, or 1 after an error."""
        return asyncio.run(self.run_async(shutdown_when_idle=shutdown_when_idle))

    async def run_async(self, *, shutdown_when_idle: bool = True) -> int:
        """Run until everything is done; return 0, or 1 after an error."""
        context = self.context
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        self._logger.info(f"All log files can be found below {log_dir()}")
        level = python_logging.getLevelName(self._logger.level)
        self._logger.info(f"Default logging verbosity is set to {level}")
        try:
            while True:
                self._handle_events()
                if context._tasks or not (context.is_shutdown or shutdown_when_idle):
                    await self._wait()
                elif context._events:
                    continue
                elif context.is_shutdown:
                    return self._returncode
                else:
                    context.emit_event_sync(Shutdown(reason="idle"))
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
                self._loop.remove_signal_handler(number)
            self._loop = None

    async def _wait(self) -> None:
        """Wait for an event or for the end of a task."""
        context = self.context
        woken = asyncio.ensure_future(context._woken.wait())
        done, _ = await asyncio.wait({woken, *context._tasks}, return_when=asyncio.FIRST_COMPLETED)
        context._woken.clear()
        woken.cancel()
        for task in done - {woken}:
            context._tasks.discard(task)
            if (error := task.exception()) is not None:
                self._fail(error)

    def _handle_events(self) -> None:
        while self.context._events:
            try:
                self._handle(self.context._events.popleft())
            except Exception as error:
                self._fail(error)

    def _handle(self, event: object) -> None:
        context = self.context
        self._logger.debug(f"processing event: '{type(event).__name__}'")
        before = context.get_locals_as_dict()
        try:
            if isinstance(event, _Visit):
                context.extend_locals(event.local_values)
                self._visit(event.entities)
            if isinstance(event, Shutdown):
                if context.is_shutdown:
                    return
                context._shutdown.set()
            for handler in tuple(context._handlers):
                if handler.matches(event):
                    self._visit(handler.handle(event, context))
        finally:
            context._locals = before

    def _visit(self, entities: Any) -> None:
        for entity in entities:
            if entity is None:
                continue
            if not isinstance(entity, LaunchDescriptionEntity):
                raise RuntimeError(f"expected an action or a launch description, got {entity!r}")
            self._visit(entity.visit(self.context) or ())

    def _fail(self, error: BaseException) -> None:
        self._returncode = 1
        text = f"Caught exception in launch (see debug for traceback): {error}"
        self._logger.debug("".join(traceback.format_exception(error)))
        self._logger.error(text)
        self.context.emit_event_sync(Shutdown(reason=text))

    def _on_signal(self, number: signal.Signals) -> None:
        again, self._interrupted = self._interrupted, True
        if number == signal.SIGINT:
            self._logger.warning("user interrupted with ctrl-c (SIGINT)")
        else:
            self._logger.error(f"terminated by {signal.Signals(number).name}")
            self._returncode = 1
        if not again:
            reason = f"ctrl-c ({signal.Signals(number).name})"
            self.emit_event(Shutdown(reason=reason, due_to_sigint=number == signal.SIGINT))
            return
        self._logger.warning("interrupted again, killing what still runs")
        for process in self.context._processes:
            process.send_signal(signal.SIGKILL)
