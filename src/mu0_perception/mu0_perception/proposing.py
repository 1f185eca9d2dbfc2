"""Own how new keypoints join those that are followed: entities keep their number, gaps fill up."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core.se3 import transform_points
from mu0_perception.entities import Entities
from mu0_perception.frame import RgbdFrame
from mu0_perception.points import POINT, Numbers, of
from mu0_perception.selection import (
    SelectionConfig,
    Source,
    entity_points,
    entity_shares,
    grid_points,
    mask_points,
    picture_of,
)
from mu0_perception.tracking import colour_at, inside

_CLICK_TOLERANCE_M = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposer:
    """Add keypoints to a table.

    Attributes:
        frame: The picture in which they are proposed.
        config: Sources and budgets.
        numbers: Where ids come from.
        room: Number of keypoints kept free for the gripper.
    """

    frame: RgbdFrame
    config: SelectionConfig
    numbers: Numbers
    room: int

    def with_entities(self, points: NDArray[np.void], entities: Entities) -> NDArray[np.void]:
        """Fill up the entities; points that came to lie on the background leave the table."""
        points = points[~self._strays(points, entities)]
        own = of(points, Source.ENTITY) & points["visible"]
        label = np.where(own, entities.labels_at(points["uv"]), 0)
        present = np.bincount(label, minlength=entities.n + 1)[1:]
        clusters = _clusters_of_labels(label, points["cluster"], entities.n)
        picture = picture_of(self.frame)
        shares = entity_shares(present, self._budget(points), self.config)
        for index, share in enumerate(shares):
            if share == 0:
                continue
            uv = entity_points(
                picture,
                entities,
                index + 1,
                taken_uv=points["uv"][label == index + 1],
                n=share,
                margin_px=self.config.margin_px,
            )
            known = clusters.get(index + 1)
            cluster = self.numbers.cluster() if known is None else known
            points = self._joined(points, uv, Source.ENTITY, cluster)
            label = np.append(label, np.full(len(uv), index + 1))
        return points

    def with_grid(self, points: NDArray[np.void]) -> NDArray[np.void]:
        """Fill up a regular grid."""
        uv = grid_points(
            picture_of(self.frame),
            spacing_px=self.config.grid_spacing_px,
            taken_uv=points["uv"][of(points, Source.GRID)],
        )
        return self._joined(points, uv[: self._budget(points)], Source.GRID, -1)

    def with_mask(self, points: NDArray[np.void], mask: NDArray[np.bool_]) -> NDArray[np.void]:
        """Put points inside a mask, in place of those of the mask before."""
        points = points[~of(points, Source.MASK)]
        n = min(self.config.mask_points, self._budget(points))
        uv = mask_points(picture_of(self.frame), mask, n=n, margin_px=self.config.margin_px)
        return self._joined(points, uv, Source.MASK, self.numbers.cluster()) if len(uv) else points

    def with_click(
        self, points: NDArray[np.void], xyz: NDArray[np.float64]
    ) -> tuple[NDArray[np.void], str | None]:
        """Put one point where a person clicked; else say why not.

        Args:
            points: The table.
            xyz: (3,) m in the camera's optical frame.
        """
        u, v, z = self.frame.camera.project(xyz)
        uv = np.array([[u, v]], np.float32)
        where = f"({xyz[0]:.3f}, {xyz[1]:.3f}, {xyz[2]:.3f}) m in {self.frame.frame_id}"
        if not inside(uv, self.frame.depth_m)[0]:
            return points, f"clicked point {where} is outside the picture"
        seen = self.frame.depth_m[round(float(v)), round(float(u))]
        if not abs(seen - z) <= _CLICK_TOLERANCE_M:
            return points, (
                f"clicked point {where} is on no surface that the camera sees: "
                f"there the depth is {seen:.3f} m"
            )
        if self._budget(points) == 0:
            return points, (
                f"clicked point {where}: all {self.config.max_keypoints} keypoints are in use; "
                "raise selection.max_keypoints"
            )
        return self._joined(points, uv, Source.CLICKED, self.numbers.cluster()), None

    def _budget(self, points: NDArray[np.void]) -> int:
        """Return how many keypoints may join."""
        others = np.count_nonzero(~of(points, Source.ROBOT))
        return max(self.config.max_keypoints - self.room - int(others), 0)

    def _strays(self, points: NDArray[np.void], entities: Entities) -> NDArray[np.bool_]:
        """Say which entity points lie on the background: the tracker lost them there."""
        on_entity = entities.labels_at(points["uv"]) > 0
        uvz = np.column_stack([points["uv"], points["z"]])
        xyz = self.frame.camera.unproject(uvz).astype(np.float32)
        on_plane = np.zeros(len(points), np.bool_)
        for plane in entities.planes:
            on_plane |= plane.height(xyz) < entities.clearance_m
        return of(points, Source.ENTITY) & points["visible"] & ~on_entity & on_plane

    def _joined(
        self, points: NDArray[np.void], uv: NDArray[np.float32], source: Source, cluster: int
    ) -> NDArray[np.void]:
        """Append new points at pixels (n, 2) that have depth."""
        column, row = np.rint(uv).astype(np.int64).T
        z = self.frame.depth_m[row, column]
        new = np.zeros(len(uv), POINT)
        new["id"] = self.numbers.ids(len(uv))
        new["cluster"], new["source"] = cluster, source.code
        new["uv"], new["z"] = uv, z
        xyz = self.frame.camera.unproject(np.column_stack([uv, z]))
        new["xyz"] = transform_points(self.frame.T_fixed_camera, xyz)
        new["visible"], new["seen_ns"] = True, self.frame.stamp_ns
        new["colour"] = colour_at(self.frame.rgb, uv)
        return np.concatenate([points, new])


def _clusters_of_labels(
    label: NDArray[np.int64], cluster: NDArray[np.int32], n: int
) -> dict[int, int]:
    """Say which known cluster each label of a new segmentation continues.

    A cluster goes to the label that holds most of its points, and a label takes the cluster that
    has most points on it; what is left gets a new number.
    """
    votes: list[tuple[int, int, int]] = []
    for index in range(1, n + 1):
        known, counts = np.unique(cluster[label == index], return_counts=True)
        votes += [
            (int(count), index, int(number)) for number, count in zip(known, counts, strict=True)
        ]
    found: dict[int, int] = {}
    for _, index, number in sorted(votes, key=lambda vote: (-vote[0], vote[1], vote[2])):
        if index not in found and number not in found.values():
            found[index] = number
    return found
