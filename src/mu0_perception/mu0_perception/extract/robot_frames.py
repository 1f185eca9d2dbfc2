"""Own what is fixed to a robot: points that follow a frame whose pose the recording tells.

No geometry is needed: a point belongs to the frame in which its track stands still, or which it
never fails to follow; what rests while a frame passes is not on it. From then on its position is
as exact as the robot's joints, also where the picture shows it badly.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mu0_core.config import option, validate
from mu0_core.se3 import inverse, transform_points
from mu0_perception.extract.sight import look
from mu0_perception.extract.tracks import Tracks
from mu0_perception.following import FollowConfig
from mu0_perception.frame import RgbdFrame

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.intp]
Compare = Callable[[Rows, Rows, Rows], tuple[Mask, Mask]]
_MOST_ASTRAY_M = 0.03  # beyond that a sighting is of something else, however far it is
_ALIKE_M = 0.001  # difference of mean errors that tells nothing
_APART_M = 0.01  # of the ways of two frames, from which on it matters which is taken
_TOLD_M = 0.006  # of them, from which on a sighting tells which it is
_LEAST_TOLD = 3  # such sightings
_UNSURE = -2  # instead of a frame
_CARRIED_M = 0.003  # from picture to picture, from which on a point shows what carries it
_MOST_MISSED = 0.5  # of a frame's motion at a point, by a track that slips along a bare link
_LEAST_FOLLOWED = 0.5  # share of the times in which a frame carries a point, by what is on it
_WAITS = 5  # pictures that a point rests in, while a frame would carry it, if it is not on it
_WAITS_M = 0.05  # that the frame would carry it meanwhile
_ALIKE_MISSED = 0.05  # difference of that which tells nothing
_ON_ROBOT_M = 0.02  # of points on the robot
_ON_ROBOT_SHARE = 0.9  # of the sightings of a point that slips along it
_MANY_THINGS = 0.2  # share of the points of things that a hand comes near to
_EVERY = 4  # picture, in which that is looked at
_AT_BIRTH = 1  # pictures before and after, in which a track has not slipped yet


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotFrameConfig:
    """Say when a point is fixed to a frame."""

    use: bool = option(True, description="Fix points to the frames of a robot that the source has")
    spread_m: float = option(
        0.012, description="Distance a fixed point strays in its frame", unit="m", low=0.0
    )
    steady_share: float = option(
        0.8, description="Share of its sightings that stray no farther", low=0.5, high=1.0
    )
    min_travel_m: float = option(
        0.02,
        description="Motion of a frame at the point that tells it from rest",
        unit="m",
        low=0.0,
    )
    min_seen: int = option(5, description="Pictures a point must be seen in", low=2)
    points: int = option(
        96, description="Points on the robot that are kept, over all its frames, at most", low=0
    )
    hand_m: float = option(
        0.14,
        description="Distance from things that move, to which the frames of a hand come",
        unit="m",
        low=0.0,
    )
    arm_share: float = option(
        0.25,
        description="Share of these points that the other frames have, where there are hands",
        low=0.0,
        high=1.0,
    )

    def __post_init__(self) -> None:
        validate(self)


def fix_to_frames(
    tracks: Tracks,
    frames: Sequence[RgbdFrame],
    poses: list[FloatArray],
    config: RobotFrameConfig,
    follow: FollowConfig,
) -> tuple[Tracks, NDArray[np.int32]]:
    """Let tracks that stand still in a moving frame follow it exactly; give up what may be on two.

    Args:
        tracks: Of all points.
        frames: The pictures, for what is visible.
        poses: (T, 4, 4) of each frame in the world.
        config: When a point is fixed.
        follow: When a surface is a point's.

    Returns:
        The tracks; (n,) which frame each point is fixed to, -1 = none.
    """
    if not poses:
        return tracks, np.full(tracks.n, -1, np.int32)
    fixed, local = _frames_of(tracks, poses, config)
    free = np.flatnonzero(fixed == -1)
    fixed[free], local[free] = _carried_by(tracks.part(free), poses, config)
    unsure = fixed == _UNSURE
    xyz_world, visible = tracks.xyz_world.copy(), tracks.visible.copy()
    xyz_world[:, unsure], visible[:, unsure], fixed[unsure] = np.nan, False, -1
    rows = np.flatnonzero(fixed >= 0)
    if not len(rows):
        return replace(tracks, xyz_world=xyz_world, visible=visible), fixed
    path = np.stack([transform_points(poses[fixed[i]], local[i]) for i in rows], axis=1)
    there = look(frames, path, tracks.colour[rows], follow).there
    xyz_world[:, rows], visible[:, rows] = path, there
    group = tracks.group.copy()
    group[rows] = fixed[rows]
    return replace(tracks, xyz_world=xyz_world, visible=visible, group=group), fixed


def _frames_of(
    tracks: Tracks, poses: list[FloatArray], config: RobotFrameConfig
) -> tuple[NDArray[np.int32], FloatArray]:
    """Say which frame each point is fixed to (n,), -1 = none, -2 = unsure, and where in it (n, 3).

    A hand and its fingers are as one until the fingers move. Where frames tell a track alike, but
    lead apart, the sightings decide in which they are apart; nothing does where there are none.
    """
    seen = np.where(tracks.visible[..., None], tracks.xyz_world, np.nan)
    at_rest, away = _middle_and_away(seen)
    spread_at_rest = _spread(away, config.steady_share)
    enough = tracks.visible.sum(axis=0) >= config.min_seen
    step_m = np.linalg.norm(np.diff(seen, axis=0), axis=-1)
    local = np.full((len(poses), tracks.n, 3), np.nan)
    error = np.full((len(poses), tracks.n), np.inf)
    for index, T in enumerate(poses):
        local[index], away = _middle_and_away(transform_points(inverse(T)[:, None], seen))
        spread = _spread(away, config.steady_share)
        path = transform_points(T[:, None], local[index][None])
        travel = np.linalg.norm(np.ptp(path, axis=0), axis=-1)
        fits = enough & (spread < spread_at_rest) & (spread <= config.spread_m)
        fits &= (travel > config.min_travel_m) & ~_waits(step_m, *_steps(seen, T))
        fits &= _told(seen, at_rest, path, _TOLD_M, config.steady_share)[1]
        error[index, fits] = np.nanmean(np.minimum(away[:, fits], _MOST_ASTRAY_M), axis=0)
    ends = np.stack(poses, axis=1)

    def compare(rows: Rows, first: Rows, second: Rows) -> tuple[Mask, Mask]:
        on_first, on_second = (
            transform_points(ends[:, f], local[f, rows]) for f in (first, second)
        )
        told, is_second = _told(seen[:, rows], on_first, on_second, _TOLD_M, config.steady_share)
        return told | _together(on_first, on_second), is_second

    return _choose(error, local, _ALIKE_M, compare)


def _carried_by(
    tracks: Tracks, poses: list[FloatArray], config: RobotFrameConfig
) -> tuple[NDArray[np.int32], FloatArray]:
    """Say what carries each point (n,), -1 = none, -2 = unsure, and where it was born (n, 3).

    On a bare link a track slips, so that it stands still in no frame; yet it moves whenever the
    link does, which a thing that waits for the hand does not. Where frames carry it alike, but
    lead apart, the steps decide in which they part. What slips too often to say where it is, is
    unsure too.
    """
    seen = np.where(tracks.visible[..., None], tracks.xyz_world, np.nan)
    since_birth = np.arange(len(seen))[:, None] - tracks.born
    at_birth = (np.abs(since_birth) <= _AT_BIRTH)[..., None]
    step_m = np.linalg.norm(np.diff(seen, axis=0), axis=-1)
    local = np.full((len(poses), tracks.n, 3), np.nan)
    missed = np.full((len(poses), tracks.n), np.inf)
    slips = np.zeros(tracks.n, np.bool_)
    for index, T in enumerate(poses):
        in_frame = transform_points(inverse(T)[:, None], seen)
        local[index], _ = _middle_and_away(np.where(at_birth, in_frame, np.nan))
        carried_m, missed_m, told = _steps(seen, T)
        follows = told & (missed_m <= _MOST_MISSED * carried_m)
        n, way_m = told.sum(axis=0), np.sum(carried_m, axis=0, where=told)
        on_it = (n >= config.min_seen) & ~_waits(step_m, carried_m, missed_m, told)
        slips |= on_it & (follows.sum(axis=0) >= _LEAST_FOLLOWED * n)
        fits = on_it & (follows.sum(axis=0) >= config.steady_share * n)
        fits &= np.isfinite(local[index, :, 0])
        missed[index, fits] = np.sum(missed_m, axis=0, where=told)[fits] / way_m[fits]
    ends = np.stack(poses, axis=1)
    steps = ends[1:] @ inverse(ends[:-1])

    def compare(rows: Rows, first: Rows, second: Rows) -> tuple[Mask, Mask]:
        there = seen[:, rows]
        on_first, on_second = (transform_points(steps[:, f], there[:-1]) for f in (first, second))
        told, is_second = _told(there[1:], on_first, on_second, _CARRIED_M, config.steady_share)
        paths = (transform_points(ends[:, f], local[f, rows]) for f in (first, second))
        return told | _together(*paths), is_second

    chosen, where = _choose(missed, local, _ALIKE_MISSED, compare)
    return np.where(slips & (chosen == -1), _UNSURE, chosen).astype(np.int32), where


def _steps(seen: FloatArray, T: FloatArray) -> tuple[FloatArray, FloatArray, Mask]:
    """Return how far (T - 1, n) m a frame would carry points, and its error; where that tells."""
    carried = transform_points((T[1:] @ inverse(T[:-1]))[:, None], seen[:-1])
    carried_m = np.linalg.norm(carried - seen[:-1], axis=-1)
    missed_m = np.linalg.norm(seen[1:] - carried, axis=-1)
    return carried_m, missed_m, (carried_m > _CARRIED_M) & np.isfinite(missed_m)


def _waits(step_m: FloatArray, carried_m: FloatArray, missed_m: FloatArray, told: Mask) -> Mask:
    """Say (n,) which points rest for a while in which a frame would carry them far.

    Args:
        step_m: (T - 1, n) how far they go.
        carried_m: How far the frame would carry them, and as the others from `_steps`.
        missed_m: Its error.
        told: Where that tells.
    """
    rests = step_m < missed_m
    n, way_m = np.zeros(step_m.shape[1], np.int64), np.zeros(step_m.shape[1])
    waits = np.zeros(step_m.shape[1], np.bool_)
    for now in range(len(step_m)):
        moves = told[now] & ~rests[now]
        n[moves], way_m[moves] = 0, 0.0
        counts = told[now] & rests[now]
        n += counts
        way_m += np.where(counts, carried_m[now], 0.0)
        waits |= (n >= _WAITS) & (way_m > _WAITS_M)
    return waits


def _choose(
    error: FloatArray, local: FloatArray, alike: float, compare: Compare
) -> tuple[NDArray[np.int32], FloatArray]:
    """Choose the frame (n,) that fits each point best, and its place (n, 3) in it.

    Args:
        error: (frames, n) of each frame at each point; inf where it does not fit.
        local: (frames, n, 3) places in the frames.
        alike: Difference of errors that tells nothing; sightings have to decide then.
        compare: Says for rows, a first and a second frame for each, whether sightings tell which
            it is or it does not matter, and if it is the second.

    Returns:
        The frames, -1 where none fits, -2 where sightings do not decide; the places.
    """
    chosen, least = error.argmin(axis=0), error.min(axis=0)
    fits = np.isfinite(least)
    unsure = np.zeros(len(chosen), np.bool_)
    for frame in range(len(error)):
        rows = np.flatnonzero(fits & (chosen != frame) & (error[frame] <= least + alike))
        if not len(rows):
            continue
        told, is_second = compare(rows, chosen[rows], np.full(len(rows), frame))
        chosen[rows[is_second]] = frame
        unsure[rows[~told]] = True
    where = local[chosen, np.arange(len(chosen))]
    return np.where(fits, np.where(unsure, _UNSURE, chosen), -1).astype(np.int32), where


def _told(
    seen: FloatArray, on_first: FloatArray, on_second: FloatArray, apart_m: float, share: float
) -> tuple[Mask, Mask]:
    """Say (n,) whether sightings tell two frames apart, and if it is the second.

    Args:
        seen: (T, n, 3) m, NaN where not seen.
        on_first: Where the first frame leads, alike.
        on_second: Where the second leads.
        apart_m: Distance of the two from which on a sighting counts.
        share: Of those sightings, which has to agree.
    """
    distance = np.linalg.norm(on_first - on_second, axis=-1)
    counts = (distance > apart_m) & np.isfinite(seen[..., 0])
    nearer = np.linalg.norm(seen - on_second, axis=-1) < np.linalg.norm(seen - on_first, axis=-1)
    n, of_second = counts.sum(axis=0), (nearer & counts).sum(axis=0)
    is_second = (n >= _LEAST_TOLD) & (of_second >= share * n)
    return is_second | ((n >= _LEAST_TOLD) & (n - of_second >= share * n)), is_second


def _together(first: FloatArray, second: FloatArray) -> Mask:
    """Say (n,) whether two ways (T, n, 3) never lead apart, so that either will do."""
    return np.linalg.norm(first - second, axis=-1).max(axis=0) <= _APART_M


def astray(cluster: NDArray[np.int32], fixed: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Say (n,) which points are on the robot but follow none of its frames: tracked badly.

    Args:
        cluster: (n,) entity of each point; most points of a robot's entity are fixed to a frame.
        fixed: (n,) robot frame each is fixed to, -1 = none.
    """
    on_robot = [c for c in np.unique(cluster) if (fixed[cluster == c] >= 0).mean() > 0.5]
    return (fixed < 0) & np.isin(cluster, on_robot)


