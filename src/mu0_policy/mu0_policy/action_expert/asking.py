"""Own the asynchronous side of an action expert: asked in the background, answered later.

While a chunk is executed the next one is computed. What will have run until the answer can take
over is known when it is asked: those commands stand at the head of the new chunk, which continues
them.
"""

import math
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mu0_policy.action_expert.policy import ExpertPolicy, Moment

FloatArray = NDArray[np.float64]

EXECUTED_SHARE = 0.65
"""Of a chunk, before the next one takes over. With less, a pause that demonstrations make, such as
that before a lift, begins anew with every chunk and never ends."""
_N_LATENCIES = 5
_SAME_TIME_S = 1e-6


class Commanded(Protocol):
    """Tell what is being executed."""

    def __call__(self, times_s: FloatArray, /) -> FloatArray:
        """Return the commands (m, j + 1) at times (m,), as sent so far."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """Hold a chunk of commands.

    Attributes:
        stamp_s: Time of the picture that it is made from.
        times_s: (n,) when each command is due.
        commands: (n, j + 1) joints in rad and the gripper's goal.
        n_known: Commands at the head that were given.
        latency_s: From the picture to the answer.
    """

    stamp_s: float
    times_s: FloatArray
    commands: FloatArray
    n_known: int
    latency_s: float


class Asking:
    """Ask an expert on a thread of its own, one moment at a time.

    Args:
        policy: The expert.
        executed_share: How much of a chunk is executed, at least, before the next one takes over.
        delay_s: Artificial delay of every answer, to see what it does.
    """

    def __init__(
        self,
        policy: ExpertPolicy,
        *,
        executed_share: float = EXECUTED_SHARE,
        delay_s: float = 0.0,
    ) -> None:
        self._policy, self._share, self._delay_s = policy, executed_share, delay_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="action_expert")
        self._running: Future[FloatArray] | None = None
        self._asked: tuple[float, float, int] = (0.0, 0.0, 0)
        self._latencies: deque[float] = deque(maxlen=_N_LATENCIES)
        self._durations: deque[float] = deque(maxlen=_N_LATENCIES)
        self._newest_s: float | None = None

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come or to be taken."""
        return self._running is not None

    @property
    def expected_latency_s(self) -> float:
        """How long after a picture its answer comes: the longest of the last few."""
        return max(self._latencies, default=1.0 / self._policy.card.rate_hz)

    def due(self, now_s: float, lead_s: float) -> bool:
        """Say whether to ask: the answer will take over when enough of its chunk was executed.

        Args:
            now_s: Now, on the clock of the pictures.
            lead_s: Time that a chunk has to reach the controller.
        """
        if self._newest_s is None:
            return True
        chunk_s = self._policy.chunk_size / self._policy.card.rate_hz
        takes_over_s = now_s + max(self._durations, default=0.0) + lead_s
        return takes_over_s >= self._newest_s + self._share * chunk_s

    def warm_up(self) -> float:
        """Ask once about nothing; return how long it took, s. It does not count as latency."""
        started_s = time.perf_counter()
        self._pool.submit(self._policy.warm_up).result()
        return time.perf_counter() - started_s

    def ask(
        self, moment: Moment, stamp_s: float, now_s: float, lead_s: float, commanded: Commanded
    ) -> None:
        """Ask about a moment.

        Args:
            moment: What is seen.
            stamp_s: Time of its picture.
            now_s: Now, on the same clock.
            lead_s: Time that a chunk has to reach the controller.
            commanded: What is being executed.
        """
        period_s = 1.0 / self._policy.card.rate_hz
        take_over_s = max(stamp_s + self.expected_latency_s, now_s) + lead_s
        n_known = math.floor((take_over_s - stamp_s) / period_s + _SAME_TIME_S)
        n_known = min(n_known, self._policy.card.most_known)
        known = None
        if n_known:
            known = commanded(stamp_s + period_s * np.arange(1.0, n_known + 1.0))
        self._asked = (stamp_s, now_s, n_known)
        self._running = self._pool.submit(self._answer, moment, known)

    def take(self, now_s: float) -> Answer | None:
        """Return the answer if it has come, once.

        Raises:
            Mu0Error: The expert refused the moment.
        """
        running = self._running
        if running is None or not running.done():
            return None
        self._running = None
        commands = running.result()
        stamp_s, asked_s, n_known = self._asked
        self._latencies.append(max(0.0, now_s - stamp_s))
        self._durations.append(max(0.0, now_s - asked_s))
        self._newest_s = stamp_s
        times_s = stamp_s + np.arange(1, len(commands) + 1) / self._policy.card.rate_hz
        return Answer(
            stamp_s=stamp_s,
            times_s=times_s,
            commands=commands,
            n_known=n_known,
            latency_s=now_s - stamp_s,
        )

    def forget(self) -> None:
        """Drop the answer that is still to come."""
        if self._running is not None and not self._running.cancel():
            self._running.exception()  # wait, so that the next one is not behind it
        self._running, self._newest_s = None, None
        self._latencies.clear()
        self._durations.clear()

    def close(self) -> None:
        """End the thread."""
        self.forget()
        self._pool.shutdown()

    def _answer(self, moment: Moment, known: FloatArray | None) -> FloatArray:
        if self._delay_s:
            time.sleep(self._delay_s)
        return self._policy.commands(moment, known)
