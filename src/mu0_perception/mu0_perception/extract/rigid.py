"""Own which points form one thing: those of an entity that keep their distances."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from mu0_core.config import option, validate
from mu0_perception.extract.tracks import Tracks

_MAX_PICTURES = 48
_LEAST_COMMON = 3  # pictures that show both points
_FAR = 1.0  # m, of points never seen together


@dataclass(frozen=True, slots=True, kw_only=True)
class RigidConfig:
    """Say when points of an entity belong to one body."""

    tolerance_m: float = option(
        0.015, description="Change of distance within one body", unit="m", low=0.001
    )
    min_points: int = option(3, description="Points of an entity of its own, at least", low=1)

    def __post_init__(self) -> None:
        validate(self)


def split_entities(
    tracks: Tracks, fixed: NDArray[np.int32], names: tuple[str, ...], config: RigidConfig
) -> tuple[Tracks, dict[int, str]]:
    """Give each body an entity of its own, numbered over the whole part from 0.

    Args:
        tracks: Of all points that are kept.
        fixed: (n,) robot frame each is fixed to, -1 = none.
        names: Of the robot's frames.
        config: When points belong together.

    Returns:
        The tracks with new entities; {entity: robot frame} of those that are fixed to one.
    """
    cluster = np.full(tracks.n, -1, np.int32)
    robot: dict[int, str] = {}
    count = 0
    for frame in np.unique(fixed[fixed >= 0]):
        cluster[fixed == frame] = count
        robot[count] = names[frame]
        count += 1
    for entity in np.unique(tracks.cluster[fixed < 0]):
        members = np.flatnonzero((tracks.cluster == entity) & (fixed < 0))
        parts = _bodies(tracks.part(members), config)
        cluster[members] = count + parts
        count += int(parts.max()) + 1
    return replace(tracks, cluster=cluster), robot


def _bodies(tracks: Tracks, config: RigidConfig) -> NDArray[np.int32]:
    """Return (n,) the body of each point of one entity, from 0."""
    n = tracks.n
    if n < 2 * config.min_points:
        return np.zeros(n, np.int32)
    change = sampled_distance_change(tracks)
    label = fcluster(
        linkage(squareform(change, checks=False), "average"),
        t=config.tolerance_m,
        criterion="distance",
    )
    return _without_crumbs(label, change, config.min_points)


def sampled_distance_change(tracks: Tracks) -> NDArray[np.float64]:
    """Return the `distance_change` of tracks where they are visible, in some pictures."""
    T = len(tracks.visible)
    some = np.unique(np.linspace(0, T - 1, min(T, _MAX_PICTURES)).astype(int))
    return distance_change(np.where(tracks.visible[some, :, None], tracks.xyz_world[some], np.nan))


def distance_change(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, n) how much the distance of two points varies while both are seen, m."""
    n = xyz.shape[1]
    low = np.full((n, n), np.inf)
    high = np.full((n, n), -np.inf)
    common = np.zeros((n, n), np.int64)
    for points in xyz:
        seen = np.flatnonzero(np.isfinite(points[:, 0]))
        pair = np.ix_(seen, seen)
        distance = np.linalg.norm(points[seen, None] - points[None, seen], axis=-1)
        low[pair] = np.minimum(low[pair], distance)
        high[pair] = np.maximum(high[pair], distance)
        common[pair] += 1
    change = np.where(common >= _LEAST_COMMON, high - low, _FAR)
    np.fill_diagonal(change, 0.0)
    return change


def _without_crumbs(
    label: NDArray[np.int32], change: NDArray[np.float64], least: int
) -> NDArray[np.int32]:
    """Number bodies from 0; points of too small ones join the body they move most like."""
    names, counts = np.unique(label, return_counts=True)
    large = names[counts >= least]
    if not len(large):
        return np.zeros(len(label), np.int32)
    mean = np.stack([change[:, label == name].mean(axis=1) for name in large], axis=1)
    nearest = np.argmin(mean, axis=1)
    known = np.isin(label, large)
    own = np.searchsorted(large, np.where(known, label, large[0]))
    return np.where(known, own, nearest).astype(np.int32)
