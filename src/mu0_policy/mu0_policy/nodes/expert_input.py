"""Bring features, pictures and joints of one moment to an action expert, and take its answers."""

from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.time import Time
from sensor_msgs.msg import Image
from tf2_ros import Buffer, TransformListener

from mu0_core.errors import Mu0Error, StaleInputError
from mu0_core.ros.inbox import Latest
from mu0_core.ros.interfaces import Qos, create_subscription, interface
from mu0_core.ros.messages import features_from_message, rgb_from_image, seconds_from_stamp
from mu0_msgs.msg import TraceFeatures
from mu0_policy.action_expert.asking import Answer, Asking
from mu0_policy.action_expert.card import ExpertCard, PlacesIn
from mu0_policy.action_expert.follower import ExpertFollower
from mu0_policy.action_expert.policy import Moment
from mu0_policy.action_expert.readiness import features_fault, picture_fault
from mu0_policy.core import PolicyCore
from mu0_policy.nodes.robot_input import tf_pose

_N_KEPT = 20
_SAME_TIME_S = 1e-4
_WAIT_FOR_TF_S = 0.5


class ExpertInput:
    """Hold the newest features until the expert is free, then ask it about their moment.

    Args:
        node: The node that subscribes.
        core: Knows joints and what is being executed.
        asking: The expert.
        follower: Knows what the fingers will do.
        card: What the expert was trained for.
        topics: Image topic of each camera.
        max_features_age_s: How old features may be when the expert is asked.
        oldest_s: How old a camera's picture may be at the time of the features.
        tf: Where the front camera is.
        base_frame: The robot's.
    """

    def __init__(
        self,
        node: Any,
        core: PolicyCore,
        asking: Asking,
        follower: ExpertFollower,
        card: ExpertCard,
        topics: Mapping[str, str],
        max_features_age_s: float,
        oldest_s: float,
        tf: Buffer,
        base_frame: str,
    ) -> None:
        self._core, self._asking, self._follower, self._card = core, asking, follower, card
        self._topics, self._oldest_s = topics, oldest_s
        self._max_age_s = max_features_age_s
        self._newest_s = float("-inf")
        self._inbox: Latest[TraceFeatures] = Latest()
        self._waiting: TraceFeatures | None = None
        self._tf, self._base_frame = tf, base_frame
        if card.places is PlacesIn.TOOL:
            self._listener = TransformListener(tf, node, qos=interface("/tf").qos.profile)
        self._pictures: dict[str, deque[Image]] = {}
        create_subscription(node, "mu0/trace_features", self._inbox.put)
        for camera, topic in topics.items():
            self._pictures[camera] = deque(maxlen=_N_KEPT)
            put = partial(self._on_picture, camera)
            node.create_subscription(Image, topic, put, Qos.SENSOR.profile)

    def forget(self) -> None:
        """Forget what waits, and the answer that is still to come."""
        self._inbox.take()
        self._waiting = None
        self._asking.forget()
        self._newest_s = float("-inf")
        for pictures in self._pictures.values():
            pictures.clear()

    def take(self, instruction: str, now_s: float) -> tuple[Answer | None, str]:
        """Return the newest answer, and ask about the newest moment.

        Args:
            instruction: What features have to be for; empty = anything.
            now_s: Now, on the ROS clock.

        Returns:
            The answer if one has come, and what is wrong; an empty text = nothing.
        """
        answer = None
        try:
            answer = self._asking.take(now_s)
            if answer is not None:
                return answer, ""  # it has to be sent before what will have run is known
            idle = self._core.engaged and not self._asking.busy
            if idle and self._asking.due(now_s, self._core.lead_s):
                return answer, self._ask(instruction, now_s)
        except Mu0Error as error:
            return answer, str(error)
        return answer, ""

    def _ask(self, instruction: str, now_s: float) -> str:
        """Ask about the newest features, if there are any; return what is wrong with them."""
        message = self._inbox.take() or self._waiting
        self._waiting = None
        if message is None:
            return ""
        found = features_from_message(message)
        stamp_s = found.stamp_ns * 1e-9
        if instruction and found.instruction != instruction:
            return f"features are for {found.instruction!r}, the task is {instruction!r}"
        if stamp_s <= self._newest_s:
            return f"features came out of order: {stamp_s:.3f} s after {self._newest_s:.3f} s"
        fault = features_fault(self._card, found.model, found.tensors)
        if fault:
            return fault
        if now_s - stamp_s > self._max_age_s:
            return f"features of an image {now_s - stamp_s:.2f} s old, limit {self._max_age_s:g} s"
        T_base_camera = None
        if self._card.places is PlacesIn.TOOL:
            frame, at = message.header.frame_id, Time.from_msg(message.header.stamp)
            T_base_camera = tf_pose(self._tf, self._base_frame, frame, at)
            if T_base_camera is None and now_s - stamp_s < _WAIT_FOR_TF_S:
                self._waiting = message
                return ""
            if T_base_camera is None:
                return (
                    f"TF: no transform from {frame!r} to {self._base_frame!r} at {stamp_s:.3f} s"
                )
        measured = self._core.measured_at(stamp_s)
        pictures = {camera: self._picture(camera, stamp_s) for camera in self._topics}
        moment = Moment(
            features=found.tensors,
            pictures=pictures,
            q=measured.q,
            gripper=self._core.gripper_share(measured.gripper_q),
            T_base_camera=T_base_camera,
        )
        self._follower.notice(moment.gripper)
        self._asking.ask(moment, stamp_s, now_s, self._core.lead_s, self._commanded)
        self._newest_s = stamp_s
        return ""

    def _commanded(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return joints and gripper's goal as sent so far."""
        joints = self._core.commanded(times_s)
        return np.column_stack([joints, self._follower.goals(times_s)])

    def _on_picture(self, camera: str, message: Image) -> None:
        self._pictures[camera].append(message)

    def _picture(self, camera: str, stamp_s: float) -> NDArray[np.uint8]:
        """Return a camera's newest picture that is not of later than a time.

        Raises:
            StaleInputError: There is none, or it is too old.
            ShapeError: It has another shape than in training.
        """
        topic = self._topics[camera]
        known = [
            (at_s, picture)
            for picture in tuple(self._pictures[camera])
            if (at_s := seconds_from_stamp(picture.header.stamp)) <= stamp_s + _SAME_TIME_S
        ]
        if not known:
            raise StaleInputError(f"{camera} camera: no picture yet; check the topic {topic}")
        at_s, message = known[-1]
        if stamp_s - at_s > self._oldest_s:
            raise StaleInputError(
                f"{camera} camera: its picture is {stamp_s - at_s:.2f} s older than the features, "
                f"limit {self._oldest_s:g} s; check the topic {topic}"
            )
        fault = picture_fault(self._card, camera, message.width, message.height)
        if fault:
            raise StaleInputError(fault)
        return rgb_from_image(message)
