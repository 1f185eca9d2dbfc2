"""Own where keypoints have been: a raw buffer in a fixed frame, resampled as the model means it.

The buffer is seen through the current camera and resampled by arc length (mu0_core.arclength),
newest first. Measurement noise makes a long path out of rest, so what counts as motion is decided
before: tracks are smoothed over a moment, and pictures in which nothing moved are left out.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from mu0_core.arclength import retarget
from mu0_core.camera import Camera
from mu0_core.config import option, validate
from mu0_core.se3 import inverse, transform_points

NS_PER_S = 1_000_000_000
_FASTEST_SHARE = 0.02  # those that drive the clock of mu0_core.arclength
_SCAN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryConfig:
    """Say how long and how finely the past is kept."""

    arc_step: float = option(
        0.01,
        description="Arc length between steps, image fractions and metres; the checkpoint's",
        low=1e-4,
    )
    length: int = option(8, description="Steps of history; the checkpoint's", low=1, high=256)
    buffer_s: float = option(8.0, description="Past that is kept", unit="s", low=0.1)
    rate_hz: float = option(15.0, description="Pictures kept a second", unit="Hz", low=1.0)
    smoothing_s: float = option(
        0.15, description="Span that tracks are averaged over", unit="s", low=0.0
    )

    def __post_init__(self) -> None:
        validate(self)


class History:
    """Remember tracks in a fixed frame and resample them in the current camera."""

    def __init__(self, config: HistoryConfig) -> None:
        self._config = config
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._stamps_ns = np.empty(0, np.int64)
        self._ids = np.empty(0, np.uint32)
        self._xyz = np.empty((0, 0, 3))

    @property
    def span_s(self) -> float:
        """Time between the oldest and the newest picture kept, s."""
        stamps = self._stamps_ns
        return float(stamps[-1] - stamps[0]) / NS_PER_S if len(stamps) else 0.0

    def append(
        self, stamp_ns: int, ids: NDArray[np.uint32], xyz_fixed: NDArray[np.float64]
    ) -> None:
        """Add a picture; points that are not among ids any more are forgotten.

        Args:
            stamp_ns: Time of the picture, later than all before.
            ids: (n,) unique.
            xyz_fixed: (n, 3) m in the fixed frame, NaN = unknown.
        """
        xyz = np.full((len(self._stamps_ns) + 1, len(ids), 3), np.nan)
        _, new, old = np.intersect1d(ids, self._ids, assume_unique=True, return_indices=True)
        xyz[:-1, new] = self._xyz[:, old]
        xyz[-1] = xyz_fixed
        stamps = np.append(self._stamps_ns, stamp_ns)
        keep = stamps >= stamp_ns - round(self._config.buffer_s * NS_PER_S)
        # The newest picture always stays; the one before it makes room if it came too early.
        if len(stamps) > 2 and (stamps[-2] - stamps[-3]) * self._config.rate_hz < 0.9 * NS_PER_S:
            keep[-2] = False
        self._stamps_ns, self._ids, self._xyz = stamps[keep], ids.copy(), xyz[keep]

    def resampled(
        self, camera: Camera, T_fixed_camera: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the steps before the newest picture, in its camera.

        Args:
            camera: Intrinsics of the newest picture.
            T_fixed_camera: (4, 4) pose of its optical frame.

        Returns:
            history_uvz (n, h, 3) px, px, m, oldest first, NaN where invalid; history_valid (n, h).
        """
        n, h = len(self._ids), self._config.length
        if n == 0:
            return np.empty((0, h, 3), np.float32), np.empty((0, h), np.bool_)
        newest_first = self._smoothed()[::-1]
        uvz = camera.project(transform_points(inverse(T_fixed_camera), newest_first))
        # Pictures half a step apart at least: so many cover the whole history.
        moved = _moving_pictures(uvz, camera, 0.5 * self._config.arc_step, 2 * h + 3)
        tracks = retarget(
            uvz[moved].swapaxes(0, 1),
            width=camera.width,
            height=camera.height,
            arc_step=self._config.arc_step,
            n_samples=h + 1,
        )
        steps = tracks.uvz[:, :0:-1].astype(np.float32)
        valid = np.isfinite(steps).all(axis=-1) & tracks.valid[:0:-1]
        steps[~valid] = np.nan
        return steps, valid

    def _smoothed(self) -> NDArray[np.float64]:
        """Average tracks (T, n, 3) over the smoothing span; the newest picture stays as it is."""
        spacing_s = self.span_s / max(len(self._stamps_ns) - 1, 1)
        reach = int(0.5 * self._config.smoothing_s / spacing_s) if spacing_s > 0.0 else 0
        if reach == 0:
            return self._xyz
        known = np.isfinite(self._xyz)
        width = 2 * reach + 1
        total = uniform_filter1d(np.where(known, self._xyz, 0.0), width, axis=0, mode="constant")
        weight = uniform_filter1d(known.astype(np.float64), width, axis=0, mode="constant")
        smooth = np.where(known, total / np.maximum(weight, 1e-9), np.nan)
        smooth[-1] = self._xyz[-1]
        return smooth


def _moving_pictures(
    uvz: NDArray[np.float64], camera: Camera, least: float, enough: int
) -> NDArray[np.int64]:
    """Choose the pictures between which something moved, beginning with the first.

    Args:
        uvz: (T, n, 3) px, px, m.
        camera: Size of the image.
        least: Motion of the fastest points, image fractions and metres in one norm.
        enough: Number of pictures after which to stop.

    Returns:
        Indices of the pictures, rising.
    """
    scaled = uvz / (camera.width, camera.height, 1.0)
    n_fastest = max(1, math.ceil(_FASTEST_SHARE * uvz.shape[1]))
    kept, at = [0], 1
    while at < len(scaled) and len(kept) < enough:
        following = scaled[at : at + _SCAN]
        away = np.nan_to_num(np.linalg.norm(following - scaled[kept[-1]], axis=-1))
        fastest = np.partition(away, -n_fastest, axis=1)[:, -n_fastest:].mean(axis=1)
        moved = np.flatnonzero(fastest >= least)
        if len(moved):
            kept.append(at + int(moved[0]))
        at = kept[-1] + 1 if len(moved) else at + len(following)
    return np.array(kept)
