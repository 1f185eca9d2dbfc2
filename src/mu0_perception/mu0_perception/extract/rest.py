"""Own points at rest: some that the pictures keep showing in their place, beside those that move.

A model that never sees points at rest lets everything move; one that sees them on far walls alone
lets the table move, and one that sees few on things lets what the instruction does not name move.
They have rows that say so, which readers that want moving points alone leave out, as the released
one does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mu0_core.config import option, validate
from mu0_perception.extract.sight import grid_places, look
from mu0_perception.extract.tracks import Tracks, joined
from mu0_perception.following import FollowConfig
from mu0_perception.frame import RgbdFrame
from mu0_perception.selection import spread

_GRIDS = 3  # pictures of a part whose background is looked at
_GRID_CELLS = 20  # across a picture
_NEAR = 4  # times as many as are kept are looked at, the nearest ones to what moves
_SOME = 500  # places of what moves that tell what is near


@dataclass(frozen=True, slots=True, kw_only=True)
class RestConfig:
    """Say which points at rest are kept."""

    on_things: int = option(
        128, description="Points at rest on things that are kept too, at most", low=0
    )
    around: int = option(
        32, description="Points at rest around things that are kept too, at most", low=0
    )
    seen_share: float = option(
        0.5, description="Share of pictures a point at rest is seen in", low=0.0, high=1.0
    )
    gone_share: float = option(
        0.05,
        description="Share of pictures that show nothing in its place, at most",
        low=0.0,
        high=1.0,
    )

    def __post_init__(self) -> None:
        validate(self)


def find_resting(
    still: Tracks,
    moving: Tracks,
    frames: Sequence[RgbdFrame],
    config: RestConfig,
    follow: FollowConfig,
) -> Tracks:
    """Return points that stay where they are, near what moves.

    Args:
        still: Tracks that do not move, on things.
        moving: Tracks that move; new entities are numbered after theirs, and the background is
            one of its own.
        frames: The pictures.
        config: What counts as rest.
        follow: When a surface is a point's.
    """
    first = int(moving.cluster.max()) + 1
    things = still.part(np.arange(still.n if config.on_things else 0))
    things = replace(things, xyz_world=_kept_in_place(things))
    things = _even_share(_confirmed(things, frames, config, follow), config.on_things)
    entities, cluster = np.unique(things.cluster, return_inverse=True)
    things = replace(things, cluster=(first + cluster).astype(np.int32))
    if config.around == 0:
        return things
    background = _confirmed(_grids(frames, first + len(entities)), frames, config, follow)
    return joined(things, _chosen(background, moving, config.around))


def _kept_in_place(tracks: Tracks) -> NDArray[np.float64]:
    """Return the places (T, n, 3) of points that never left where they were proposed."""
    start = tracks.xyz_world[tracks.born, np.arange(tracks.n)]
    return np.broadcast_to(start, tracks.xyz_world.shape).copy()


def _grids(frames: Sequence[RgbdFrame], entity: int) -> Tracks:
    """Return the points of a grid over some of the pictures."""
    grids = [
        _grid(frames, int(index), entity)
        for index in np.unique(np.linspace(0, len(frames) - 1, _GRIDS).astype(int))
    ]
    return joined(*grids)


def _grid(frames: Sequence[RgbdFrame], index: int, entity: int) -> Tracks:
    frame, T = frames[index], len(frames)
    world, colour = grid_places(frame, max(frame.camera.width // _GRID_CELLS, 4))
    n = len(world)
    return Tracks(
        xyz_world=np.broadcast_to(world, (T, n, 3)).copy(),
        visible=np.zeros((T, n), np.bool_),
        cluster=np.full(n, entity, np.int32),
        born=np.full(n, index, np.int64),
        colour=colour,
        group=np.full(n, -1, np.int32),
    )


def _confirmed(
    candidates: Tracks, frames: Sequence[RgbdFrame], config: RestConfig, follow: FollowConfig
) -> Tracks:
    """Return the candidates that the pictures show in their place."""
    if candidates.n == 0:
        return candidates
    sight = look(frames, candidates.xyz_world[0], candidates.colour, follow)
    rests = (sight.there.mean(axis=0) >= config.seen_share) & (
        sight.gone.mean(axis=0) <= config.gone_share
    )
    return replace(candidates, visible=sight.there).part(np.flatnonzero(rests))


def _even_share(candidates: Tracks, n: int) -> Tracks:
    """Return n of the candidates, of each entity as large a share."""
    order = np.argsort(candidates.cluster, kind="stable")
    if candidates.n > n:
        order = order[np.linspace(0, candidates.n, n, endpoint=False).astype(np.int64)]
    return candidates.part(order)


def _chosen(candidates: Tracks, moving: Tracks, n: int) -> Tracks:
    """Return n of the candidates: of those near what moves some that are far from each other."""
    if candidates.n == 0:
        return candidates
    places = moving.xyz_world[np.isfinite(moving.xyz_world).all(axis=-1)]
    some = places[:: max(len(places) // _SOME, 1)]
    away_m, _ = cKDTree(some).query(candidates.xyz_world[0])
    near = candidates.part(np.argsort(away_m, kind="stable")[: _NEAR * n])
    return near.part(_apart(near.xyz_world[0], n))


def _apart(xyz: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Return n of the points (m, 3), far from each other, by their places among them."""
    different, places = np.unique(xyz.astype(np.float32), axis=0, return_index=True)
    found = spread(different, np.empty((0, 3), np.float32), n)
    return places[(different[:, None] == found).all(axis=-1).any(axis=1)]
