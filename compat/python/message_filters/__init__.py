"""Stand-in for message_filters 4.11.2 (Python) where ROS 2 comes from wheels, which lack it.

Offers Subscriber, TimeSynchronizer and ApproximateTimeSynchronizer; not Cache. Names and the rule
by which messages are paired are those of the real package. One thing is better here: a callback
that raises leaves a synchroniser usable, where the real one blocks for ever on the next message.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.clock import ROSClock
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.time import Time

__all__ = ["ApproximateTimeSynchronizer", "SimpleFilter", "Subscriber", "TimeSynchronizer"]


class SimpleFilter:
    """Something that hands on messages to registered callbacks."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable, tuple]] = {}

    def registerCallback(self, cb: Callable, *args: Any) -> int:  # noqa: N802 - upstream's name
        """Call `cb(*messages, *args)` on every output; return the connection's number."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg: Any) -> None:  # noqa: N802 - upstream's name
        """Hand messages on."""
        for cb, args in self.callbacks.values():
            cb(*msg, *args)


class Subscriber(SimpleFilter):
    """A subscription as the source of a chain; keywords are those of `create_subscription`."""

    def __init__(
        self, node: Node, msg_type: Any, topic: str, *, qos_profile: Any = 10, **kwargs: Any
    ) -> None:
        super().__init__()
        self.node = node
        self.topic = topic
        self.sub = node.create_subscription(
            msg_type, topic, self.signalMessage, qos_profile=qos_profile, **kwargs
        )


class TimeSynchronizer(SimpleFilter):
    """Hands on sets of messages, one of each filter, whose stamps are equal.

    Each filter has a queue of `queue_size` messages; when full, the oldest stamp is dropped.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.queues: list[dict[int, Any]] = [{} for _ in fs]
        self._lock = threading.Lock()
        for index, source in enumerate(fs):
            source.registerCallback(self._add, index)

    def _add(self, msg: Any, index: int) -> None:
        stamp_ns = self._stamp_ns(msg)
        if stamp_ns is None:
            return
        with self._lock:
            queue = self.queues[index]
            queue[stamp_ns] = msg
            while len(queue) > self.queue_size:
                del queue[min(queue)]
            for stamps in self._matches(stamp_ns, index):
                self.signalMessage(*(q.pop(s) for q, s in zip(self.queues, stamps, strict=True)))

    def _stamp_ns(self, msg: Any) -> int | None:
        return Time.from_msg(msg.header.stamp).nanoseconds

    def _matches(self, stamp_ns: int, index: int) -> list[tuple[int, ...]]:
        """Return the sets of stamps, one for each queue, to hand on now."""
        common = set(self.queues[0]).intersection(*self.queues[1:])
        return [(stamp,) * len(self.queues) for stamp in sorted(common)]


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Hands on sets of messages whose stamps lie less than `slop` seconds apart.

    A new message is paired at once with those nearest to it: the first combination, by distance
    from it, that spans less than `slop`. With `allow_headerless`, a message without a stamp counts
    with its time of arrival (ROS clock); otherwise it is refused with a warning.
    """

    def __init__(
        self,
        fs: Sequence[SimpleFilter],
        queue_size: int,
        slop: float,
        allow_headerless: bool = False,
    ) -> None:
        super().__init__(fs, queue_size)
        self.slop = Duration(seconds=slop)
        self.allow_headerless = allow_headerless

    def _stamp_ns(self, msg: Any) -> int | None:
        if hasattr(getattr(msg, "header", None), "stamp"):
            return super()._stamp_ns(msg)
        if self.allow_headerless:
            return ROSClock().now().nanoseconds
        get_logger("message_filters_approx").warning(
            f"{type(msg).__name__} has no header.stamp: ignored, because allow_headerless is off"
        )
        return None

    def _matches(self, stamp_ns: int, index: int) -> list[tuple[int, ...]]:
        slop_ns = self.slop.nanoseconds
        candidates = []
        for i, queue in enumerate(self.queues):
            near = [s for s in queue if abs(s - stamp_ns) <= slop_ns]
            candidates.append(
                [stamp_ns] if i == index else sorted(near, key=lambda s: abs(s - stamp_ns))
            )
        for stamps in itertools.product(*candidates):
            if stamp_ns in self.queues[index] and max(stamps) - min(stamps) < slop_ns:
                return [stamps]
        return []
