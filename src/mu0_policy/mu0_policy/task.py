"""Own what a task is: an instruction that the arm is engaged for, until it ends for a reason."""

import threading
from dataclasses import dataclass, field

from mu0_policy.core import End, PolicyCore


@dataclass(slots=True)
class Task:
    """Hold one task; any thread may wait for its end.

    Attributes:
        instruction: What traces must be for; empty = any.
        started_s: On the clock of the core.
        deadline_s: When it has to be done, None = never.
        end: Why it ended, None while it runs.
        message: That in words.
        ended: Set when it ends.
    """

    instruction: str
    started_s: float
    deadline_s: float | None
    end: End | None = None
    message: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    def finish(self, end: End, message: str) -> None:
        """End the task; the first end counts."""
        if self.end is None:
            self.end, self.message = end, message
            self.ended.set()

    def judge(self, core: PolicyCore, now_s: float) -> None:
        """End the task if it is done, too late, or stopped by a fault."""
        if core.ended is not None:
            self.finish(core.ended, core.safety.latched or core.policy.reason)
        elif self.deadline_s is not None and now_s > self.deadline_s:
            doing = core.hold or core.policy.reason
            self.finish(End.TIMEOUT, f"not done after {now_s - self.started_s:.1f} s: {doing}")
