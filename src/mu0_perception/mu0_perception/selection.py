"""Own the choice of new keypoints: where points go, and how many.

Points fixed to the gripper are not chosen here: they are given, and their motion is known.
"""

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate
from mu0_core.traces import KeypointSource
from mu0_perception.entities import Entities
from mu0_perception.frame import RgbdFrame

_CANDIDATES = 500  # per region: enough to spread a few dozen points over


class Source(StrEnum):
    """Name the sources of keypoints."""

    ENTITY = "entity"
    ROBOT = "robot"
    CLICKED = "clicked"
    GRID = "grid"
    MASK = "mask"

    @property
    def code(self) -> int:
        """The number that containers and messages use."""
        return int(KeypointSource[self.name])


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig:
    """Say which sources give keypoints, and how many."""

    sources: tuple[Source, ...] = option(
        (Source.ENTITY, Source.ROBOT, Source.CLICKED), description="Sources that are combined"
    )
    max_keypoints: int = option(
        64, description="Keypoints at a time, all sources together", low=1, high=4096
    )
    points_per_entity: int = option(12, description="Points on each entity, at most", low=1)
    min_points_per_entity: int = option(
        4, description="Points on each entity where many share the budget", low=1
    )
    mask_points: int = option(16, description="Points inside a mask", low=1)
    grid_spacing_px: int = option(40, description="Distance of grid points", unit="px", low=4)
    margin_px: int = option(
        3,
        description="Distance of new points from their region's edge, at the working width",
        unit="px",
        low=0,
    )

    def __post_init__(self) -> None:
        faults = []
        if not self.sources:
            faults.append(
                "sources: expected at least one of " + ", ".join(s.value for s in Source)
            )
        if self.min_points_per_entity > self.points_per_entity:
            faults.append(
                f"min_points_per_entity: expected at most points_per_entity "
                f"({self.points_per_entity}), got {self.min_points_per_entity}"
            )
        validate(self, *faults)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """Hold what a choice looks at.

    Attributes:
        grey: (H, W) uint8.
        depth_m: (H, W) float32 m along the optical axis, NaN = none.
    """

    grey: NDArray[np.uint8]
    depth_m: NDArray[np.float32]


def picture_of(frame: RgbdFrame) -> Picture:
    """Return what a choice looks at in a frame."""
    grey = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY)
    return Picture(grey=np.asarray(grey, np.uint8), depth_m=frame.depth_m)


def entity_shares(present: NDArray[np.int64], budget: int, config: SelectionConfig) -> list[int]:
    """Divide a budget among entities.

    Args:
        present: (n,) keypoints that each entity has, in the order of preference.
        budget: New keypoints that there is room for.
        config: Bounds on the points per entity.

    Returns:
        New keypoints for each entity. All get the same number in the end, as far as the budget
        and the smallest number per entity allow; then the first ones are preferred.
    """
    if len(present) == 0:
        return []
    fair = (budget + int(present.sum())) // len(present)
    goal = int(np.clip(fair, config.min_points_per_entity, config.points_per_entity))
    shares = []
    for count in present:
        share = min(max(goal - int(count), 0), budget)
        shares.append(share)
        budget -= share
    return shares


def entity_points(
    picture: Picture,
    entities: Entities,
    label: int,
    *,
    taken_uv: NDArray[np.float32],
    n: int,
    margin_px: int,
) -> NDArray[np.float32]:
    """Choose well spread points on one entity.

    Args:
        picture: Where to look.
        entities: Its segmentation.
        label: The entity.
        taken_uv: (k, 2) px of keypoints that new ones keep away from.
        n: Number of points.
        margin_px: Distance from the entity's edge in its segmentation, as far as it is large
            enough.

    Returns:
        (m, 2) px, m <= n.
    """
    return _points_in(
        picture, entities.labels == label, entities.stride, taken_uv, n=n, margin_px=margin_px
    )


def mask_points(
    picture: Picture, mask: NDArray[np.bool_], *, n: int, margin_px: int
) -> NDArray[np.float32]:
    """Choose well spread points (m, 2) px, m <= n, inside a mask (H, W)."""
    return _points_in(picture, mask, 1, np.empty((0, 2), np.float32), n=n, margin_px=margin_px)


