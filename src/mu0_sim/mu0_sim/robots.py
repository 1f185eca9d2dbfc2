"""Know the simulated robots: names, limits, home pose, gripper.

Pure data and the one map between a gripper's opening and its joints. The physics of a robot stands
in `mu0_sim.robot_model`, its description for ROS in `mu0_sim.urdf`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import ConfigError, unknown_name_message

TOOL_FRAME = "tool0"
"""Grip point between the fingertips: z out of the hand, the fingers open along y."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingJaw:
    """Map the travel of two opposite sliding fingers to their opening: opening = 2 q."""

    def opening_m(self, q: float) -> float:
        """Return the distance between the finger pads [m] for the driving joint at q [m]."""
        return 2.0 * q

    def position(self, opening_m: float) -> float:
        """Return the driving joint's position [m] for a distance between the pads [m]."""
        return opening_m / 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelLinkage:
    """Map the crank angle of two parallel four-bar fingers to their opening.

    The linkage keeps the pads parallel, so a pad only moves on the circle that the crank's end
    draws: opening = 2 (offset_m + crank_m cos(q + phase_rad)).
    """

    offset_m: float
    crank_m: float
    phase_rad: float

    def opening_m(self, q: float) -> float:
        """Return the distance between the finger pads [m] for the driving joint at q [rad]."""
        return 2.0 * (self.offset_m + self.crank_m * math.cos(q + self.phase_rad))

    def position(self, opening_m: float) -> float:
        """Return the driving joint's position [rad] for a distance between the pads [m]."""
        cosine = (opening_m / 2.0 - self.offset_m) / self.crank_m
        return math.acos(min(1.0, max(-1.0, cosine))) - self.phase_rad


@dataclass(frozen=True, slots=True, kw_only=True)
class GripperSpec:
    """Describe a gripper with one degree of freedom.

    Attributes:
        joint: The driving joint, the one that a gripper controller commands.
        mimic: (multiplier, offset) of every other joint: q = multiplier q_driving + offset.
        position_open: Driving joint position of the open gripper, rad or m.
        position_closed: Driving joint position at which the pads touch, rad or m.
        velocity_limit: Of the driving joint, rad/s or m/s.
        effort_limit: Of the driving joint, N m or N.
        jaw: The map between driving joint and opening.
    """

    joint: str
    mimic: dict[str, tuple[float, float]]
    position_open: float
    position_closed: float
    velocity_limit: float
    effort_limit: float
    jaw: SlidingJaw | ParallelLinkage

    @property
    def joints(self) -> tuple[str, ...]:
        """All gripper joints, the driving one first."""
        return (self.joint, *self.mimic)

    @property
    def position_range(self) -> tuple[float, float]:
        """Smallest and largest position of the driving joint, rad or m."""
        ends = (self.position_open, self.position_closed)
        return min(ends), max(ends)

    @property
    def opening_range_m(self) -> tuple[float, float]:
        """Smallest and largest distance between the finger pads, m."""
        return self.jaw.opening_m(self.position_closed), self.jaw.opening_m(self.position_open)

    def position_from_opening(self, opening_m: float) -> float:
        """Return the driving joint position for a distance between the pads.

        Raises:
            ConfigError: The opening is not a number inside opening_range_m.
        """
        smallest, largest = self.opening_range_m
        if not smallest - 1e-9 <= opening_m <= largest + 1e-9:
            raise ConfigError(
                f"gripper opening: expected {smallest:.4f} to {largest:.4f} m, got {opening_m} m"
            )
        return self.jaw.position(opening_m)

    def opening_from_position(self, position: float) -> float:
        """Return the distance between the pads [m] for a driving joint position."""
        return self.jaw.opening_m(position)

    def joint_positions(self, position: float) -> dict[str, float]:
        """Return the positions of all gripper joints for a driving joint position."""
        followers = {name: gain * position + offset for name, (gain, offset) in self.mimic.items()}
        return {self.joint: position, **followers}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RobotSpec:
    """Describe an arm with its gripper, as its controllers and its URDF name it.

    Arrays are copied and read-only.

    Attributes:
        name: As `load_robot` knows it.
        arm_joints: Ordered from base to hand, j of them.
        home_q: (j,) rad, where an episode starts.
        position_lower: (j,) rad.
        position_upper: (j,) rad.
        velocity_limits: (j,) rad/s.
        acceleration_limits: (j,) rad/s^2.
        effort_limits: (j,) N m.
        gripper: The gripper on its hand.
        T_world_base: (4, 4) pose of base_link in world.
    """

    name: str
    arm_joints: tuple[str, ...]
    home_q: NDArray[np.float64]
    position_lower: NDArray[np.float64]
    position_upper: NDArray[np.float64]
    velocity_limits: NDArray[np.float64]
    acceleration_limits: NDArray[np.float64]
    effort_limits: NDArray[np.float64]
    gripper: GripperSpec
    T_world_base: NDArray[np.float64]

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                value = value.astype(np.float64)
                value.setflags(write=False)
                object.__setattr__(self, entry.name, value)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Arm joints, then gripper joints with the driving one first: the order of JointState."""
        return (*self.arm_joints, *self.gripper.joints)


def load_robot(name: str) -> RobotSpec:
    """Return the robot of that name.

    Raises:
        ConfigError: There is no such robot; the message lists those there are.
    """
    if name not in ROBOTS:
        raise ConfigError(unknown_name_message("robot", name, ROBOTS))
    return ROBOTS[name]


def _base_pose(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Return an upright (4, 4) pose at that place of the world."""
    T_world_base = np.eye(4)
    T_world_base[:3, 3] = (x, y, z)
    return T_world_base


