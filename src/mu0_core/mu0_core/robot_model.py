"""Own what a robot's description says: frames, joint order, limits, Jacobians; and load it.

Joint positions q are one number a joint (rad; m for prismatic ones), in the order of
`RobotModel.joint_names`; continuous joints may wind beyond pi. A mimic joint has no number of its
own: it follows the joint that drives it. Users import from `mu0_core.kinematics`.
"""

import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pinocchio as pin
from numpy.typing import ArrayLike, NDArray

from mu0_core.errors import ConfigError, ShapeError, TrajectoryError, unknown_name_message
from mu0_core.urdf_check import urdf_faults

AngleUnit = Literal["radian", "degree"]


class RobotModel:
    """Answer questions about one robot; unchanging, so that threads may share it.

    Attributes:
        name: Name of the robot in its description.
        base_frame: Frame that poses are expressed in.
        frame_names: Links, fixed and moving joints, in the order of the tree.
        joint_names: The joints that q holds, in its order.
        position_lower: (j,) rad or m; -inf where a joint has no limit.
        position_upper: (j,) rad or m; inf where a joint has no limit.
        velocity_limits: (j,) rad/s or m/s; inf where the description gives none.
    """

    def __init__(
        self,
        model: pin.Model,
        *,
        base_frame: str | None = None,
        locked: Mapping[str, float] | None = None,
    ) -> None:
        """Wrap a Pinocchio model; `from_urdf` and `from_mjcf` make one.

        Args:
            model: Joints of one degree of freedom each, and mimic joints.
            base_frame: Frame for poses, fixed to the root; None: the root frame.
            locked: Joints to take out, with the position (rad or m) they stay at.

        Raises:
            ConfigError: A joint has several degrees of freedom, or a name is unknown.
        """
        faults = [
            f"joint {name!r} has {joint.nv} degrees of freedom; only joints of one are supported"
            for name, joint in _joints(model)
            if joint.nv > 1
        ]
        if faults:
            raise ConfigError(f"robot {model.name!r}: " + "; ".join(faults))
        self._model = _lock_joints(model, locked) if locked else model
        model = self._model
        moving = [(name, joint) for name, joint in _joints(model) if joint.nv == 1]
        self.name: str = model.name
        self.joint_names = tuple(name for name, _ in moving)
        self.frame_names = tuple(dict.fromkeys(f.name for f in list(model.frames)[1:]))
        bounded = np.array([joint.nq == 1 for _, joint in moving], dtype=bool)
        index = np.array([joint.idx_q for _, joint in moving], dtype=int)
        self.position_lower = _frozen(
            np.where(bounded, model.lowerPositionLimit[index], -np.inf), -np.inf
        )
        self.position_upper = _frozen(
            np.where(bounded, model.upperPositionLimit[index], np.inf), np.inf
        )
        self.velocity_limits = _frozen(np.array(model.velocityLimit), np.inf)
        self.base_frame = self.frame_names[0] if base_frame is None else base_frame
        self._root_base = self._fixed_to_root(self.base_frame)

    @classmethod
    def from_urdf(
        cls,
        urdf_xml: str,
        *,
        base_frame: str | None = None,
        locked: Mapping[str, float] | None = None,
    ) -> Self:
        """Load a URDF; meshes are not needed.

        Args:
            urdf_xml: The text of the URDF, not its path.
            base_frame: As in the constructor.
            locked: As in the constructor; joints that mimic a locked one are locked with it.

        Raises:
            ConfigError: The text is not a URDF, or contradicts itself; every fault is named.
        """
        faults = urdf_faults(urdf_xml)
        if faults:
            raise ConfigError("robot description: " + "; ".join(faults))
        try:
            model = pin.buildModelFromXML(urdf_xml, True)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"robot description: the URDF does not load: {error}") from error
        return cls(model, base_frame=base_frame, locked=locked)

    @classmethod
    def from_mjcf(
        cls,
        path: str | Path,
        *,
        angle: AngleUnit | None = None,
        base_frame: str | None = None,
        locked: Mapping[str, float] | None = None,
    ) -> Self:
        """Load the robot of a MuJoCo file; its meshes are not needed.

        MJCF has no velocity limits, so these are infinite.

        Args:
            path: The MJCF file.
            angle: Unit of its angles, if its <compiler> does not name one. Fragments made to be
                included elsewhere (robosuite's robots: "radian") leave it out.
            base_frame: As in the constructor.
            locked: As in the constructor.

        Raises:
            ConfigError: The file cannot be read, or its unit of angles is not known.
        """
        path = Path(path)
        try:
            tree = ET.parse(path)
        except (OSError, ET.ParseError) as error:
            raise ConfigError(f"{path}: not a readable MJCF file: {error}") from error
        _settle_angle_unit(tree.getroot(), angle, path)
        # Geometry does not matter here, and would be looked for beside the copy.
        for parent in list(tree.iter()):
            for child in [c for c in parent if c.tag in ("asset", "geom")]:
                parent.remove(child)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            tree.write(copy)
            try:
                model = pin.buildModelFromMJCF(str(copy))
            except (ValueError, RuntimeError, KeyError) as error:
                raise ConfigError(f"{path}: the MJCF does not load: {error}") from error
        return cls(model, base_frame=base_frame, locked=locked)

    @property
    def n_joints(self) -> int:
        """Number of joints j in q."""
        return len(self.joint_names)

    @property
    def pinocchio_model(self) -> pin.Model:
        """The model inside, for libraries that work on one; do not change it."""
        return self._model

    def forward(self, q: ArrayLike, frame: str) -> NDArray[np.float64]:
        """Return T_base_frame (4, 4) at joint positions q (j,).

        Raises:
            ConfigError: No such frame.
            ShapeError: q is not (j,) or not finite.
        """
        frame_id, data = self.frame_id(frame), self._placed(q)
        return self._root_base.actInv(data.oMf[frame_id]).homogeneous

    def forward_all(self, q: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Return T_base_frame (4, 4) of every frame at joint positions q (j,)."""
        data = self._placed(q)
        return {
            name: self._root_base.actInv(data.oMf[self._model.getFrameId(name)]).homogeneous
            for name in self.frame_names
        }

    def jacobian(self, q: ArrayLike, frame: str) -> NDArray[np.float64]:
        """Return the Jacobian (6, j): joint velocities to the velocity of the frame's origin.

        Rows are linear (m/s), then angular velocity (rad/s), along the axes of the base frame.
        """
        frame_id = self.frame_id(frame)
        data = self._model.createData()
        jacobian = pin.computeFrameJacobian(
            self._model, data, self.configuration(q), frame_id, pin.LOCAL_WORLD_ALIGNED
        )
        R_base_root = self._root_base.rotation.T
        return np.concatenate([R_base_root @ jacobian[:3], R_base_root @ jacobian[3:]])

    def reorder(self, names: Sequence[str], values: ArrayLike) -> NDArray[np.float64]:
        """Return the values of this robot's joints, in its order, out of a larger set by name.

        Args:
            names: Names of the values, in any order; others than this robot's are left out.
            values: (len(names),) positions, velocities or the like.

        Raises:
            TrajectoryError: A joint is missing, or named twice.
            ShapeError: Names and values differ in number.
        """
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (len(names),):
            raise ShapeError(f"reorder: expected {len(names)} values, got shape {array.shape}")
        place = {name: i for i, name in enumerate(names)}
        missing = [name for name in self.joint_names if name not in place]
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if missing or twice:
            parts = [f"missing joints {', '.join(missing)}"] * bool(missing)
            parts += [f"joints named twice {', '.join(twice)}"] * bool(twice)
            raise TrajectoryError(f"{'; '.join(parts)}; the names were {', '.join(names)}")
        return array[[place[name] for name in self.joint_names]]

    def frame_id(self, frame: str) -> int:
        """Return Pinocchio's index of a frame, or raise a ConfigError that lists the frames."""
        if frame not in self.frame_names:
            raise ConfigError(unknown_name_message("frame", frame, self.frame_names))
        return self._model.getFrameId(frame)

    def configuration(self, q: ArrayLike) -> NDArray[np.float64]:
        """Return Pinocchio's configuration of q: continuous joints as cosine and sine."""
        return pin.integrate(self._model, pin.neutral(self._model), self.check_q(q))

    def check_q(self, q: ArrayLike, name: str = "q") -> NDArray[np.float64]:
        """Return q as (j,) float64.

        Raises:
            ShapeError: q has another shape, or values that are not finite; it names the joints.
        """
        array = np.asarray(q, dtype=np.float64)
        if array.shape != (self.n_joints,):
            raise ShapeError(
                f"{name}: expected {self.n_joints} values for {', '.join(self.joint_names)}, "
                f"got shape {array.shape}"
            )
        if not np.isfinite(array).all():
            bad = [
                f"{joint} = {value}"
                for joint, value in zip(self.joint_names, array, strict=True)
                if not np.isfinite(value)
            ]
            raise ShapeError(f"{name}: expected finite values, got {', '.join(bad)}")
        return array

    def to_root(self, T_base_frame: NDArray[np.float64]) -> pin.SE3:
        """Return the pose in Pinocchio's root frame."""
        return self._root_base * pin.SE3(T_base_frame)

    def _placed(self, q: ArrayLike) -> pin.Data:
        """Return fresh data with every frame placed: nothing is shared between calls."""
        data = self._model.createData()
        pin.framesForwardKinematics(self._model, data, self.configuration(q))
        return data

    def _fixed_to_root(self, frame: str) -> pin.SE3:
        """Return the pose of a frame that no joint moves, in Pinocchio's root frame."""
        found = self._model.frames[self.frame_id(frame)]
        if found.parentJoint != 0:
            fixed = [f.name for f in list(self._model.frames)[1:] if f.parentJoint == 0]
            raise ConfigError(
                f"base frame {frame!r} is moved by joint "
                f"{self._model.names[found.parentJoint]!r}; fixed are {', '.join(fixed)}"
            )
        return found.placement


def _joints(model: pin.Model) -> Iterable[tuple[str, pin.JointModel]]:
    """Return the named joints without Pinocchio's root."""
    return list(zip(model.names, model.joints, strict=True))[1:]


def _lock_joints(model: pin.Model, locked: Mapping[str, float]) -> pin.Model:
    """Return the model without the locked joints and those that mimic them."""
    joints = dict(_joints(model))
    unknown = [name for name in locked if name not in joints or joints[name].nv != 1]
    if unknown:
        drivable = [name for name, joint in joints.items() if joint.nv == 1]
        raise ConfigError(
            "; ".join(unknown_name_message("joint to lock", name, drivable) for name in unknown)
        )
    if not np.isfinite(list(locked.values())).all():
        raise ConfigError(f"joints to lock: expected finite positions, got {dict(locked)}")
    velocity = np.zeros(model.nv)
    for name, position in locked.items():
        velocity[joints[name].idx_v] = position
    reference = pin.integrate(model, pin.neutral(model), velocity)
    # A follower shares the index of its driver, and cannot stay without it.
    indices = {joints[name].idx_v for name in locked}
    ids = [model.getJointId(name) for name, joint in joints.items() if joint.idx_v in indices]
    return pin.buildReducedModel(model, ids, reference)


def _settle_angle_unit(root: ET.Element, angle: AngleUnit | None, path: Path) -> None:
    """Make sure the MJCF says which unit its angles have, and that it says what we were told."""
    compiler = root.find("compiler")
    stated = None if compiler is None else compiler.get("angle")
    if stated is None and angle is None:
        raise ConfigError(
            f"{path}: no <compiler angle=...>, so its joint limits may be degrees (MuJoCo's "
            "default) or radians (robosuite's fragments); pass angle='degree' or angle='radian'"
        )
    if stated is not None and angle not in (None, stated):
        raise ConfigError(f"{path}: its angles are in {stated}, but angle={angle!r} was passed")
    if compiler is None:
        compiler = ET.Element("compiler")
        root.insert(0, compiler)
    compiler.set("angle", stated or str(angle))


def _frozen(values: NDArray[np.float64], unlimited: float) -> NDArray[np.float64]:
    """Return a read-only copy in which huge stand-ins for "no limit" are infinite."""
    array = np.where(np.abs(values) > 1e20, unlimited, values)
    array.setflags(write=False)
    return array
