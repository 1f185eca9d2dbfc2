"""Own what a benchmark shows a policy and what it takes back, so that either can be exchanged.

A simulator shows observations, a policy of any package answers with actions; neither knows the
other. Policies are found by name through the entry points of the group `POLICY_GROUP`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.errors import ConfigError, unknown_name_message

POLICY_GROUP = "mu0.benchmark_policies"
"""Entry points of this group are called with `PolicySettings` and return a `Policy`."""

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
    """

    checkpoint: Path | None = None
    world_model: str = ""
    robot_description: str = ""
    tool_frame: str = "tool0"


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


def load_policy(name: str, settings: PolicySettings) -> Policy:
    """Make a policy.

    Args:
        name: Of an entry point, or module:factory.
        settings: Handed to what makes it.

    Raises:
        ConfigError: There is no such policy.
    """
    found = {point.name: point for point in entry_points(group=POLICY_GROUP)}
    if ":" in name:
        found[name] = EntryPoint(name, name, POLICY_GROUP)
    if name not in found:
        raise ConfigError(unknown_name_message("policy", name, found))
    try:
        make = found[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"policy {name}: cannot be imported: {error}") from error
    policy: Policy = make(settings)
    return policy
