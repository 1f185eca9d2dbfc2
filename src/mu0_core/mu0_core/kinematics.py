"""Own inverse kinematics within joint limits: one step, one pose, or a path of poses.

Each iteration is a quadratic program (Pink): bring the tool to its pose, keep to a nominal
posture where the pose leaves freedom, inside a box of joint positions. All three calls differ in
that box only: the position limits, or what the velocity limits let be reached within a time step.

`RobotModel` and `DifferentialIK` are what others use from here.
"""

import math
from dataclasses import dataclass

import numpy as np
import pink
import qpsolvers
from numpy.typing import ArrayLike, NDArray
from pink.limits import Limit
from pink.tasks import FrameTask, PostureTask

from mu0_core.config import option, validate
from mu0_core.errors import ConfigError, ShapeError, TrajectoryError
from mu0_core.robot_model import AngleUnit, RobotModel
from mu0_core.se3 import check_transform

__all__ = ["AngleUnit", "DifferentialIK", "IkConfig", "IkPath", "IkSolution", "RobotModel"]

_QP_SOLVER = "daqp"  # dense active set: exact at the bounds, and the same answer every time
_OUTSIDE_TOLERANCE = 0.01  # rad or m that a measured joint may lie beyond its limit
_STALLED = 1e-7  # rad or m: an iteration that moves less than this has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class IkConfig:
    """Weigh the goals of inverse kinematics against each other, and say when it has arrived."""

    position_cost: float = option(1.0, description="Weight of the tool's position", unit="1/m")
    orientation_cost: float = option(
        0.3, description="Weight of the tool's orientation", unit="1/rad", low=0.0
    )
    posture_cost: float = option(
        1e-3, description="Weight of the nominal posture", unit="1/rad", low=0.0
    )
    damping: float = option(
        1e-3, description="Levenberg-Marquardt damping, grows with the error", low=0.0
    )
    max_iterations: int = option(100, description="Iterations before giving up", low=1)
    max_joint_step: float = option(
        0.3, description="Largest move of a joint in one iteration", unit="rad or m", low=1e-3
    )
    position_tolerance_m: float = option(
        1e-4, description="Position error at which it has arrived", unit="m", low=1e-9
    )
    rotation_tolerance_rad: float = option(
        1e-3, description="Rotation error at which it has arrived", unit="rad", low=1e-9
    )

    def __post_init__(self) -> None:
        fault = None if self.position_cost > 0.0 else "position_cost: expected a value above 0"
        validate(self, fault)


@dataclass(frozen=True, slots=True, eq=False)
class IkSolution:
    """Hold joint positions for one pose.

    Attributes:
        q: (j,) rad or m, inside the limits, also where not converged.
        converged: Whether the errors are within the tolerances.
        position_error_m: Distance of the tool from its pose, m.
        rotation_error_rad: Angle between the tool's orientation and the pose's, rad.
        iterations: Iterations used.
    """

    q: NDArray[np.float64]
    converged: bool
    position_error_m: float
    rotation_error_rad: float
    iterations: int


@dataclass(frozen=True, slots=True, eq=False)
class IkPath:
    """Hold joint positions along a path of t poses.

    Attributes:
        q: (t, j) rad or m, inside position limits; successive rows inside velocity limits.
        position_error_m: (t,) m. It grows where the path is faster than the joints.
        rotation_error_rad: (t,) rad.
        converged: (t,) bool, errors within the tolerances.
    """

    q: NDArray[np.float64]
    position_error_m: NDArray[np.float64]
    rotation_error_rad: NDArray[np.float64]
    converged: NDArray[np.bool_]


