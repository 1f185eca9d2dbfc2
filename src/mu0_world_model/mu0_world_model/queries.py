"""Own the keypoints that a prediction is asked for: the tracker's that fit, and fresh ones."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.errors import ShapeError
from mu0_core.traces import Keypoints, KeypointSource

GRID = (8, 8)
"""Columns and rows of the grid that is asked for where no points are given."""


def usable(keypoints: Keypoints) -> tuple[Keypoints, Mapping[str, int]]:
    """Leave out keypoints that no prediction can be made for.

    Returns:
        The others, and how many were left out for each reason that occurred.
    """
    camera = keypoints.camera
    finite = np.isfinite(keypoints.uv).all(1) & ~np.isinf(keypoints.z)
    with np.errstate(invalid="ignore"):
        inside = ((keypoints.uv >= 0) & (keypoints.uv <= (camera.width, camera.height))).all(1)
    counts = {
        "not finite": int((~finite).sum()),
        "outside the picture": int((finite & ~inside).sum()),
    }
    left_out = {reason: count for reason, count in counts.items() if count}
    return keypoints.selected(finite & inside) if left_out else keypoints, left_out


def grid_uv(camera: Camera, columns: int = GRID[0], rows: int = GRID[1]) -> NDArray[np.float32]:
    """Return the centres (n, 2) px of a grid of cells that covers the picture, row by row."""
    u = (np.arange(columns) + 0.5) * camera.width / columns - 0.5
    v = (np.arange(rows) + 0.5) * camera.height / rows - 0.5
    return np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2).astype(np.float32)


def keypoints_without_past(
    uv: NDArray[np.float32],
    depth: NDArray[np.float32] | None,
    camera: Camera,
    *,
    stamp_ns: int,
    frame_id: str,
    arc_step: float,
    history_length: int,
) -> Keypoints:
    """Make keypoints of a single picture.

    Args:
        uv: (n, 2) px.
        depth: (H, W) m, NaN = none; None leaves all depths unknown.
        camera: Of the picture.
        stamp_ns: Time of the picture, ns.
        frame_id: Its optical frame.
        arc_step: As the predictor has it.
        history_length: As the predictor has it; all steps are invalid.

    Raises:
        ShapeError: A point lies outside the picture, or the depth image has another size.
    """
    n, size = len(uv), (camera.width, camera.height)
    outside = ~((uv >= -0.5) & (uv <= np.array(size) - 0.5)).all(1)
    if outside.any():
        raise ShapeError(
            f"uv: expected points inside the {size[0]} x {size[1]} px picture, got "
            f"{uv[outside][0].tolist()} px and {outside.sum() - 1} more outside"
        )
    z = np.full(n, np.nan, np.float32)
    if depth is not None:
        if depth.shape != (camera.height, camera.width):
            raise ShapeError(
                f"depth image: expected {camera.height} rows of {camera.width} px as the picture "
                f"has, got {depth.shape}"
            )
        u, v = np.clip(np.rint(uv), 0, np.array(size) - 1).astype(np.int64).T
        z = depth[v, u]
    return Keypoints(
        stamp_ns=stamp_ns,
        frame_id=frame_id,
        camera=camera,
        arc_step=arc_step,
        ids=np.arange(n, dtype=np.uint32),
        cluster_ids=np.full(n, -1, np.int32),
        source=np.full(n, KeypointSource.GRID, np.uint8),
        uv=np.clip(uv, 0, None),
        z=z,
        visible=np.ones(n, np.bool_),
        history_uvz=np.full((n, history_length, 3), np.nan, np.float32),
        history_valid=np.zeros((n, history_length), np.bool_),
    )
