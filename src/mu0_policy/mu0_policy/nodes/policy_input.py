"""Own what a policy node expects of where its policy's input comes from."""

from typing import Protocol

from mu0_policy.core import Stamped


class PolicyInput(Protocol):
    """Take what a policy decides from out of the graph."""

    def forget(self) -> None:
        """Forget what waits: a new task begins, or the clock jumped."""

    def take(self, instruction: str, now_s: float) -> tuple[Stamped | None, str]:
        """Return what is new for an instruction (empty = any), and what is wrong with it."""
