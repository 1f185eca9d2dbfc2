"""Own the making of an episode's rows: tracks in the world, seen from the camera of each frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core.arclength import clock_instants, clock_steps, image_size, step_lengths
from mu0_core.camera import Camera
from mu0_core.se3 import transform_coordinates

_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Hold steps of points as stored, column 0 first: (n, L, 3) float16 and their mask (n, L)."""

    uvz: NDArray[np.float16]
    valid: NDArray[np.bool_]

    @classmethod
    def padded(cls, uvz: NDArray[np.float64], valid: NDArray[np.bool_], length: int) -> "Steps":
        """Pad (3, n, l), l up to the length, to that length; with -inf where not valid."""
        n, given = valid.shape
        mask = np.zeros((n, length), np.bool_)
        mask[:, :given] = valid
        steps = np.full((n, length, 3), -np.inf, np.float16)
        with np.errstate(over="ignore"):  # a pixel beyond float16 becomes infinite, as specified
            steps[:, :given] = np.moveaxis(np.where(valid, uvz, -np.inf), 0, -1)
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


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Hold tracks as the camera of some frames, where it does not change, sees them in all frames.

    Attributes:
        camera: Its intrinsics.
        frames: The frames, one after the other.
        points: (n,) the tracks that exist in any of these frames.
        exists: (n, len(frames)) which exist in which, seen or not.
        uvz: (3, n, T) px, px, m.
        scaled: (3, n, T) image fractions and m; NaN where float16 cannot store what is seen.
        step_lengths: (n, T - 1) of `scaled`, 0 where unknown.
    """

    camera: Camera
    frames: range
    points: NDArray[np.int64]
    exists: NDArray[np.bool_]
    uvz: NDArray[np.float64]
    scaled: NDArray[np.float64]
    step_lengths: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        xyz_world: NDArray[np.float64],
        frames: range,
        *,
        camera: Camera,
        T_camera_world: NDArray[np.float64],
    ) -> "View":
        """See all tracks that exist in some frames.

        Args:
            xyz_world: (3, all tracks, T) m; NaN where a point does not exist.
            frames: The frames, one after the other.
            camera: The intrinsics in these frames.
            T_camera_world: (4, 4) the pose in these frames.
        """
        exists = np.asarray(np.isfinite(xyz_world[..., frames.start : frames.stop]).all(axis=0))
        points = np.flatnonzero(exists.any(axis=1))
        uvz = transform_coordinates(T_camera_world, xyz_world[:, points])
        uvz[0], uvz[1] = camera.pixels(*uvz)
        scaled = uvz / image_size(camera.width, camera.height)
        np.copyto(scaled, np.nan, where=~(np.abs(uvz) <= _LARGEST_FLOAT16).all(axis=0))
        return cls(camera, frames, points, exists[points], uvz, scaled, step_lengths(scaled))


def frame_rows(
    view: View,
    keep: NDArray[np.bool_],
    *,
    frame: int,
    arc_step: float,
    future_len: int,
    history_len: int,
) -> FrameRows | None:
    """Make the rows of a frame; None if it has none, or if no path there is one step long.

    All points that exist in the frame drive the clock of the sampled steps; rows are for those
    that are kept and inside the image.

    Args:
        view: The tracks as the camera of the frame sees them.
        keep: (all tracks,) points that may have a row.
        frame: The frame to make rows of, one of the view's.
        arc_step: Distance between sampled steps.
        future_len: Columns F of the future.
        history_len: Columns B of the history.
    """
    camera, alive = view.camera, view.exists[:, frame - view.frames.start]
    u, v, z = view.uvz[..., frame]
    inside = (u >= 0) & (u <= camera.width) & (v >= 0) & (v <= camera.height) & (z > 0)
    rows = np.flatnonzero(alive & inside & keep[view.points])
    if not len(rows):
        return None
    clock = clock_steps(view.step_lengths[alive])
    future = _path(view, rows, slice(frame, None), clock[frame:], arc_step, future_len)
    if future.sampled.valid.sum(axis=1).max() < 2:
        return None
    backwards = slice(frame, None, -1)
    history = _path(view, rows, backwards, clock[:frame][::-1], arc_step, history_len)
    return FrameRows(frame, view.points[rows], future, history)


def _path(
    view: View,
    rows: NDArray[np.int64],
    frames: slice,
    clock: NDArray[np.float64],
    arc_step: float,
    length: int,
) -> Path:
    """Make one direction in time of some rows, along the steps of the clock in that direction."""
    raw = view.uvz[..., frames][..., :length][:, rows]
    # A point behind the camera keeps its depth and exists; it has no pixel.
    raw_steps = Steps.padded(raw, np.isfinite(raw[2]), length)
    instants = clock_instants(clock, arc_step, length)
    sampled = instants.sample(view.scaled[..., frames][:, rows])
    sampled *= image_size(view.camera.width, view.camera.height)
    prefix = np.logical_and.accumulate(np.isfinite(sampled).all(axis=0), axis=1)
    source_index = np.full(length, np.nan)
    known = np.asarray(prefix.any(axis=0))
    source_index[: len(known)][known] = instants.source_index[known]
    return Path(raw_steps, Steps.padded(sampled, prefix, length), source_index)
