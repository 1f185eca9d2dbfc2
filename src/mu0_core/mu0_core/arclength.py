"""Own the rule that resamples tracks by arc length instead of time.

All tracks of a group share one clock, driven by the fastest 2 % of them: it advances by the mean
length of their steps, with pixels divided by the image size and depth in metres in one norm.
Samples lie at equal distances on that clock, so sample m of every track is the same instant.
Source: the data engine that made the released μ₀ episodes (its step is 0.05).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mu0_core.errors import ShapeError

_FASTEST_SHARE = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Retargeted:
    """Hold tracks sampled by arc length.

    Attributes:
        uvz: (n, m, 3) float64 px, px, m; sample 0 is frame 0. NaN where not valid, and where the
            track is unknown.
        valid: (m,) bool prefix mask, shared by all tracks.
        source_index: (m,) float64 frame that each sample was taken at, between two frames as a
            fraction; NaN where not valid. With the stamps of the frames it gives the time.
    """

    uvz: NDArray[np.float64]
    valid: NDArray[np.bool_]
    source_index: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Instants:
    """Hold instants between frames.

    Attributes:
        before: (m,) the frame at or before each.
        share: (m,) of the way from that frame to the next, in [0, 1].
    """

    before: NDArray[np.int64]
    share: NDArray[np.float64]

    @property
    def source_index(self) -> NDArray[np.float64]:
        """The frame of each instant (m,), as a fraction between two."""
        return self.before + self.share

    def sample(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Interpolate values (..., T) of frames: (..., m)."""
        start = values[..., self.before]
        end = values[..., np.minimum(self.before + 1, values.shape[-1] - 1)]
        # At a frame itself, what is unknown in the next one does not matter.
        return np.where(self.share == 0.0, start, start + self.share * (end - start))


def retarget(
    uvz: ArrayLike, *, width: int, height: int, arc_step: float, n_samples: int
) -> Retargeted:
    """Sample tracks at equal steps of their common arc length.

    What is left of the path beyond the last whole step is dropped. For a history, pass the
    frames newest first.

    Args:
        uvz: (n, T, 3) px, px, m: n tracks in T frames, all in the camera of frame 0. NaN where a
            track is unknown: it then neither drives the clock nor has samples there.
        width: Width of the image, px.
        height: Height of the image, px.
        arc_step: Distance between samples: image fractions and metres in one norm.
        n_samples: Number of samples m to make room for.

    Raises:
        ShapeError: The tracks are not (n, T, 3) with n and T above 0, or hold infinite values.
        ValueError: A size or the step is not above 0.
    """
    tracks = _checked_tracks(uvz)
    if min(width, height, arc_step, n_samples) <= 0:
        raise ValueError(
            "retarget: expected width, height, arc_step and n_samples above 0, "
            f"got {width}, {height}, {arc_step}, {n_samples}"
        )
    size = image_size(width, height)
    scaled = np.moveaxis(tracks, -1, 0) / size
    instants = clock_instants(clock_steps(step_lengths(scaled)), arc_step, n_samples)

    n_valid = len(instants.before)
    result = np.full((len(tracks), n_samples, 3), np.nan)
    result[:, :n_valid] = np.moveaxis(instants.sample(scaled) * size, 0, -1)
    index = np.full(n_samples, np.nan)
    index[:n_valid] = instants.source_index
    return Retargeted(result, np.arange(n_samples) < n_valid, index)


def image_size(width: int, height: int) -> NDArray[np.float64]:
    """Return what (3, n, T) px, px, m are divided by to be counted in one norm: (3, 1, 1)."""
    return np.array([width, height, 1.0])[:, None, None]


def step_lengths(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lengths (n, T - 1) of the steps of scaled tracks (3, n, T); 0 where unknown."""
    squares = np.diff(scaled, axis=-1)
    squares *= squares
    lengths = np.sqrt(squares[0] + squares[1] + squares[2])
    lengths[np.isnan(lengths)] = 0.0
    return lengths


def clock_steps(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the clock advances by (T - 1), of step lengths (n, T - 1) of all tracks.

    They are means over the fastest tracks, and the same forwards and backwards in time.
    """
    n_fastest = max(1, math.ceil(_FASTEST_SHARE * len(lengths)))
    return np.sort(lengths, axis=0)[-n_fastest:].mean(axis=0)


def clock_instants(steps: NDArray[np.float64], arc_step: float, n_samples: int) -> Instants:
    """Return up to n_samples instants, arc_step apart on the clock of these steps (T - 1)."""
    if len(steps) == 0:
        return Instants(np.zeros(1, np.int64), np.zeros(1))
    clock = np.concatenate([[0.0], np.cumsum(steps)])
    n_steps = min(math.floor(clock[-1] / arc_step), n_samples - 1)
    targets = np.minimum(arc_step * np.arange(n_steps + 1), clock[-1])
    before = np.clip(np.searchsorted(clock, targets, side="right") - 1, 0, len(steps) - 1)
    before[0] = 0  # the current frame, also if nothing moves at first and later ones equal it
    return Instants(before, (targets - clock[before]) / np.maximum(steps[before], 1e-12))


def _checked_tracks(uvz: ArrayLike) -> NDArray[np.float64]:
    """Return tracks as float64, checked to be (n, T, 3) and free of infinities."""
    tracks = np.asarray(uvz, dtype=np.float64)
    if tracks.ndim != 3 or tracks.shape[-1] != 3 or 0 in tracks.shape:
        raise ShapeError(
            f"retarget: expected tracks (n, T, 3) with n and T above 0, got {tracks.shape}"
        )
    n_infinite = int(np.isinf(tracks).any(axis=-1).sum())
    if n_infinite:
        raise ShapeError(
            f"retarget: {n_infinite} points are infinite; write NaN where a track is unknown"
        )
    return tracks