def stays_on_robot(tracks: Tracks, fixed: NDArray[np.int32]) -> Mask:
    """Say (n,) which points follow no frame, yet are never seen away from points that do.

    They slip along the robot. What it takes in hand was elsewhere before, and what it holds all
    the time follows a frame.
    """
    near = np.zeros(tracks.visible.shape, np.bool_)
    others = np.flatnonzero(fixed < 0)
    for now, (xyz, visible) in enumerate(zip(tracks.xyz_world, tracks.visible, strict=True)):
        robot = xyz[(fixed >= 0) & np.isfinite(xyz[:, 0])]
        seen = others[visible[others]]
        if len(robot) and len(seen):
            near[now, seen] = cKDTree(robot).query(xyz[seen])[0] <= _ON_ROBOT_M
    seen_n = np.maximum(tracks.visible.sum(axis=0), 1)
    return np.asarray((fixed < 0) & (near.sum(axis=0) >= _ON_ROBOT_SHARE * seen_n))


def within_budget(
    tracks: Tracks,
    fixed: NDArray[np.int32],
    on_surface: NDArray[np.bool_],
    config: RobotFrameConfig,
) -> NDArray[np.bool_]:
    """Say which points (n,) to keep so that few enough are on the robot.

    A point on the robot exists in every picture, and whenever the camera looks for more, more
    come: without a limit things would be few among them. Large links near the camera matter less
    than the hand, of whose frames each has as many as the others.

    Args:
        tracks: Of all points that move.
        fixed: (n,) robot frame each is fixed to, -1 = none.
        on_surface: (n,) which were found on its surface; a frame that has some needs no others.
        config: How many.
    """
    robot = (fixed >= 0) & (on_surface | ~np.isin(fixed, fixed[on_surface]))
    hand = robot & np.isin(fixed, _hand_frames(tracks, fixed, config.hand_m))
    n_arm = round(config.arm_share * config.points) if hand.any() else config.points
    n_arm = min(n_arm, int((robot & ~hand).sum()))
    kept = fixed < 0
    kept[_in_turns(tracks, fixed, hand, config.points - n_arm)] = True
    kept[_in_turns(tracks, fixed, robot & ~hand, n_arm)] = True
    return kept


