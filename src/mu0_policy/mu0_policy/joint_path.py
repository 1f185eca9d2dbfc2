"""Turn tool poses into wanted joint positions over time.

Poses become joint positions by inverse kinematics, from where the arm is, and the way along them
gets a jerk-limited time law (Ruckig). What comes out is a wish: `mu0_policy.chunk` makes of it
what the joints' limits allow.
"""

from dataclasses import dataclass

import numpy as np
import ruckig
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from mu0_core import se3
from mu0_core.embodiment import JointLimits, Speeds
from mu0_core.kinematics import DifferentialIK

FloatArray = NDArray[np.float64]

_SPACING_M = 0.025
_MOST_POSES = 16
_REACHED_M = 0.005
_REACHED_RAD = 0.05
_LONGEST_STEP_RAD = 0.8  # between neighbours; more is a flip to another posture
_SPEED_SHARE = 0.6  # of a joint's velocity limit
_LAW_STEP_S = 0.01
_CAREFUL_M = 0.05  # before the end of a path that ends in a contact
_SLOWEST_SHARE = 0.1  # of the tool's speed, where a joint would need to be faster


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointPath:
    """Hold wanted joint positions over time.

    Attributes:
        start_s: When it begins.
        duration_s: How long it takes; then the last position stays.
        shortfall: Why it ends before the last pose; empty if it does not.
    """

    start_s: float
    duration_s: float
    shortfall: str
    _times_s: FloatArray
    _way_m: FloatArray
    _q: PchipInterpolator | None
    _q_end: FloatArray

    def positions(self, times_s: FloatArray) -> FloatArray:
        """Return the wanted positions (m, j) at times (m,), rad."""
        if self._q is None:
            return np.tile(self._q_end, (len(times_s), 1))
        return self._q(np.interp(times_s - self.start_s, self._times_s, self._way_m))


def staying(q: FloatArray, start_s: float, shortfall: str = "") -> JointPath:
    """Return the path that stays at q (j,)."""
    none = np.zeros(0)
    return JointPath(
        start_s=start_s,
        duration_s=0.0,
        shortfall=shortfall,
        _times_s=none,
        _way_m=none,
        _q=None,
        _q_end=q,
    )


def timed(times_s: FloatArray, q: FloatArray) -> JointPath:
    """Return the path through positions q (k, j) at times (k,), smoothly between them."""
    since_s = np.asarray(times_s - times_s[0], dtype=np.float64)
    return JointPath(
        start_s=float(times_s[0]),
        duration_s=float(since_s[-1]),
        shortfall="",
        _times_s=since_s,
        _way_m=since_s,
        _q=PchipInterpolator(since_s, q),
        _q_end=q[-1],
    )


def plan_joint_path(
    ik: DifferentialIK,
    poses: FloatArray,
    limits: JointLimits,
    speeds: Speeds,
    *,
    q: FloatArray,
    qd: FloatArray,
    start_s: float,
    careful: bool = False,
) -> JointPath:
    """Plan along tool poses, from a moving state.

    The tool keeps to its speeds, and is slower where a joint would have to be fast. Where a pose
    is out of reach the path ends at the last one before it.

    Args:
        ik: Inverse kinematics of the tool.
        poses: (k, 4, 4) poses to pass in the base frame; the arm's own pose comes before.
        limits: Of the joints.
        speeds: Of the tool.
        q: (j,) rad, where the path begins.
        qd: (j,) rad/s at that place.
        start_s: Time at that place.
        careful: Whether the tool goes slowly before the end: it will touch something there.
    """
    if len(poses) == 0:
        return staying(q, start_s)
    T_start = ik.model.forward(q, ik.tool_frame)
    way, even = _evenly(np.concatenate([T_start[None], poses]), speeds)
    if len(way) < 2:
        return staying(q, start_s)
    reached, shortfall = _reach(ik, even, q)
    if len(reached) < 2:
        return staying(q, start_s, shortfall)
    path = PchipInterpolator(way[: len(reached)], reached)
    times_s, way_m = _time_law(path, limits, speeds, qd, careful=careful)
    return JointPath(
        start_s=start_s,
        duration_s=float(times_s[-1]),
        shortfall=shortfall,
        _times_s=times_s,
        _way_m=way_m,
        _q=path,
        _q_end=reached[-1],
    )


