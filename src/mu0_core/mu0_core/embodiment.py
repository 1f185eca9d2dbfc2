"""Own what one YAML file says of a robot, and check it against the robot's description.

Adding a robot means adding such a file: where its description comes from, which joints are the
arm's, how fast they may move, the gripper, the points fixed to it, the space to work in.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mu0_core.config import load_yaml, option, validate
from mu0_core.errors import ConfigError, unknown_name_message
from mu0_core.kinematics import RobotModel

FloatArray = NDArray[np.float64]


class DescriptionSource(Enum):
    """Say where the robot's description comes from."""

    TOPIC = "robot_description"
    URDF = "urdf"
    MJCF = "mjcf"


class GripperInterface(Enum):
    """Say how a gripper is commanded."""

    JOINT_TRAJECTORY = "joint_trajectory"
    FOLLOW_JOINT_TRAJECTORY = "follow_joint_trajectory"
    GRIPPER_COMMAND = "gripper_command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Say where the description comes from."""

    source: DescriptionSource = option(
        DescriptionSource.TOPIC, description="The topic robot_description, or a file"
    )
    path: Path | None = option(
        None, description="The file, relative to the embodiment file; none with the topic"
    )

    def __post_init__(self) -> None:
        fault = None
        if self.source is DescriptionSource.TOPIC and self.path is not None:
            fault = f"path: expected none with source robot_description, got {self.path}"
        if self.source is not DescriptionSource.TOPIC and self.path is None:
            fault = f"path: expected a file, because source is {self.source.value}"
        validate(self, fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Name the joints of the arm, their controller and what they may do.

    Lists have one value for each of `joints`, in their order, from base to hand.
    """

    joints: tuple[str, ...] = option(description="Names, from base to hand")
    controller: str = option(description="Topic of its trajectory_msgs/JointTrajectory")
    home_q: tuple[float, ...] = option(
        description="Posture at home; where the pose leaves freedom, near it", unit="rad"
    )
    acceleration: tuple[float, ...] = option(
        description="Limits; descriptions have none", unit="rad/s^2", low=1e-3
    )
    jerk: tuple[float, ...] = option(
        description="Limits; descriptions have none", unit="rad/s^3", low=1e-3
    )
    velocity: tuple[float, ...] | None = option(
        None, description="Limits, where tighter than the description's", unit="rad/s", low=1e-3
    )
    position_lower: tuple[float, ...] | None = option(
        None, description="Limits, where tighter than the description's", unit="rad"
    )
    position_upper: tuple[float, ...] | None = option(
        None, description="Limits, where tighter than the description's", unit="rad"
    )

    def __post_init__(self) -> None:
        names = ("home_q", "acceleration", "jerk", "velocity", "position_lower", "position_upper")
        validate(
            self,
            None if self.joints else "joints: expected at least one name, got none",
            *(_name_fault("joints", self.joints),),
            *(_count_fault(name, getattr(self, name), len(self.joints)) for name in names),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gripper:
    """Name the driving joints of the gripper and how it is opened and closed."""

    joints: tuple[str, ...] = option(description="Driving joints, without those that mimic them")
    open: tuple[float, ...] = option(description="Joint positions when open", unit="rad or m")
    closed: tuple[float, ...] = option(
        description="Joint positions when shut with nothing between", unit="rad or m"
    )
    controller: str = option(description="Topic, or name of the action")
    interface: GripperInterface = option(
        GripperInterface.JOINT_TRAJECTORY, description="What the controller takes"
    )
    closing_s: float = option(
        1.0, description="Time from open to closed", unit="s", low=0.05, high=20.0
    )
    max_effort: float = option(
        0.0, description="For gripper_command; 0 = the controller's", unit="N or N m", low=0.0
    )

    def __post_init__(self) -> None:
        n = len(self.joints)
        same = [
            name for name, a, b in zip(self.joints, self.open, self.closed, strict=False) if a == b
        ]
        one = self.interface is GripperInterface.GRIPPER_COMMAND and n != 1
        validate(
            self,
            None if n else "joints: expected at least one name, got none",
            _name_fault("joints", self.joints),
            _count_fault("open", self.open, n),
            _count_fault("closed", self.closed, n),
            f"closed: expected another position than open for {', '.join(same)}" if same else None,
            f"joints: a gripper_command moves one joint, got {n}" if one else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoints:
    """List points fixed to the gripper, whose traces are asked for."""

    frame: str = option(description="Link or frame that the points are fixed to")
    xyz: tuple[tuple[float, float, float], ...] = option(
        description="At least three, on visible surfaces, not on one line", unit="m"
    )

    def __post_init__(self) -> None:
        fault = None
        if len(self.xyz) < 3:
            fault = f"xyz: expected at least 3 points, got {len(self.xyz)}"
        elif _spread(self.xyz) < 1e-3:
            fault = "xyz: the points lie on one line, so they cannot show how the gripper turns"
        validate(self, fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Bound the space that the tool frame may be in, in the base frame."""

    lower: tuple[float, float, float] = option(description="Corner x, y, z", unit="m")
    upper: tuple[float, float, float] = option(description="Opposite corner x, y, z", unit="m")

    def __post_init__(self) -> None:
        empty = [
            f"{axis}: expected lower < upper, got {low} to {high} m"
            for axis, low, high in zip("xyz", self.lower, self.upper, strict=False)
            if not low < high
        ]
        validate(self, *empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """Say how fast the tool follows a path."""

    linear: float = option(0.2, description="Of the tool", unit="m/s", low=1e-3, high=5.0)
    angular: float = option(1.0, description="Of the tool", unit="rad/s", low=1e-3, high=20.0)
    acceleration: float = option(
        0.6, description="Along the path", unit="m/s^2", low=1e-2, high=50.0
    )
    jerk: float = option(4.0, description="Along the path", unit="m/s^3", low=1e-1, high=1000.0)
    contact: float = option(
        0.05, description="Of the tool shortly before a grasp", unit="m/s", low=1e-3, high=5.0
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embodiment:
    """Describe one robot to everything that sees or moves it."""

    name: str = option(description="Short name, such as panda")
    base_frame: str = option(description="Frame that poses and the workspace are in")
    tool_frame: str = option(description="Grip point: z out of the hand, the fingers open along y")
    description: Description = option(Description(), description="Of links and joints")
    arm: Arm = option(description="Joints that bring the tool to its poses")
    gripper: Gripper = option(description="Joints that hold things")
    keypoints: FixedPoints = option(description="Points fixed to the gripper")
    workspace: Box = option(description="Where the tool may be")
    speeds: Speeds = option(Speeds(), description="Of following a path")

    def __post_init__(self) -> None:
        both = [name for name in self.gripper.joints if name in self.arm.joints]
        validate(
            self,
            f"gripper.joints: {', '.join(both)} also among arm.joints" if both else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointLimits:
    """Hold what each of j joints may do.

    Attributes:
        joint_names: In the order of the arrays.
        position_lower: (j,) rad; -inf where there is no limit.
        position_upper: (j,) rad; inf where there is no limit.
        velocity: (j,) rad/s.
        acceleration: (j,) rad/s^2.
        jerk: (j,) rad/s^3.
    """

    joint_names: tuple[str, ...]
    position_lower: FloatArray
    position_upper: FloatArray
    velocity: FloatArray
    acceleration: FloatArray
    jerk: FloatArray

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self)[1:]:
            array = np.array(getattr(self, entry.name), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, entry.name, array)

    def violations(
        self,
        q: ArrayLike,
        qd: ArrayLike | None = None,
        qdd: ArrayLike | None = None,
        qddd: ArrayLike | None = None,
        *,
        tolerance: float = 1e-6,
    ) -> list[str]:
        """Name every joint and limit that samples of a motion break, worst value first met.

        Args:
            q: (..., j) rad.
            qd: (..., j) rad/s.
            qdd: (..., j) rad/s^2.
            qddd: (..., j) rad/s^3.
            tolerance: Share of a limit (of pi for positions) that rounding may take.

        Returns:
            One sentence for each joint and kind of limit, with value and limit; empty if none.
        """
        faults = []
        q = np.asarray(q, dtype=np.float64).reshape(-1, len(self.joint_names))
        beyond = np.maximum(self.position_lower - q, q - self.position_upper)
        for joint in np.flatnonzero((~(beyond <= np.pi * tolerance)).any(axis=0)):
            value = q[np.argmax(np.nan_to_num(beyond[:, joint], nan=np.inf)), joint]
            faults.append(
                f"{self.joint_names[joint]}: position {value:.4f} rad, limits "
                f"[{self.position_lower[joint]:.4f}, {self.position_upper[joint]:.4f}]"
            )
        for kind, unit, values, limit in (
            ("velocity", "rad/s", qd, self.velocity),
            ("acceleration", "rad/s^2", qdd, self.acceleration),
            ("jerk", "rad/s^3", qddd, self.jerk),
        ):
            if values is None:
                continue
            sizes = np.abs(np.asarray(values, dtype=np.float64)).reshape(len(q), -1)
            for joint in np.flatnonzero((~(sizes <= limit * (1.0 + tolerance))).any(axis=0)):
                worst = np.max(np.nan_to_num(sizes[:, joint], nan=np.inf))
                faults.append(
                    f"{self.joint_names[joint]}: {kind} {worst:.4f} {unit}, "
                    f"limit {limit[joint]:.4f}"
                )
        return faults


def load_embodiment(path: str | Path) -> Embodiment:
    """Read an embodiment file; a relative path in it starts at the file's folder.

    Raises:
        ConfigError: The file is missing or wrong; the message has one line for each fault.
    """
    embodiment = load_yaml(Embodiment, path)
    source = embodiment.description
    if source.path is None or source.path.is_absolute():
        return embodiment
    resolved = dataclasses.replace(source, path=Path(path).parent / source.path)
    return dataclasses.replace(embodiment, description=resolved)


def arm_model(embodiment: Embodiment, description: str | None = None) -> RobotModel:
    """Build the model of the arm alone, and check the embodiment against it.

    All other joints are locked: the gripper's open, the rest at 0.

    Args:
        embodiment: What the robot's file says.
        description: Text of the topic robot_description; needed where the file names the topic.

    Returns:
        A model whose joints are the arm's, in their order; poses are in the base frame.

    Raises:
        ConfigError: Joints or frames are not in the description, or limits are wider than its;
            the message has one line for each fault.
    """
    full = _full_model(embodiment, description)
    faults = _faults(embodiment, full)
    if faults:
        where = f"embodiment {embodiment.name!r} and the description of {full.name!r} disagree"
        raise ConfigError("\n  ".join([f"{where}:", *faults]))
    locked = {name: 0.0 for name in full.joint_names if name not in embodiment.arm.joints}
    locked |= dict(zip(embodiment.gripper.joints, embodiment.gripper.open, strict=True))
    return RobotModel(full.pinocchio_model, base_frame=embodiment.base_frame, locked=locked)


def arm_limits(embodiment: Embodiment, model: RobotModel) -> JointLimits:
    """Return the limits of the arm: the description's, where the file does not narrow them.

    Args:
        embodiment: What the robot's file says.
        model: From `arm_model`.
    """
    arm = embodiment.arm
    return JointLimits(
        joint_names=arm.joints,
        position_lower=_first(arm.position_lower, model.position_lower),
        position_upper=_first(arm.position_upper, model.position_upper),
        velocity=_first(arm.velocity, model.velocity_limits),
        acceleration=np.array(arm.acceleration),
        jerk=np.array(arm.jerk),
    )


def _full_model(embodiment: Embodiment, description: str | None) -> RobotModel:
    """Load the description from where the embodiment says."""
    source = embodiment.description
    if source.source is DescriptionSource.TOPIC:
        if description is None:
            raise ConfigError(
                f"embodiment {embodiment.name!r} takes its description from the topic "
                "robot_description, but none came; start robot_state_publisher, or give a file"
            )
        return RobotModel.from_urdf(description)
    assert source.path is not None
    if source.source is DescriptionSource.MJCF:
        return RobotModel.from_mjcf(source.path)
    try:
        return RobotModel.from_urdf(source.path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{source.path}: cannot be read: {error.strerror}") from error


def _faults(embodiment: Embodiment, full: RobotModel) -> list[str]:
    """Return where the embodiment and the description disagree, one sentence a fault."""
    arm, gripper = embodiment.arm, embodiment.gripper
    faults = []
    for where, names in (("arm.joints", arm.joints), ("gripper.joints", gripper.joints)):
        missing = [name for name in names if name not in full.joint_names]
        if missing:
            nearest = unknown_name_message("joint", missing[0], full.joint_names)
            others = f" (nor are there {', '.join(missing[1:])})" if missing[1:] else ""
            faults.append(f"{where}: {nearest}{others}")
    for where, frame in (
        ("base_frame", embodiment.base_frame),
        ("tool_frame", embodiment.tool_frame),
        ("keypoints.frame", embodiment.keypoints.frame),
    ):
        if frame not in full.frame_names:
            faults.append(f"{where}: {unknown_name_message('frame', frame, full.frame_names)}")
    if faults:
        return faults
    index = [full.joint_names.index(name) for name in arm.joints]
    if index != sorted(index):
        ordered = ", ".join(full.joint_names[i] for i in sorted(index))
        return [f"arm.joints: expected the order of the description: {ordered}"]
    return _limit_faults(arm, full, index)


def _limit_faults(arm: Arm, full: RobotModel, index: list[int]) -> list[str]:
    """Return where the arm's limits are missing or wider than the description's."""
    lower, upper = full.position_lower[index], full.position_upper[index]
    velocity = full.velocity_limits[index]
    faults = []
    for i, name in enumerate(arm.joints):
        if arm.position_lower is not None and arm.position_lower[i] < lower[i] - 1e-6:
            faults.append(_wider("position_lower", name, arm.position_lower[i], lower[i], "rad"))
        if arm.position_upper is not None and arm.position_upper[i] > upper[i] + 1e-6:
            faults.append(_wider("position_upper", name, arm.position_upper[i], upper[i], "rad"))
        if arm.velocity is not None and arm.velocity[i] > velocity[i] + 1e-6:
            faults.append(_wider("velocity", name, arm.velocity[i], velocity[i], "rad/s"))
        if arm.velocity is None and not np.isfinite(velocity[i]):
            faults.append(f"arm.velocity: required, the description has no limit for {name}")
        low = lower[i] if arm.position_lower is None else arm.position_lower[i]
        high = upper[i] if arm.position_upper is None else arm.position_upper[i]
        if not low <= arm.home_q[i] <= high:
            faults.append(
                f"arm.home_q: {name} at {arm.home_q[i]} rad, limits [{low:.4f}, {high:.4f}]"
            )
    return faults


def _wider(limit: str, joint: str, given: float, described: float, unit: str) -> str:
    return (
        f"arm.{limit}: {given} {unit} for {joint} is wider than the description's {described:.4f}"
    )


def _first(given: tuple[float, ...] | None, described: FloatArray) -> FloatArray:
    return described if given is None else np.array(given)


def _count_fault(name: str, values: Sequence[float] | None, n: int) -> str | None:
    if values is None or len(values) == n:
        return None
    return f"{name}: expected {n} values, one for each joint, got {len(values)}"


def _name_fault(name: str, values: Sequence[str]) -> str | None:
    twice = sorted({value for value in values if list(values).count(value) > 1})
    return f"{name}: {', '.join(twice)} named twice" if twice else None


def _spread(xyz: Sequence[Sequence[float]]) -> float:
    """Return the extent of points across their longest direction, m."""
    points = np.asarray(xyz, dtype=np.float64)
    return float(np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[1])