def _hand_frames(tracks: Tracks, fixed: NDArray[np.int32], reach_m: float) -> NDArray[np.int32]:
    """Return the frames of which most points come near things: to many points on no frame."""
    things, robot = np.flatnonzero(fixed < 0), np.flatnonzero(fixed >= 0)
    many = math.ceil(_MANY_THINGS * len(things))  # some are on the robot by mistake
    near = np.zeros(len(robot), np.bool_)
    for xyz in tracks.xyz_world[::_EVERY] if many else ():
        seen = xyz[things[np.isfinite(xyz[things, 0])]]
        if len(seen) >= many:
            away_m, _ = cKDTree(seen).query(np.nan_to_num(xyz[robot], nan=np.inf), [many])
            near |= away_m[:, 0] <= reach_m
    names = np.unique(fixed[robot])
    return names[[near[fixed[robot] == name].mean() > 0.5 for name in names]]


def _in_turns(tracks: Tracks, fixed: NDArray[np.int32], points: Mask, n: int) -> list[int]:
    """Choose n of some points: the frames take turns."""
    turns = [
        _by_sight(tracks.visible, np.flatnonzero(points & (fixed == f)), n)
        for f in np.unique(fixed[points])
    ]
    return [p for round_ in zip_longest(*turns) for p in round_ if p is not None][:n]


