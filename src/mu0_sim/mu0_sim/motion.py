"""Turn paths of a tool into joint motions from rest to rest, within the joints' limits.

A leg follows its path with a minimum-jerk profile whose duration is the shortest that keeps
velocities and accelerations within a share of their limits. Legs and waits are chained into one
trajectory that a controller accepts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from mu0_core import se3
from mu0_core.errors import TrajectoryError
from mu0_core.kinematics import DifferentialIK, RobotModel
from mu0_sim.controllers import JointTrajectory
from mu0_sim.robots import TOOL_FRAME, RobotSpec

FloatArray = NDArray[np.float64]

_STEPS_PER_LEG = 12
_POINT_INTERVAL_S = 0.05
_SHORTEST_LEG_S = 0.2
_TIMING_SAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """Hold one motion from rest to rest.

    Attributes:
        times_s: (n,) time after its own start.
        q: (n, j) rad.
        qd: (n, j) rad/s, zero at both ends.
    """

    times_s: FloatArray
    q: FloatArray
    qd: FloatArray

    @property
    def duration_s(self) -> float:
        """Return the time from rest to rest."""
        return float(self.times_s[-1])


def tool_path(
    T_from: FloatArray, T_to: FloatArray, detour: FloatArray | None = None
) -> FloatArray:
    """Return (n, 4, 4) poses from one to the other, bent half-way by a detour (3,) in m."""
    share = np.linspace(0.0, 1.0, _STEPS_PER_LEG + 1)
    poses = se3.interpolate(T_from, T_to, share)
    if detour is not None:
        poses[:, :3, 3] += (4.0 * share * (1.0 - share))[:, None] * detour
    return poses


def path_length(poses: FloatArray) -> float:
    """Return the distance in m that the origin of (n, 4, 4) poses travels."""
    return float(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum())


def tool_ik(robot: RobotSpec, description: str) -> DifferentialIK:
    """Return the inverse kinematics of a robot's arm for its tool frame, near its home posture."""
    model = RobotModel.from_urdf(
        description, locked={robot.gripper.joint: robot.gripper.position_open}
    )
    return DifferentialIK(
        model, TOOL_FRAME, q_nominal=model.reorder(robot.arm_joints, robot.home_q)
    )


def joint_path(ik: DifferentialIK, poses: FloatArray, q: FloatArray) -> FloatArray:
    """Return joint positions (n, j) for tool poses (n, 4, 4) in the base frame, from `q` on.

    Raises:
        TrajectoryError: A pose is out of reach.
    """
    path = []
    for pose in poses:
        solution = ik.solve(q, pose)
        if not solution.converged:
            raise TrajectoryError(
                f"the tool cannot reach {np.round(pose[:3, 3], 3).tolist()} m in the base frame: "
                f"it stays {solution.position_error_m:.4f} m and "
                f"{solution.rotation_error_rad:.4f} rad away"
            )
        q = solution.q
        path.append(q)
    return np.stack(path)


def time_leg(
    q_path: FloatArray,
    robot: RobotSpec,
    *,
    limit_share: float,
    shortest_s: float = _SHORTEST_LEG_S,
) -> Leg:
    """Time a joint path (n, j) so that it starts and ends at rest.

    The path parameter runs as 10 u^3 - 15 u^4 + 6 u^5 over the normalised time u.

    Args:
        q_path: Joint positions at equal steps of the path, rad.
        robot: Velocity and acceleration limits.
        limit_share: Share of these limits that may be used, in (0, 1].
        shortest_s: Least duration.
    """
    path = CubicSpline(np.linspace(0.0, 1.0, len(q_path)), q_path)
    u = np.linspace(0.0, 1.0, _TIMING_SAMPLES)
    s, s1, s2 = _minimum_jerk(u)
    qd_unit = path(s, 1) * s1[:, None]
    qdd_unit = path(s, 2) * s1[:, None] ** 2 + path(s, 1) * s2[:, None]
    by_velocity = np.max(np.abs(qd_unit) / (limit_share * robot.velocity_limits))
    by_acceleration = np.max(np.abs(qdd_unit) / (limit_share * robot.acceleration_limits))
    duration_s = max(shortest_s, float(by_velocity), math.sqrt(by_acceleration))

    u = np.linspace(0.0, 1.0, max(2, math.ceil(duration_s / _POINT_INTERVAL_S)) + 1)
    s, s1, _ = _minimum_jerk(u)
    qd = path(s, 1) * s1[:, None] / duration_s
    qd[[0, -1]] = 0.0
    return Leg(times_s=u * duration_s, q=path(s), qd=qd)


def chain(
    joint_names: Sequence[str], legs: Sequence[Leg], waits_s: Sequence[float]
) -> JointTrajectory:
    """Join legs, each after its wait at rest, into one trajectory."""
    times, q, qd = [], [], []
    now_s = 0.0
    for leg, wait_s in zip(legs, waits_s, strict=True):
        skip = 0 if wait_s > 0.0 else 1
        times.append(now_s + wait_s + leg.times_s[skip:])
        q.append(leg.q[skip:])
        qd.append(leg.qd[skip:])
        now_s += wait_s + leg.duration_s
    return JointTrajectory(
        joint_names=tuple(joint_names),
        times_s=np.concatenate(times),
        q=np.concatenate(q),
        qd=np.concatenate(qd),
    )


def _minimum_jerk(u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the path parameter and its first and second derivative by normalised time."""
    s = 10 * u**3 - 15 * u**4 + 6 * u**5
    s1 = 30 * u**2 - 60 * u**3 + 30 * u**4
    s2 = 60 * u - 180 * u**2 + 120 * u**3
    return s, s1, s2