def _degrees(*values: float) -> NDArray[np.float64]:
    """Turn a datasheet's degrees into radians."""
    return np.deg2rad(values)


def _same(value: float, names: Sequence[str]) -> NDArray[np.float64]:
    """Return one value for every joint."""
    return np.full(len(names), value)


_PANDA_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
_UR5E_JOINTS = (
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
)
_IIWA_JOINTS = tuple(f"lbr_A{i}" for i in range(1, 8))
_BASE_POSE = _base_pose(-0.56, 0.0, 0.912)  # robosuite: on its pedestal, behind the table

_PANDA = RobotSpec(
    name="panda",
    arm_joints=_PANDA_JOINTS,
    home_q=np.array([0.0, np.pi / 16, 0.0, -5 * np.pi / 6, 0.0, np.pi - 0.2, np.pi / 4]),
    # Franka Control Interface documentation, "Robot and interface specifications"; the range of
    # joint 6 is the description's.
    position_lower=np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]),
    position_upper=np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]),
    velocity_limits=np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61]),
    acceleration_limits=np.array([15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0]),
    effort_limits=np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0]),
    gripper=GripperSpec(
        joint="panda_finger_joint1",
        mimic={"panda_finger_joint2": (-1.0, 0.0)},
        position_open=0.04,
        position_closed=0.0,
        velocity_limit=0.1,
        effort_limit=20.0,
        jaw=SlidingJaw(),
    ),
    T_world_base=_BASE_POSE,
)

_UR5E = RobotSpec(
    name="ur5e",
    arm_joints=_UR5E_JOINTS,
    home_q=np.array([-0.470, -1.735, 2.480, -2.275, -1.590, -1.991]),
    position_lower=np.array([-6.28319, -6.28319, -3.14159, -6.28319, -6.28319, -6.28319]),
    position_upper=np.array([6.28319, 6.28319, 3.14159, 6.28319, 6.28319, 6.28319]),
    velocity_limits=_degrees(180, 180, 180, 180, 180, 180),
    # The datasheet names no joint acceleration; this is what ur_moveit_config plans with.
    acceleration_limits=_same(5.0, _UR5E_JOINTS),
    effort_limits=np.array([150.0, 150.0, 150.0, 28.0, 28.0, 28.0]),
    gripper=GripperSpec(
        joint="finger_joint",
        mimic={
            "right_outer_knuckle_joint": (1.0, 0.0),
            "left_inner_knuckle_joint": (1.0, 0.0),
            "right_inner_knuckle_joint": (1.0, 0.0),
            "left_inner_finger_joint": (-1.0, 0.0),
            "right_inner_finger_joint": (-1.0, 0.0),
        },
        position_open=0.0,
        position_closed=0.8,
        velocity_limit=1.4,
        effort_limit=2.5,
        jaw=ParallelLinkage(offset_m=0.005081, crank_m=0.057121, phase_rad=0.852252),
    ),
    T_world_base=_BASE_POSE,
)

_IIWA = RobotSpec(
    name="iiwa",
    arm_joints=_IIWA_JOINTS,
    home_q=np.array([0.0, 0.65, 0.0, -1.89, 0.0, 0.6, 0.0]),
    position_lower=np.array([-2.96706, -2.0944, -2.96706, -2.0944, -2.96706, -2.0944, -3.05433]),
    position_upper=np.array([2.96706, 2.0944, 2.96706, 2.0944, 2.96706, 2.0944, 3.05433]),
    velocity_limits=_degrees(98, 98, 100, 130, 140, 180, 180),  # LBR iiwa 7 R800 datasheet
    acceleration_limits=_same(5.0, _IIWA_JOINTS),  # not in the datasheet: chosen moderate
    effort_limits=np.array([176.0, 176.0, 110.0, 110.0, 110.0, 40.0, 40.0]),
    gripper=GripperSpec(
        joint="finger_joint",
        mimic={
            "right_outer_knuckle_joint": (-1.0, 0.0),
            "left_inner_knuckle_joint": (-1.0, 0.0),
            "right_inner_knuckle_joint": (-1.0, 0.0),
            "left_inner_finger_joint": (1.0, 0.0),
            "right_inner_finger_joint": (1.0, 0.0),
        },
        position_open=0.0,
        position_closed=0.6888,
        velocity_limit=1.1,
        effort_limit=2.5,
        jaw=ParallelLinkage(offset_m=-0.001399, crank_m=0.1, phase_rad=0.867984),
    ),
    T_world_base=_BASE_POSE,
)

ROBOTS = {robot.name: robot for robot in (_PANDA, _UR5E, _IIWA)}
"""The robots there are, by name."""
