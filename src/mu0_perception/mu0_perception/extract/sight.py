"""Own what the pictures show where points ought to be: the point, something before it, or nothing.

A guess of how points move can be tried on a recording this way: if it is right, the pictures show
them there, or show what hides them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core.se3 import inverse, transform_points
from mu0_perception.following import FollowConfig
from mu0_perception.frame import RgbdFrame
from mu0_perception.selection import grid_points, picture_of
from mu0_perception.tracking import colour_at, colour_change, inside

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sight:
    """Hold what is seen where points ought to be, all (T, n) bool; none where there is no depth.

    Attributes:
        there: A surface of the point's colour is seen at its depth.
        hidden: Something nearer is seen.
        gone: Something farther is seen, or a surface of another colour at its depth.
    """

    there: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    gone: NDArray[np.bool_]


def look(
    frames: Iterable[RgbdFrame],
    xyz_world: FloatArray,
    colour: NDArray[np.float32],
    config: FollowConfig,
) -> Sight:
    """Compare points with pictures.

    Args:
        frames: (T) the pictures.
        xyz_world: (T, n, 3) m, or (n, 3) for points at rest; NaN = not asked for.
        colour: (n, 3) of the points.
        config: When a surface is a point's.
    """
    rows = [
        _look(frame, xyz_world if xyz_world.ndim == 2 else xyz_world[t], colour, config)
        for t, frame in enumerate(frames)
    ]
    there, hidden, gone = (np.stack(column) for column in zip(*rows, strict=True))
    return Sight(there=there, hidden=hidden, gone=gone)


def grid_places(frame: RgbdFrame, spacing_px: int) -> tuple[FloatArray, NDArray[np.float32]]:
    """Return a grid of places on the surfaces of a picture: (m, 3) m, and their colours (m, 3)."""
    none = np.empty((0, 2), np.float32)
    uv = grid_points(picture_of(frame), spacing_px=spacing_px, taken_uv=none)
    column, row = uv.astype(np.int64).T
    xyz = frame.camera.unproject(np.column_stack([uv, frame.depth_m[row, column]]))
    return transform_points(frame.T_fixed_camera, xyz), colour_at(frame.rgb, uv)


def _look(
    frame: RgbdFrame, xyz_world: FloatArray, colour: NDArray[np.float32], config: FollowConfig
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return there, hidden and gone (n,) in one picture."""
    xyz = transform_points(inverse(frame.T_fixed_camera), xyz_world)
    uvz = frame.camera.project(xyz).astype(np.float32)
    uv, z = uvz[:, :2], uvz[:, 2]
    tolerance = config.depth_tolerance(z, 0.0)
    in_view = inside(uv, frame.depth_m)
    surface = _surface(frame.depth_m, uv, z)
    away = np.where(in_view, surface - z, np.float32(np.nan))
    near = np.abs(away) <= tolerance
    change = np.full(len(uv), np.inf, np.float32)
    change[near] = colour_change(frame.rgb, uv[near], colour[near])
    same = change < config.max_colour_change
    return near & same, away < -tolerance, (away > tolerance) | (near & ~same)


def _surface(
    depth_m: NDArray[np.float32], uv: NDArray[np.float32], z: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the depth (n,) around each point that is nearest to its own; NaN = none."""
    height, width = depth_m.shape
    column, row = np.rint(np.nan_to_num(uv, nan=-9.0)).clip(-9, 1e6).astype(np.int64).T
    best = np.full(len(uv), np.nan, np.float32)
    least = np.full(len(uv), np.inf, np.float32)
    for dv in (-1, 0, 1):
        for du in (-1, 0, 1):
            rows, columns = np.clip(row + dv, 0, height - 1), np.clip(column + du, 0, width - 1)
            depth = depth_m[rows, columns]
            away = np.abs(depth - z)
            better = away < least
            best[better], least[better] = depth[better], away[better]
    return best
