"""Own the making of an episode's rows: tracks in the world, seen from the camera of each frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core.arclength import retarget
from mu0_core.camera import Camera
from mu0_core.se3 import transform_points

_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Hold steps of points as stored, column 0 first: (n, L, 3) float16 and their mask (n, L)."""

    uvz: NDArray[np.float16]
    valid: NDArray[np.bool_]

    @classmethod
    def padded(cls, uvz: NDArray[np.float64], valid: NDArray[np.bool_], length: int) -> "Steps":
        """Cut or pad (n, l, 3) to a length, with -inf where not valid."""
        kept = min(uvz.shape[1], length)
        mask = np.zeros((len(uvz), length), np.bool_)
        mask[:, :kept] = valid[:, :kept]
        steps = np.full((len(uvz), length, 3), -np.inf, np.float16)
        with np.errstate(over="ignore"):  # a pixel beyond float16 becomes infinite, as specified
            steps[:, :kept] = np.where(mask[:, :kept, None], uvz[:, :kept], -np.inf)
        return cls(steps, mask)


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """Hold one direction in time from a frame on.

    Attributes:
        raw: Steps of equal time.
        sampled: Steps of equal arc length.
        source_index: (L,) frames from the start to each sampled step; NaN where there is none.
    """

    raw: Steps
    sampled: Steps
    source_index: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class FrameRows:
    """Hold the rows of one frame.

    Attributes:
        frame: The frame.
        points: (n,) the tracks that have a row.
        future: Their path from the frame on.
        history: Their path backwards from the frame.
    """

    frame: int
    points: NDArray[np.int64]
    future: Path
    history: Path


def frame_rows(
    tracks_xyz_world: NDArray[np.float64],
    keep: NDArray[np.bool_],
    *,
    frame: int,
    camera: Camera,
    T_camera_world: NDArray[np.float64],
    arc_step: float,
    future_len: int,
    history_len: int,
) -> FrameRows | None:
    """Make the rows of a frame; None if it has none, or if no path there is one step long.

    All points that exist in the frame drive the clock of the sampled steps; rows are for those
    that are kept and inside the image.

    Args:
        tracks_xyz_world: (T, n, 3) m; NaN where a point does not exist.
        keep: (n,) points that may have a row.
        frame: The frame to make rows of.
        camera: Its intrinsics.
        T_camera_world: (4, 4) its pose.
        arc_step: Distance between sampled steps.
        future_len: Columns F of the future.
        history_len: Columns B of the history.
    """
    alive = np.isfinite(tracks_xyz_world[frame]).all(axis=-1)
    xyz = transform_points(T_camera_world, tracks_xyz_world[:, alive])
    uvz = camera.project(np.swapaxes(xyz, 0, 1))  # (n alive, T, 3)
    u, v, z = uvz[:, frame].T
    inside = (u >= 0) & (u <= camera.width) & (v >= 0) & (v <= camera.height) & (z > 0)
    rows = np.flatnonzero(inside & keep[alive])
    if not len(rows):
        return None
    future = _path(uvz[:, frame:], rows, camera, arc_step, future_len)
    if future.sampled.valid.sum(axis=1).max() < 2:
        return None
    history = _path(uvz[:, frame::-1], rows, camera, arc_step, history_len)
    return FrameRows(frame, np.flatnonzero(alive)[rows], future, history)


def _path(
    uvz: NDArray[np.float64],
    rows: NDArray[np.int64],
    camera: Camera,
    arc_step: float,
    length: int,
) -> Path:
    """Make one direction in time of some rows, out of all points (n, l, 3) of the frame."""
    raw = uvz[rows, :length]
    # A point behind the camera keeps its depth and exists; it has no pixel.
    raw_steps = Steps.padded(raw, np.isfinite(raw[..., 2]), length)
    storable = (np.abs(uvz) <= _LARGEST_FLOAT16).all(axis=-1, keepdims=True)
    result = retarget(
        np.where(storable, uvz, np.nan),
        width=camera.width,
        height=camera.height,
        arc_step=arc_step,
        n_samples=length,
    )
    sampled = result.uvz[rows]
    known = result.valid & np.isfinite(sampled).all(axis=-1)
    prefix = np.logical_and.accumulate(known, axis=1)
    source_index = np.where(prefix.any(axis=0), result.source_index, np.nan)
    return Path(raw_steps, Steps.padded(sampled, prefix, length), source_index)
