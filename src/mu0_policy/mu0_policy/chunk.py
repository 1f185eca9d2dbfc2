"""Own what is being executed: short joint trajectories that take over from each other.

A chunk has one knot every KNOT_S on a grid that is the same for all chunks. Between knots the
jerk is constant, so each joint runs along a cubic: positions and velocities at the knots, which
is what a joint_trajectory_controller interpolates by cubics, give back the whole motion with its
continuous acceleration. A new chunk repeats the knots of the running one up to the knot from
which it may differ: whenever it arrives before that knot, positions, velocities and accelerations
go on without a jump. Every chunk ends at rest no later than HORIZON_S after it was made, so a
controller that gets nothing more stops by itself.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import qpsolvers
from numpy.typing import ArrayLike, NDArray

from mu0_core.embodiment import JointLimits
from mu0_core.errors import ShapeError, TrajectoryError

KNOT_S = 0.05
HORIZON_S = 1.0
_N_KNOTS = round(HORIZON_S / KNOT_S)
_LIMIT_SHARE = 0.998  # the rest is for the solver's tolerance
_JERK_COST = 1e-8  # rad^2 of deviation that a jerk of 1 rad/s^3 is worth
_INSIDE_RAD = 2e-5  # of a position limit, where motions are planned if they can be
_TAIL_DECAY = 0.8  # weight of a knot relative to the one before: the far end will be replaced

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointMotion:
    """Hold the commanded state of j joints at one time.

    Attributes:
        q: (j,) rad.
        qd: (j,) rad/s.
        qdd: (j,) rad/s^2.
    """

    q: FloatArray
    qd: FloatArray
    qdd: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """Hold one joint trajectory on the grid of knots; before and after it, the joints rest.

    Attributes:
        first_knot: Number of the first knot; knot i is at i KNOT_S on the clock.
        q: (k, j) rad.
        qd: (k, j) rad/s; zero at the last knot.
        qdd: (k, j) rad/s^2; zero at the last knot.
    """

    first_knot: int
    q: FloatArray
    qd: FloatArray
    qdd: FloatArray

    def __post_init__(self) -> None:
        for name in ("q", "qd", "qdd"):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.ndim != 2 or array.shape != np.shape(self.q) or not len(array):
                raise ShapeError(f"chunk, {name}: expected (k, j) like q, got {array.shape}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def last_knot(self) -> int:
        """Number of the last knot, at which the joints come to rest."""
        return self.first_knot + len(self.q) - 1

    @property
    def start_s(self) -> float:
        """Time of the first knot."""
        return self.first_knot * KNOT_S

    @property
    def end_s(self) -> float:
        """Time of the last knot."""
        return self.last_knot * KNOT_S

    def knot(self, number: int) -> JointMotion:
        """Return the state at a knot of the grid, inside the chunk or not."""
        i = min(max(number - self.first_knot, 0), len(self.q) - 1)
        if i == number - self.first_knot:
            return JointMotion(q=self.q[i], qd=self.qd[i], qdd=self.qdd[i])
        return JointMotion(q=self.q[i], qd=np.zeros_like(self.q[i]), qdd=np.zeros_like(self.q[i]))

    def state(self, t_s: float) -> JointMotion:
        """Return what is commanded at a time."""
        q, qd, qdd = self.sample([t_s])
        return JointMotion(q=q[0], qd=qd[0], qdd=qdd[0])

    def sample(self, times_s: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return position, velocity and acceleration (m, j) at times (m,)."""
        times = np.asarray(times_s, dtype=np.float64)
        numbers = np.floor(times / KNOT_S + 1e-9).astype(np.int64)
        moving = (numbers >= self.first_knot) & (numbers < self.last_knot)
        left = np.clip(numbers - self.first_knot, 0, len(self.q) - 1)
        right = np.minimum(left + 1, len(self.q) - 1)
        dt = np.where(moving, np.maximum(0.0, times - numbers * KNOT_S), 0.0)[:, None]
        resting = ~moving & (numbers != self.last_knot)
        qd, qdd = (np.where(resting[:, None], 0.0, rows[left]) for rows in (self.qd, self.qdd))
        jerk = (self.qdd[right] - self.qdd[left]) / KNOT_S
        return (
            self.q[left] + dt * (qd + dt * (qdd / 2.0 + dt * jerk / 6.0)),
            qd + dt * (qdd + dt * jerk / 2.0),
            qdd + dt * jerk,
        )

    def jerk(self) -> FloatArray:
        """Return the jerk (k - 1, j) between knots, rad/s^3."""
        return np.diff(self.qdd, axis=0) / KNOT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """Measure how one chunk takes over from another, at the time it really does.

    Attributes:
        consumed_s: How much of the new chunk had passed by then.
        late_s: How long after the knot from which both differ; 0 or less = in time.
        position_jump: Largest jump of a joint, rad.
        velocity_jump: Largest jump, as a share of the joint's velocity limit.
    """

    consumed_s: float
    late_s: float
    position_jump: float
    velocity_jump: float


