"""Own the check, before anything moves, that all who describe the robot mean the same robot."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core import se3
from mu0_core.config import option, validate
from mu0_core.embodiment import Embodiment, arm_limits, arm_model
from mu0_core.errors import ConfigError, ShapeError
from mu0_core.kinematics import RobotModel
from mu0_core.traces import Traces

FloatArray = NDArray[np.float64]

COARSEST_STEP = 0.08
"""Arc step from which on traces show no grasp: as far as a tool is from what it holds."""

_PLACE_M = 0.02
_ANGLE_RAD = 0.1
_STEP_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class TracesConfig:
    """Say what the checkpoint's card promises of the traces; 0 and empty = nothing."""

    arc_step: float = option(
        0.0, description="Step of the traces, image fractions and metres in one norm", low=0.0
    )
    horizon: int = option(0, description="Steps of a trace", low=0)
    robots: tuple[str, ...] = option((), description="Embodiments that it has been trained on")

    def __post_init__(self) -> None:
        coarse = None
        if self.arc_step >= COARSEST_STEP:
            coarse = (
                f"arc_step: expected below {COARSEST_STEP:g}, got {self.arc_step:g}: no grasp can "
                "be read from such coarse traces; take a checkpoint of finer ones"
            )
        validate(self, coarse)

    def check(self, traces: Traces) -> None:
        """Compare traces with the card.

        Raises:
            ShapeError: They are of another model than the card's.
        """
        pairs = (
            ("arc step", self.arc_step, traces.arc_step),
            ("steps", self.horizon, traces.horizon),
        )
        for what, promised, got in pairs:
            if promised and abs(got - promised) > _STEP_TOLERANCE * promised:
                raise ShapeError(
                    f"traces of {traces.model!r}: expected {what} {promised:g} as the "
                    f"checkpoint's card says, got {got:g}; is another world model running?"
                )

    def doubt(self, robot: str) -> str:
        """Say what speaks against this robot; empty = nothing."""
        if not self.robots or robot in self.robots:
            return ""
        return (
            f"the checkpoint was trained on {', '.join(self.robots)}, not on {robot}: look at the "
            "traces before you let it move (dry_run)"
        )


def check_robot(
    embodiment: Embodiment,
    description: str | None,
    joint_names: Sequence[str] | None,
    positions: Sequence[float],
    T_base_tool: FloatArray | None,
) -> RobotModel:
    """Compare embodiment file, description, joint states and TF, and build the arm's model.

    Args:
        embodiment: From the robot's file.
        description: From the topic robot_description, None if none came.
        joint_names: From the topic joint_states, None if none came.
        positions: Of these joints, rad or m.
        T_base_tool: (4, 4) from TF at the same time, None if TF does not know it.

    Raises:
        ConfigError: They disagree; the message has one line for each fault.
    """
    model = arm_model(embodiment, description)
    faults = _joint_faults(embodiment, joint_names, positions)
    base, tool = embodiment.base_frame, embodiment.tool_frame
    if T_base_tool is None:
        faults.append(
            f"TF: no transform from {tool!r} to {base!r} came; is robot_state_publisher running, "
            "and are these the names of its frames?"
        )
    if not faults and joint_names is not None and T_base_tool is not None:
        q = model.reorder(joint_names, positions)
        outside = arm_limits(embodiment, model).violations(q, tolerance=0.01)
        faults += [f"joint_states: {fault}" for fault in outside]
        faults += _pose_faults(model.forward(q, tool), T_base_tool, base, tool)
    if faults:
        heading = f"the robot is not ready for embodiment {embodiment.name!r}:"
        raise ConfigError("\n  ".join([heading, *faults]))
    return model


def _joint_faults(
    embodiment: Embodiment, joint_names: Sequence[str] | None, positions: Sequence[float]
) -> list[str]:
    if joint_names is None:
        return ["joint_states: none came; is joint_state_broadcaster running?"]
    wanted = (*embodiment.arm.joints, *embodiment.gripper.joints)
    missing = [name for name in wanted if name not in joint_names]
    if missing:
        return [f"joint_states: expected {', '.join(missing)}, got only {', '.join(joint_names)}"]
    return [
        f"joint_states: position of {name} is {value}"
        for name, value in zip(joint_names, positions, strict=True)
        if name in wanted and not np.isfinite(value)
    ]


def _pose_faults(computed: FloatArray, from_tf: FloatArray, base: str, tool: str) -> list[str]:
    """Compare the tool's pose by joints and description with TF's."""
    apart_m = float(np.linalg.norm(computed[:3, 3] - from_tf[:3, 3]))
    apart_rad = float(np.linalg.norm(se3.log(se3.inverse(computed) @ from_tf)[3:]))
    if apart_m <= _PLACE_M and apart_rad <= _ANGLE_RAD:
        return []
    return [
        f"TF puts {tool!r} at {np.round(from_tf[:3, 3], 3).tolist()} m in {base!r}, description "
        f"and joint_states at {np.round(computed[:3, 3], 3).tolist()} m ({apart_m:.3f} m and "
        f"{apart_rad:.2f} rad apart, limits {_PLACE_M} m and {_ANGLE_RAD} rad): they come from "
        "different robots, or the order or zero of the joints differs"
    ]
