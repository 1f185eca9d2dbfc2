"""Own the executor that runs a node's callbacks in several threads and lets no failure pass.

rclpy's looks at what a callback raised only when it starts the next one. A message that cannot be
taken leaves its callback group occupied for ever; where the node's callbacks are all of that
group, none is started again, and the node would stand still without a word.
"""

from typing import Any

from rclpy.exceptions import InvalidHandle
from rclpy.executors import MultiThreadedExecutor, TimeoutException

_LOOK_PERIOD_S = 0.1


class WatchedExecutor(MultiThreadedExecutor):
    """Run callbacks in threads, and raise what one of them raised within 0.1 s.

    Other threads may destroy entities meanwhile, as transitions do; that costs one turn.
    """

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Start one callback that is ready, and raise what earlier ones raised.

        Args:
            timeout_sec: How long to wait for one, s; None: 0.1 s, so that failures are seen.
        """
        super().spin_once(_LOOK_PERIOD_S if timeout_sec is None else timeout_sec)
        for task in self._futures[:]:
            if task.done():
                self._futures.remove(task)
                task.result()

    def wait_for_ready_callbacks(self, *arguments: Any, **options: Any) -> Any:
        """Return the next callback, or time out where what was waited for is gone."""
        try:
            return super().wait_for_ready_callbacks(*arguments, **options)
        except InvalidHandle as error:
            raise TimeoutException from error