def resting(q: ArrayLike, now_s: float) -> Chunk:
    """Return the chunk that holds q (j,) from now on."""
    q = np.asarray(q, dtype=np.float64)[None]
    return Chunk(first_knot=_knot_at(now_s), q=q, qd=np.zeros_like(q), qdd=np.zeros_like(q))


def _knot_at(t_s: float) -> int:
    """Return the last knot that is not after a time."""
    return math.floor(t_s / KNOT_S + 1e-9)


def branch_knot(now_s: float, lead_s: float) -> int:
    """Return the first knot that is at least lead_s after now: a new chunk may differ from it."""
    return math.ceil((now_s + lead_s) / KNOT_S - 1e-9)


def knot_times(now_s: float, lead_s: float) -> FloatArray:
    """Return the times of the free knots, those after the branch, for a chunk made now."""
    branch, last = branch_knot(now_s, lead_s), _knot_at(now_s) + _N_KNOTS
    return np.arange(branch + 1, last + 1, dtype=np.float64) * KNOT_S


def follow(
    running: Chunk,
    q_wanted: ArrayLike,
    limits: JointLimits,
    now_s: float,
    *,
    lead_s: float,
    speed_share: ArrayLike = 1.0,
) -> Chunk:
    """Make the chunk that takes over from the running one and tracks wanted positions.

    Each joint solves a quadratic program over its jerks: least squared deviation from what is
    wanted, near knots counting most, with rest at the end. Limits hold between the knots too:
    they bound the Bernstein coefficients of each piece, in whose hull the piece lies.

    Args:
        running: What is being executed; it decides everything before the branch.
        q_wanted: (len(knot_times(now_s, lead_s)), j) positions at the free knots, rad.
        limits: Of the joints.
        now_s: Time on the clock of the knots.
        lead_s: Time that the chunk has to reach the controller.
        speed_share: Share of the velocity limits that may be used, one for all or one for each
            free knot; never falling within a run, so that a solution always exists.

    Raises:
        ShapeError: The wanted positions have another shape or are not finite.
        TrajectoryError: No motion fits the limits; the running chunk stays right.
    """
    times = knot_times(now_s, lead_s)
    wanted = np.asarray(q_wanted, dtype=np.float64)
    n_joints = len(limits.joint_names)
    if wanted.shape != (len(times), n_joints) or not np.isfinite(wanted).all():
        raise ShapeError(
            f"wanted positions: expected finite ({len(times)}, {n_joints}), got {wanted.shape}"
        )
    share = np.broadcast_to(np.asarray(speed_share, dtype=np.float64), times.shape)
    return _taking_over(running, wanted, limits, now_s, lead_s, share)


def braked(running: Chunk, limits: JointLimits, now_s: float, *, lead_s: float) -> Chunk:
    """Return the chunk that slows down to rest as fast as the limits allow, wherever that is.

    Raises:
        TrajectoryError: No motion fits the limits; the running chunk ends at rest anyway.
    """
    share = np.ones(len(knot_times(now_s, lead_s)))
    return _taking_over(running, None, limits, now_s, lead_s, share)


def hand_over(old: Chunk, new: Chunk, limits: JointLimits, branch: int, now_s: float) -> HandOver:
    """Measure the jump at the time now_s at which `new` replaces `old`."""
    before, after = old.state(now_s), new.state(now_s)
    return HandOver(
        consumed_s=now_s - new.start_s,
        late_s=now_s - branch * KNOT_S,
        position_jump=float(np.abs(after.q - before.q).max()),
        velocity_jump=float((np.abs(after.qd - before.qd) / limits.velocity).max()),
    )


def violations(chunk: Chunk, limits: JointLimits, rate_hz: float = 500.0) -> list[str]:
    """Sample a chunk and name every joint and limit that it breaks, with value and limit."""
    n = max(2, round((chunk.end_s - chunk.start_s) * rate_hz) + 1)
    motion = chunk.sample(np.linspace(chunk.start_s, chunk.end_s, n))
    if len(chunk.q) == 1:
        return limits.violations(*motion)
    return limits.violations(*motion) + limits.violations(chunk.q[:-1], qddd=chunk.jerk())


def _taking_over(
    running: Chunk,
    wanted: FloatArray | None,
    limits: JointLimits,
    now_s: float,
    lead_s: float,
    speed_share: FloatArray,
) -> Chunk:
    """Repeat the running chunk up to the branch, and solve for what comes after it."""
    first, branch = _knot_at(now_s), branch_knot(now_s, lead_s)
    kept = [running.knot(number) for number in range(first, branch + 1)]
    jerk = [
        _joint_jerk(
            kept[-1],
            j,
            None if wanted is None else wanted[:, j],
            limits,
            limits.velocity[j] * speed_share,
        )
        for j in range(len(limits.joint_names))
    ]
    return _continued(first, kept, np.stack(jerk, axis=1))


