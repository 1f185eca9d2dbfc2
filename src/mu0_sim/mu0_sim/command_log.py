"""Check afterwards what was commanded, as the arm's controller followed it."""

from dataclasses import dataclass, field

import numpy as np

from mu0_core.embodiment import arm_limits, arm_model, load_embodiment
from mu0_core.errors import TrajectoryError
from mu0_sim.controllers import JointTrajectory, TrajectoryController
from mu0_sim.robot_control import RobotControl
from mu0_sim.simulation import Simulation

_RATE_HZ = 500.0
_TOLERANCE = 1e-3


@dataclass(slots=True)
class CommandLog:
    """Collect the trajectories of one episode; hand-overs follow the controller's own rules.

    Args:
        simulation: Of the robot that is commanded.
        embodiment_file: Says what its joints may do.
    """

    simulation: Simulation
    embodiment_file: str
    _arrived: list[tuple[float, JointTrajectory]] = field(default_factory=list, init=False)

    def begin(self) -> None:
        """Forget the episode before."""
        self._arrived = []

    def add(self, now_s: float, trajectory: JointTrajectory) -> None:
        """Take a trajectory that arrived at a simulated time."""
        self._arrived.append((now_s, trajectory))

    def violations(self) -> int:
        """Count the samples at 500 Hz of the commanded motion that break a limit.

        Position, velocity, acceleration and jerk; one that breaks several counts once for each. A
        trajectory that the controller refuses counts once.
        """
        if not self._arrived:
            return 0
        control = RobotControl(self.simulation.robot, self.simulation.home_command())
        refused, q, qd = self._followed(control.arm)
        embodiment = load_embodiment(self.embodiment_file)
        limits = arm_limits(embodiment, arm_model(embodiment, self.simulation.robot_description()))
        qdd = np.diff(qd, axis=0) * _RATE_HZ
        qddd = np.diff(qdd, axis=0) * _RATE_HZ
        outside = (q < limits.position_lower - _TOLERANCE) | (
            q > limits.position_upper + _TOLERANCE
        )
        count = refused + int(outside.any(axis=1).sum())
        for values, most in (
            (qd, limits.velocity),
            (qdd, limits.acceleration),
            (qddd, limits.jerk),
        ):
            count += int((np.abs(values) > most * (1.0 + _TOLERANCE)).any(axis=1).sum())
        return count

    def _followed(self, arm: TrajectoryController) -> tuple[int, np.ndarray, np.ndarray]:
        """Let a controller follow everything: refusals, positions and velocities (k, j)."""
        times_s = [at_s for at_s, _ in self._arrived]
        last = self._arrived[-1][1]
        end_s = max(last.start_s, times_s[-1]) + last.duration_s
        waiting, refused, q, qd = list(self._arrived), 0, [], []
        for now_s in np.arange(times_s[0], end_s, 1.0 / _RATE_HZ):
            while waiting and waiting[0][0] <= now_s:
                try:
                    arm.accept(waiting.pop(0)[1], float(now_s))
                except TrajectoryError:
                    refused += 1
            position, velocity = arm.sample(float(now_s))
            q.append(position)
            qd.append(velocity)
        return refused, np.stack(q), np.stack(qd)
