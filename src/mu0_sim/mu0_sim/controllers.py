"""Follow joint trajectories as a robot's trajectory controller does, with limits checked first.

The rules are those of the joint_trajectory_controller of ROS 2 Jazzy for commands that come as
messages; finiteness and joint limits are checked on top. This module owns what is commanded at
which time; how joints follow the command is the simulation's part.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import BPoly

from mu0_core.errors import ShapeError, TrajectoryError, unknown_name_message

_SAMPLES_PER_SEGMENT = 24
_TOLERANCE = 1e-6
_REST_VELOCITY = float(np.finfo(np.float32).eps)
_ENTRY_JUMP_S = 0.05
_SAME_TIME_S = 1e-6  # messages count in nanoseconds

FloatArray = NDArray[np.float64]


def _frozen(values: ArrayLike) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, slots=True, kw_only=True)
class JointLimits:
    """Hold what each joint of a controller may do; infinite where there is no limit.

    Attributes:
        joint_names: Names of the j joints, in the controller's order.
        position_lower: (j,) rad or m.
        position_upper: (j,) rad or m.
        velocity: (j,) rad/s or m/s, positive.
    """

    joint_names: tuple[str, ...]
    position_lower: FloatArray
    position_upper: FloatArray
    velocity: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "joint_names", tuple(self.joint_names))
        for name in ("position_lower", "position_upper", "velocity"):
            array = _frozen(getattr(self, name))
            if array.shape != (len(self.joint_names),):
                raise ShapeError(
                    f"{name} of joint limits: expected one value for each of the "
                    f"{len(self.joint_names)} joints, got shape {array.shape}"
                )
            object.__setattr__(self, name, array)


@dataclass(frozen=True, slots=True, kw_only=True)
class JointTrajectory:
    """Hold one command: the n points that j joints shall pass, and when.

    Attributes:
        joint_names: Names of the j joints, in any order.
        times_s: (n,) time of each point after the start.
        q: (n, j) rad or m.
        qd: (n, j) rad/s or m/s, or None: positions are then joined by straight lines.
        qdd: (n, j) rad/s^2 or m/s^2, or None; only beside `qd`.
        start_s: Time of the start on the controller's clock; 0 = when it is received.
    """

    joint_names: tuple[str, ...]
    times_s: FloatArray
    q: FloatArray
    qd: FloatArray | None = None
    qdd: FloatArray | None = None
    start_s: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "joint_names", tuple(self.joint_names))
        object.__setattr__(self, "times_s", _frozen(self.times_s))
        shape = (len(self.times_s), len(self.joint_names))
        for name in ("q", "qd", "qdd"):
            if getattr(self, name) is None:
                continue
            array = _frozen(getattr(self, name))
            if array.shape != shape:
                raise TrajectoryError(
                    f"{name} of the trajectory: expected {shape[0]} points x {shape[1]} joints, "
                    f"got shape {array.shape}"
                )
            object.__setattr__(self, name, array)
        if self.qdd is not None and self.qd is None:
            raise TrajectoryError("the trajectory has accelerations but no velocities: add them")

    @property
    def duration_s(self) -> float:
        """Return the time of the last point after the start."""
        return float(self.times_s[-1])


@dataclass(slots=True)
class TrajectoryController:
    """Turn trajectories into the desired position and velocity of joints at any time.

    A new trajectory replaces the old one. From the desired state at its arrival the joints move
    to its first point, then along its points, and they hold the last one. A refused trajectory
    changes nothing.

    Args:
        limits: The joints, in the order of every array here, and what they may do.
        q: (j,) position to hold until the first trajectory.
    """

    limits: JointLimits
    q: FloatArray
    _path: BPoly | None = field(default=None, init=False, repr=False)
    _end_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.hold(self.q)

    def hold(self, q: ArrayLike) -> None:
        """Forget the trajectory and hold `q` (j,) rad or m."""
        self.q = _frozen(q)
        if self.q.shape != (len(self.limits.joint_names),):
            raise ShapeError(
                f"position to hold: expected {len(self.limits.joint_names)} values, "
                f"got shape {self.q.shape}"
            )
        self._path = None
        self._end_s = 0.0

    @property
    def end_s(self) -> float:
        """Return the time at which the last accepted trajectory ends; 0 before the first."""
        return self._end_s

    def sample(self, now_s: float) -> tuple[FloatArray, FloatArray]:
        """Return the desired position and velocity (j,) at a time that does not go back."""
        q, qd, _ = self._state(now_s)
        return q, qd

    def followed(self, now_s: float) -> JointTrajectory:
        """Return what is followed from a time on, its first point being the desired state then."""
        if self._path is None or now_s >= self._end_s:
            return JointTrajectory(
                joint_names=self.limits.joint_names,
                times_s=np.zeros(1),
                q=self.q[None],
                start_s=now_s,
            )
        at_s = np.concatenate(([now_s], self._path.x[self._path.x > now_s + _SAME_TIME_S]))
        # A segment of lines, cubics or quintics follows from as many derivatives at its ends.
        orders = [self._path(at_s, order) for order in range(self._path.c.shape[0] // 2)]
        return JointTrajectory(
            joint_names=self.limits.joint_names,
            times_s=at_s - now_s,
            q=orders[0],
            qd=orders[1] if len(orders) > 1 else None,
            qdd=orders[2] if len(orders) > 2 else None,
            start_s=now_s,
        )

    def accept(self, trajectory: JointTrajectory, now_s: float) -> None:
        """Replace what is followed by `trajectory`, received at `now_s`.

        Raises:
            TrajectoryError: The trajectory breaks a rule or a limit; the old one goes on.
        """
        ordered = self._in_own_order(trajectory)
        start_s = ordered.start_s or now_s
        _check_points(ordered, self.limits)
        _check_times(ordered, start_s, now_s)
        path = self._join(ordered, start_s, now_s)
        _check_path(path, self.limits, now_s)
        self._check_entry(path, now_s)
        self.q = _frozen(ordered.q[-1])
        self._path = path
        self._end_s = start_s + ordered.duration_s

    def _state(self, now_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        if self._path is None or now_s >= self._end_s:
            return self.q.copy(), np.zeros_like(self.q), np.zeros_like(self.q)
        return self._path(now_s), self._path(now_s, 1), self._path(now_s, 2)

    def _in_own_order(self, trajectory: JointTrajectory) -> JointTrajectory:
        own, given = self.limits.joint_names, trajectory.joint_names
        for name in given:
            if name not in own:
                raise TrajectoryError(unknown_name_message("joint", name, own))
        if repeated := [name for name in own if given.count(name) > 1]:
            raise TrajectoryError(f"joint {repeated[0]!r} stands twice in the trajectory")
        if missing := [name for name in own if name not in given]:
            raise TrajectoryError(
                f"the trajectory lacks joint(s) {', '.join(missing)}: "
                f"this controller moves {', '.join(own)} together"
            )
        order = [given.index(name) for name in own]
        qd, qdd = trajectory.qd, trajectory.qdd
        return JointTrajectory(
            joint_names=own,
            times_s=trajectory.times_s,
            q=trajectory.q[:, order],
            qd=None if qd is None else qd[:, order],
            qdd=None if qdd is None else qdd[:, order],
            start_s=trajectory.start_s,
        )

    def _join(self, trajectory: JointTrajectory, start_s: float, now_s: float) -> BPoly:
        """Join the points, from the desired state on, by lines, cubics or quintics."""
        orders = (trajectory.q, trajectory.qd, trajectory.qdd)
        given = [array for array in orders if array is not None]
        times_s = start_s + trajectory.times_s
        points = np.stack(given, axis=1)
        if times_s[0] > now_s:
            desired = np.stack(self._state(now_s)[: len(given)])
            times_s = np.concatenate(([now_s], times_s))
            points = np.concatenate((desired[None], points))
        if len(times_s) == 1:
            times_s = np.append(times_s, times_s[0] + _ENTRY_JUMP_S)
            points = np.concatenate((points, points))
        return BPoly.from_derivatives(times_s, list(points))

    def _check_entry(self, path: BPoly, now_s: float) -> None:
        """Refuse a path that is entered far from the desired state: a joint would jump."""
        held = self._state(now_s)[0]
        jump = np.abs(path(max(now_s, path.x[0])) - held)
        allowed = self.limits.velocity * _ENTRY_JUMP_S
        for name, moved, most, at in zip(
            self.limits.joint_names, jump, allowed, held, strict=True
        ):
            if moved > most + _TOLERANCE:
                raise TrajectoryError(
                    f"joint {name!r} would jump by {moved:.4g} at once, limit {most:.4g} (what it "
                    f"may move in {_ENTRY_JUMP_S} s): start from the desired position {at:.4g}, "
                    "or give the first point a later time"
                )


def _check_points(trajectory: JointTrajectory, limits: JointLimits) -> None:
    if len(trajectory.times_s) == 0:
        raise TrajectoryError("the trajectory has no points: send at least one")
    if not np.isfinite(trajectory.start_s):
        raise TrajectoryError(f"start of the trajectory: {trajectory.start_s} is not a time")
    if not np.isfinite(trajectory.times_s).all():
        raise TrajectoryError(f"times of the trajectory are not finite: {trajectory.times_s}")
    for what, array in (
        ("position", trajectory.q),
        ("velocity", trajectory.qd),
        ("acceleration", trajectory.qdd),
    ):
        if array is not None and not np.isfinite(array).all():
            point, joint = np.argwhere(~np.isfinite(array))[0]
            raise TrajectoryError(
                f"{what} of joint {trajectory.joint_names[joint]!r} at point {point} is "
                f"{array[point, joint]}, expected a finite number"
            )
    _check_limits(trajectory.q, trajectory.qd, limits, lambda i: f"point {i}")
    if trajectory.qd is not None:
        moving = np.abs(trajectory.qd[-1]) > _REST_VELOCITY
        if moving.any():
            joint = int(np.argmax(moving))
            raise TrajectoryError(
                f"joint {trajectory.joint_names[joint]!r} still moves at the last point: velocity "
                f"{trajectory.qd[-1, joint]:.4g}, limit 0; end the trajectory at rest"
            )


def _check_times(trajectory: JointTrajectory, start_s: float, now_s: float) -> None:
    times_s = trajectory.times_s
    if times_s[0] < 0.0:
        raise TrajectoryError(f"time of point 0 is {times_s[0]:.4g} s, expected 0 s or later")
    if (np.diff(times_s) <= 0.0).any():
        point = int(np.argmax(np.diff(times_s) <= 0.0))
        raise TrajectoryError(
            f"times do not increase: point {point} at {times_s[point]:.4g} s, "
            f"point {point + 1} at {times_s[point + 1]:.4g} s"
        )
    if trajectory.start_s and start_s + times_s[-1] < now_s:
        raise TrajectoryError(
            f"the trajectory ended in the past: its end is {start_s + times_s[-1]:.4g} s, "
            f"now is {now_s:.4g} s; stamp it later, or with 0 to start at once"
        )


def _check_path(path: BPoly, limits: JointLimits, now_s: float) -> None:
    """Check what lies between the points, which an interpolation may overshoot."""
    x = path.x
    steps = np.linspace(0.0, 1.0, _SAMPLES_PER_SEGMENT, endpoint=False)
    times_s = np.append((x[:-1, None] + np.diff(x)[:, None] * steps).ravel(), x[-1])
    times_s = times_s[times_s >= now_s]
    _check_limits(
        path(times_s),
        path(times_s, 1),
        limits,
        lambda i: f"{times_s[i] - now_s:.4g} s from now, between points",
    )


def _check_limits(
    q: FloatArray, qd: FloatArray | None, limits: JointLimits, where: Callable[[int], str]
) -> None:
    for joint, name in enumerate(limits.joint_names):
        lower, upper = limits.position_lower[joint], limits.position_upper[joint]
        outside = (q[:, joint] < lower - _TOLERANCE) | (q[:, joint] > upper + _TOLERANCE)
        if outside.any():
            i = int(np.argmax(outside))
            raise TrajectoryError(
                f"joint {name!r}: position {q[i, joint]:.4g} ({where(i)}) is outside its limits "
                f"[{lower:.4g}, {upper:.4g}]"
            )
        if qd is None:
            continue
        speed, most = np.abs(qd[:, joint]), limits.velocity[joint]
        if (speed > most * (1.0 + 1e-3)).any():
            i = int(np.argmax(speed))
            raise TrajectoryError(
                f"joint {name!r}: velocity {qd[i, joint]:.4g} ({where(i)}) exceeds its limit "
                f"{most:.4g}; give the motion more time"
            )
