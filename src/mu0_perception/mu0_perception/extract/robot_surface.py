"""Own points on a robot's surface, also where it is bare and tracks slip.

What the pictures show near tracks that are fixed to a frame may be fixed to it too. So places on
the surfaces around them are tried on each frame nearby, and at rest: a place is on the frame that
it can follow through the whole recording, with the pictures showing it there, or something before
it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mu0_core.se3 import inverse, transform_points
from mu0_perception.extract.sight import grid_places, look
from mu0_perception.extract.tracks import Tracks
from mu0_perception.following import FollowConfig
from mu0_perception.frame import RgbdFrame
from mu0_perception.tracking import depth_at

FloatArray = NDArray[np.float64]
_PICTURES = 4  # whose surfaces are tried
_TRIALS = 64  # pictures at most, spread over the recording, that places are tried in
_GRID_CELLS = 64  # across a picture
_REACH_M = 0.06  # of a track on a frame, within which surfaces are tried on it
_APART_M = 0.01  # of two ways, from which on it matters which is taken
_TELLING = 3  # pictures more that show a place on one of them tell that it is the right one
_MIN_TRAVEL_M = 0.02  # of a way that tells of a frame
_MIN_SEEN = 5  # pictures
_GONE_SHARE = 0.1  # of the pictures that show a place, or nothing there: without it
_CELL_M = 0.02  # of a frame's surface, of which one point is kept


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tries:
    """Hold places on the frames that they are tried on, (m,) each.

    Attributes:
        place: Number of the place, in order.
        frame: The frame.
        picture: Where the place was seen.
        xyz_world: (m, 3) m, there.
        colour: (m, 3) of it.
    """

    place: NDArray[np.int64]
    frame: NDArray[np.int64]
    picture: NDArray[np.int64]
    xyz_world: FloatArray
    colour: NDArray[np.float32]


def surface_points(
    tracks: Tracks,
    fixed: NDArray[np.int32],
    frames: Sequence[RgbdFrame],
    poses: Sequence[FloatArray],
    follow: FollowConfig,
) -> tuple[Tracks, NDArray[np.int32]]:
    """Return points of the surfaces around tracks that are fixed to frames, and their frames.

    Args:
        tracks: Of all points.
        fixed: (n,) frame each is fixed to, -1 = none.
        frames: The pictures.
        poses: (T, 4, 4) of each frame.
        follow: When a surface is a point's.
    """
    if not (fixed >= 0).any():
        return tracks.part(fixed >= 0), np.empty(0, np.int32)
    ends = np.stack([*poses, np.broadcast_to(np.eye(4), poses[0].shape)], axis=1)
    tries = _tries(tracks, fixed, frames, n_frames=len(poses))
    local = transform_points(inverse(ends[tries.picture, tries.frame]), tries.xyz_world)
    kept = _shown(tries, local, frames, ends, follow)
    frame, colour = tries.frame[kept].astype(np.int32), tries.colour[kept]
    way = _ways(local[kept], frame, ends)
    there = look(frames, way, colour, follow).there
    middle = _middle(way, there, frames, frame, ends, follow)
    points = Tracks(
        xyz_world=_ways(middle, frame, ends),
        visible=there,
        cluster=np.full(len(kept), tracks.cluster.max(initial=-1) + 1, np.int32),
        born=tries.picture[kept],
        colour=colour,
        group=frame,
    )
    return points, frame


def _tries(
    tracks: Tracks, fixed: NDArray[np.int32], frames: Sequence[RgbdFrame], *, n_frames: int
) -> _Tries:
    """Return the places near tracks on frames, on each of these frames and at rest."""
    used = np.unique(fixed[fixed >= 0])
    found: list[_Tries] = []
    count = 0
    for index in np.unique(np.linspace(0, len(frames) - 1, _PICTURES).astype(int)).tolist():
        spacing_px = max(frames[index].camera.width // _GRID_CELLS, 2)
        xyz_world, colour = grid_places(frames[index], spacing_px)
        away_m = np.full((len(xyz_world), n_frames + 1), np.inf)
        for frame in used:
            away_m[:, frame] = cKDTree(tracks.xyz_world[index, fixed == frame]).query(xyz_world)[0]
        away_m[:, -1] = away_m.min(axis=1)
        tried = away_m <= _REACH_M
        place, frame = np.nonzero(tried)
        found.append(
            _Tries(
                place=count + place,
                frame=frame,
                picture=np.full(len(place), index),
                xyz_world=xyz_world[place],
                colour=colour[place],
            )
        )
        count += len(xyz_world)
    columns = {f.name: [getattr(tries, f.name) for tries in found] for f in fields(_Tries)}
    return _Tries(**{name: np.concatenate(parts) for name, parts in columns.items()})


def _shown(
    tries: _Tries,
    local: FloatArray,
    frames: Sequence[RgbdFrame],
    T_world_frame: FloatArray,
    follow: FollowConfig,
) -> NDArray[np.intp]:
    """Return the tries to keep, whose ways the pictures show.

    Args:
        tries: The places.
        local: (m, 3) m, where they are in their frames.
        frames: The pictures.
        T_world_frame: (T, F, 4, 4) of the frames, rest last.
        follow: When a surface is a point's.
    """
    some = np.unique(np.linspace(0, len(frames) - 1, _TRIALS).astype(int))
    way = _ways(local, tries.frame, T_world_frame[some])
    sight = look((frames[i] for i in some.tolist()), way, tries.colour, follow)
    there, gone = sight.there.sum(axis=0), sight.gone.sum(axis=0)
    rests = tries.frame == T_world_frame.shape[1] - 1
    fits = (there >= _MIN_SEEN) & (gone <= _GONE_SHARE * (there + gone))
    fits &= rests | (np.linalg.norm(np.ptp(way, axis=0), axis=-1) > _MIN_TRAVEL_M)
    told = _best(tries.place, way, there - gone, fits)
    told = told[~rests[told]]
    return told[_one_of_each_cell(tries.frame[told], local[told], there[told])]


def _ways(local: FloatArray, frame: NDArray[np.integer], T_world_frame: FloatArray) -> FloatArray:
    """Return the ways (T, m, 3) m of points (m, 3) of frames (m,), by their poses (T, F, 4, 4)."""
    way = np.empty((len(T_world_frame), len(local), 3))
    for name in np.unique(frame):
        mine = frame == name
        way[:, mine] = transform_points(T_world_frame[:, name, None], local[mine])
    return way


def _best(
    place: NDArray[np.int64], way: FloatArray, shown: NDArray[np.int64], fits: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return the tries to take: of each place the one shown best, if none as good leads elsewhere.

    Args:
        place: (m,) of each try.
        way: (T, m, 3) m.
        shown: (m,) pictures that show it on its way, less those that show nothing there.
        fits: (m,) which tries may be taken.
    """
    rows = np.flatnonzero(fits)
    rows = rows[np.lexsort((-shown[rows], place[rows]))]
    places, first, number = np.unique(place[rows], return_index=True, return_inverse=True)
    best = rows[first[number]]
    apart = np.linalg.norm(way[:, rows] - way[:, best], axis=-1).max(axis=0) > _APART_M
    doubtful = np.zeros(len(places), np.bool_)
    doubtful[number[apart & (shown[rows] > shown[best] - _TELLING)]] = True
    return rows[first[~doubtful]]