def grid_points(
    picture: Picture, *, spacing_px: int, taken_uv: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the points (m, 2) px of a regular grid that have depth and no keypoint nearby."""
    height, width = picture.depth_m.shape
    rows = np.arange(spacing_px // 2, height, spacing_px)
    columns = np.arange(spacing_px // 2, width, spacing_px)
    row, column = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
    uv = np.stack([column, row], axis=-1).astype(np.float32)
    free = np.isfinite(picture.depth_m[row, column])
    if len(taken_uv):
        distance = np.linalg.norm(uv[:, None] - taken_uv[None], axis=-1).min(axis=1)
        free &= distance > 0.5 * spacing_px
    return uv[free]


def _points_in(
    picture: Picture,
    region: NDArray[np.bool_],
    stride: int,
    taken_uv: NDArray[np.float32],
    *,
    n: int,
    margin_px: int,
) -> NDArray[np.float32]:
    """Choose points in a region of every stride-th pixel, with texture and depth around them."""
    row, column = _inner(region, margin_px)
    step = max(len(row) // _CANDIDATES, 1)
    row, column = row[::step] * stride, column[::step] * stride
    deep = _depth_around(picture.depth_m, row, column)
    uv = np.stack([column, row], axis=-1)[deep]
    if len(uv) == 0 or n <= 0:
        return np.empty((0, 2), np.float32)
    texture = _texture_at(picture.grey, uv)
    textured = uv[texture >= np.median(texture)]
    return spread(textured.astype(np.float32), taken_uv, n)


def _inner(
    region: NDArray[np.bool_], margin: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of a region's pixels that keep away from its edge."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if len(rows) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    top, left = rows[0], columns[0]
    window = region[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.uint8)
    distance = cv2.distanceTransform(np.pad(window, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    # A thin or small region still has its middle.
    limit = min(margin, 0.5 * float(distance.max()))
    row, column = np.nonzero((distance > limit) & (window > 0))
    return row + top, column + left


def _depth_around(
    depth_m: NDArray[np.float32], row: NDArray[np.int64], column: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Say (m,) which pixels have depth, and at most few holes beside them."""
    height, width = depth_m.shape
    count = np.zeros(len(row), np.int64)
    for dv in (-2, 0, 2):
        for du in (-2, 0, 2):
            near = depth_m[np.clip(row + dv, 0, height - 1), np.clip(column + du, 0, width - 1)]
            count += np.isfinite(near)
    return np.isfinite(depth_m[row, column]) & (count >= 6)


def _texture_at(grey: NDArray[np.uint8], uv: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return (m,) how well the surroundings of pixels can be followed (smallest eigenvalue)."""
    (left, top), (right, bottom) = uv.min(axis=0), uv.max(axis=0)
    pad = 12
    left, top = max(left - pad, 0), max(top - pad, 0)
    window = grey[top : bottom + pad + 1, left : right + pad + 1]
    response = cv2.cornerMinEigenVal(np.ascontiguousarray(window), 9)
    return response[uv[:, 1] - top, uv[:, 0] - left]


def spread(uv: NDArray[np.float32], taken_uv: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Choose n of the points (m, 2) far from each other and from those taken.

    Farthest-point sampling: each next point is the one farthest from all before it; the first one
    is the point nearest the middle if nothing is taken.
    """
    if len(uv) == 0 or n <= 0:
        return uv[:0]
    if len(taken_uv):
        distance = np.linalg.norm(uv[:, None] - taken_uv[None], axis=-1).min(axis=1)
    else:
        first = int(np.argmin(np.linalg.norm(uv - uv.mean(axis=0), axis=1)))
        return np.concatenate([uv[[first]], spread(uv, uv[[first]], n - 1)])
    chosen: list[int] = []
    while len(chosen) < n:
        farthest = int(np.argmax(distance))
        if distance[farthest] == 0.0:
            break
        chosen.append(farthest)
        distance = np.minimum(distance, np.linalg.norm(uv - uv[farthest], axis=1))
    return uv[chosen]
