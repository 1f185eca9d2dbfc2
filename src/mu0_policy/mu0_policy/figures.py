"""Own the figures that tell how commanding goes: latency, hand-overs, limits."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mu0_policy.chunk import HandOver


@dataclass(slots=True)
class Figures:
    """Collect figures over the last few minutes of commands.

    Attributes:
        sent: Chunks sent.
        late: Chunks that were ready too late and not sent.
        velocity_jump: Largest jump at a hand-over, as a share of the joint's velocity limit.
        limit_violations: Chunks sent that break a limit at 500 Hz.
    """

    sent: int = 0
    late: int = 0
    velocity_jump: float = 0.0
    limit_violations: int = 0
    _latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=1000))

    def add_command(self, made: HandOver | None, faults: Sequence[str]) -> None:
        """Count one chunk and what the filter says of it; without `made` it was too late."""
        if made is None:
            self.late += 1
            return
        self.sent += 1
        self.velocity_jump = max(self.velocity_jump, made.velocity_jump)
        self.limit_violations += bool(faults)

    def add_latency(self, latency_s: float) -> None:
        """Add the time from an image's stamp to the first command that uses it."""
        self._latencies_s.append(latency_s)

    def shown(self) -> dict[str, object]:
        """Return the figures with names and units for /diagnostics."""
        shown: dict[str, object] = {
            "chunks_sent": self.sent,
            "chunks_late": self.late,
            "handover_velocity_jump": f"{self.velocity_jump:.2e}",
            "limit_violations": self.limit_violations,
        }
        if self._latencies_s:
            p50, p95 = np.percentile(self._latencies_s, (50, 95))
            shown["command_latency_p50_ms"] = f"{1e3 * p50:.1f}"
            shown["command_latency_p95_ms"] = f"{1e3 * p95:.1f}"
        return shown
