"""Build the MuJoCo model of an arm with its gripper from robosuite's MJCF files.

Links and joints get the names that `mu0_sim.robots` and the URDF use. Couplings, actuators, tool
frame and collision rules that a real robot's description would not leave open are set here, once,
for the physics and for the URDF alike.
"""

import importlib.util
import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import ConfigError
from mu0_core.se3 import make_transform
from mu0_sim.mujoco_gl import mujoco
from mu0_sim.robots import TOOL_FRAME, RobotSpec

BASE_LINK = "base_link"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Name a robot's files and what their bodies and joints are called here.

    Attributes:
        arm: File of the arm.
        gripper: File of the gripper.
        links: Names here of the files' bodies; the others keep theirs.
        joints: Names here of the files' joints; the others keep theirs.
        hand: Link that carries the fingers and the tool frame.
        tool_shift_m: From robosuite's grip point along the tool's z, so that with every gripper
            the tips of fingers that hold 4 cm reach 1 cm beyond the tool frame.
    """

    arm: str
    gripper: str
    links: dict[str, str]
    joints: dict[str, str] = field(default_factory=dict)
    hand: str
    tool_shift_m: float = 0.0


_SOURCES = {
    "panda": _Source(
        arm="robots/panda/robot.xml",
        gripper="grippers/panda_gripper.xml",
        links={f"link{i}": f"panda_link{i}" for i in range(8)}
        | {
            "right_hand": "panda_flange",
            "right_gripper": "panda_hand",
            "leftfinger": "panda_leftfinger",
            "rightfinger": "panda_rightfinger",
            "finger_joint1_tip": "panda_leftfinger_tip",
            "finger_joint2_tip": "panda_rightfinger_tip",
        },
        joints={f"joint{i}": f"panda_joint{i}" for i in range(1, 8)}
        | {f"finger_joint{i}": f"panda_finger_joint{i}" for i in (1, 2)},
        hand="panda_hand",
    ),
    "ur5e": _Source(
        arm="robots/ur5e/robot.xml",
        gripper="grippers/robotiq_gripper_85.xml",
        links={"right_hand": "flange", "robotiq_85_adapter_link": "robotiq_85_base_link"},
        hand="robotiq_85_base_link",
        tool_shift_m=0.006,
    ),
    "iiwa": _Source(
        arm="robots/iiwa/robot.xml",
        gripper="grippers/robotiq_gripper_140.xml",
        links={f"link_{i}": f"lbr_link_{i}" for i in range(1, 8)}
        | {"right_hand": "lbr_link_ee", "right_gripper": "robotiq_140_base_link"},
        joints={f"joint_{i}": f"lbr_A{i}" for i in range(1, 8)},
        hand="robotiq_140_base_link",
        tool_shift_m=0.015,
    ),
}

WRIST_CAMERA = "wrist_camera"
_WRIST_XYZ, _WRIST_TARGET_XYZ = (0.08, 0.0, -0.10), (0.0, 0.0, 0.01)  # in the tool frame, m
WRIST_FOVY_RAD = math.radians(75.0)


def _wrist_pose() -> NDArray[np.float64]:
    """Return a pose beside the plane of the fingers, from where the grip point is looked at."""
    forward = np.subtract(_WRIST_TARGET_XYZ, _WRIST_XYZ)
    forward /= np.linalg.norm(forward)
    right = np.array([0.0, 1.0, 0.0])
    return make_transform(
        np.column_stack((right, np.cross(forward, right), forward)), np.array(_WRIST_XYZ)
    )


T_TOOL_WRIST = _wrist_pose()
"""(4, 4) pose of the wrist camera's optical frame (REP-103) in the tool frame."""

_ARM_ARMATURE = 0.3  # kg m^2, reflected rotor inertia; the descriptions leave it out
_ARM_DAMPING = 0.1  # N m s/rad
_GRIPPER_ARMATURE = {mujoco.mjtJoint.mjJNT_SLIDE: 1.0, mujoco.mjtJoint.mjJNT_HINGE: 0.005}
_GRIPPER_GAINS = {  # (stiffness, damping) of the position servo: N/m, N s/m or N m/rad, N m s/rad
    mujoco.mjtJoint.mjJNT_SLIDE: (4000.0, 100.0),
    mujoco.mjtJoint.mjJNT_HINGE: (20.0, 0.6),
}


def assets_folder() -> Path:
    """Return robosuite's folder of models without importing robosuite.

    Raises:
        ConfigError: robosuite is not installed.
    """
    package = importlib.util.find_spec("robosuite")
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            "robosuite is not installed and its models are needed: pip install robosuite==1.4.0"
        )
    return Path(package.submodule_search_locations[0]) / "models" / "assets"


