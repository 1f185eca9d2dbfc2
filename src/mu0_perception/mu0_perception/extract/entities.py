"""Own what finds entities in a picture: geometry and colour, learned features, or cells."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate
from mu0_perception.entities import Entities, EntityConfig, find_entities
from mu0_perception.extract.learned import FeatureNetwork, is_cached
from mu0_perception.frame import RgbdFrame
from mu0_perception.pointcloud import OrganisedCloud, organised_cloud, stride_for

FloatArray = NDArray[np.float32]
_KNOWN_MODELS = (
    "facebook/dinov3-vits16-pretrain-lvd1689m",
    "facebook/dinov2-base",
    "facebook/dinov2-small",
)
_ROUNDS, _MERGED_SHARE = 11, 0.25


class EntitiesFrom(StrEnum):
    """Name what finds entities."""

    AUTO = "auto"
    GEOMETRY = "geometry"
    FEATURES = "features"
    CELLS = "cells"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinderConfig:
    """Say what finds entities."""

    finder: EntitiesFrom = option(
        EntitiesFrom.AUTO,
        description="What finds entities; auto: features if their weights are here, else "
        "geometry, and cells without depth",
    )
    model: str = option(
        "", description="Feature network: a folder, or a name in the local cache; empty: DINO"
    )
    cells: int = option(7, description="Cells beside each other, where cells are used", low=1)

    def __post_init__(self) -> None:
        validate(self)


class EntityFinder(Protocol):
    """Say which things a picture shows."""

    name: str

    def find(self, frame: RgbdFrame) -> Entities:
        """Segment a picture."""


def make_finder(config: FinderConfig, entity: EntityConfig, *, has_depth: bool) -> EntityFinder:
    """Return the finder that a configuration asks for.

    Args:
        config: The choice.
        entity: What counts as an entity.
        has_depth: Whether pictures have depth that means something.

    Raises:
        WeightsError: The feature network is not on this machine.
    """
    choice = config.finder
    model = config.model or next((name for name in _KNOWN_MODELS if is_cached(name)), "")
    if choice is EntitiesFrom.FEATURES or (choice is EntitiesFrom.AUTO and model):
        return FeatureFinder(FeatureNetwork(model or _KNOWN_MODELS[-1]), entity)
    if choice is EntitiesFrom.CELLS or (choice is EntitiesFrom.AUTO and not has_depth):
        return CellFinder(config.cells)
    return GeometryFinder(entity)


class GeometryFinder:
    """Find what stands out from planes, cut where depth or colour jumps."""

    name = "geometry and colour"

    def __init__(self, config: EntityConfig) -> None:
        self._config = config

    def find(self, frame: RgbdFrame) -> Entities:
        """Segment a picture."""
        return find_entities(_cloud(frame, self._config), self._config)


class CellFinder:
    """Take every cell of a grid for an entity: what moves is seen later."""

    name = "cells"

    def __init__(self, across: int) -> None:
        self._across = across

    def find(self, frame: RgbdFrame) -> Entities:
        """Divide a picture into equal cells."""
        height, width = frame.depth_m.shape
        stride = 2
        edge = width / self._across
        down = max(round(height / edge), 1)
        rows = (np.arange(0, height, stride) * down) // height
        columns = (np.arange(0, width, stride) * self._across) // width
        labels = (1 + rows[:, None] * self._across + columns).astype(np.int32)
        n = down * self._across
        return Entities(labels=labels, n=n, planes=[], clearance_m=0.0, stride=stride)


class FeaturesOf(Protocol):
    """Turn a picture into features."""

    name: str

    def features(self, rgb: NDArray[np.uint8]) -> FloatArray:
        """Return unit vectors (h, w, c) of the patches of a picture (H, W, 3)."""


class FeatureFinder:
    """Cut what stands out from planes where learned features say that another thing begins."""

    def __init__(self, network: FeaturesOf, config: EntityConfig) -> None:
        self._network, self._config = network, config
        self.name = network.name

    def find(self, frame: RgbdFrame) -> Entities:
        """Segment a picture."""
        cloud = _cloud(frame, self._config)
        found = find_entities(cloud, self._config)
        parts = merged_patches(self._network.features(frame.rgb))
        h, w = found.labels.shape
        rows, columns = np.arange(h) * parts.shape[0] // h, np.arange(w) * parts.shape[1] // w
        labels = np.where(found.labels > 0, 1 + parts[rows[:, None], columns], 0)
        area = np.bincount(labels.ravel())
        area[0] = 0
        order = [i for i in np.argsort(-area) if area[i] >= self._config.min_pixels]
        order = order[: self._config.max_entities]
        rank = np.zeros(len(area), np.int32)
        rank[order] = np.arange(1, len(order) + 1)
        return Entities(
            labels=rank[labels],
            n=len(order),
            planes=found.planes,
            clearance_m=found.clearance_m,
            stride=found.stride,
        )


def merged_patches(features: FloatArray) -> NDArray[np.int32]:
    """Group the patches (h, w, c) of a picture by bipartite merging; return (h, w) groups from 0.

    In each round every second group is matched with the most similar of the others, and the best
    quarter of the matches merge.
    """
    h, w, _ = features.shape
    centres = features.reshape(h * w, -1).astype(np.float64)
    for _ in range(_ROUNDS):
        n_merged = int(len(centres) * _MERGED_SHARE)
        even, odd = centres[0::2], centres[1::2].copy()
        if n_merged == 0 or len(odd) == 0:
            break
        similar = _unit(even) @ _unit(odd).T
        partner, best = similar.argmax(axis=1), similar.max(axis=1)
        order = np.argsort(-best, kind="stable")
        into, rest = order[:n_merged], order[n_merged:]
        total, count = odd.copy(), np.ones(len(odd))
        np.add.at(total, partner[into], even[into])
        np.add.at(count, partner[into], 1.0)
        centres = np.concatenate([even[rest], total / count[:, None]])
    nearest = (features.reshape(h * w, -1) @ _unit(centres).T).argmax(axis=1)
    return nearest.reshape(h, w).astype(np.int32)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _cloud(frame: RgbdFrame, config: EntityConfig) -> OrganisedCloud:
    stride = stride_for(frame.camera, config.working_width)
    return organised_cloud(frame.rgb, frame.depth_m, frame.camera, stride=stride)
