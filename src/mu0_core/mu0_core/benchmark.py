"""Own what a benchmark shows a policy and what it takes back, so that either can be exchanged.

A simulator shows observations, a policy of any package answers with actions; neither knows the
other. Policies are found by name through the entry points of the group `POLICY_GROUP`; what
follows keypoints for them, through those of `TRACKER_GROUP`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.errors import ConfigError, unknown_name_message

POLICY_GROUP = "mu0.benchmark_policies"
"""Entry points of this group are called with `PolicySettings` and return a `Policy`."""

TRACKER_GROUP = "mu0.keypoint_trackers"
"""Entry points of this group are called with `PolicySettings` and return a `KeypointTracker`."""

FRONT, WRIST = "front", "wrist"
"""Names of the cameras."""


class ActionKind(StrEnum):
    """Say what the numbers of an action are."""

    LIBERO = "libero"
    """(7,) as LIBERO takes them, each in [-1, 1]: shift of the tool (1 = 0.05 m) and rotation
    vector (1 = 0.5 rad) along the axes of the base, gripper (-1 opens, 1 closes)."""
    JOINTS = "joints"
    """(j + 1,) positions of the arm's joints one period later, rad; the gripper's goal, 0 = open,
    1 = closed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """Hold what a policy is shown of one instant.

    Attributes:
        pictures: By camera (FRONT, WRIST), (H, W, 3) uint8 RGB, upright.
        depth_m: (H, W) float32 of the front camera, m along the optical axis, NaN = none.
        camera: Intrinsics of the front camera.
        T_base_camera: (4, 4) pose of its optical frame (REP-103) in the robot's base frame.
        wrist_camera: Of the wrist camera; None where the benchmark does not tell them.
        q: (j,) measured joints of the arm, rad.
        gripper: Measured place of the fingers, 0 = open, 1 = closed.
        joints: Names of the arm's joints, j of them.
        rate_hz: Actions a second.
        time_s: Since the policy took over.
    """

    pictures: Mapping[str, NDArray[np.uint8]]
    depth_m: NDArray[np.float32]
    camera: Camera
    T_base_camera: NDArray[np.float64]
    q: NDArray[np.float64]
    gripper: float
    joints: tuple[str, ...]
    rate_hz: float
    time_s: float
    wrist_camera: Camera | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Say what a policy is made from.

    Attributes:
        checkpoint: Its folder; None where it needs none.
        world_model: Of policies that read the world model: shipped name or folder.
        robot_description: URDF of the robot.
        tool_frame: Frame in it that is called the tool.
        robot: Whose points on the gripper are followed: name of a shipped robot, path of an
            embodiment file, or none.
    """

    checkpoint: Path | None = None
    world_model: str = ""
    robot_description: str = ""
    tool_frame: str = "tool0"
    robot: str = "none"


class Policy(Protocol):
    """Drive a robot from what it sees.

    Attributes:
        action_kind: What `act` returns.
    """

    action_kind: ActionKind

    def reset(self, instruction: str) -> None:
        """Begin an episode: what is to be done, in words."""

    def act(self, observation: Observation) -> NDArray[np.float64]:
        """Return the action for the next period."""


class KeypointTracker(Protocol):
    """Follow keypoints through what a policy is shown."""

    def reset(self) -> None:
        """Begin an episode."""

    def update(self, observation: Observation) -> NDArray[np.float32]:
        """Return the keypoints (n, 3) px, px, m in the front picture, NaN = unknown.

        It wants to be shown every observation of an episode.
        """


def load_policy(name: str, settings: PolicySettings) -> Policy:
    """Make a policy.

    Args:
        name: Of an entry point, or module:factory.
        settings: Handed to what makes it.

    Raises:
        ConfigError: There is no such policy.
    """
    policy: Policy = _make("policy", POLICY_GROUP, name, settings)
    return policy


def load_keypoint_tracker(settings: PolicySettings, name: str = "live") -> KeypointTracker:
    """Make what follows keypoints; arguments and errors as of `load_policy`."""
    tracker: KeypointTracker = _make("keypoint tracker", TRACKER_GROUP, name, settings)
    return tracker


def _make(kind: str, group: str, name: str, settings: PolicySettings) -> Any:
    """Call what an entry point of a group, or module:factory, names."""
    found = {point.name: point for point in entry_points(group=group)}
    if ":" in name:
        found[name] = EntryPoint(name, name, group)
    if name not in found:
        raise ConfigError(unknown_name_message(kind, name, found))
    try:
        make = found[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{kind} {name}: cannot be imported: {error}") from error
    return make(settings)
