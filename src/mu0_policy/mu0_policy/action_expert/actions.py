"""Own the spaces that actions are learned in, and the way from and to joint commands.

A command is what the robot shall be told at one instant: positions of the arm's joints, and where
the gripper shall go (0 = open, 1 = closed). Chunks of commands are translated as a whole, from
and to the joints that were measured when the picture was taken.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mu0_core import se3
from mu0_core.embodiment import Box
from mu0_core.errors import ConfigError, ShapeError, TrajectoryError
from mu0_core.kinematics import DifferentialIK

FloatArray = NDArray[np.float64]

GRIPPER = "gripper"
"""Name of the last number of states and actions."""

_REACHED_M = 0.01
_REACHED_RAD = 0.1
_MOVES = 1e-3  # share of the gripper's way in one period from which on it moves


class ActionSpace(StrEnum):
    """Say what an action's numbers are; the last one is always the gripper's."""

    JOINTS = "joints"
    """Positions of the joints, rad."""
    JOINT_DELTAS = "joint_deltas"
    """Positions relative to those measured when the picture was taken, rad."""
    TOOL_DELTAS = "tool_deltas"
    """Pose of the tool in the tool's own frame of that time: shift (m), rotation vector (rad)."""


def action_names(space: ActionSpace, joints: tuple[str, ...]) -> tuple[str, ...]:
    """Name an action's numbers."""
    if space is ActionSpace.TOOL_DELTAS:
        return ("x", "y", "z", "rx", "ry", "rz", GRIPPER)
    return (*joints, GRIPPER)


def state_names(joints: tuple[str, ...]) -> tuple[str, ...]:
    """Name a state's numbers."""
    return (*joints, GRIPPER)


class Translator:
    """Turn chunks of commands into actions and back.

    Args:
        space: Of the actions.
        ik: Inverse kinematics of the tool; needed for tool deltas.
        workspace: Where the tool may be; tool deltas that lead out of it end at its border.
    """

    def __init__(
        self,
        space: ActionSpace,
        ik: DifferentialIK | None = None,
        workspace: Box | None = None,
    ) -> None:
        if space is ActionSpace.TOOL_DELTAS and ik is None:
            raise ConfigError(
                "tool_deltas: the robot's kinematics are needed; name its embodiment"
            )
        self.space, self._ik, self._workspace = space, ik, workspace

    def actions(self, commands: FloatArray, q: FloatArray) -> FloatArray:
        """Turn commands (n, j + 1) into actions (n, a).

        Args:
            commands: Joints in rad, then the gripper's share.
            q: (j,) joints at the time of the picture, rad.
        """
        _check(commands, q)
        if self.space is ActionSpace.JOINTS:
            return commands.copy()
        if self.space is ActionSpace.JOINT_DELTAS:
            return commands - np.append(q, 0.0)
        assert self._ik is not None
        T_tool_base = se3.inverse(self._forward(q))
        poses = np.stack([T_tool_base @ self._forward(row) for row in commands[:, :-1]])
        turns = se3.log(poses).reshape(-1, 6)[:, 3:]
        return np.concatenate([poses[:, :3, 3], turns, commands[:, -1:]], axis=1)

    def commands(
        self, actions: FloatArray, q: FloatArray, known: FloatArray | None = None
    ) -> FloatArray:
        """Turn actions (n, a) into commands (n, j + 1); the inverse of `actions`.

        A motion of the tool that leads out of its reach ends where it can still be.

        Args:
            actions: The actions.
            q: (j,) joints at the time of the picture, rad.
            known: (d, j + 1) commands at the head that stand already; the others go on from them.

        Raises:
            TrajectoryError: The first pose is out of reach already.
        """
        given = np.empty((0, len(q) + 1)) if known is None else known
        rest = actions[len(given) :]
        if self.space is ActionSpace.JOINTS:
            return np.concatenate([given, rest])
        if self.space is ActionSpace.JOINT_DELTAS:
            return np.concatenate([given, rest + np.append(q, 0.0)])
        return np.concatenate([given, self._solved(rest, q, given[-1, :-1] if len(given) else q)])

    def _solved(self, actions: FloatArray, q: FloatArray, start: FloatArray) -> FloatArray:
        """Find joints for motions (n, 7) of the tool that was at joints q, near a start."""
        assert self._ik is not None
        T_base_tool = self._forward(q)
        turns = np.zeros((len(actions), 6))
        turns[:, 3:] = actions[:, 3:6]
        poses = np.asarray(se3.exp(turns)).reshape(-1, 4, 4).copy()
        poses[:, :3, 3] = actions[:, :3]
        goals = T_base_tool @ poses
        if self._workspace is not None:
            lower, upper = self._workspace.lower, self._workspace.upper
            goals[:, :3, 3] = np.clip(goals[:, :3, 3], lower, upper)
        rows: list[FloatArray] = []
        for pose in goals:
            found = self._ik.solve(start, pose)
            far = found.position_error_m > _REACHED_M or found.rotation_error_rad > _REACHED_RAD
            if far and rows:
                rows += [start] * (len(goals) - len(rows))
                break
            if far:
                raise TrajectoryError(
                    f"{self._ik.tool_frame} cannot reach {np.round(pose[:3, 3], 3).tolist()} m: "
                    f"it stays {found.position_error_m:.3f} m and "
                    f"{found.rotation_error_rad:.2f} rad away"
                )
            rows.append(found.q)
            start = found.q
        return np.concatenate([np.reshape(rows, (-1, len(q))), actions[:, -1:]], axis=1)

    def _forward(self, q: FloatArray) -> FloatArray:
        assert self._ik is not None
        return self._ik.model.forward(q, self._ik.tool_frame)


def gripper_goals(shares: FloatArray) -> FloatArray:
    """Tell where a gripper was sent from what it was commanded.

    Args:
        shares: (n + 1,) commanded position in each period and the next, 0 = open, 1 = closed.

    Returns:
        (n,) the end that it moves to, or the place where it stays.
    """
    steps = np.diff(shares)
    goals = np.where(steps > 0.0, 1.0, 0.0)
    return np.where(np.abs(steps) > _MOVES, goals, np.clip(shares[1:], 0.0, 1.0))


def _check(commands: FloatArray, q: FloatArray) -> None:
    if commands.ndim != 2 or commands.shape[1] != len(q) + 1:
        raise ShapeError(
            f"commands: expected {len(q)} joints and the gripper, got {commands.shape}"
        )
