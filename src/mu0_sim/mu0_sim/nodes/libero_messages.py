"""Carry a benchmark's observations and actions in messages, unchanged."""

from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory

from mu0_core.benchmark import FRONT, WRIST, ActionKind, Observation
from mu0_core.errors import Mu0Error, ShapeError
from mu0_core.ros.messages import (
    JointPath,
    camera_from_info,
    camera_info_message,
    depth_from_image,
    image_from_array,
    joint_state_message,
    joint_values_from_message,
    pose_from_transform,
    rgb_from_image,
    stamp_from_ns,
    trajectory_message,
    transform_from_pose,
)
from mu0_sim.libero.environment import JOINTS, NS_PER_S, RATE_HZ, gripper_share
from mu0_sim.robot_model import BASE_LINK
from mu0_sim.robots import load_robot

ACTION = "libero/action"
"""Topic of the answers."""
OBSERVATION: dict[str, Any] = {
    "camera/color/image_raw": Image,
    "camera/color/camera_info": CameraInfo,
    "camera/aligned_depth_to_color/image_raw": Image,
    "wrist_camera/color/image_raw": Image,
    "wrist_camera/color/camera_info": CameraInfo,
    "joint_states": JointState,
    "camera/pose": PoseStamped,
}
"""Topics of an observation and their types."""

ACTION_NAMES = {
    ActionKind.LIBERO: ("x", "y", "z", "rx", "ry", "rz", "gripper"),
    ActionKind.JOINTS: (*JOINTS, "gripper"),
}
"""Names of an action's numbers, as they stand in the message."""

_COLOUR, _INFO, _DEPTH, _WRIST, _WRIST_INFO, _JOINTS, _POSE = OBSERVATION
_FRAMES = {_COLOUR: "camera_color_optical_frame", _WRIST: "wrist_camera_color_optical_frame"}
_FINGER = load_robot("panda").gripper.joint


def observation_messages(seen: Observation, finger_m: float, stamp_ns: int) -> dict[str, Any]:
    """Return the messages of an observation by topic."""
    stamp = stamp_from_ns(stamp_ns)
    front, wrist = _FRAMES[_COLOUR], _FRAMES[_WRIST]
    joints = (*seen.joints, _FINGER)
    if seen.wrist_camera is None:
        raise ShapeError("observation: the intrinsics of the wrist camera are missing")
    return {
        _COLOUR: image_from_array(seen.pictures[FRONT], "rgb8", stamp=stamp, frame_id=front),
        _INFO: camera_info_message(seen.camera, stamp=stamp, frame_id=front),
        _DEPTH: image_from_array(seen.depth_m, "32FC1", stamp=stamp, frame_id=front),
        _WRIST: image_from_array(seen.pictures[WRIST], "rgb8", stamp=stamp, frame_id=wrist),
        _WRIST_INFO: camera_info_message(seen.wrist_camera, stamp=stamp, frame_id=wrist),
        _JOINTS: joint_state_message(joints, np.append(seen.q, finger_m), stamp=stamp),
        _POSE: PoseStamped(
            header=Header(stamp=stamp, frame_id=BASE_LINK),
            pose=pose_from_transform(seen.T_base_camera),
        ),
    }


class ObservationInbox:
    """Put the messages of an observation together again."""

    def __init__(self) -> None:
        self._messages: dict[str, Any] = {}

    def put(self, topic: str, message: Any) -> Observation | None:
        """Take a message; return the observation if it was the last one that was missing."""
        stamp = message.header.stamp
        self._messages = {t: m for t, m in self._messages.items() if m.header.stamp == stamp}
        self._messages[topic] = message
        if len(self._messages) < len(OBSERVATION):
            return None
        found, self._messages = self._messages, {}
        joints = joint_values_from_message(found[_JOINTS], (*JOINTS, _FINGER))
        return Observation(
            pictures={FRONT: rgb_from_image(found[_COLOUR]), WRIST: rgb_from_image(found[_WRIST])},
            depth_m=depth_from_image(found[_DEPTH]),
            camera=camera_from_info(found[_INFO]),
            T_base_camera=transform_from_pose(found[_POSE].pose),
            q=joints.q[:-1],
            gripper=gripper_share(float(joints.q[-1])),
            joints=JOINTS,
            rate_hz=RATE_HZ,
            time_s=joints.stamp_ns / NS_PER_S,
            wrist_camera=camera_from_info(found[_WRIST_INFO]),
        )


def action_message(
    answer: NDArray[np.float64], kind: ActionKind, stamp_ns: int
) -> JointTrajectory:
    """Return an answer as a message, with the stamp of what it answers."""
    path = JointPath(start_ns=stamp_ns, t_s=np.zeros(1), q=np.asarray(answer, np.float64)[None])
    return trajectory_message(ACTION_NAMES[kind], path)


def action_from_message(message: JointTrajectory) -> tuple[NDArray[np.float64], ActionKind]:
    """Return the answer in a message, and what its numbers are.

    Raises:
        Mu0Error: They have other names than those of any kind.
    """
    names = tuple(message.joint_names)
    for kind, known in ACTION_NAMES.items():
        if names == known:
            return np.array(message.points[0].positions, np.float64), kind
    raise Mu0Error(f"{ACTION}: its numbers are called {', '.join(names)}, which is no action here")
