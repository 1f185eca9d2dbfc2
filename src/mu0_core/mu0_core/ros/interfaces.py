"""Own the table of public topics and services: name, type, QoS, rate and frame, as data.

Nodes make their publishers and subscriptions from it, the documentation prints it and a test
compares it with the running graph. A new interface is one more row.
"""

import importlib
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.client import Client
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_profile_sensor_data,
)
from rclpy.service import Service
from rclpy.subscription import Subscription

from mu0_core.errors import ConfigError, unknown_name_message

OPTICAL_FRAME = "camera_color_optical_frame"
WRIST_FRAME = "wrist_camera_color_optical_frame"


class Qos(Enum):
    """Name the quality-of-service profiles in use."""

    SENSOR = "sensor data"
    """Best effort, newest five: images, where a late one is worth nothing."""
    RELIABLE = "reliable"
    """Reliable, newest ten: commands, states and results."""
    LATCHED = "latched"
    """Reliable and kept for late joiners, newest one: descriptions and settings."""

    @property
    def profile(self) -> QoSProfile:
        """Return the profile as rclpy takes it."""
        if self is Qos.SENSOR:
            return qos_profile_sensor_data
        if self is Qos.RELIABLE:
            return QoSProfile(depth=10, reliability=QoSReliabilityPolicy.RELIABLE)
        return QoSProfile(
            depth=1,
            reliability=QoSReliabilityPolicy.RELIABLE,
            durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
        )


