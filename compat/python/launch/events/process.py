"""Events of processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from launch._missing import missing_attribute

if TYPE_CHECKING:
    from launch.actions import ExecuteProcess


@dataclass(frozen=True, kw_only=True)
class ProcessStarted:
    """A process runs."""

    action: ExecuteProcess
    process_name: str
    cmd: list[str]
    cwd: str | None
    env: dict[str, str]
    pid: int


@dataclass(frozen=True, kw_only=True)
class ProcessExited(ProcessStarted):
    """A process has ended; `returncode` is negative after a signal."""

    returncode: int


__getattr__ = missing_attribute(__name__)
