"""Take predicted traces from the graph and bring the newest ones to the robot's base frame."""

from typing import Any

from rclpy.time import Time
from tf2_ros import Buffer, TransformListener

from mu0_core.errors import Mu0Error
from mu0_core.ros.inbox import Latest
from mu0_core.ros.interfaces import create_subscription, interface
from mu0_core.ros.messages import seconds_from_stamp, traces_from_message
from mu0_msgs.msg import TraceArray
from mu0_policy.core import PolicyCore
from mu0_policy.nodes.robot_input import tf_pose
from mu0_policy.readiness import TracesConfig
from mu0_policy.trace_motions import Prediction

_WAIT_FOR_TF_S = 0.5


class TraceInput:
    """Hold the newest traces until TF and joint states of their time are there."""

    def __init__(
        self, node: Any, tf: Buffer, core: PolicyCore, base_frame: str, promised: TracesConfig
    ) -> None:
        self._tf, self._core, self._base_frame, self._promised = tf, core, base_frame, promised
        self._inbox: Latest[TraceArray] = Latest()
        self._waiting: TraceArray | None = None
        self._newest_s = float("-inf")
        # A queue as long as the library's would be seconds behind where callbacks are late.
        self._listener = TransformListener(tf, node, qos=interface("/tf").qos.profile)
        create_subscription(node, "mu0/traces", self._inbox.put, newest=True)

    def forget(self) -> None:
        """Forget what waits, and what was seen: a new task begins, or the clock jumped."""
        self._inbox.take()
        self._waiting, self._newest_s = None, float("-inf")

    def take(self, instruction: str, now_s: float) -> tuple[Prediction | None, str]:
        """Return the newest prediction, and what is wrong with it.

        Args:
            instruction: What it has to be for; empty = anything.
            now_s: Now, on the ROS clock.

        Returns:
            None and an empty text mean that there is nothing new.
        """
        message = self._inbox.take() or self._waiting
        self._waiting = None
        if message is None:
            return None, ""
        stamp_s = seconds_from_stamp(message.header.stamp)
        if instruction and message.instruction != instruction:
            return None, f"traces are for {message.instruction!r}, the task is {instruction!r}"
        if stamp_s <= self._newest_s:
            return None, f"traces came out of order: {stamp_s:.3f} s after {self._newest_s:.3f} s"
        frame = message.header.frame_id
        T_base_camera = tf_pose(
            self._tf, self._base_frame, frame, Time.from_msg(message.header.stamp)
        )
        if T_base_camera is None:
            if now_s - stamp_s < _WAIT_FOR_TF_S:
                self._waiting = message
                return None, ""
            return (
                None,
                f"TF: no transform from {frame!r} to {self._base_frame!r} at {stamp_s:.3f} s",
            )
        try:
            traces = traces_from_message(message)
            self._promised.check(traces)
            prediction = self._core.read(traces, T_base_camera)
        except Mu0Error as error:
            return None, str(error)
        self._newest_s = stamp_s
        return prediction, ""
