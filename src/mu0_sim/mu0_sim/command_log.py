"""Check afterwards what an arm was commanded, as its controller followed it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BPoly

from mu0_core.embodiment import JointLimits, arm_limits, arm_model, load_embodiment
from mu0_sim.controllers import JointTrajectory
from mu0_sim.simulation import Simulation

FloatArray = NDArray[np.float64]

_RATE_HZ = 500.0
_TOLERANCE = 1e-3


@dataclass(slots=True)
class CommandLog:
    """Collect what the arm's controller followed in one episode.

    Args:
        simulation: Of the robot that is commanded.
        embodiment_file: Says what its joints may do.
    """

    simulation: Simulation
    embodiment_file: str
    _limits: JointLimits = field(init=False)
    _followed: list[JointTrajectory] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        embodiment = load_embodiment(self.embodiment_file)
        model = arm_model(embodiment, self.simulation.robot_description())
        self._limits = arm_limits(embodiment, model)

    def begin(self) -> None:
        """Forget the episode before."""
        self._followed = []

    def add(self, motion: JointTrajectory) -> None:
        """Take what is followed from its start on, until the next one."""
        self._followed.append(motion)

    def violations(self) -> int:
        """Count the samples at 500 Hz of the commanded motion that break a limit.

        Position, velocity, acceleration and jerk; one that breaks several counts once for each.
        """
        if not self._followed:
            return 0
        q, qd = self._sampled()
        qdd = np.diff(qd, axis=0) * _RATE_HZ
        qddd = np.diff(qdd, axis=0) * _RATE_HZ
        limits = self._limits
        outside = (q < limits.position_lower - _TOLERANCE) | (
            q > limits.position_upper + _TOLERANCE
        )
        count = int(outside.any(axis=1).sum())
        for values, most in (
            (qd, limits.velocity),
            (qdd, limits.acceleration),
            (qddd, limits.jerk),
        ):
            count += int((np.abs(values) > most * (1.0 + _TOLERANCE)).any(axis=1).sum())
        return count

    def velocity_jump(self) -> float:
        """Return the largest jump where a motion took over, as a share of the velocity limit."""
        jumps = [0.0]
        for before, after in zip(self._followed, self._followed[1:], strict=False):
            at_s = np.array([after.start_s])
            gap = np.abs(_states(after, at_s)[1] - _states(before, at_s)[1])
            jumps.append(float((gap / self._limits.velocity).max()))
        return max(jumps)

    def _sampled(self) -> tuple[FloatArray, FloatArray]:
        """Return positions and velocities (k, j) at 500 Hz, from the first motion to its end."""
        last = self._followed[-1]
        starts_s = np.array([motion.start_s for motion in self._followed])
        times_s = np.arange(starts_s[0], last.start_s + last.duration_s, 1.0 / _RATE_HZ)
        which = np.searchsorted(starts_s, times_s, side="right") - 1
        parts = [
            _states(motion, times_s[which == i])
            for i, motion in enumerate(self._followed)
            if (which == i).any()
        ]
        q, qd = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return q, qd


def _states(motion: JointTrajectory, times_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return positions and velocities (k, j) of a motion that holds its last point."""
    since_s = times_s - motion.start_s
    held = np.broadcast_to(motion.q[-1], (len(times_s), motion.q.shape[1]))
    if len(motion.times_s) == 1:
        return held, np.zeros_like(held)
    orders = [array for array in (motion.q, motion.qd, motion.qdd) if array is not None]
    path = BPoly.from_derivatives(motion.times_s, list(np.stack(orders, axis=1)))
    over = (since_s >= motion.times_s[-1])[:, None]
    inside_s = np.clip(since_s, 0.0, motion.times_s[-1])
    return np.where(over, held, path(inside_s)), np.where(over, 0.0, path(inside_s, 1))
