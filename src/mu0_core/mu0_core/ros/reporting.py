"""Own how a node says how it is: the status in /diagnostics, and throttled repeats in logs."""

from collections.abc import Mapping
from enum import Enum
from typing import Self

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue


class Level(Enum):
    """Say how a node is, as /diagnostics does."""

    OK = DiagnosticStatus.OK
    WARN = DiagnosticStatus.WARN
    ERROR = DiagnosticStatus.ERROR
    STALE = DiagnosticStatus.STALE


class Status:
    """Hold level, sentence and figures; never changed, so that threads may replace it."""

    def __init__(
        self,
        text: str,
        level: Level = Level.OK,
        figures: Mapping[str, object] | None = None,
    ) -> None:
        self.text, self.level = text, level
        self.figures = dict(figures or {})

    def updated(self, level: Level, text: str, figures: Mapping[str, object]) -> Self:
        """Return a status with a new level and sentence; figures of other names stay."""
        return type(self)(text, level, {**self.figures, **figures})

    def message(self, name: str) -> DiagnosticStatus:
        """Return it as /diagnostics carries it, under the name of a node."""
        return DiagnosticStatus(
            level=self.level.value,
            name=name,
            message=self.text,
            values=[KeyValue(key=key, value=str(value)) for key, value in self.figures.items()],
        )


class Throttle:
    """Let the first of many equal events through, then one a period with the number held back."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._last_s: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def admit(self, key: str, now_s: float) -> int | None:
        """Decide about one event.

        Args:
            key: What is equal between events.
            now_s: Monotonic time, s.

        Returns:
            How many were held back since the last admitted one, or None to hold this one back.
        """
        if key in self._last_s and now_s - self._last_s[key] < self._period_s:
            self._held[key] = self._held.get(key, 0) + 1
            return None
        self._last_s[key] = now_s
        return self._held.pop(key, 0)