def load_mjcf(relative: str) -> mujoco.MjSpec:
    """Load one of robosuite's files under the settings that its own code would give it.

    Those settings: angles in radians, inertia from collision geometry, the first of two assets of
    one name. Asset files get absolute paths.
    """
    path = assets_folder() / relative
    root = ET.parse(path).getroot()
    ET.SubElement(root, "compiler", angle="radian", inertiagrouprange="0 0")
    for assets in root.iter("asset"):
        seen = set()
        for asset in list(assets):
            key = (asset.tag, asset.get("name"))
            if asset.get("name") and key in seen:
                assets.remove(asset)
            seen.add(key)
            if asset.get("file"):
                asset.set("file", str((path.parent / asset.get("file", "")).resolve()))
    return mujoco.MjSpec.from_string(ET.tostring(root, encoding="unicode"))


def robot_model(robot: RobotSpec) -> mujoco.MjSpec:
    """Build arm and gripper with base_link at the origin.

    Returns:
        A specification with motors named after the arm's joints and position servos named after
        the gripper's outermost joints.
    """
    source = _SOURCES[robot.name]
    spec, gripper = load_mjcf(source.arm), load_mjcf(source.gripper)
    for part in (spec, gripper):
        _strip(part)
    spec.attach(gripper, prefix="", suffix="", frame=spec.body("right_hand").add_frame())
    _rename(spec, source)
    _place_tool_frame(spec, source.tool_shift_m)
    _add_wrist_camera(spec)
    _add_arm_motors(spec, robot)
    _couple_gripper(spec, robot)
    for geom in spec.geoms:
        if geom.contype or geom.conaffinity:
            geom.contype, geom.conaffinity = 0, 1  # meets the scene, not the robot itself
    return spec


def hand_link(robot: RobotSpec) -> str:
    """Return the link that carries the fingers and the tool frame."""
    return _SOURCES[robot.name].hand


def _strip(spec: mujoco.MjSpec) -> None:
    """Remove what robosuite adds for its own controllers and views."""
    for kind in ("sensors", "actuators", "equalities", "tendons", "cameras", "sites"):
        for element in getattr(spec, kind):
            spec.delete(element)


def _rename(spec: mujoco.MjSpec, source: _Source) -> None:
    """Give links and joints the names they have on the real robot."""
    links = source.links | {"base": BASE_LINK, "eef": TOOL_FRAME}
    for body in spec.bodies:
        body.name = links.get(body.name, body.name)
    for joint in spec.joints:
        joint.name = source.joints.get(joint.name, joint.name)


def _place_tool_frame(spec: mujoco.MjSpec, shift_m: float) -> None:
    """Turn the tool frame so that the fingers open along y, as on a Franka hand; shift it on z."""
    tool = spec.body(TOOL_FRAME)
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, tool.quat / np.linalg.norm(tool.quat))
    R_hand_grip = rotation.reshape(3, 3)
    R_grip_tool = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, (R_hand_grip @ R_grip_tool).ravel())
    tool.pos = tool.pos + shift_m * R_hand_grip[:, 2]
    tool.quat = quat


def _add_wrist_camera(spec: mujoco.MjSpec) -> None:
    """Fix a camera to the hand."""
    quat = np.zeros(4)
    rotation = T_TOOL_WRIST[:3, :3] * (1.0, -1.0, -1.0)  # MuJoCo: y up, z back
    mujoco.mju_mat2Quat(quat, rotation.ravel())
    spec.body(TOOL_FRAME).add_camera(
        name=WRIST_CAMERA, pos=_WRIST_XYZ, quat=quat, fovy=math.degrees(WRIST_FOVY_RAD)
    )


def _add_arm_motors(spec: mujoco.MjSpec, robot: RobotSpec) -> None:
    """Drive every arm joint by a torque within its limit."""
    for name, limit in zip(robot.arm_joints, robot.effort_limits, strict=True):
        joint = spec.joint(name)
        joint.armature, joint.damping = _ARM_ARMATURE, _ARM_DAMPING
        motor = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        motor.set_to_motor()
        motor.ctrllimited, motor.ctrlrange = True, (-limit, limit)


def _couple_gripper(spec: mujoco.MjSpec, robot: RobotSpec) -> None:
    """Tie the following joints to the driving one; drive both fingers by position servos."""
    gripper = robot.gripper
    for name, (gain, offset) in gripper.mimic.items():
        spec.add_equality(
            type=mujoco.mjtEq.mjEQ_JOINT,
            name1=name,
            name2=gripper.joint,
            data=[offset, gain, *([0.0] * 9)],
            solref=(0.004, 1.0),
        )
    for name in driven_joints(robot):
        joint = spec.joint(name)
        stiffness, damping = _GRIPPER_GAINS[joint.type]
        joint.armature, joint.damping = _GRIPPER_ARMATURE[joint.type], damping
        joint.frictionloss = 0.0
        servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        servo.set_to_position(kp=stiffness)
        servo.forcelimited = True
        servo.forcerange = (-gripper.effort_limit, gripper.effort_limit)


def driven_joints(robot: RobotSpec) -> tuple[str, str]:
    """Return the two gripper joints that carry a servo: the driving one and its mirror image."""
    return robot.gripper.joint, next(iter(robot.gripper.mimic))