class Role(Enum):
    """Say which end of an interface its owner is."""

    PUBLISHES = "publishes"
    SUBSCRIBES = "subscribes"
    SERVES = "serves"
    ACTS = "acts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """Describe one public topic, service or action.

    Attributes:
        name: Relative, so that it follows the node's namespace; absolute where ROS fixes it.
        type_name: As `ros2 topic list -t` prints it.
        owner: Name of the node that the interface belongs to; "every node" for all.
        role: What the owner does.
        qos: Named profile.
        rate: How often, in words.
        frame: header.frame_id, empty where there is none.
        meaning: One line, with units.
    """

    name: str
    type_name: str
    owner: str
    role: Role
    meaning: str
    qos: Qos = Qos.RELIABLE
    rate: str = "on request"
    frame: str = ""

    @property
    def message_type(self) -> Any:
        """Import the type on first use."""
        package, kind, name = self.type_name.split("/")
        return getattr(importlib.import_module(f"{package}.{kind}"), name)


def _published(name: str, type_name: str, owner: str, **details: Any) -> Interface:
    return Interface(name=name, type_name=type_name, owner=owner, role=Role.PUBLISHES, **details)


def _camera_topics(owner: str) -> list[Interface]:
    camera: dict[str, Any] = {
        "owner": owner,
        "qos": Qos.SENSOR,
        "rate": "camera rate",
        "frame": OPTICAL_FRAME,
    }
    image, info = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
    depth = "camera/aligned_depth_to_color"
    return [
        _published("camera/color/image_raw", image, meaning="Colour, rgb8", **camera),
        _published("camera/color/camera_info", info, meaning="Its intrinsics, px", **camera),
        _published(
            f"{depth}/image_raw",
            image,
            meaning="Depth on the colour image's pixels, 16UC1 mm, 0 = none",
            **camera,
        ),
        _published(f"{depth}/camera_info", info, meaning="Its intrinsics, px", **camera),
    ]


def _command_topics(owner: str) -> list[Interface]:
    return [
        Interface(
            name=f"{part}_controller/joint_trajectory",
            type_name="trajectory_msgs/msg/JointTrajectory",
            owner=owner,
            role=Role.SUBSCRIBES,
            rate="on command",
            meaning=f"Positions of the {part}'s joints over time, rad or m; replaces what runs",
        )
        for part in ("arm", "gripper")
    ]


def _simulator_interfaces() -> list[Interface]:
    sim = "sim"
    return [
        _published(
            "wrist_camera/color/image_raw",
            "sensor_msgs/msg/Image",
            sim,
            qos=Qos.SENSOR,
            rate="camera rate",
            frame=WRIST_FRAME,
            meaning="Colour of the camera on the hand, rgb8; only while somebody subscribes",
        ),
        _published(
            "wrist_camera/color/camera_info",
            "sensor_msgs/msg/CameraInfo",
            sim,
            qos=Qos.SENSOR,
            rate="camera rate",
            frame=WRIST_FRAME,
            meaning="Its intrinsics, px; with the pictures",
        ),
        _published(
            "joint_states",
            "sensor_msgs/msg/JointState",
            sim,
            rate="state rate",
            meaning="Measured joints, rad or m, rad/s, N m",
        ),
        _published(
            "robot_description",
            "std_msgs/msg/String",
            sim,
            qos=Qos.LATCHED,
            rate="on activation",
            meaning="URDF of the robot",
        ),
        _published(
            "/tf",
            "tf2_msgs/msg/TFMessage",
            sim,
            rate="state rate",
            meaning="Transforms of the robot's moving links",
        ),
        _published(
            "/tf_static",
            "tf2_msgs/msg/TFMessage",
            sim,
            qos=Qos.LATCHED,
            rate="on change",
            meaning="Transforms of fixed links and of the camera",
        ),
        _published(
            "/clock",
            "rosgraph_msgs/msg/Clock",
            sim,
            rate="state rate",
            meaning="Simulated time; starts at 1 s and never goes back",
        ),
        _published(
            "sim/success",
            "std_msgs/msg/Bool",
            sim,
            rate="camera rate",
            meaning="Whether the task is done; for scoring only, no other node may read it",
        ),
        _published(
            "sim/poses",
            "tf2_msgs/msg/TFMessage",
            sim,
            rate="camera rate",
            frame="world",
            meaning="Poses of objects and tool, m; for scoring only, no other node may read it",
        ),
        _published(
            "sim/arm_motion",
            "trajectory_msgs/msg/JointTrajectory",
            sim,
            rate="command rate",
            meaning="What the arm's controller follows from the stamp on, rad; for scoring only",
        ),
        _published(
            "sim/real_time_factor",
            "std_msgs/msg/Float32",
            sim,
            rate="1 Hz",
            meaning="Simulated seconds in one second of wall clock",
        ),
        Interface(
            name="sim/reset",
            type_name="mu0_msgs/srv/ResetSimulation",
            owner=sim,
            role=Role.SERVES,
            meaning="Start a new episode from a task and a seed",
        ),
        Interface(
            name="sim/pause",
            type_name="std_srvs/srv/SetBool",
            owner=sim,
            role=Role.SERVES,
            meaning="Hold simulated time, or let it go on",
        ),
    ]


def _perception_topics() -> list[Interface]:
    tracker: dict[str, Any] = {
        "owner": "keypoint_tracker",
        "rate": "camera rate",
        "frame": OPTICAL_FRAME,
    }
    return [
        _published(
            "mu0/keypoints",
            "mu0_msgs/msg/KeypointArray",
            meaning="Tracked keypoints with their history, px and m",
            **tracker,
        ),
        _published(
            "mu0/points",
            "sensor_msgs/msg/PointCloud2",
            qos=Qos.SENSOR,
            meaning="The scene as a thinned coloured cloud, m; only while somebody subscribes",
            **tracker,
        ),
        Interface(
            name="mu0/mask",
            type_name="sensor_msgs/msg/Image",
            owner="keypoint_tracker",
            role=Role.SUBSCRIBES,
            frame=OPTICAL_FRAME,
            meaning="Region of the picture that gets keypoints, mono8, not 0 = inside",
        ),
        Interface(
            name="/clicked_point",
            type_name="geometry_msgs/msg/PointStamped",
            owner="keypoint_tracker",
            role=Role.SUBSCRIBES,
            meaning="Point that gets a keypoint, m, in any frame TF knows; RViz publishes it",
        ),
    ]


def _world_model_interfaces() -> list[Interface]:
    model = "world_model"
    predicted: dict[str, Any] = {
        "owner": model,
        "rate": "prediction rate",
        "frame": OPTICAL_FRAME,
    }
    return [
        Interface(
            name="mu0/instruction",
            type_name="std_msgs/msg/String",
            owner=model,
            role=Role.SUBSCRIBES,
            qos=Qos.LATCHED,
            rate="on change",
            meaning="What is to be done, in words; changes what is predicted, moves nothing",
        ),
        _published(
            "mu0/traces",
            "mu0_msgs/msg/TraceArray",
            meaning="Predicted traces of the keypoints, m; a step-locked simulator waits for them",
            **predicted,
        ),
        _published(
            "mu0/trace_features",
            "mu0_msgs/msg/TraceFeatures",
            meaning="Hidden states for action experts, float16; only while somebody subscribes",
            **predicted,
        ),
        _published(
            "mu0/markers",
            "visualization_msgs/msg/MarkerArray",
            meaning="The traces for RViz and Foxglove, m; only while somebody subscribes",
            **predicted,
        ),
        _published(
            "mu0/overlay",
            "sensor_msgs/msg/Image",
            qos=Qos.SENSOR,
            meaning="The picture with the traces drawn, rgb8; only while somebody subscribes",
            **predicted,
        ),
        Interface(
            name="mu0/predict_traces",
            type_name="mu0_msgs/srv/PredictTraces",
            owner=model,
            role=Role.SERVES,
            meaning="Predict traces from one given picture, for tools and scripts",
        ),
    ]


def _policy_interfaces() -> list[Interface]:
    policy = "policy"
    services = {
        "start": "Let the arm follow the traces, whatever their instruction",
        "stop": "Hold until resume; a running task waits",
        "resume": "End a stop",
        "clear_fault": "Forget a latched fault; nothing moves before the next start",
    }
    return [
        _published(
            "policy/display_trajectory",
            "trajectory_msgs/msg/JointTrajectory",
            policy,
            rate="command rate",
            meaning="What is sent to the arm, or would be in a dry run, rad; moves nothing",
        ),
        Interface(
            name="mu0/execute",
            type_name="mu0_msgs/action/ExecuteInstruction",
            owner=policy,
            role=Role.ACTS,
            meaning="Do what an instruction says; the arm moves only while a goal is active",
        ),
        *(
            Interface(
                name=f"policy/{name}",
                type_name="std_srvs/srv/Trigger",
                owner=policy,
                role=Role.SERVES,
                meaning=meaning,
            )
            for name, meaning in services.items()
        ),
    ]


INTERFACES: dict[str, Interface] = {
    interface.name: interface
    for interface in [
        *_camera_topics("sim"),
        *_command_topics("sim"),
        *_simulator_interfaces(),
        *_perception_topics(),
        *_world_model_interfaces(),
        *_policy_interfaces(),
        _published(
            "/diagnostics",
            "diagnostic_msgs/msg/DiagnosticArray",
            "every node",
            rate="1 Hz",
            meaning="Level, sentence and figures of each node",
        ),
    ]
}


def interface(name: str) -> Interface:
    """Look up a row of the table.

    Raises:
        ConfigError: There is no such row; the message lists the known ones and the nearest.
    """
    if name not in INTERFACES:
        raise ConfigError(unknown_name_message("interface", name, INTERFACES))
    return INTERFACES[name]


def create_publisher(node: Node, name: str) -> Publisher:
    """Make a publisher for a topic of the table; a lifecycle node's is mute until active."""
    row = interface(name)
    create = (
        node.create_lifecycle_publisher
        if isinstance(node, LifecycleNode)
        else node.create_publisher
    )
    return create(row.message_type, row.name, row.qos.profile)


