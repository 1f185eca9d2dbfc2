"""Own what drives the robot of a LIBERO environment: the scripted expert or a seeing policy."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mu0_core import se3
from mu0_core.benchmark import ActionKind, Policy, PolicySettings
from mu0_core.errors import ShapeError
from mu0_sim.libero.environment import CLOSE, OPEN, SHIFT_M, TURN_RAD, LiberoEnvironment
from mu0_sim.libero.scripted import ScriptedExpert
from mu0_sim.motion import tool_ik
from mu0_sim.robots import TOOL_FRAME, RobotSpec, load_robot
from mu0_sim.urdf import robot_description

FloatArray = NDArray[np.float64]

SCRIPTED = "scripted"
_CLOSES = 0.5  # goal of the gripper from which on it is told to close
_REACHED_M = 0.02


def panda_description() -> str:
    """Return the URDF of LIBERO's robot."""
    return robot_description(load_robot("panda"))


def policy_settings(checkpoint: Path | None, world_model: str) -> PolicySettings:
    """Return what a policy for LIBERO's robot is made from."""
    return PolicySettings(
        checkpoint=checkpoint,
        world_model=world_model,
        robot_description=panda_description(),
        tool_frame=TOOL_FRAME,
        robot="panda",
    )


class Driver(Protocol):
    """Choose actions in an environment."""

    def begin(self, environment: LiberoEnvironment, seed: int) -> None:
        """Begin an episode in an environment that was just reset."""

    def action(self, environment: LiberoEnvironment) -> FloatArray:
        """Return the next action (7,), as LIBERO takes them."""

    def note(self) -> str:
        """Say what was remarkable about the episode; empty = nothing."""


class ScriptedDriver:
    """Let the scripted expert act.

    Args:
        astray: Begin with the tool beside its target, as after a miss; this is no part of what
            is recorded.
    """

    def __init__(self, *, astray: bool = False) -> None:
        self._astray = astray

    def begin(self, environment: LiberoEnvironment, seed: int) -> None:
        """Plan; raises a TaskRefusedError where the task is beyond the expert."""
        self._expert = ScriptedExpert(environment, seed=seed)
        for action in self._expert.stray() if self._astray else ():
            environment.step(action)

    def action(self, environment: LiberoEnvironment) -> FloatArray:
        """Return what the expert does."""
        return self._expert.act()

    def note(self) -> str:
        """Return what went wrong."""
        return self._expert.note


class PolicyDriver:
    """Let a policy act on what it sees, in this process."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._arm = policy, ToolCommands()

    def begin(self, environment: LiberoEnvironment, seed: int) -> None:
        """Tell the policy what is to be done."""
        self._policy.reset(environment.task.instruction)

    def action(self, environment: LiberoEnvironment) -> FloatArray:
        """Ask the policy about what is seen now."""
        observation = environment.observe()
        answer = self._policy.act(observation)
        return self._arm.libero_action(answer, self._policy.action_kind, observation.q)

    def note(self) -> str:
        """Return nothing."""
        return ""


class ToolCommands:
    """Translate between joint commands and LIBERO's actions, which move the tool."""

    def __init__(self) -> None:
        self.robot: RobotSpec = load_robot("panda")
        self._ik = tool_ik(self.robot, panda_description())

    def forward(self, q: FloatArray) -> FloatArray:
        """Return T_base_tool (4, 4) of arm joints (7,), rad."""
        return self._ik.model.forward(q, TOOL_FRAME)

    def libero_action(self, answer: FloatArray, kind: ActionKind, q: FloatArray) -> FloatArray:
        """Turn a policy's answer into LIBERO's action (7,).

        Args:
            answer: As its kind says.
            kind: What the numbers are.
            q: (7,) joints that the policy saw, rad.

        Raises:
            ShapeError: The answer has another number of values, or one that is not finite.
        """
        n = 7 if kind is ActionKind.LIBERO else len(self.robot.arm_joints) + 1
        answer = np.asarray(answer, np.float64)
        if answer.shape != (n,) or not np.isfinite(answer).all():
            raise ShapeError(f"the policy's answer: expected {n} finite numbers, got {answer}")
        if kind is ActionKind.LIBERO:
            return answer
        gripper = CLOSE if answer[-1] > _CLOSES else OPEN
        return tool_action(self.forward(q), self.forward(answer[:-1]), gripper)

    def joints_for(self, action: FloatArray, q: FloatArray) -> FloatArray:
        """Return joints (7,) that bring the tool where an action wants it, near q.

        Raises:
            ShapeError: That is out of reach.
        """
        T_goal = goal_pose(self.forward(q), action)
        solution = self._ik.solve(q, T_goal)
        if solution.position_error_m > _REACHED_M:
            raise ShapeError(
                f"the action leads to {np.round(T_goal[:3, 3], 3).tolist()} m in the base frame, "
                f"out of reach by {solution.position_error_m:.3f} m"
            )
        return solution.q


def tool_action(T_base_tool: FloatArray, T_base_goal: FloatArray, gripper: float) -> FloatArray:
    """Return the action (7,) that moves the tool from one pose towards another."""
    turn = Rotation.from_matrix(T_base_goal[:3, :3] @ T_base_tool[:3, :3].T).as_rotvec()
    shift = T_base_goal[:3, 3] - T_base_tool[:3, 3]
    return np.concatenate([shift / SHIFT_M, turn / TURN_RAD, [gripper]])


def goal_pose(T_base_tool: FloatArray, action: FloatArray) -> FloatArray:
    """Return the pose (4, 4) that an action wants the tool to have; inverts `tool_action`."""
    turn = Rotation.from_rotvec(TURN_RAD * action[3:6]).as_matrix()
    return se3.make_transform(
        turn @ T_base_tool[:3, :3], T_base_tool[:3, 3] + SHIFT_M * action[:3]
    )
