"""Decide how fast simulated time may run: not faster than wanted, not ahead of those who watch."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_BEHIND_S = 0.5
_REPORT_EVERY_S = 1.0

Clock = Callable[[], float]


@dataclass(slots=True)
class Pace:
    """Hold simulated time back, and measure how fast it runs.

    Args:
        max_factor: Simulated seconds in one second of wall clock, at most; 0 = no bound.
        clock: Monotonic wall clock, s.
    """

    max_factor: float
    clock: Clock = time.monotonic
    _start: tuple[float, float] | None = field(default=None, init=False)
    _reported: tuple[float, float] | None = field(default=None, init=False)

    def restart(self) -> None:
        """Forget the past; call it after simulated time stood still."""
        self._start = self._reported = None

    def ahead_s(self, time_s: float) -> float:
        """Return how long (s of wall clock) simulated time has to wait; 0 or less = not at all.

        Time lost is not made up for: a simulator that fell behind goes on at its normal pace.
        """
        if self.max_factor <= 0.0:
            return 0.0
        now_s = self.clock()
        if self._start is None:
            self._start = (now_s, time_s)
        ahead_s = self._start[0] + (time_s - self._start[1]) / self.max_factor - now_s
        if ahead_s < -_BEHIND_S:
            self._start = (now_s, time_s)
        return ahead_s

    def new_factor(self, time_s: float) -> float | None:
        """Return the real-time factor once a second, None in between."""
        now_s = self.clock()
        if self._reported is None:
            self._reported = (now_s, time_s)
            return None
        wall_s = now_s - self._reported[0]
        if wall_s < _REPORT_EVERY_S:
            return None
        factor = (time_s - self._reported[1]) / wall_s
        self._reported = (now_s, time_s)
        return factor


@dataclass(slots=True)
class StepLock:
    """Hold simulated time after each picture until someone has answered it, or for so long.

    Args:
        enabled: False lets time run freely.
        timeout_s: Longest wait for an answer, s of wall clock.
        clock: Monotonic wall clock, s.
    """

    enabled: bool
    timeout_s: float
    clock: Clock = time.monotonic
    _asked_s: float = field(default=0.0, init=False)
    _deadline_s: float = field(default=0.0, init=False)
    _traces_come: bool = field(default=False, init=False)

    def ask(self, stamp_s: float) -> None:
        """Begin to wait for an answer to the picture of that simulated time."""
        if self.enabled:
            self._asked_s = stamp_s
            self._deadline_s = self.clock() + self.timeout_s

    def answer(self, stamp_s: float, *, traces: bool) -> None:
        """End the wait if the answer is to the picture that was asked about, to a microsecond.

        Once traces have come, a command is no answer: it may have a picture's stamp by chance.
        """
        self._traces_come |= traces
        if traces == self._traces_come and abs(stamp_s - self._asked_s) < 1e-6:
            self.release()

    def release(self) -> None:
        """End the wait."""
        self._deadline_s = 0.0

    def left_s(self) -> float:
        """Return how long (s of wall clock) to wait still; 0 or less = not at all."""
        return self._deadline_s - self.clock()
