"""The buffer of transforms that nodes ask."""

import threading
import time as wall_time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.time import Time

from .exceptions import TransformException
from .frame_tree import FrameTree, Pose


def _nanoseconds(time: Any) -> int:
    """Read rclpy's Time and Duration and their messages."""
    if hasattr(time, "nanoseconds"):
        return int(time.nanoseconds)
    if hasattr(time, "sec") and hasattr(time, "nanosec"):
        return int(time.sec * 1_000_000_000 + time.nanosec)
    raise TypeError(f"time must have sec and nanosec, or nanoseconds; got {type(time).__name__}")


class Buffer:
    """Transforms of the last `cache_time` (10 s), safe to use from several threads.

    Waiting blocks the calling thread: with a single-threaded executor no transform arrives
    meanwhile and the timeout runs out, as with the real class.
    """

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        self._tree = FrameTree(_nanoseconds(cache_time or Duration(seconds=10)))
        self._changed = threading.Condition()
        self._logger = get_logger("tf2_buffer")
        if node is not None:
            # A second's tolerance, and a switch between wall and simulated time, as in tf2.
            threshold = JumpThreshold(
                min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True
            )
            self._jump_handle = node.get_clock().create_jump_callback(
                threshold, post_callback=self._on_time_jump
            )

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Store a moving transform; an unusable one is logged and ignored."""
        self._insert(transform, authority, static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Store a transform that holds at every time; an unusable one is logged and ignored."""
        self._insert(transform, authority, static=True)

    def clear(self) -> None:
        """Forget every moving transform."""
        self._tree.clear()

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Any,
        timeout: Any = Duration(),  # noqa: B008 - an immutable zero
    ) -> TransformStamped:
        """Return the pose of `source_frame` in `target_frame`; time 0 means the latest."""
        self.can_transform(target_frame, source_frame, time, timeout)
        found = self._tree.lookup(target_frame, source_frame, _nanoseconds(time))
        return _to_message(target_frame, source_frame, *found)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Any,
        source_frame: str,
        source_time: Any,
        fixed_frame: str,
        timeout: Any = Duration(),  # noqa: B008 - an immutable zero
    ) -> TransformStamped:
        """Return source at `source_time` in target at `target_time`, via a frame that stays."""
        self._wait(
            lambda: self._full(target_frame, target_time, source_frame, source_time, fixed_frame),
            timeout,
        )
        found = self._full(target_frame, target_time, source_frame, source_time, fixed_frame)
        return _to_message(target_frame, source_frame, *found)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Any,
        timeout: Any = Duration(),  # noqa: B008 - an immutable zero
        return_debug_tuple: bool = False,
    ) -> Any:
        """Tell whether the lookup would succeed within `timeout`; optionally (answer, reason)."""
        stamp_ns = _nanoseconds(time)
        error = self._wait(
            lambda: self._tree.lookup(target_frame, source_frame, stamp_ns), timeout
        )
        return (error is None, str(error or "")) if return_debug_tuple else error is None

    def _full(
        self, target: str, target_time: Any, source: str, source_time: Any, fixed: str
    ) -> tuple[int, Pose]:
        self._tree.check_names(target_frame=target, source_frame=source, fixed_frame=fixed)
        _, in_fixed = self._tree.lookup(fixed, source, _nanoseconds(source_time))
        stamp_ns, from_fixed = self._tree.lookup(target, fixed, _nanoseconds(target_time))
        return stamp_ns, from_fixed @ in_fixed

    def _wait(self, lookup: Callable[[], Any], timeout: Any) -> TransformException | None:
        """Try until it succeeds or `timeout` has passed; return the last error, if any."""
        deadline = wall_time.monotonic() + _nanoseconds(timeout) * 1e-9
        with self._changed:
            while True:
                try:
                    lookup()
                except TransformException as error:
                    left = deadline - wall_time.monotonic()
                    if left <= 0.0:
                        return error
                    self._changed.wait(left)
                else:
                    return None

    def _insert(self, transform: TransformStamped, authority: str, *, static: bool) -> None:
        t, q = transform.transform.translation, transform.transform.rotation
        try:
            self._tree.insert(
                transform.child_frame_id,
                transform.header.frame_id,
                _nanoseconds(transform.header.stamp),
                Pose((t.x, t.y, t.z), (q.x, q.y, q.z, q.w)),
                static=static,
            )
        except ValueError as error:
            self._logger.warning(f"Ignoring a transform from authority '{authority}': {error}")
            return
        with self._changed:
            self._changed.notify_all()

    def _on_time_jump(self, jump: TimeJump) -> None:
        self._logger.warning("Time jumped back or changed its source. Clearing the tf buffer.")
        self.clear()


def _to_message(target: str, source: str, stamp_ns: int, pose: Pose) -> TransformStamped:
    message = TransformStamped(child_frame_id=source)
    message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
    message.header.frame_id = target
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = pose.xyz
    q.x, q.y, q.z, q.w = pose.quat_xyzw
    return message