def _continued(first_knot: int, kept: list[JointMotion], jerk: FloatArray) -> Chunk:
    """Append what constant jerks (m, j) make of the last kept state; the end is exactly rest."""
    states = [(s.q, s.qd, s.qdd) for s in kept]
    for row in jerk:
        q, qd, qdd = states[-1]
        states.append(
            (
                q + KNOT_S * (qd + KNOT_S * (qdd / 2.0 + KNOT_S * row / 6.0)),
                qd + KNOT_S * (qdd + KNOT_S * row / 2.0),
                qdd + KNOT_S * row,
            )
        )
    q, qd, qdd = (np.stack(values) for values in zip(*states, strict=True))
    qd[-1] = qdd[-1] = 0.0
    return Chunk(first_knot=first_knot, q=q, qd=qd, qdd=qdd)


def _joint_jerk(
    start: JointMotion,
    j: int,
    wanted: FloatArray | None,
    limits: JointLimits,
    velocity: FloatArray,
) -> FloatArray:
    """Solve for the jerks (m,) of one joint; the unknowns are jerks times KNOT_S cubed.

    Without wanted positions the least velocity is looked for.
    """
    m, h = len(velocity), KNOT_S
    q0, v0, a0 = (float(values[j]) for values in (start.q, start.qd, start.qdd))
    to_q, to_v, to_a = _responses(m)
    t = h * np.arange(1, m + 1)
    free_q, free_v, free_a = q0 + t * (v0 + t * a0 / 2.0), v0 + t * a0, np.full(m, a0)
    weights = _TAIL_DECAY ** np.arange(m)
    goal, off = (to_v, free_v) if wanted is None else (to_q, free_q - wanted)
    cost = goal.T @ (weights[:, None] * goal) + np.eye(m) * _JERK_COST / h**6
    gradient = goal.T @ (weights * off)
    rows = (  # what is bounded: matrix, value without any jerk, low, high
        (to_a, free_a, -limits.acceleration[j], limits.acceleration[j]),
        (to_v, free_v, -velocity, velocity),
        (
            (to_v + to_a * h / 2.0)[:-1],
            (free_v + free_a * h / 2.0)[:-1],
            -velocity[1:],
            velocity[1:],
        ),
    )
    places = (  # whose position is bounded
        (to_q, free_q),
        ((to_q + to_v * h / 3.0)[:-1], (free_q + free_v * h / 3.0)[:-1]),
        (to_q - to_v * h / 3.0, free_q - free_v * h / 3.0),
    )
    matrix = [sign * row[0] for row in (*rows, *places) for sign in (1.0, -1.0)]
    bound = [
        part
        for _, value, low, high in rows
        for part in (_LIMIT_SHARE * high - value, value - _LIMIT_SHARE * low)
    ]
    most = _LIMIT_SHARE * limits.jerk[j] * h**3
    # A joint that moves within rounding of its limit has no way to stop before it. So motions are
    # planned a little inside, which leaves that room to the ones that go on from there.
    for inside_rad in (_INSIDE_RAD, 0.0):
        lower = limits.position_lower[j] + inside_rad
        upper = limits.position_upper[j] - inside_rad
        if v0 == a0 == 0.0:
            lower, upper = min(lower, q0), max(upper, q0)
        room = [part for _, value in places for part in (upper - value, value - lower)]
        solution = qpsolvers.solve_qp(
            cost,
            gradient,
            np.concatenate(matrix),
            np.concatenate(bound + room),
            np.stack([to_v[-1], to_a[-1]]),
            -np.array([free_v[-1], free_a[-1]]),
            np.full(m, -most),
            np.full(m, most),
            solver="daqp",
        )
        if solution is not None:
            break
    else:
        raise TrajectoryError(
            f"{limits.joint_names[j]}: no motion from position {q0:.4f} rad, velocity "
            f"{v0:.4f} rad/s, acceleration {a0:.4f} rad/s^2 comes to rest in {m * h:.2f} s "
            f"within its limits (acceleration {limits.acceleration[j]:g}, jerk "
            f"{limits.jerk[j]:g})"
        )
    return solution / h**3


@cache
def _responses(m: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (m, m) maps from jerks times KNOT_S cubed to position, velocity, acceleration."""
    n = np.arange(m)[:, None] - np.arange(m)[None]
    active, h = n >= 0, KNOT_S
    to_q = np.where(active, n * n / 2.0 + n / 2.0 + 1.0 / 6.0, 0.0)
    to_v = np.where(active, (n + 0.5) / h, 0.0)
    to_a = np.where(active, 1.0 / h**2, 0.0)
    return to_q, to_v, to_a
