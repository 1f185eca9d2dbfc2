"""ExecuteProcess: run a command, log what it prints, end it with the launch.

Every process leads a process group of its own, so that signals reach its children too, and is
told by the kernel to end should the launch itself be killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pty
import shlex
import signal
import termios
import time
import traceback
from collections.abc import Iterable
from logging import Logger
from typing import Any

from launch.action import Action
from launch.event_handlers import OnProcessExit, as_entities
from launch.events.process import ProcessExited, ProcessStarted
from launch.launch_context import LaunchContext
from launch.logging import get_logger, get_output_loggers
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.substitutions import LaunchConfiguration
from launch.utilities import normalize_to_list_of_substitutions, perform_any, perform_typed

SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL")
POLL_S = 0.05
LAST_OUTPUT_S = 0.5
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

_libc = ctypes.CDLL(None)
_count = 0


class ExecuteProcess(Action):
    """Run a command until it ends or the launch does."""

    def __init__(
        self,
        *,
        cmd: Iterable[SomeSubstitutionsType],
        name: SomeSubstitutionsType | None = None,
        prefix: SomeSubstitutionsType | None = None,
        output: SomeSubstitutionsType | dict[str, Any] = "log",
        cwd: SomeSubstitutionsType | None = None,
        env: dict[Any, Any] | None = None,
        additional_env: dict[Any, Any] | None = None,
        emulate_tty: bool | SomeSubstitutionsType = False,
        respawn: bool | SomeSubstitutionsType = False,
        respawn_delay: float | None = None,
        respawn_max_retries: int = -1,
        on_exit: Any = None,
        sigterm_timeout: SomeSubstitutionsType | None = None,
        sigkill_timeout: SomeSubstitutionsType | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cmd = [normalize_to_list_of_substitutions(part) for part in cmd]
        self._name = name
        self._prefix = (
            LaunchConfiguration("launch-prefix", default="") if prefix is None else prefix
        )
        self._output = os.environ.get("OVERRIDE_LAUNCH_PROCESS_OUTPUT") or output
        self._cwd, self._env, self._additional_env = cwd, env, additional_env
        self._emulate_tty = emulate_tty
        self._respawn, self._respawn_delay = respawn, respawn_delay
        self._respawns_left = respawn_max_retries
        self._on_exit = on_exit
        self._timeouts = [
            LaunchConfiguration(f"{signal_name}_timeout", default=5) if given is None else given
            for signal_name, given in (("sigterm", sigterm_timeout), ("sigkill", sigkill_timeout))
        ]
        self.process_details: dict[str, Any] | None = None

    def get_sub_entities(self) -> list[Any]:
        return [] if callable(self._on_exit) else as_entities(self._on_exit)

    def execute(self, context: LaunchContext) -> None:
        """Expand the command line and start it."""
        if self.process_details is not None:
            raise RuntimeError(
                f"ExecuteLocal action '{self.process_details['process_name']}': "
                "executed more than once"
            )
        prefix = shlex.split(perform_any(context, self._prefix))
        cmd = prefix + [perform_any(context, part) for part in self.cmd]
        name = perform_any(context, os.path.basename(cmd[0]) if self._name is None else self._name)
        self.process_details = {
            "action": self,
            "process_name": f"{name}-{_next_number()}",
            "cmd": cmd,
            "cwd": None if self._cwd is None else perform_any(context, self._cwd),
            "env": self._environment(context),
        }
        if context.is_shutdown:
            return
        if self._on_exit is not None:
            handler = OnProcessExit(target_action=self, on_exit=self._on_exit)
            context.register_event_handler(handler)
        output = self._output
        if not isinstance(output, dict):
            output = perform_any(context, output)
        self._loggers = get_output_loggers(self.process_details["process_name"], output)
        self._timeouts_s = [float(perform_any(context, t)) for t in self._timeouts]
        self._wants_tty: bool = perform_typed(context, self._emulate_tty, bool)
        self._wants_respawn: bool = perform_typed(context, self._respawn, bool)
        context._start(self._run(context, self.process_details))

    def _environment(self, context: LaunchContext) -> dict[str, str]:
        base = dict(context.environment) if self._env is None else {}
        for more in (self._env, self._additional_env):
            for key, value in (more or {}).items():
                base[perform_any(context, key)] = perform_any(context, value)
        return base

    async def _run(self, context: LaunchContext, details: dict[str, Any]) -> None:
        while await self._run_once(context, details):
            if not self._wants_respawn or self._respawns_left == 0:
                return
            self._respawns_left -= 1
            if await _happens(context._shutdown, self._respawn_delay or 0.0):
                return

    async def _run_once(self, context: LaunchContext, details: dict[str, Any]) -> bool:
        """Run the command; say whether it could be started."""
        logger = get_logger(details["process_name"])
        try:
            process = await _start(details, self._loggers, self._wants_tty)
        except OSError:
            logger.error(f"exception occurred while executing process:\n{traceback.format_exc()}")
            return False
        details["pid"] = process.pid
        context._processes.add(process)
        context.emit_event_sync(ProcessStarted(**details))
        ending = asyncio.ensure_future(_end(context, process, self._timeouts_s))
        returncode = await process.wait()
        if context.is_shutdown:
            await ending  # also for what is left of the process group
        ending.cancel()
        context._processes.discard(process)
        if returncode == 0:
            logger.info(f"process has finished cleanly [pid {process.pid}]")
        else:
            logger.error(
                f"process has died [pid {process.pid}, exit code {returncode}, "
                f"cmd '{' '.join(part for part in details['cmd'] if part.strip())}']."
            )
        context.emit_event_sync(ProcessExited(**details, returncode=returncode))
        return True


class RunningProcess(asyncio.SubprocessProtocol):
    """One process: its output by lines, its end, and signals to it and its children."""

    def __init__(self, name: str, loggers: tuple[Logger, Logger]) -> None:
        self.name = name
        self.logger = get_logger(name)
        self.pid = 0
        self._loggers = dict(zip((1, 2), loggers, strict=True))
        self._rest = {1: b"", 2: b""}
        self._open_pipes = {1, 2}
        self._exited = asyncio.Event()
        self._silent = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        """Note the process id."""
        self._transport = transport
        self.pid = transport.get_pid()
        self.logger.info(f"process started with pid [{self.pid}]")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Log the lines that are complete."""
        *lines, self._rest[fd] = (self._rest[fd] + data).split(b"\n")
        for line in lines:
            self._log(fd, line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Note that no output follows."""
        self._open_pipes.discard(fd)
        if not self._open_pipes:
            self._silent.set()

    def process_exited(self) -> None:
        """Note the end."""
        self._exited.set()

    async def wait(self) -> int:
        """Wait for the end and for the last output; return the exit code."""
        await self._exited.wait()
        await _happens(self._silent, LAST_OUTPUT_S)
        for fd, rest in self._rest.items():
            if rest:
                self._log(fd, rest)
        return self._transport.get_returncode()

    async def is_gone(self, timeout_s: float) -> bool:
        """Say whether the process and its children are gone within the time."""
        deadline = time.monotonic() + timeout_s
        if not await _happens(self._exited, timeout_s):
            return False
        while self.send_signal(0):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True

    def send_signal(self, number: int) -> bool:
        """Send a signal to the process and its children; say whether any is there."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def _log(self, fd: int, line: bytes) -> None:
        self._loggers[fd].info(f"[{self.name}] {line.decode(errors='replace')}")


class _Terminal(asyncio.Protocol):
    """Hand what arrives at a pseudo terminal to the process that writes there."""

    def __init__(self, process: RunningProcess, fd: int) -> None:
        self._process, self._fd = process, fd

    def data_received(self, data: bytes) -> None:
        self._process.pipe_data_received(self._fd, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._process.pipe_connection_lost(self._fd, exc)


async def _start(
    details: dict[str, Any], loggers: tuple[Logger, Logger], emulate_tty: bool
) -> RunningProcess:
    loop = asyncio.get_running_loop()
    process = RunningProcess(details["process_name"], loggers)
    pairs = [_open_terminal() for _ in range(2)] if emulate_tty else []
    streams = [child for _, child in pairs] or [asyncio.subprocess.PIPE] * 2
    try:
        await loop.subprocess_exec(
            lambda: process,
            *details["cmd"],
            stdout=streams[0],
            stderr=streams[1],
            cwd=details["cwd"],
            env=details["env"],
            process_group=0,
            preexec_fn=_end_with_parent,
        )
    finally:
        for _, child in pairs:
            os.close(child)
    for fd, (ours, _) in enumerate(pairs, start=1):
        file = os.fdopen(ours, "rb", buffering=0)
        await loop.connect_read_pipe(lambda fd=fd: _Terminal(process, fd), file)  # type: ignore[misc]
    return process


async def _end(context: LaunchContext, process: RunningProcess, timeouts_s: list[float]) -> None:
    """Once the launch ends, end the process: SIGINT, later SIGTERM, later SIGKILL."""
    await context._shutdown.wait()
    for name, next_name, timeout_s in zip(SIGNALS, SIGNALS[1:], timeouts_s, strict=False):
        if process.send_signal(signal.Signals[name]):
            process.logger.info(f"sending signal '{name}' to process[{process.name}]")
        if await process.is_gone(timeout_s):
            return
        process.logger.error(
            f"process[{process.name}] failed to terminate '{timeout_s:g}' seconds after "
            f"receiving '{name}', escalating to '{next_name}'"
        )
    process.send_signal(signal.SIGKILL)


async def _happens(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True


def _open_terminal() -> tuple[int, int]:
    ours, child = pty.openpty()
    settings = termios.tcgetattr(child)
    settings[1] &= ~termios.ONLCR  # no carriage return before each newline
    termios.tcsetattr(child, termios.TCSANOW, settings)
    return ours, child


def _end_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _next_number() -> int:
    global _count
    _count += 1
    return _count
