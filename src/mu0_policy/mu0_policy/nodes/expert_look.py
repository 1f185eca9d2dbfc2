"""Look at joint states and cameras before an action expert is accepted."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image, JointState
from tf2_ros import Buffer, TransformListener

from mu0_core.embodiment import Embodiment
from mu0_core.ros.interfaces import Qos, create_subscription
from mu0_core.ros.messages import seconds_from_stamp
from mu0_policy.action_expert.card import ExpertCard
from mu0_policy.action_expert.readiness import Stream
from mu0_policy.camera_places import Mount
from mu0_policy.demonstrations.demonstration import FRONT
from mu0_policy.nodes.robot_input import tf_pose

_SPIN_S = 0.05
_FRONT_INFO = "camera/color/camera_info"
_ENOUGH = 5
_LEAST_S = 0.5  # intrinsics come beside the pictures, or not at all
_TF_S = 5.0  # so do frames, but what listens to them has to be found first


def look(
    node: Node,
    topics: Mapping[str, str],
    card: ExpertCard,
    embodiment: Embodiment,
    timeout_s: float,
) -> tuple[Stream, dict[str, Stream]]:
    """Look until enough has come of everything, or the time is over.

    Args:
        node: The node under configuration, which is not being spun: another one looks.
        topics: Image topics of the expert's own cameras, by name.
        card: Says what there is to be compared: the front camera too, places of cameras.
        embodiment: Names the frames of base and tool.
        timeout_s: How long to look at most.

    Returns:
        Joint states, and cameras by name with FRONT among them if it was looked at.
    """
    probe = rclpy.create_node(
        f"{node.get_name()}_looking", context=node.context, namespace=node.get_namespace()
    )
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(probe)
    states = Stream(probe.resolve_topic_name("joint_states"))
    cameras: dict[str, Stream] = {}
    create_subscription(probe, "joint_states", partial(_on_joints, states, set(card.joints)))
    if card.front_size:
        cameras[FRONT] = Stream(probe.resolve_topic_name(_FRONT_INFO))
        create_subscription(probe, _FRONT_INFO, partial(_on_info, cameras[FRONT], stamps=True))
    for name, topic in topics.items():
        stream = cameras[name] = Stream(probe.resolve_topic_name(topic))
        info = f"{topic.rpartition('/')[0]}/camera_info"
        for kind, where, take in (
            (Image, topic, _on_picture),
            (CameraInfo, info, _on_info),
        ):
            callback: Callable[[Any], None] = partial(take, stream)
            probe.create_subscription(kind, where, callback, Qos.SENSOR.profile)
    buffer = Buffer(node=probe)
    TransformListener(buffer, probe)
    started_s = time.monotonic()
    try:
        while (waited_s := time.monotonic() - started_s) < timeout_s:
            executor.spin_once(timeout_sec=_SPIN_S)
            placed = _placed(card, cameras, buffer, embodiment)
            enough = all(len(s.stamps_s) >= _ENOUGH for s in (states, *cameras.values()))
            if enough and waited_s >= min(_LEAST_S if placed else _TF_S, timeout_s):
                break
    finally:
        executor.shutdown()
        probe.destroy_node()
    return states, cameras


def _placed(
    card: ExpertCard, cameras: Mapping[str, Stream], buffer: Buffer, embodiment: Embodiment
) -> bool:
    """Ask TF where cameras are whose places the card tells; return whether all are known."""
    frames = {Mount.BASE: embodiment.base_frame, Mount.TOOL: embodiment.tool_frame}
    missing = False
    for name, stream in cameras.items():
        place = card.place(name)
        if place is not None:
            if stream.frame:
                found = tf_pose(buffer, frames[place.mount], stream.frame, Time())
                stream.T_mount_camera = found
            missing |= stream.T_mount_camera is None
    return not missing


def _on_joints(stream: Stream, joints: set[str], message: JointState) -> None:
    if joints & set(message.name):
        stream.stamps_s.append(seconds_from_stamp(message.header.stamp))


def _on_picture(stream: Stream, message: Image) -> None:
    stream.stamps_s.append(seconds_from_stamp(message.header.stamp))
    stream.size = message.width, message.height
    stream.frame = message.header.frame_id


def _on_info(stream: Stream, message: CameraInfo, *, stamps: bool = False) -> None:
    if stamps:
        stream.stamps_s.append(seconds_from_stamp(message.header.stamp))
        stream.size = message.width, message.height
        stream.frame = message.header.frame_id
    if message.height:
        stream.focal_length = message.k[4] / message.height
