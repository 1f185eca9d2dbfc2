"""Own the rule by which a robot follows an action expert's chunks: joints, fingers, the end.

The newest chunk's joints are what the core's own chunks track. The fingers close or open when the
command that is due says so. The task is done when, after some motion, the expert has asked for
no more of it for a while.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate
from mu0_policy.action_expert.asking import Answer
from mu0_policy.joint_path import timed
from mu0_policy.trace_follower import Phase, RobotState, ToolPlan

FloatArray = NDArray[np.float64]

_CLOSE, _OPEN = 0.6, 0.4  # goals from which on the fingers close or open
_OPENED = 0.05  # share of the way up to which fingers are open


@dataclass(frozen=True, slots=True, kw_only=True)
class ActingConfig:
    """Configure when a task counts as done."""

    rest_rad: float = option(
        0.02, description="Motion of a joint in a chunk that still is rest", unit="rad", low=1e-4
    )
    rest_s: float = option(2.0, description="How long the rest must last", unit="s", low=0.1)
    moved_rad: float = option(
        0.1, description="Motion that must have come before", unit="rad", low=1e-3
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(slots=True)
class ExpertFollower:
    """Follow chunks; `reset` before each new task."""

    source = "answers of the action expert", "mu0/trace_features"

    config: ActingConfig
    phase: Phase = Phase.WAIT
    reason: str = "no answer of the action expert yet"
    valid_prob: float = 1.0
    closed: bool = False
    _answer: Answer | None = field(default=None, init=False)
    _rests_since_s: float | None = field(default=None, init=False)
    _moved: bool = field(default=False, init=False)

    def reset(self) -> None:
        """Forget the task; the fingers stay as they were commanded."""
        self.phase, self.reason, self.valid_prob = Phase.WAIT, "no answer yet", 1.0
        self._answer, self._rests_since_s, self._moved = None, None, False

    def notice(self, gripper: float) -> None:
        """Before a first answer, see where the fingers (0 = open, 1 = closed) are.

        If they are open although they were told to close, somebody else has opened them.
        """
        if self._answer is None and gripper < _OPENED:
            self.closed = False

    def goals(self, times_s: FloatArray) -> FloatArray:
        """Return where the fingers go (m,) at times (m,), as far as is decided."""
        answer = self._answer
        if answer is None:
            return np.full(len(times_s), float(self.closed))
        return answer.commands[_due(answer, times_s), -1]

    def step(self, state: RobotState, prediction: Answer | None) -> ToolPlan | None:
        """Take a new chunk, if there is one, and say what the fingers do."""
        if prediction is not None:
            self._answer = prediction
            self._watch(prediction)
        answer = self._answer
        if answer is None:
            return None
        due = int(_due(answer, np.array([state.now_s]))[0])
        goal = float(answer.commands[due, -1])
        self.closed = goal > (_OPEN if self.closed else _CLOSE)
        if self.phase is not Phase.DONE:
            self.phase = Phase.ACT
            seen_s = state.now_s - answer.stamp_s
            self.reason = f"command {due + 1} of {len(answer.times_s)}, seen {seen_s:.2f} s ago"
        path = None
        if prediction is not None:
            path = timed(answer.times_s, answer.commands[:, :-1])
        return ToolPlan(
            phase=self.phase, reason=self.reason, poses=None, close=self.closed, path=path
        )

    def _watch(self, answer: Answer) -> None:
        """Judge whether the motion is over."""
        joints = answer.commands[:, :-1]
        most = float(np.ptp(joints, axis=0).max())
        self._moved |= most > self.config.moved_rad
        if most > self.config.rest_rad or not self._moved:
            self._rests_since_s = None
            return
        if self._rests_since_s is None:
            self._rests_since_s = answer.stamp_s
        rest_s = answer.stamp_s - self._rests_since_s
        if rest_s >= self.config.rest_s:
            self.phase = Phase.DONE
            self.reason = f"the expert has asked for no motion for {rest_s:.1f} s"


def _due(answer: Answer, times_s: FloatArray) -> NDArray[np.int64]:
    """Return the number (m,) of the command that is due next at times (m,)."""
    numbers = np.searchsorted(answer.times_s, times_s - 1e-6)
    return np.clip(numbers, 0, len(answer.times_s) - 1)
