"""Own which points move: in the world, beyond noise, and not only in a tracker's opinion.

A track may slide over a surface that stands still, along the edge of what passes before it, or
hop from what stands to what passes. So each point is also tried as one at rest: where the pictures
show it in its old place after its track has left, or in its new place before its track comes, it
never moved. And what moves of a thing has to move together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, median_filter, minimum_filter1d
from scipy.spatial import cKDTree

from mu0_core.config import option, validate
from mu0_core.se3 import inverse, transform_points
from mu0_perception.extract.rigid import distance_change, sampled_distance_change
from mu0_perception.extract.sight import look
from mu0_perception.extract.tracks import Tracks
from mu0_perception.following import FollowConfig
from mu0_perception.frame import RgbdFrame
from mu0_perception.tracking import colour_at

FloatArray = NDArray[np.float64]
_NEAREST = 4  # points that tell whether one moves with what is around it
_LEAST_OF_BODY = 4  # points
_BODY_CHANGE_M = 0.01  # of distances within a body
_LEFT_SHARE = 0.2  # of the points of a body, whose places show that it moves


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionConfig:
    """Say which points move."""

    min_travel_m: float = option(
        0.02, description="Distance a point must travel", unit="m", low=0.001
    )
    noise: float = option(
        4.0, description="Distance a point must travel, in standard deviations of depth", low=0.0
    )
    depth_sigma_m: float = option(
        0.002, description="Deviation of depth at 1 m; grows with its square", unit="m", low=0.0
    )
    still_share: float = option(
        0.5,
        description="Share of pictures with its track elsewhere that show a point, if it rests",
        low=0.0,
        high=1.0,
    )
    smooth: int = option(5, description="Pictures that positions are smoothed over", low=1)
    future: int = option(128, description="Pictures ahead in which a point must move", low=1)
    past: int = option(32, description="Pictures back in which it may have moved instead", low=0)
    min_seen: int = option(4, description="Pictures a point must be seen in", low=2)
    together: float = option(
        0.65,
        description="Share of the nearest points that move too, on average over what moves of an "
        "entity; where it is less, and that is no body either, tracks have slipped",
        low=0.0,
        high=1.0,
    )

    def __post_init__(self) -> None:
        validate(self)


def find_moving(
    tracks: Tracks,
    frames: Sequence[RgbdFrame],
    config: MotionConfig,
    follow: FollowConfig,
    *,
    trusted: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Say (T, n) which points move around each picture.

    Args:
        tracks: Of all points.
        frames: The pictures.
        config: What counts as motion.
        follow: When a surface is a point's.
        trusted: (n,) points whose motion is known, and not only tracked.
    """
    travel = _smoothed(tracks, config.smooth)
    limit = np.maximum(
        config.min_travel_m, config.noise * config.depth_sigma_m * _square(frames, tracks)
    )
    extent = _extent(travel, 0, len(frames))[0]
    moves = (extent > limit) & (tracks.visible.sum(axis=0) >= config.min_seen)
    doubtful = np.flatnonzero(moves & ~trusted)
    moves[doubtful] &= ~_stands_still(
        tracks.part(doubtful), travel[:, doubtful], frames, limit[doubtful], config, follow
    )
    around = _extent(travel, config.past, config.future)
    exists = np.isfinite(tracks.xyz_world).all(axis=-1)
    return exists & moves & (around > limit)


def moves_apart(
    tracks: Tracks, moves: NDArray[np.bool_], config: MotionConfig
) -> NDArray[np.bool_]:
    """Say (n,) which of the points that move do so among points of their entity that rest.

    A thing moves with all its points, a drawer as a body, the corner of a cloth with what is
    around it. What does nothing of that follows an edge or a shine.
    """
    apart = np.zeros(tracks.n, np.bool_)
    judged = moves | (tracks.visible.sum(axis=0) >= config.min_seen)
    place = tracks.xyz_world[tracks.born, np.arange(tracks.n)]
    for entity in np.unique(tracks.cluster[moves]):
        members = np.flatnonzero((tracks.cluster == entity) & judged)
        movers = members[moves[members]]
        nearest = min(_NEAREST, len(members) - 1)
        if nearest == 0:
            continue
        _, found = cKDTree(place[members]).query(place[movers], nearest + 1)
        scattered = moves[members][found[:, 1:]].mean() < config.together
        apart[movers] = scattered and not _is_body(tracks.part(movers))
    return apart