class DifferentialIK:
    """Find joint motions that bring a tool frame to poses; equal input gives equal output.

    Not for sharing between threads.

    Attributes:
        model: The robot.
        tool_frame: The frame that poses are for.
        q_nominal: (j,) posture to keep to where the pose leaves freedom.
    """

    def __init__(
        self,
        model: RobotModel,
        tool_frame: str,
        *,
        q_nominal: ArrayLike | None = None,
        config: IkConfig | None = None,
    ) -> None:
        """Prepare the solver.

        Args:
            model: The robot; lock the joints (fingers) that are not to be used.
            tool_frame: The frame to bring to poses.
            q_nominal: (j,) posture to keep to; None: the middle of the limits, 0 without limits.
            config: Weights and tolerances.

        Raises:
            ConfigError: No such frame, or the QP solver is not installed.
            TrajectoryError: The nominal posture is outside the limits.
        """
        if _QP_SOLVER not in qpsolvers.available_solvers:
            raise ConfigError(
                f"inverse kinematics needs the QP solver {_QP_SOLVER!r}, found are "
                f"{qpsolvers.available_solvers}; install the Python package {_QP_SOLVER!r}"
            )
        self.model = model
        self.tool_frame = tool_frame
        self._frame_id = model.frame_id(tool_frame)
        self._config = config or IkConfig()
        self.q_nominal = (
            _middle(model) if q_nominal is None else self._inside_limits(q_nominal, "q_nominal")
        )
        self._tool = FrameTask(
            tool_frame,
            position_cost=float(self._config.position_cost),
            orientation_cost=float(self._config.orientation_cost),
            lm_damping=self._config.damping,
        )
        self._posture = PostureTask(cost=self._config.posture_cost)
        self._posture.set_target(model.configuration(self.q_nominal))
        self._data = model.pinocchio_model.createData()

    def solve(self, q_start: ArrayLike, T_base_tool: ArrayLike) -> IkSolution:
        """Find joint positions for one pose, near where they start.

        Args:
            q_start: (j,) rad or m.
            T_base_tool: (4, 4) pose of the tool frame in the model's base frame.

        Raises:
            ShapeError: The start has another shape or is not finite.
            CalibrationError: The pose is not a rigid transform.
            TrajectoryError: The start is outside the limits, or a program has no solution.
        """
        q = self._inside_limits(q_start, "q_start")
        target = check_transform(T_base_tool, "T_base_tool")
        return self._approach(q, target, self.model.position_lower, self.model.position_upper)

    def step(self, q: ArrayLike, T_base_tool: ArrayLike, dt: float) -> NDArray[np.float64]:
        """Return joint velocities (j,) that bring the tool as near to a pose as dt allows.

        Velocities are inside their limits, and q + qd dt inside the position limits. A joint that
        is slightly beyond a limit is led back, no faster than its velocity limit.

        Args:
            q: (j,) rad or m, where the joints are.
            T_base_tool: (4, 4) pose of the tool frame in the model's base frame.
            dt: Time step, s.

        Raises:
            As `solve`; ValueError if dt is not above 0.
        """
        target = check_transform(T_base_tool, "T_base_tool")
        q = self.model.check_q(q)
        self._inside_limits(q, "q")
        reached = self._step(q, target, _checked_dt(dt)).q
        limits = self.model.velocity_limits
        return np.clip((reached - q) / dt, -limits, limits)

    def follow(self, q_start: ArrayLike, T_base_tool: ArrayLike, dt: float) -> IkPath:
        """Follow poses that are dt apart; the first one is due dt after the start.

        Where the path asks for more than the velocity limits, the tool lags and catches up; the
        errors of the result tell.

        Args:
            q_start: (j,) rad or m.
            T_base_tool: (t, 4, 4) poses of the tool frame in the model's base frame.
            dt: Time between poses, s.

        Raises:
            As `step`.
        """
        dt = _checked_dt(dt)
        q = self._inside_limits(q_start, "q_start")
        targets = check_transform(T_base_tool, "T_base_tool")
        if targets.ndim != 3:
            raise ShapeError(f"T_base_tool: expected shape (t, 4, 4), got {targets.shape}")
        steps = []
        for target in targets:
            steps.append(self._step(q, target, dt))
            q = steps[-1].q
        return IkPath(
            q=np.array([step.q for step in steps]).reshape(-1, self.model.n_joints),
            position_error_m=np.array([step.position_error_m for step in steps]),
            rotation_error_rad=np.array([step.rotation_error_rad for step in steps]),
            converged=np.array([step.converged for step in steps], dtype=bool),
        )

    def _step(self, q: NDArray[np.float64], target: NDArray[np.float64], dt: float) -> IkSolution:
        """Approach the target within what the joints can reach in dt."""
        reach = self.model.velocity_limits * dt
        lower = np.clip(self.model.position_lower, q - reach, q + reach)
        upper = np.clip(self.model.position_upper, q - reach, q + reach)
        return self._approach(q, target, lower, upper)

    def _approach(
        self,
        q: NDArray[np.float64],
        T_base_tool: NDArray[np.float64],
        lower: NDArray[np.float64],
        upper: NDArray[np.float64],
    ) -> IkSolution:
        """Iterate towards the pose inside a box of joint positions."""
        q = np.clip(q, lower, upper)
        target = self.model.to_root(T_base_tool)
        self._tool.set_target(target)
        box = _Box(self._config.max_joint_step)
        iterations = 0
        configuration = self._configuration(q)
        errors = self._errors(configuration, target)
        while not self._arrived(errors) and iterations < self._config.max_iterations:
            box.lower, box.upper = lower - q, upper - q
            moved = np.clip(q + self._delta(configuration, box), lower, upper)
            iterations += 1
            stalled = np.abs(moved - q).max(initial=0.0) < _STALLED
            q = moved
            configuration = self._configuration(q)
            errors = self._errors(configuration, target)
            if stalled:
                break
        return IkSolution(q, self._arrived(errors), *errors, iterations)

    def _delta(self, configuration: pink.Configuration, box: "_Box") -> NDArray[np.float64]:
        """Solve one quadratic program for the joint displacement (j,)."""
        try:
            return pink.solve_ik(
                configuration,
                [self._tool, self._posture],
                dt=1.0,
                solver=_QP_SOLVER,
                limits=[box],
                safety_break=False,
            )
        except pink.exceptions.NoSolutionFound as error:
            raise TrajectoryError(
                f"inverse kinematics of {self.tool_frame!r}: the quadratic program has no "
                f"solution at q = {configuration.q.tolist()}; check the robot's limits"
            ) from error

    def _configuration(self, q: NDArray[np.float64]) -> pink.Configuration:
        model = self.model.pinocchio_model
        return pink.Configuration(model, self._data, self.model.configuration(q), copy_data=False)

    def _errors(self, configuration: pink.Configuration, target: object) -> tuple[float, float]:
        """Return position error (m) and rotation error (rad) of the tool."""
        error = configuration.data.oMf[self._frame_id].actInv(target)
        cosine = 0.5 * (np.trace(error.rotation) - 1.0)
        sine = 0.5 * np.linalg.norm(error.rotation - error.rotation.T) / math.sqrt(2.0)
        return float(np.linalg.norm(error.translation)), math.atan2(sine, cosine)

    def _arrived(self, errors: tuple[float, float]) -> bool:
        return (
            errors[0] <= self._config.position_tolerance_m
            and errors[1] <= self._config.rotation_tolerance_rad
        )

    def _inside_limits(self, q: ArrayLike, name: str) -> NDArray[np.float64]:
        """Return q inside the position limits; refuse one that is far outside."""
        array = self.model.check_q(q, name)
        lower, upper = self.model.position_lower, self.model.position_upper
        outside = np.maximum(lower - array, array - upper) > _OUTSIDE_TOLERANCE
        if outside.any():
            faults = [
                f"{self.model.joint_names[i]} = {array[i]:.4f}, limits "
                f"[{lower[i]:.4f}, {upper[i]:.4f}]"
                for i in np.flatnonzero(outside)
            ]
            raise TrajectoryError(
                f"{name} is outside the joint limits: {'; '.join(faults)} (rad or m); check the "
                "order of the joints and that the description is this robot's"
            )
        return np.clip(array, lower, upper)


class _Box(Limit):
    """Keep displacements inside bounds, and each below the largest step of an iteration."""

    def __init__(self, max_step: float) -> None:
        self.max_step = max_step
        self.lower = np.zeros(0)
        self.upper = np.zeros(0)

    def compute_qp_inequalities(
        self, configuration: pink.Configuration, dt: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return G and h of G delta <= h."""
        eye = np.eye(len(self.lower))
        upper = np.minimum(self.upper, self.max_step)
        lower = np.maximum(self.lower, -self.max_step)
        return np.concatenate([eye, -eye]), np.concatenate([upper, -lower])


def _middle(model: RobotModel) -> NDArray[np.float64]:
    """Return the middle of the position limits, 0 or the nearest limit where there is none."""
    bounded = np.isfinite(model.position_lower) & np.isfinite(model.position_upper)
    lower = np.where(bounded, model.position_lower, 0.0)
    upper = np.where(bounded, model.position_upper, 0.0)
    return np.clip(0.5 * (lower + upper), model.position_lower, model.position_upper)


def _checked_dt(dt: float) -> float:
    if not (math.isfinite(dt) and dt > 0.0):
        raise ValueError(f"dt: expected a time step above 0 s, got {dt}")
    return float(dt)
