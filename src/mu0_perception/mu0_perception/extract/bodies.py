"""Own the motion of bodies: what their points agree on, and each of them then follows.

A point's own track is noisy, and ends where the point goes out of sight. The motion of its body
is what many points agree on, and is known as long as enough of them are seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate
from mu0_core.errors import TrajectoryError
from mu0_core.se3 import inverse, rigid_fit, transform_points
from mu0_perception.extract.sight import look
from mu0_perception.extract.tracks import Tracks
from mu0_perception.following import FollowConfig
from mu0_perception.frame import RgbdFrame

FloatArray = NDArray[np.float64]
_LEAST_COMMON = 4  # points that tell a motion
_AGREEMENT = 2.5  # medians of the distances, beyond which a point does not count
_NOISE_M = 0.003


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyConfig:
    """Say when points follow the motion of their body."""

    min_points: int = option(
        6, description="Points of a body at once whose motion is trusted; 0: none is", low=0
    )
    tolerance_m: float = option(
        0.01, description="Distance of a point that follows its body", unit="m", low=0.001
    )
    gone_share: float = option(
        0.05,
        description="Share of pictures, beyond a point's own track, that show nothing in its "
        "place, at most: else it is not there",
        low=0.0,
        high=1.0,
    )

    def __post_init__(self) -> None:
        validate(self)


def follow_bodies(
    tracks: Tracks,
    frames: Sequence[RgbdFrame],
    free: NDArray[np.bool_],
    config: BodyConfig,
    follow: FollowConfig,
) -> Tracks:
    """Let points follow the motion of their body, also where they are out of sight.

    Args:
        tracks: Of all points; a cluster is a body.
        frames: The pictures.
        free: (n,) points whose motion is not known otherwise.
        config: When they follow.
        follow: When a surface is a point's.
    """
    seen = np.where(tracks.visible[..., None], tracks.xyz_world, np.nan)
    path = np.full_like(tracks.xyz_world, np.nan)
    for body in np.unique(tracks.cluster[free]) if config.min_points else ():
        members = np.flatnonzero(free & (tracks.cluster == body))
        path[:, members] = _path(seen[:, members], config)
    known, exists = np.isfinite(path[..., 0]), np.isfinite(tracks.xyz_world[..., 0])
    beyond = known & ~exists
    sight = look(frames, np.where(beyond[..., None], path, np.nan), tracks.colour, follow)
    gone = (sight.gone & beyond).sum(axis=0)
    beyond &= gone <= config.gone_share * np.maximum(beyond.sum(axis=0), 1)
    replaced = beyond | (known & exists)
    return replace(
        tracks,
        xyz_world=np.where(replaced[..., None], path, tracks.xyz_world),
        visible=tracks.visible | (sight.there & beyond),
    )


def _path(seen: FloatArray, config: BodyConfig) -> FloatArray:
    """Return where the motion of a body takes its points (T, n, 3); NaN where not known.

    Args:
        seen: (T, n, 3) points of the body where they are seen, else NaN.
        config: When a motion is trusted.
    """
    path = np.full_like(seen, np.nan)
    found = _motion(seen, config.min_points)
    if found is None:
        return path
    span, T_world_body = found
    in_body = transform_points(inverse(T_world_body)[:, None], seen[span])
    with np.errstate(all="ignore"):
        known = np.isfinite(in_body[..., 0]).any(axis=0)
        local = np.nanmedian(np.where(known[:, None], in_body, 0.0), axis=0)
        astray = np.nanmedian(np.linalg.norm(in_body[:, known] - local[known], axis=-1), axis=0)
    good = np.flatnonzero(known)[astray < config.tolerance_m]
    for row, T in zip(range(span.start, span.stop), T_world_body, strict=True):
        T = _fitted(local[good], seen[row, good], T)
        path[row, good] = transform_points(T, local[good])
    return path


def _motion(seen: FloatArray, least: int) -> tuple[slice, FloatArray] | None:
    """Follow a body from the picture that shows most of it, both ways, as long as it is seen.

    Returns:
        The pictures, one after the other, and T_world_body in each.
    """
    counts = np.isfinite(seen[..., 0]).sum(axis=1)
    start = int(counts.argmax())
    if counts[start] < least:
        return None
    local, poses = seen[start].copy(), {start: np.eye(4)}
    for way in (range(start + 1, len(seen)), range(start - 1, -1, -1)):
        for row in way:
            T = _fitted(local, seen[row], None) if counts[row] >= least else None
            if T is None:
                break
            poses[row] = T
            new = np.isnan(local[:, 0]) & np.isfinite(seen[row, :, 0])
            local[new] = transform_points(inverse(T), seen[row, new])
    rows = sorted(poses)
    return slice(rows[0], rows[-1] + 1), np.stack([poses[row] for row in rows])


def _fitted(
    local: FloatArray, seen: FloatArray, otherwise: FloatArray | None
) -> FloatArray | None:
    """Fit T_world_body to the points (n, 3) that agree; the other where they tell too little."""
    both = np.flatnonzero(np.isfinite(local[:, 0]) & np.isfinite(seen[:, 0]))
    T = otherwise
    for _ in range(3):
        if len(both) < _LEAST_COMMON:
            return T
        try:
            T = rigid_fit(local[both], seen[both])
        except TrajectoryError:  # on a line
            return otherwise
        away = np.linalg.norm(transform_points(T, local[both]) - seen[both], axis=-1)
        agree = away <= max(_AGREEMENT * float(np.median(away)), _NOISE_M)
        if agree.all():
            break
        both = both[agree]
    return T
