"""Own how points are followed from one picture to the next.

`Tracker` is the seam: Lucas-Kanade fills it here, and a learned any-point tracker can. Whether a
point found in the picture is still the same point is judged apart, by depth and colour.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tracked:
    """Hold where points are in a new picture.

    Attributes:
        uv: (n, 2) float32 px; meaningless where not found.
        found: (n,) bool.
    """

    uv: NDArray[np.float32]
    found: NDArray[np.bool_]


class Tracker(Protocol):
    """Follow points through pictures that come one at a time."""

    def reset(self) -> None:
        """Forget all pictures and points."""

    def track(
        self,
        rgb: NDArray[np.uint8],
        ids: NDArray[np.uint32],
        uv: NDArray[np.float32],
        expected_uv: NDArray[np.float32],
    ) -> Tracked:
        """Find points of the picture before in a new one, which is then the picture before.

        Args:
            rgb: (H, W, 3) the new picture, of the same size as before.
            ids: (n,) what makes points the same between calls; a new id is a new query.
            uv: (n, 2) px where the points are in the picture before.
            expected_uv: (n, 2) px where they are expected now.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """Tune pyramidal Lucas-Kanade."""

    window_px: int = option(9, description="Edge of the window compared", unit="px", low=3)
    wide_window_px: int = option(
        21, description="Edge of the window tried where that fails", unit="px", low=3
    )
    pyramid_levels: int = option(3, description="Levels above full size", low=0, high=6)
    iterations: int = option(20, description="Steps per level, at most", low=1)
    max_backward_px: float = option(
        1.0, description="Distance by which tracking back may miss", unit="px", low=0.0
    )
    min_texture: float = option(
        1e-4, description="Smallest eigenvalue per pixel below which a window is lost", low=0.0
    )

    def __post_init__(self) -> None:
        validate(self)


class FlowTracker:
    """Follow points by pyramidal Lucas-Kanade, forward and back."""

    def __init__(self, config: FlowConfig) -> None:
        self._config = config
        self._grey: NDArray[Any] | None = None

    def reset(self) -> None:
        """Forget the picture before."""
        self._grey = None

    def track(
        self,
        rgb: NDArray[np.uint8],
        ids: NDArray[np.uint32],
        uv: NDArray[np.float32],
        expected_uv: NDArray[np.float32],
    ) -> Tracked:
        """Find points again; nothing is found in the first picture."""
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        before, self._grey = self._grey, grey
        if before is None or len(uv) == 0:
            return Tracked(uv=uv.copy(), found=np.zeros(len(uv), np.bool_))
        config = self._config
        # A small window leaves the background out; a plain surface needs a wide one.
        now, found = self._there_and_back(before, grey, uv, expected_uv, config.window_px)
        rest = ~found
        if rest.any():
            now[rest], found[rest] = self._there_and_back(
                before, grey, uv[rest], expected_uv[rest], config.wide_window_px
            )
        return Tracked(uv=now, found=found & inside(now, grey))

    def _there_and_back(
        self,
        before: NDArray[Any],
        after: NDArray[Any],
        uv: NDArray[np.float32],
        guess: NDArray[np.float32],
        window_px: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Run Lucas-Kanade forward, and back to see whether it returns."""
        now, ahead = self._flow(before, after, uv, guess, window_px)
        back, behind = self._flow(after, before, now, uv, window_px)
        missed = np.linalg.norm(back - uv, axis=1)
        return now, ahead & behind & (missed < self._config.max_backward_px)

    def _flow(
        self,
        first: NDArray[Any],
        second: NDArray[Any],
        uv: NDArray[np.float32],
        guess: NDArray[np.float32],
        window_px: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Run Lucas-Kanade from one picture to another."""
        config = self._config
        stop = cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT
        found, status, _ = cv2.calcOpticalFlowPyrLK(
            first,
            second,
            np.ascontiguousarray(uv).reshape(-1, 1, 2),
            guess.reshape(-1, 1, 2).copy(),  # overwritten
            winSize=(window_px, window_px),
            maxLevel=config.pyramid_levels,
            criteria=(stop, config.iterations, 0.01),
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
            minEigThreshold=config.min_texture,
        )
        return found.reshape(-1, 2).astype(np.float32), status.ravel().astype(np.bool_)


def depth_at(
    depth_m: NDArray[np.float32],
    uv: NDArray[np.float32],
    expected_z: NDArray[np.float32],
    tolerance_m: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Measure the depth of points, and say whether something else is seen in their place.

    Of the 3 x 3 pixels around a point those count that agree with its expected depth, so an edge
    beside it does no harm; their median is its depth.

    Args:
        depth_m: (H, W) m along the optical axis, NaN = none.
        uv: (n, 2) px.
        expected_z: (n,) m.
        tolerance_m: (n,) m by which a depth may differ from the expected one.

    Returns:
        z (n,) m, NaN where none agrees; and (n,) bool, whether there is depth but none agrees.
    """
    near = _around(depth_m, uv, reach=1)
    near = np.where(inside(uv, depth_m)[:, None], near, np.float32(np.nan))
    agrees = np.abs(near - expected_z[:, None]) <= tolerance_m[:, None]
    count = np.count_nonzero(agrees, axis=1)
    ordered = np.sort(np.where(agrees, near, np.float32(np.inf)), axis=1)
    middle = ordered[np.arange(len(uv)), np.maximum(count - 1, 0) // 2]
    z = np.where(count > 0, middle, np.float32(np.nan)).astype(np.float32)
    return z, np.isfinite(near).any(axis=1) & (count == 0)


def colour_at(rgb: NDArray[np.uint8], uv: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean colour (n, 3) of the 3 x 3 pixels around points (n, 2), as `_colours`."""
    return _colours(_around(rgb, uv, reach=1)).mean(axis=1)


def colour_change(
    rgb: NDArray[np.uint8], uv: NDArray[np.float32], colour: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return how far (n,) the colour of points is from any within two pixels of them."""
    near = _colours(_around(rgb, uv, reach=2))
    return np.linalg.norm(near - colour[:, None], axis=-1).min(axis=1)


def inside(uv: NDArray[np.float32], image: NDArray) -> NDArray[np.bool_]:
    """Say (n,) which points (n, 2) fall on a pixel of an image (H, W, ...); NaN does not."""
    height, width = image.shape[:2]
    within = (uv >= -0.5) & (uv < (width - 0.5, height - 0.5))
    return np.asarray(within.all(axis=1))


def _around(image: NDArray[Any], uv: NDArray[np.float32], *, reach: int) -> NDArray[Any]:
    """Return the pixels (n, (2 reach + 1)^2, ...) around points, repeated at the border."""
    height, width = image.shape[:2]
    column, row = np.rint(np.nan_to_num(uv)).astype(np.int64).T
    dv, du = (d.ravel() for d in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    rows = np.clip(row[:, None] + dv, 0, height - 1)
    return image[rows, np.clip(column[:, None] + du, 0, width - 1)]


def _colours(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return CIE Lab (n, k, 3), with little weight on lightness, which shadows change."""
    if rgb.size == 0:
        return np.empty(rgb.shape, np.float32)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
    return np.asarray(lab * np.array([0.4, 1.0, 1.0]), np.float32)
