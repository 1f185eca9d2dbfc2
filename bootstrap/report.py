"""Progress on the terminal, and the one error type that stops a set-up."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class SetupError(Exception):
    """Something the user has to mend; the text says what and how."""


def say(text: str) -> None:
    """Write one line of progress; standard output stays free for the command that is run."""
    sys.stderr.write(f"mu0: {text}\n")
    sys.stderr.flush()


@contextmanager
def timed(title: str) -> Iterator[None]:
    """Say that a long step begins, and how long it took."""
    say(f"{title} ...")
    start = time.monotonic()
    yield
    say(f"{title}: done in {time.monotonic() - start:.0f} s")


def megabytes(count: float) -> str:
    """Format a number of bytes, e.g. 64 MB or 2.1 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
