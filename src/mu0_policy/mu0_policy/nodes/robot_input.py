"""Hear what the graph says of the robot: all of it at configure, then its joints."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from tf2_ros import Buffer, TransformException, TransformListener

from mu0_core.embodiment import DescriptionSource, Embodiment
from mu0_core.ros.interfaces import create_subscription
from mu0_core.ros.messages import joint_values_from_message, transform_from_message
from mu0_policy.core import Measured

_SPIN_S = 0.05


@dataclass(slots=True)
class Heard:
    """Hold what has been heard; None for what has not.

    Attributes:
        description: Text of robot_description.
        joints: Newest joint state.
        T_base_tool: (4, 4) newest pose of the tool from TF.
    """

    description: str | None = None
    joints: JointState | None = None
    T_base_tool: NDArray[np.float64] | None = None


def listen(node: Node, embodiment: Embodiment, timeout_s: float) -> Heard:
    """Listen until description, joint states and TF have come, or the time is over.

    A node of its own hears them, since the node under configuration is not being spun.
    """
    heard = Heard()
    probe = rclpy.create_node(
        f"{node.get_name()}_configuring", context=node.context, namespace=node.get_namespace()
    )
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(probe)
    try:
        _fill(heard, probe, executor, embodiment, time.monotonic() + timeout_s)
    finally:
        executor.shutdown()
        probe.destroy_node()
    return heard


def _fill(
    heard: Heard, probe: Node, executor: Any, embodiment: Embodiment, deadline_s: float
) -> None:
    def on_description(message: String) -> None:
        heard.description = message.data

    def on_joints(message: JointState) -> None:
        if set(embodiment.arm.joints) & set(message.name):
            heard.joints = message

    create_subscription(probe, "robot_description", on_description)
    create_subscription(probe, "joint_states", on_joints)
    buffer = Buffer(node=probe)
    TransformListener(buffer, probe)
    by_topic = embodiment.description.source is DescriptionSource.TOPIC
    while time.monotonic() < deadline_s:
        executor.spin_once(timeout_sec=_SPIN_S)
        heard.T_base_tool = tf_pose(buffer, embodiment.base_frame, embodiment.tool_frame, Time())
        described = heard.description is not None or not by_topic
        if described and heard.joints is not None and heard.T_base_tool is not None:
            return


def measured_from_message(message: JointState, embodiment: Embodiment) -> Measured | None:
    """Return arm and gripper of a joint state, None if it is of other joints.

    Raises:
        ShapeError: Some of the joints are missing, or the arrays do not fit.
    """
    arm, gripper = embodiment.arm.joints, embodiment.gripper.joints
    if not set(arm) & set(message.name):
        return None
    values = joint_values_from_message(message, (*arm, *gripper))
    n, q = len(arm), values.q
    qd = np.zeros_like(q) if values.qd is None else values.qd
    stamp_s = values.stamp_ns * 1e-9
    return Measured(stamp_s=stamp_s, q=q[:n], qd=qd[:n], gripper_q=q[n:], gripper_qd=qd[n:])


def tf_pose(buffer: Buffer, parent: str, child: str, stamp: Time) -> NDArray[np.float64] | None:
    """Return T_parent_child (4, 4) from TF, None where it is not known."""
    try:
        found = buffer.lookup_transform(parent, child, stamp)
    except TransformException:
        return None
    return transform_from_message(found.transform)
