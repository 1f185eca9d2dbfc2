"""Own the one-slot inbox between a callback and the worker that may be slower than it."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Hold the newest item only, and count the ones that were replaced before anybody took them.

    Any thread may put and take.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: T | None = None
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Number of items that were never taken."""
        return self._dropped

    def put(self, item: T) -> None:
        """Leave an item, in place of one that still waits."""
        with self._condition:
            self._dropped += self._item is not None
            self._item = item
            self._condition.notify()

    def take(self, timeout_s: float = 0.0) -> T | None:
        """Take the item away.

        Args:
            timeout_s: How long to wait for one, s of wall clock.

        Returns:
            The newest item, or None if there is none.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._item is not None, timeout_s)
            item, self._item = self._item, None
            return item