def _is_body(tracks: Tracks) -> bool:
    """Say whether points mostly keep their distances."""
    if tracks.n < _LEAST_OF_BODY:
        return False
    xyz = np.where(tracks.visible[..., None], tracks.xyz_world, np.nan)
    change = distance_change(xyz)[np.triu_indices(tracks.n, 1)]
    return bool(np.median(change) < _BODY_CHANGE_M)


def _stands_still(
    tracks: Tracks,
    travel: FloatArray,
    frames: Sequence[RgbdFrame],
    limit: FloatArray,
    config: MotionConfig,
    follow: FollowConfig,
) -> NDArray[np.bool_]:
    """Say (n,) which points are shown in a place of theirs while their tracks are elsewhere.

    Their places are where they were proposed, and where they are seen first and last. A plain body
    that moves by less than its length still covers the places of many of its points; but at an
    edge of it some have left theirs, as none has where tracks hop.
    """
    numbers = np.arange(tracks.n)
    first = tracks.visible.argmax(axis=0)
    last = len(frames) - 1 - tracks.visible[::-1].argmax(axis=0)
    born = tracks.xyz_world[tracks.born, numbers]
    places = np.stack([born, travel[first, numbers], travel[last, numbers]])
    seen = [_colours(tracks, frames, at) for at in (first, last)]
    colours = np.concatenate([tracks.colour, *seen])
    sight = look(frames, places.reshape(-1, 3), colours, follow)  # all at once: pictures are large
    left = np.linalg.norm(tracks.xyz_world[:, None] - places, axis=-1) > limit
    there = np.sum(sight.there.reshape(left.shape) & left, axis=0)
    away = np.sum(sight.gone.reshape(left.shape) & left, axis=0)
    rests = there > config.still_share * np.maximum(there + away, 1)
    together = _together(tracks)
    have_left = ((away > 0) & ~rests) @ together
    few_have_left = have_left < _LEFT_SHARE * together.sum(axis=1)
    return np.asarray((rests & few_have_left).any(axis=0))


def _together(tracks: Tracks) -> NDArray[np.int64]:
    """Return (n, n) 1 for points of one entity that keep their distance, else 0."""
    same = tracks.cluster[:, None] == tracks.cluster
    return (same & (sampled_distance_change(tracks) < _BODY_CHANGE_M)).astype(np.int64)


def _colours(
    tracks: Tracks, frames: Sequence[RgbdFrame], at: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the colours (n, 3) of points, each in a picture (n,) that it is seen in."""
    colour = tracks.colour.copy()
    for now in np.unique(at):
        rows, frame = np.flatnonzero(at == now), frames[now]
        xyz = transform_points(inverse(frame.T_fixed_camera), tracks.xyz_world[now, rows])
        colour[rows] = colour_at(frame.rgb, frame.camera.project(xyz)[:, :2].astype(np.float32))
    return colour


def _square(frames: Sequence[RgbdFrame], tracks: Tracks) -> FloatArray:
    """Return the squared distance (n,) m^2 from the first camera, for noise; NaN = nowhere."""
    centre = frames[0].T_fixed_camera[:3, 3]
    placed = np.isfinite(tracks.xyz_world[..., 0]).any(axis=0)
    middle = np.full((tracks.n, 3), np.nan)
    middle[placed] = np.nanmedian(tracks.xyz_world[:, placed], axis=0)
    return np.sum((middle - centre) ** 2, axis=-1)


def _smoothed(tracks: Tracks, span: int) -> FloatArray:
    """Return positions (T, n, 3) smoothed over sightings; NaN where not seen."""
    smooth = np.full_like(tracks.xyz_world, np.nan)
    for i in range(tracks.n):
        seen = np.flatnonzero(tracks.visible[:, i])
        if len(seen):
            smooth[seen, i] = median_filter(tracks.xyz_world[seen, i], (span, 1), mode="nearest")
    return smooth


def _extent(xyz: FloatArray, past: int, future: int) -> FloatArray:
    """Return the diagonal (T, n) of the box that holds a track around each picture; 0 if none."""
    T = len(xyz)
    past, future = min(past, T - 1), min(future, T - 1)
    size = past + future + 1
    options = {"size": size, "axis": 0, "mode": "constant", "origin": past - size // 2}
    known = np.isfinite(xyz)
    high = maximum_filter1d(np.where(known, xyz, -np.inf), cval=-np.inf, **options)
    low = minimum_filter1d(np.where(known, xyz, np.inf), cval=np.inf, **options)
    return np.linalg.norm(np.maximum(np.nan_to_num(high - low, nan=0.0, neginf=0.0), 0.0), axis=-1)