def _by_sight(visible: NDArray[np.bool_], points: NDArray[np.int64], n: int) -> list[int]:
    """Choose n points of a frame: each next one is seen most where those before it are not."""
    seen = visible[:, points].astype(np.float64)
    times = np.zeros(len(visible))
    order: list[int] = []
    left = np.ones(len(points), np.bool_)
    while left.any() and len(order) < n:
        gain = np.where(left, (seen / (1.0 + times[:, None])).sum(axis=0), -1.0)
        best = int(gain.argmax())
        order.append(int(points[best]))
        left[best] = False
        times += seen[:, best]
    return order


def distinct_frames(
    T_world_frame: dict[str, FloatArray],
) -> tuple[tuple[str, ...], list[FloatArray]]:
    """Return frames that are known throughout; of those fixed to each other only the first."""
    names: list[str] = []
    poses: list[FloatArray] = []
    for name, T in sorted(T_world_frame.items()):
        if not np.isfinite(T).all():
            continue
        relative = (inverse(other) @ T for other in poses)
        if any(np.abs(r - r[0]).max() < 1e-4 for r in relative):
            continue
        names.append(name)
        poses.append(T)
    return tuple(names), poses


def _middle_and_away(xyz: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the median position (n, 3) of tracks (T, n, 3), and the way from it (T, n)."""
    middle = _quantile(xyz, 0.5)
    return middle, np.linalg.norm(xyz - middle, axis=-1)


def _spread(away: FloatArray, share: float) -> FloatArray:
    """Return how far a share of the sightings strays (n,) from the middle, of (T, n)."""
    return np.nan_to_num(_quantile(away, share), nan=np.inf)


def _quantile(values: FloatArray, share: float) -> FloatArray:
    """Return numpy's nanquantile over the first axis, which is slow there; NaN of nothing."""
    ordered = np.sort(values, axis=0)  # NaN comes last
    at = share * np.maximum(np.isfinite(values).sum(axis=0) - 1, 0)
    low, high = (
        np.take_along_axis(ordered, index.astype(np.int64)[None], axis=0)[0]
        for index in (np.floor(at), np.ceil(at))
    )
    return np.asarray(low + (at - np.floor(at)) * (high - low))
