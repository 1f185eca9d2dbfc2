"""Drive a simulated robot as its controllers do: one for the arm, one for the gripper.

Also owns the clockwork around it: at which simulated times joints and camera are read. Who reads
them, and what becomes of the data, is the caller's part.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mu0_sim.controllers import JointLimits, TrajectoryController
from mu0_sim.robots import RobotSpec
from mu0_sim.simulation import CameraFrame, JointCommand, Simulation

JOINT_STATE_RATE_HZ = 100.0


class Observer(Protocol):
    """Take what is measured in a running simulation."""

    def on_reset(self, simulation: Simulation) -> None:
        """Tell that an episode begins."""

    def on_joints(self, simulation: Simulation) -> None:
        """Tell that joints and clock are due."""

    def on_camera(self, frame: CameraFrame, simulation: Simulation) -> None:
        """Hand over a picture."""


class RobotControl:
    """Hold the two controllers of a robot and ask them what to command.

    Attributes:
        arm: Controller of all arm joints.
        gripper: Controller of the gripper's driving joint.
    """

    def __init__(self, robot: RobotSpec, home: JointCommand) -> None:
        jaw = robot.gripper
        self.arm = TrajectoryController(
            JointLimits(
                joint_names=robot.arm_joints,
                position_lower=robot.position_lower,
                position_upper=robot.position_upper,
                velocity=robot.velocity_limits,
            ),
            home.q,
        )
        self.gripper = TrajectoryController(
            JointLimits(
                joint_names=(jaw.joint,),
                position_lower=np.array(jaw.position_range[:1]),
                position_upper=np.array(jaw.position_range[1:]),
                velocity=np.array([jaw.velocity_limit]),
            ),
            np.array([home.gripper_position]),
        )

    def hold(self, command: JointCommand) -> None:
        """Forget all trajectories and hold this command's positions."""
        self.arm.hold(command.q)
        self.gripper.hold([command.gripper_position])

    def command_at(self, time_s: float) -> JointCommand:
        """Return what to command at a time that does not go back."""
        q, qd = self.arm.sample(time_s)
        gripper_q, _ = self.gripper.sample(time_s)
        return JointCommand(q=q, qd=qd, gripper_position=float(gripper_q[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Say what is due at a simulated time."""

    time_s: float
    joints: bool
    camera: bool


def run(simulation: Simulation, control: RobotControl) -> Iterator[Tick]:
    """Step physics for ever, and yield whenever joints or camera are due.

    Both are due at once at the start, then at their rates.
    """
    periods_s = (1.0 / JOINT_STATE_RATE_HZ, 1.0 / simulation.config.rate_hz)
    start_s = simulation.time_s
    counts = [0, 0]
    while True:
        due = [start_s + n * period for n, period in zip(counts, periods_s, strict=True)]
        margin_s = simulation.dt_s / 2.0
        while simulation.time_s < min(due) - margin_s:
            simulation.step(control.command_at(simulation.time_s))
        now_s = simulation.time_s
        joints, camera = (now_s >= at - margin_s for at in due)
        counts = [n + reached for n, reached in zip(counts, (joints, camera), strict=True)]
        yield Tick(time_s=now_s, joints=joints, camera=camera)
