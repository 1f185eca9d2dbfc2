"""Own the segmentation of a picture into entities: what stands out from the background.

Large planes that everything else lies in front of (table, wall) are taken away; what remains is
cut where depth jumps or colour changes, and crumbs are given to the neighbour they touch.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from mu0_core.config import option, validate
from mu0_perception.planes import Plane, background_planes
from mu0_perception.pointcloud import OrganisedCloud

_CRUMB_REACH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityConfig:
    """Say what counts as an entity."""

    working_width: int = option(
        320, description="Width that pictures are thinned to", unit="px", low=32
    )
    max_range_m: float = option(
        2.0, description="Depth beyond which nothing counts", unit="m", low=0.1
    )
    clearance_m: float = option(
        0.005,
        description="Height above a plane below which a point is part of it",
        unit="m",
        low=0,
    )
    clearance_per_m: float = option(
        0.003, description="Growth of that height with depth: sensor noise", unit="m/m", low=0.0
    )
    plane_min_share: float = option(
        0.08, description="Share of the points that makes a plane background", low=0.01, high=1.0
    )
    plane_max_behind: float = option(
        0.25, description="Share of the points that may lie behind such a plane", low=0.0, high=0.9
    )
    depth_step: float = option(
        0.012, description="Relative depth step between neighbours that cuts", low=0.0
    )
    colour_step: float = option(
        14.0, description="Colour step between neighbours that cuts (CIE Lab)", low=0.0
    )
    min_pixels: int = option(
        60,
        description="Smallest entity at the working width; a narrower picture shows less of it",
        unit="px",
        low=1,
    )
    max_entities: int = option(16, description="Entities kept, at most", low=1, high=256)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entities:
    """Hold the entities of a picture.

    Attributes:
        labels: (h, w) int32, 0 = background, 1 to n = an entity; entities that lie wholly in the
            picture first, then the larger ones first.
        n: Number of entities.
        planes: What things stand on, then walls.
        clearance_m: Height below which a point is part of a plane.
        stride: Pixels of the picture between neighbours of the label image.
    """

    labels: NDArray[np.int32]
    n: int
    planes: list[Plane]
    clearance_m: float
    stride: int

    def labels_at(self, uv: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the labels (n,) at pixels (n, 2) of the picture; 0 outside of it."""
        height, width = self.labels.shape
        column, row = np.rint(np.nan_to_num(uv / self.stride, nan=-1.0)).astype(np.int64).T
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        labels = self.labels[np.where(inside, row, 0), np.where(inside, column, 0)]
        return np.where(inside, labels, 0)


def find_entities(cloud: OrganisedCloud, config: EntityConfig) -> Entities:
    """Segment a picture.

    Args:
        cloud: The picture, thinned to the working width.
        config: What counts as an entity.

    Returns:
        The entities; none where there is no depth.
    """
    in_range = cloud.valid & (np.nan_to_num(cloud.xyz[..., 2]) < config.max_range_m)
    planes = background_planes(
        cloud.xyz[in_range],
        tolerance_m=config.clearance_m,
        min_share=config.plane_min_share,
        max_behind_share=config.plane_max_behind,
        max_planes=3,
    )
    foreground = in_range & _in_front(cloud, planes, config)
    foreground = cv2.morphologyEx(
        foreground.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
    ).astype(bool)
    parts = _connected(cloud, foreground, config)
    narrower = min(parts.shape[1] / config.working_width, 1.0)
    min_pixels = max(round(config.min_pixels * narrower**2), 1)
    labels, n = _ranked(_without_crumbs(parts, min_pixels), config)
    return Entities(
        labels=labels,
        n=n,
        planes=planes,
        clearance_m=config.clearance_m,
        stride=cloud.stride,
    )


def _in_front(
    cloud: OrganisedCloud, planes: list[Plane], config: EntityConfig
) -> NDArray[np.bool_]:
    """Return (h, w) where points stand out from all planes."""
    clearance = config.clearance_m + config.clearance_per_m * cloud.xyz[..., 2]
    standing_out = np.ones(clearance.shape, np.bool_)
    for plane in planes:
        standing_out &= plane.height(cloud.xyz) > clearance
    return standing_out


def _connected(
    cloud: OrganisedCloud, foreground: NDArray[np.bool_], config: EntityConfig
) -> NDArray[np.int32]:
    """Label (h, w) the regions in which depth and colour go on from pixel to pixel; 0 = none."""
    z = cloud.xyz[..., 2]
    lab = cv2.cvtColor(cv2.blur(cloud.rgb, (3, 3)), cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 0] *= 0.4  # shading changes lightness on one and the same thing
    index = np.arange(z.size, dtype=np.int32).reshape(z.shape)
    pairs = []
    for first, second in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
    ):
        both = foreground[first] & foreground[second]
        depth_goes_on = np.abs(z[first] - z[second]) < config.depth_step * z[first]
        step = np.linalg.norm(lab[first] - lab[second], axis=-1)
        joined = both & depth_goes_on & (step < config.colour_step)
        pairs.append((index[first][joined], index[second][joined]))
    rows, columns = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    graph = sparse.coo_matrix(
        (np.ones(len(rows), np.bool_), (rows, columns)), shape=(z.size, z.size)
    )
    parts = connected_components(graph, directed=False)[1].reshape(z.shape)
    compact = np.unique(parts[foreground], return_inverse=True)[1]
    labels = np.zeros(z.shape, np.int32)
    labels[foreground] = compact.reshape(-1) + 1
    return labels


def _without_crumbs(parts: NDArray[np.int32], min_pixels: int) -> NDArray[np.int32]:
    """Give regions smaller than min_pixels to the large region they touch.

    What is left of them forms regions of its own, so that a thing with a busy pattern is not
    lost, or is dropped if that is small too.
    """
    small = np.bincount(parts.ravel()) < min_pixels
    small[0] = False
    crumbs = small[parts]
    large = np.where(crumbs, 0, parts)
    for _ in range(_CRUMB_REACH):
        grown = cv2.dilate(large.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
        large = np.where(crumbs & (large == 0), grown, large)
    rest = (crumbs & (large == 0)).astype(np.uint8)
    _, patterned, stats, _ = cv2.connectedComponentsWithStats(rest, connectivity=4)
    big_enough = stats[:, cv2.CC_STAT_AREA] >= min_pixels
    big_enough[0] = False
    return np.where(big_enough[patterned], patterned + large.max(), large)


def _ranked(parts: NDArray[np.int32], config: EntityConfig) -> tuple[NDArray[np.int32], int]:
    """Number regions from 1 in the order of Entities, and drop the last ones if too many."""
    area = np.bincount(parts.ravel())
    area[0] = 0
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    at_border = np.zeros(len(area), np.bool_)
    at_border[border] = True
    order = np.lexsort((-area, at_border))
    order = order[area[order] > 0][: config.max_entities]
    rank = np.zeros(len(area), np.int32)
    rank[order] = np.arange(1, len(order) + 1)
    return rank[parts], len(order)