def _one_of_each_cell(
    frame: NDArray[np.int64], local: FloatArray, there: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Return the points to keep: of each cell of each frame's surface the one seen most."""
    order = np.argsort(-there, kind="stable")
    cells = np.column_stack([frame, np.floor(local / _CELL_M).astype(np.int64)])[order]
    _, first = np.unique(cells, axis=0, return_index=True)
    return np.sort(order[first])


def _middle(
    way: FloatArray,
    there: NDArray[np.bool_],
    frames: Sequence[RgbdFrame],
    frame: NDArray[np.int32],
    T_world_frame: FloatArray,
    follow: FollowConfig,
) -> FloatArray:
    """Return where points (n, 3) m are in their frames, by the depths of all pictures.

    Args:
        way: (T, n, 3) m in the world, by one depth.
        there: (T, n) where they are seen.
        frames: The pictures.
        frame: (n,) which each is on.
        T_world_frame: (T, F, 4, 4) of all frames.
        follow: How far depths may differ.
    """
    local = np.full(way.shape, np.nan)
    for now, picture in enumerate(frames):
        seen = np.flatnonzero(there[now])
        xyz = transform_points(inverse(picture.T_fixed_camera), way[now, seen])
        uvz = picture.camera.project(xyz)
        z = uvz[:, 2].astype(np.float32)
        uv = uvz[:, :2].astype(np.float32)
        uvz[:, 2], _ = depth_at(picture.depth_m, uv, z, follow.depth_tolerance(z, 0.0))
        world = transform_points(picture.T_fixed_camera, picture.camera.unproject(uvz))
        local[now, seen] = transform_points(inverse(T_world_frame[now, frame[seen]]), world)
    return np.asarray(np.nanmedian(local, axis=0))
