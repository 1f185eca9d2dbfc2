"""Own points at rest: a few that the pictures keep showing in their place, beside those that move.

A model that never sees points at rest lets everything move. They have rows that say so, which
readers that want moving points alone leave out, as the released one does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate
from mu0_core.se3 import transform_points
from mu0_perception.extract.sight import look
from mu0_perception.extract.tracks import Tracks, joined
from mu0_perception.following import FollowConfig
from mu0_perception.frame import RgbdFrame
from mu0_perception.selection import grid_points, picture_of, spread
from mu0_perception.tracking import colour_at

_GRIDS = 3  # pictures of a part whose background is looked at
_GRID_CELLS = 10  # across a picture


@dataclass(frozen=True, slots=True, kw_only=True)
class RestConfig:
    """Say which points at rest are kept."""

    points: int = option(
        32, description="Points at rest that are kept too, at most: half on things", low=0
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
    frames: Sequence[RgbdFrame],
    config: RestConfig,
    follow: FollowConfig,
    *,
    first: int,
) -> Tracks:
    """Return points that stay where they are; the background's have an entity of their own.

    Args:
        still: Tracks that do not move, on things.
        frames: The pictures.
        config: What counts as rest.
        follow: When a surface is a point's.
        first: Number of the first entity.
    """
    on_things = replace(still, xyz_world=_kept_in_place(still))
    things = _chosen(on_things, frames, config.points // 2, config, follow)
    entities, cluster = np.unique(things.cluster, return_inverse=True)
    things = replace(things, cluster=(first + cluster).astype(np.int32))
    grids = _grids(frames, first + len(entities))
    return joined(things, _chosen(grids, frames, config.points - things.n, config, follow))


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
    uv = grid_points(
        picture_of(frame),
        spacing_px=max(frame.camera.width // _GRID_CELLS, 4),
        taken_uv=np.empty((0, 2), np.float32),
    )
    column, row = uv.astype(np.int64).T
    xyz = frame.camera.unproject(np.column_stack([uv, frame.depth_m[row, column]]))
    world = transform_points(frame.T_fixed_camera, xyz)
    n = len(uv)
    return Tracks(
        xyz_world=np.broadcast_to(world, (T, n, 3)).copy(),
        visible=np.zeros((T, n), np.bool_),
        cluster=np.full(n, entity, np.int32),
        born=np.full(n, index, np.int64),
        colour=colour_at(frame.rgb, uv),
        group=np.full(n, -1, np.int32),
    )


def _chosen(
    candidates: Tracks,
    frames: Sequence[RgbdFrame],
    n: int,
    config: RestConfig,
    follow: FollowConfig,
) -> Tracks:
    """Return n of the candidates, which the pictures confirm, far from each other."""
    if candidates.n == 0 or n == 0:
        return candidates.part(np.arange(0))
    sight = look(frames, candidates.xyz_world[0], candidates.colour, follow)
    rests = (sight.there.mean(axis=0) >= config.seen_share) & (
        sight.gone.mean(axis=0) <= config.gone_share
    )
    confirmed = replace(candidates, visible=sight.there).part(np.flatnonzero(rests))
    return confirmed.part(_apart(confirmed.xyz_world[0], n)) if confirmed.n else confirmed


def _apart(xyz: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Return n of the points (m, 3), far from each other, by their places among them."""
    different, places = np.unique(xyz.astype(np.float32), axis=0, return_index=True)
    found = spread(different, np.empty((0, 3), np.float32), n)
    return places[(different[:, None] == found).all(axis=-1).any(axis=1)]
