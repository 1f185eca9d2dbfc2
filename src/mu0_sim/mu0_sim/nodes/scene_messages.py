"""Make the messages of a running simulation, one set for the node and for recorded bags."""

import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from numpy.typing import NDArray
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, Header, String
from tf2_msgs.msg import TFMessage

from mu0_core import se3
from mu0_core.camera import depth_to_millimetres
from mu0_core.ros import messages
from mu0_core.ros.interfaces import OPTICAL_FRAME, WRIST_FRAME
from mu0_sim.cameras import wrist_camera
from mu0_sim.controllers import JointTrajectory
from mu0_sim.robot_model import T_TOOL_WRIST
from mu0_sim.robots import TOOL_FRAME
from mu0_sim.simulation import CameraFrame, Simulation

WORLD_FRAME = "world"
BASE_FRAME = "base_link"
CAMERA_FRAME = "camera_link"
WRIST_IMAGE = "wrist_camera/color/image_raw"
WRIST_INFO = "wrist_camera/color/camera_info"
_COLOR = "camera/color"
_DEPTH = "camera/aligned_depth_to_color"

# REP-103: a link looks along x with z up, its optical frame along z with y down.
_T_LINK_OPTICAL = se3.make_transform(
    np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), np.zeros(3)
)

Messages = dict[str, Any]
Links = dict[str, tuple[str, NDArray[np.float64]]]


class SceneMessages:
    """Turn what a simulation measures into {topic: message}.

    Args:
        description: URDF of the robot.
        link_tf: Whether to give the transforms of the robot's links too; without, somebody else
            (robot_state_publisher) makes them of the description and the joint states.
        moving_camera: Whether the camera moves, so that its pose belongs to every instant.
    """

    def __init__(self, description: str, *, link_tf: bool, moving_camera: bool = False) -> None:
        self._description = description
        self._moving_camera = moving_camera
        self._link_tf = link_tf
        self._fixed_links = _fixed_links(description)

    def of_episode(self, simulation: Simulation) -> Messages:
        """Return what holds for a whole episode: description and fixed transforms."""
        stamp = messages.stamp_from_seconds(simulation.time_s)
        links = {
            BASE_FRAME: (WORLD_FRAME, simulation.T_world_base),
            **({} if self._moving_camera else _camera_link(simulation)),
            OPTICAL_FRAME: (CAMERA_FRAME, _T_LINK_OPTICAL),
            WRIST_FRAME: (TOOL_FRAME, T_TOOL_WRIST),
            **self._links(simulation, fixed=True),
        }
        return {
            "robot_description": String(data=self._description),
            "/tf_static": _tf_message(links, stamp),
        }

    def of_joints(self, simulation: Simulation) -> Messages:
        """Return clock, joint states and transforms of moving links."""
        stamp = messages.stamp_from_seconds(simulation.time_s)
        state = simulation.joint_state()
        found = {
            "/clock": Clock(clock=stamp),
            "joint_states": messages.joint_state_message(
                state.names, state.q, state.qd, state.effort, stamp=stamp
            ),
        }
        links = self._links(simulation, fixed=False)
        if self._moving_camera:
            links |= _camera_link(simulation)
        if links:
            found["/tf"] = _tf_message(links, stamp)
        return found

    def of_camera(self, frame: CameraFrame, *, success: bool) -> Messages:
        """Return a picture with its intrinsics, and the score at that time."""
        header = {
            "stamp": messages.stamp_from_seconds(frame.time_s),
            "frame_id": OPTICAL_FRAME,
        }
        depth_mm = depth_to_millimetres(frame.depth_m)
        info = messages.camera_info_message(frame.camera, **header)
        return {
            f"{_COLOR}/camera_info": info,
            f"{_DEPTH}/camera_info": info,
            f"{_COLOR}/image_raw": messages.image_from_array(frame.rgb, "rgb8", **header),
            f"{_DEPTH}/image_raw": messages.image_from_array(depth_mm, "16UC1", **header),
            "sim/success": Bool(data=success),
        }

    def of_wrist(self, rgb: NDArray[np.uint8], time_s: float) -> Messages:
        """Return a picture of the camera on the hand, with its intrinsics."""
        stamp = messages.stamp_from_seconds(time_s)
        header = {"stamp": stamp, "frame_id": WRIST_FRAME}
        return {
            WRIST_INFO: messages.camera_info_message(wrist_camera(), **header),
            WRIST_IMAGE: messages.image_from_array(rgb, "rgb8", **header),
        }

    def _links(self, simulation: Simulation, *, fixed: bool) -> Links:
        if not self._link_tf:
            return {}
        return {
            link: placed
            for link, placed in simulation.link_transforms().items()
            if (link in self._fixed_links) == fixed
        }