def _evenly(poses: FloatArray, speeds: Speeds) -> tuple[FloatArray, FloatArray]:
    """Place poses at even steps of the way (m), on which turning counts by the time it takes."""
    steps_m = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=-1)
    turns_rad = np.linalg.norm(
        se3.log(se3.inverse(poses[:-1]) @ poses[1:]).reshape(-1, 6)[:, 3:], axis=-1
    )
    steps = np.maximum(steps_m, turns_rad * speeds.linear / speeds.angular)
    keep = np.concatenate([[True], steps > 1e-6])
    poses, way = poses[keep], np.concatenate([[0.0], np.cumsum(steps[keep[1:]])])
    if len(way) < 2:
        return way, poses
    n = int(np.clip(np.ceil(way[-1] / _SPACING_M), 1, _MOST_POSES)) + 1
    even = np.linspace(0.0, way[-1], n)
    before = np.clip(np.searchsorted(way, even, side="right") - 1, 0, len(way) - 2)
    alpha = np.clip((even - way[before]) / np.diff(way)[before], 0.0, 1.0)
    return even, se3.interpolate(poses[before], poses[before + 1], alpha)


def _reach(ik: DifferentialIK, poses: FloatArray, q: FloatArray) -> tuple[FloatArray, str]:
    """Solve for the poses one after the other; stop before one that is out of reach."""
    reached = [q]
    for pose in poses[1:]:
        solution = ik.solve(reached[-1], pose)
        place = np.round(pose[:3, 3], 3).tolist()
        if solution.position_error_m > _REACHED_M or solution.rotation_error_rad > _REACHED_RAD:
            return np.stack(reached), (
                f"{ik.tool_frame} cannot reach {place} m in {ik.model.base_frame}: it stays "
                f"{solution.position_error_m:.3f} m and {solution.rotation_error_rad:.2f} rad away"
            )
        step = np.abs(solution.q - reached[-1])
        if step.max() > _LONGEST_STEP_RAD:
            joint = ik.model.joint_names[int(step.argmax())]
            return np.stack(reached), (
                f"{joint} would swing by {step.max():.2f} rad on the way to {place} m, limit "
                f"{_LONGEST_STEP_RAD}: the arm would change its posture"
            )
        reached.append(solution.q)
    return np.stack(reached), ""


def _time_law(
    path: PchipInterpolator, limits: JointLimits, speeds: Speeds, qd: FloatArray, *, careful: bool
) -> tuple[FloatArray, FloatArray]:
    """Time the way along a path, from the speed that the joints have along it to rest.

    Returns:
        Times (k,) after the start, s, and the way (k,) at these, m.
    """
    slopes = path(path.x, 1)
    fastest = np.abs(slopes) / (_SPEED_SHARE * limits.velocity)
    speed = speeds.linear * max(
        _SLOWEST_SHARE, min(1.0, 1.0 / max(1e-9, speeds.linear * float(fastest.max())))
    )
    direction = slopes[0]
    now = max(0.0, float(direction @ qd) / max(1e-9, float(direction @ direction)))
    end_m = float(path.x[-1])
    if not careful or speeds.contact >= speed:
        return _leg(0.0, end_m, now, 0.0, speed, speeds)
    slow_from_m = end_m - _CAREFUL_M
    if slow_from_m < _braking_m(min(now, speed), speeds.contact, speeds):
        return _leg(0.0, end_m, now, 0.0, speeds.contact, speeds)
    times_s, way_m = _leg(0.0, slow_from_m, now, speeds.contact, speed, speeds)
    more_s, more_m = _leg(slow_from_m, end_m, speeds.contact, 0.0, speeds.contact, speeds)
    return np.append(times_s, times_s[-1] + more_s[1:]), np.append(way_m, more_m[1:])


def _leg(
    from_m: float, to_m: float, at_start: float, at_end: float, most: float, speeds: Speeds
) -> tuple[FloatArray, FloatArray]:
    """Time a part of the way between two speeds (m/s); a start faster than `most` is cut."""
    problem = ruckig.InputParameter(1)
    problem.current_position, problem.target_position = [from_m], [to_m]
    problem.current_velocity, problem.target_velocity = [min(at_start, most)], [at_end]
    problem.current_acceleration = problem.target_acceleration = [0.0]
    problem.max_velocity = [most]
    problem.max_acceleration = [speeds.acceleration]
    problem.max_jerk = [speeds.jerk]
    law = ruckig.Trajectory(1)
    ruckig.Ruckig(1).calculate(problem, law)
    times_s = np.linspace(0.0, law.duration, max(2, round(law.duration / _LAW_STEP_S)))
    way_m = np.array([law.at_time(float(t))[0][0] for t in times_s])
    return times_s, np.clip(way_m, from_m, to_m)


def _braking_m(from_speed: float, to_speed: float, speeds: Speeds) -> float:
    """Return the way on which the tool gets from one speed to a lower one, with room to spare."""
    change = max(0.0, from_speed - to_speed)
    needed_s = change / speeds.acceleration + speeds.acceleration / speeds.jerk
    return 0.5 * (from_speed + to_speed) * needed_s