def create_subscription(
    node: Node,
    name: str,
    callback: Callable[[Any], None],
    *,
    callback_group: CallbackGroup | None = None,
    newest: bool = False,
) -> Subscription:
    """Subscribe to a topic of the table.

    Args:
        node: The node that subscribes.
        name: As in the table.
        callback: Called with each message.
        callback_group: The node's own one if None.
        newest: Whether a callback that is late gets the newest message only. With a queue, one
            that is always late would get none but old ones.
    """
    row = interface(name)
    profile = copy(row.qos.profile)  # rclpy's own ones are shared
    if newest:
        profile.depth = 1
    return node.create_subscription(
        row.message_type, row.name, callback, profile, callback_group=callback_group
    )


def create_service(
    node: Node,
    name: str,
    callback: Callable[[Any, Any], Any],
    *,
    callback_group: CallbackGroup | None = None,
) -> Service:
    """Serve a service of the table; the callback fills and returns the response."""
    row = interface(name)
    return node.create_service(row.message_type, row.name, callback, callback_group=callback_group)


def create_client(node: Node, name: str, *, callback_group: CallbackGroup | None = None) -> Client:
    """Make a client for a service of the table."""
    row = interface(name)
    return node.create_client(row.message_type, row.name, callback_group=callback_group)


def markdown_table() -> str:
    """Render the table for the documentation."""
    header = ["Name", "Type", "Node", "QoS", "Rate", "Frame", "Meaning"]
    rows = [
        [
            f"`{row.name}`",
            f"`{row.type_name}`",
            f"{row.owner} {row.role.value}",
            {Role.SERVES: "service", Role.ACTS: "action"}.get(row.role, row.qos.value),
            row.rate,
            f"`{row.frame}`" if row.frame else "",
            row.meaning,
        ]
        for row in INTERFACES.values()
    ]
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
