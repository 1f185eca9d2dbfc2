"""Carry observations and actions of a benchmark between two processes, unchanged.

The benchmark's side publishes the number of an episode and its instruction until the policy's side
repeats them: then the episode has begun. After that each observation, six messages of one stamp,
gets one action of that stamp.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from mu0_core.benchmark import FRONT, WRIST, ActionKind, Observation, PolicySettings
from mu0_core.errors import Mu0Error, ShapeError
from mu0_core.ros.interfaces import Qos
from mu0_core.ros.messages import (
    JointPath,
    camera_from_info,
    camera_info_message,
    depth_from_image,
    image_from_array,
    joint_state_message,
    joint_values_from_message,
    ns_from_stamp,
    rgb_from_image,
    stamp_from_ns,
    trajectory_message,
)
from mu0_sim.libero.drivers import ToolCommands
from mu0_sim.libero.environment import JOINTS, NS_PER_S, RATE_HZ, LiberoEnvironment, gripper_share
from mu0_sim.nodes.child import Child
from mu0_sim.robots import load_robot
from mu0_sim.rollout_processes import Process

INSTRUCTION, ACCEPTED, ACTION = "libero/instruction", "libero/accepted", "libero/action"
OBSERVATION: dict[str, Any] = {
    "camera/color/image_raw": Image,
    "camera/color/camera_info": CameraInfo,
    "camera/aligned_depth_to_color/image_raw": Image,
    "wrist_camera/color/image_raw": Image,
    "wrist_camera/color/camera_info": CameraInfo,
    "joint_states": JointState,
}
"""Topics of an observation and their types."""

ACTION_NAMES = {
    ActionKind.LIBERO: ("x", "y", "z", "rx", "ry", "rz", "gripper"),
    ActionKind.JOINTS: (*JOINTS, "gripper"),
}
"""Names of an action's numbers, as they stand in the message."""

_COLOUR, _INFO, _DEPTH, _WRIST, _WRIST_INFO, _JOINTS = OBSERVATION
_FRAMES = {_COLOUR: "camera_color_optical_frame", _WRIST: "wrist_camera_color_optical_frame"}
_FINGER = load_robot("panda").gripper.joint
_START_TIMEOUT_S = 300.0  # a policy may have a large checkpoint to load
_ANSWER_TIMEOUT_S = 120.0
_REPEAT_S = 0.5
_SPIN_S = 0.02


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


def policy_process(policy: str, settings: PolicySettings) -> Process:
    """Describe the process that runs a policy as a node."""
    values = {
        "policy": policy,
        "checkpoint": str(settings.checkpoint or ""),
        "world_model": settings.world_model,
    }
    words = [w for name, value in values.items() for w in ("-p", f"{name}:={json.dumps(value)}")]
    module = "mu0_sim.nodes.libero_policy_node"
    return Process(name=module, words=("-m", module, "--ros-args", *words), python=True)


class RosDriver:
    """Let a policy in another process act, over topics; a `mu0_sim.libero.drivers.Driver`.

    Args:
        policy: Name of the policy.
        settings: What it is made from.
        domain_id: ROS domain of both processes.
    """

    def __init__(self, policy: str, settings: PolicySettings, *, domain_id: int) -> None:
        self._arm = ToolCommands()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node("libero", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        reliable = Qos.RELIABLE.profile
        self._publishers = {
            topic: self._node.create_publisher(kind, topic, reliable)
            for topic, kind in OBSERVATION.items()
        }
        self._instructions = self._node.create_publisher(String, INSTRUCTION, reliable)
        self._episode, self._accepted, self._answer = 0, "", JointTrajectory()
        self._node.create_subscription(String, ACCEPTED, self._on_accepted, reliable)
        self._node.create_subscription(JointTrajectory, ACTION, self._on_action, reliable)
        self._child = Child(policy_process(policy, settings), domain_id)

    def begin(self, environment: LiberoEnvironment, seed: int) -> None:
        """Send the instruction until the policy has repeated it.

        Raises:
            Mu0Error: It does not, or its process has ended.
        """
        self._episode += 1
        begin = f"{self._episode} {environment.task.instruction}"
        self._answer = JointTrajectory()

        def is_there() -> bool:
            return self._accepted == begin

        def ask() -> None:
            self._instructions.publish(String(data=begin))

        self._wait(is_there, _START_TIMEOUT_S, "did not take the instruction", ask)

    def action(self, environment: LiberoEnvironment) -> NDArray[np.float64]:
        """Publish what is seen now and wait for the answer to it.

        Raises:
            Mu0Error: None comes.
        """
        seen, stamp_ns = environment.observe(), environment.stamp_ns
        for topic, message in observation_messages(seen, environment.finger_m, stamp_ns).items():
            self._publishers[topic].publish(message)

        def is_there() -> bool:
            answer = self._answer
            return bool(answer.points) and ns_from_stamp(answer.header.stamp) == stamp_ns

        self._wait(is_there, _ANSWER_TIMEOUT_S, "did not answer an observation")
        answer, kind = action_from_message(self._answer)
        self._answer = JointTrajectory()
        return self._arm.libero_action(answer, kind, seen.q)

    def note(self) -> str:
        """Return nothing."""
        return ""

    def close(self) -> None:
        """End the policy's process and leave the graph."""
        self._child.__exit__(None, None, None)
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _wait(
        self,
        is_there: Callable[[], bool],
        timeout_s: float,
        failure: str,
        again: Callable[[], None] | None = None,
    ) -> None:
        started_s, asked_s = time.monotonic(), float("-inf")
        while not is_there():
            now_s = time.monotonic()
            if again is not None and now_s - asked_s > _REPEAT_S:
                again()
                asked_s = now_s
            self._executor.spin_once(_SPIN_S)
            if self._child.ended():
                raise Mu0Error("the policy's process has ended; its messages above say why")
            if now_s - started_s > timeout_s:
                raise Mu0Error(f"the policy's process {failure} for {timeout_s:g} s")

    def _on_accepted(self, message: String) -> None:
        self._accepted = message.data

    def _on_action(self, message: JointTrajectory) -> None:
        self._answer = message