def _camera_link(simulation: Simulation) -> Links:
    """Return where the camera's link is."""
    T_world_link = simulation.T_world_camera @ se3.inverse(_T_LINK_OPTICAL)
    return {CAMERA_FRAME: (WORLD_FRAME, T_world_link)}


def poses_of(simulation: Simulation) -> Messages:
    """Return where objects and tool are. For scoring only."""
    truth = simulation.truth()
    poses = {name: thing.T_world_object for name, thing in truth.objects.items()}
    poses[TOOL_FRAME] = truth.T_world_tool
    stamp = messages.stamp_from_seconds(simulation.time_s)
    links = {name: (WORLD_FRAME, T) for name, T in poses.items()}
    return {"sim/poses": _tf_message(links, stamp)}


def transforms_from_message(message: TFMessage) -> dict[str, NDArray[np.float64]]:
    """Return {child frame: (4, 4)} of a message of transforms."""
    return {
        row.child_frame_id: messages.transform_from_message(row.transform)
        for row in message.transforms
    }


def trajectory_from_message(message: Any) -> JointTrajectory:
    """Return the trajectory of a trajectory_msgs/JointTrajectory, its joints in its own order.

    Raises:
        TrajectoryError: A point has another number of values than there are joints.
    """
    names = tuple(message.joint_names)
    path = messages.joint_path_from_message(message, names)
    return JointTrajectory(
        joint_names=names,
        times_s=path.t_s,
        q=path.q,
        qd=path.qd,
        qdd=path.qdd,
        start_s=messages.seconds_from_stamp(message.header.stamp),
    )


def trajectory_message(trajectory: JointTrajectory) -> Any:
    """Return a trajectory as trajectory_msgs/JointTrajectory."""
    path = messages.JointPath(
        start_ns=round(trajectory.start_s * 1e9),
        t_s=trajectory.times_s,
        q=trajectory.q,
        qd=trajectory.qd,
        qdd=trajectory.qdd,
    )
    return messages.trajectory_message(trajectory.joint_names, path)


def _tf_message(links: Links, stamp: Time) -> TFMessage:
    """Make one message of many transforms; rotations are converted all at once, which is cheap."""
    T = np.stack([T_parent_link for _, T_parent_link in links.values()])
    quats = se3.quat_xyzw_from_transform(T).tolist()
    transforms = []
    for (link, (parent, _)), (x, y, z), quat in zip(
        links.items(), T[:, :3, 3].tolist(), quats, strict=True
    ):
        qx, qy, qz, qw = quat
        transform = Transform(
            translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw)
        )
        header = Header(stamp=stamp, frame_id=parent)
        transforms.append(
            TransformStamped(header=header, child_frame_id=link, transform=transform)
        )
    return TFMessage(transforms=transforms)


def _fixed_links(description: str) -> frozenset[str]:
    """Return the links that a URDF fixes to their parents."""
    joints = ET.fromstring(description).iterfind("joint")
    children = (j.find("child") for j in joints if j.get("type") == "fixed")
    return frozenset(child.get("link", "") for child in children if child is not None)
