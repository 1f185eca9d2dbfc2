"""Own where cameras are: fixed to the robot's base or to its tool, and how two places differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mu0_core import se3

FloatArray = NDArray[np.float64]

_PLACE_M = 0.05
_ANGLE_RAD = 0.1


class Mount(StrEnum):
    """Say what a camera is fixed to."""

    BASE = "base"
    TOOL = "tool"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraPlace:
    """Hold where a camera is, or has been in several demonstrations.

    Attributes:
        mount: What it is fixed to.
        T_mount_camera: (4, 4) pose of its optical frame (REP-103) in the frame of that.
        spread_m: How far from there it has been.
        spread_rad: How far it has been turned from there.
    """

    mount: Mount
    T_mount_camera: FloatArray
    spread_m: float = 0.0
    spread_rad: float = 0.0


def middle(places: Sequence[CameraPlace | None]) -> CameraPlace | None:
    """Return the mean of a camera's places with their spread; None = one of them is not known.

    Args:
        places: At least one; all with the same mount.
    """
    known = [place for place in places if place is not None]
    if len(known) < len(places):
        return None
    T = np.stack([place.T_mount_camera for place in known])
    mean = se3.make_transform(
        Rotation.from_matrix(T[:, :3, :3]).mean().as_matrix(), T[:, :3, 3].mean(axis=0)
    )
    apart = np.array([distance(mean, one) for one in T])
    return CameraPlace(
        mount=known[0].mount,
        T_mount_camera=mean,
        spread_m=float(apart[:, 0].max()),
        spread_rad=float(apart[:, 1].max()),
    )


def distance(T_one: FloatArray, T_other: FloatArray) -> tuple[float, float]:
    """Return how far two poses (4, 4) are apart: m and rad."""
    turn = Rotation.from_matrix(T_one[:3, :3].T @ T_other[:3, :3])
    return float(np.linalg.norm(T_one[:3, 3] - T_other[:3, 3])), float(turn.magnitude())


def place_fault(camera: str, trained: CameraPlace, T_mount_camera: FloatArray) -> str:
    """Say how a camera's pose (4, 4) differs from where it was in training; empty = it does not.

    Where demonstrations differed among each other, as much more is allowed.
    """
    apart_m, apart_rad = distance(trained.T_mount_camera, T_mount_camera)
    limit_m, limit_rad = trained.spread_m + _PLACE_M, trained.spread_rad + _ANGLE_RAD
    if apart_m <= limit_m and apart_rad <= limit_rad:
        return ""
    poses = T_mount_camera, trained.T_mount_camera
    here, there = (np.round(T[:3, 3], 2).tolist() for T in poses)
    return (
        f"{camera} camera: TF puts it at {here} m from the {trained.mount}, in training it was at "
        f"{there} m: {apart_m:.2f} m and {apart_rad:.2f} rad apart, limits {limit_m:.2f} m and "
        f"{limit_rad:.2f} rad"
    )
