"""Own the form that demonstrations of every source are brought to, and the checks they must pass.

A demonstration is a row of moments, evenly spaced in time. A moment holds what was known at its
time, never anything later; its command is what the robot was told for one period after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import EpisodeError
from mu0_policy.camera_places import CameraPlace

FRONT = "front"
"""Name of the camera that the world model sees through."""

_SUDDEN_RAD = 0.5  # between commands one period apart, or from where the joints are


class Pictures(Protocol):
    """Give pictures one by one, (H, W, 3) uint8 RGB."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        """Return one."""


class DepthPictures(Protocol):
    """Give depth pictures one by one, (H, W) m, NaN or 0 = none."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, index: int, /) -> NDArray[np.floating]:
        """Return one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demonstration:
    """Hold one demonstration of n moments.

    Attributes:
        name: Where it comes from, for messages.
        robot: Name of the robot; empty where the source does not say.
        instruction: What was done, in words.
        rate_hz: Moments a second.
        joints: The arm's joints, j of them, from base to hand.
        gripper_joints: The gripper's driving joints; empty where the source does not say.
        pictures: By camera; FRONT is always there.
        depth: Of the front camera, or None.
        q: (n, j) measured, rad.
        gripper: (n,) measured place of the fingers, 0 = open, 1 = closed.
        commands: (n, j + 1) joints one period later as commanded, rad, and the gripper's goal.
        focal_lengths: By camera, over the picture's height; where the source says it.
        camera_places: By camera, where it is fixed; where the source says it.
        keypoints: Of each moment, (n, 3) px, px, m in the front camera's picture, NaN depth =
            unknown; None where the source has none.
        robot_description: The robot's URDF; empty where the source has none.
    """

    name: str
    robot: str
    instruction: str
    rate_hz: float
    joints: tuple[str, ...]
    gripper_joints: tuple[str, ...]
    pictures: Mapping[str, Pictures]
    depth: DepthPictures | None
    q: NDArray[np.float64]
    gripper: NDArray[np.float64]
    commands: NDArray[np.float64]
    focal_lengths: Mapping[str, float] = field(default_factory=dict)
    camera_places: Mapping[str, CameraPlace] = field(default_factory=dict)
    keypoints: Sequence[NDArray[np.floating]] | None = None
    robot_description: str = ""

    def __len__(self) -> int:
        return len(self.q)

    def picture_size(self, camera: str) -> tuple[int, int]:
        """Return width and height of a camera's pictures, px."""
        height, width = self.pictures[camera][0].shape[:2]
        return width, height


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Say what demonstrations must have to be used together.

    Attributes:
        joints: The arm's joints in their order.
        cameras: Cameras beside the front one.
        rate_hz: Moments a second.
    """

    joints: tuple[str, ...]
    cameras: tuple[str, ...]
    rate_hz: float


def faults(demonstration: Demonstration, wanted: Wanted | None = None) -> list[str]:
    """Say what is wrong with a demonstration; empty = nothing."""
    shown = demonstration
    found = _shape_faults(shown)
    if found:
        return found
    found += _number_faults(shown)
    if not shown.instruction.strip():
        found.append("instruction: empty; the expert is told what to do in words")
    if not found:
        found += _jump_faults(shown)
    return found if wanted is None else [*found, *_wanted_faults(shown, wanted)]


def check(demonstration: Demonstration, wanted: Wanted | None = None) -> None:
    """Raise an EpisodeError that lists everything that is wrong with a demonstration."""
    found = faults(demonstration, wanted)
    if found:
        raise EpisodeError("\n  ".join([f"{demonstration.name}: cannot be used:", *found]))


def _shape_faults(shown: Demonstration) -> list[str]:
    n, j = len(shown.q), len(shown.joints)
    found = []
    if n < 2:
        found.append(f"length: expected at least 2 moments, got {n}")
    for name, array, shape in (
        ("q", shown.q, (n, j)),
        ("gripper", shown.gripper, (n,)),
        ("commands", shown.commands, (n, j + 1)),
    ):
        if array.shape != shape:
            found.append(f"{name}: expected {shape}, got {array.shape}")
    if FRONT not in shown.pictures:
        found.append(f"pictures: no camera {FRONT!r}, only {', '.join(shown.pictures) or 'none'}")
    lengths = {name: len(frames) for name, frames in shown.pictures.items()}
    if shown.depth is not None:
        lengths["depth"] = len(shown.depth)
    if shown.keypoints is not None:
        lengths["keypoints"] = len(shown.keypoints)
    found += [
        f"{name}: expected {n}, one for each moment, got {length}"
        for name, length in lengths.items()
        if length != n
    ]
    return found


def _number_faults(shown: Demonstration) -> list[str]:
    found = []
    for name, array in (("q", shown.q), ("commands", shown.commands)):
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            step, column = bad[0]
            joint = [*shown.joints, "gripper"][column]
            found.append(
                f"{name}: {joint} is no number at moment {step}, and {len(bad) - 1} more values"
            )
    if not np.isfinite(shown.gripper).all():
        found.append("gripper: not a number at some moment")
    return found


def _jump_faults(shown: Demonstration) -> list[str]:
    """Find commands that no arm could follow: joints in another order, wrong units, gaps."""
    arm = shown.commands[:, :-1]
    found = []
    for what, steps in (
        ("jumps between moments", np.abs(np.diff(arm, axis=0))),
        ("is far from where the joint was", np.abs(arm - shown.q)),
    ):
        if steps.size and steps.max() > _SUDDEN_RAD:
            step, joint = np.unravel_index(int(steps.argmax()), steps.shape)
            found.append(
                f"commands: {shown.joints[joint]} {what}, by {steps.max():.2f} rad at moment "
                f"{step}, limit {_SUDDEN_RAD}; are the joints in the same order, in rad, and "
                "without gaps?"
            )
    return found


def _wanted_faults(shown: Demonstration, wanted: Wanted) -> list[str]:
    found = []
    if shown.joints != wanted.joints:
        same = sorted(shown.joints) == sorted(wanted.joints)
        found.append(
            f"joints: expected {', '.join(wanted.joints)}, got {', '.join(shown.joints)}"
            + (": another order" if same else "")
        )
    missing = [name for name in wanted.cameras if name not in shown.pictures]
    if missing:
        there = ", ".join(shown.pictures)
        found.append(f"cameras: no {', '.join(missing)}; there are {there}")
    if abs(shown.rate_hz - wanted.rate_hz) > 1e-3 * wanted.rate_hz:
        found.append(f"rate: expected {wanted.rate_hz:g} Hz, got {shown.rate_hz:g} Hz")
    return found
