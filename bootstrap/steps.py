"""Steps that run once: a stamp with a fingerprint of their inputs says that they are done."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bootstrap.report import say, timed


@dataclass(frozen=True)
class Step:
    """One part of the set-up.

    Attributes:
        name: File name of the stamp.
        title: What the user reads while it runs, with the size where it is a download.
        inputs: Everything the result depends on; another value makes the step run again.
        run: Does the work; must be safe to repeat after an interruption.
    """

    name: str
    title: str
    inputs: str
    run: Callable[[], object]

    @property
    def fingerprint(self) -> str:
        """Digest of the inputs."""
        return hashlib.sha256(self.inputs.encode()).hexdigest()


def run_steps(steps: list[Step], state: Path) -> int:
    """Run the steps that are not done yet, in order; returns how many ran.

    A step that runs makes those after it run too, since they build on it.
    """
    ran = 0
    for number, step in enumerate(steps, start=1):
        stamp = state / step.name
        if not ran and stamp.is_file() and stamp.read_text() == step.fingerprint:
            continue
        stamp.unlink(missing_ok=True)
        with timed(f"[{number}/{len(steps)}] {step.title}"):
            step.run()
        state.mkdir(parents=True, exist_ok=True)
        stamp.write_text(step.fingerprint)
        ran += 1
    return ran


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let one set-up run at a time; a second one waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of this checkout is running: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
