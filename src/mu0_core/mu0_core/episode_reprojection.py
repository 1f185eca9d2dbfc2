"""Own the check that raw traces meet the keypoints of later frames, which tests the cameras too.

A raw step of a row is lifted with the camera of the row's frame and projected with that of the
step's own time. There the same point may have a row of its own: its keypoint must be in the same
place. Where rows do not say which point they are, the nearest keypoint of the next slot counts,
if most points of the frame have one there.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_SLACK_PX = 1.0
_LEAST_FOUND = 0.5  # share of points that must be met again where rows carry no ids


def reprojection_faults(
    *,
    keypoints: NDArray[np.floating],
    raw_uvz: NDArray[np.floating],
    raw_valid: NDArray[np.bool_],
    frame_indices: NDArray[np.integer],
    offsets: NDArray[np.integer],
    K: NDArray[np.float64],
    T_camera_world: NDArray[np.float64],
    size: tuple[int, int],
    point_ids: NDArray[np.integer] | None,
) -> Iterator[tuple[int, int, str]]:
    """Find the first raw step of each slot that does not meet its keypoint.

    Args:
        keypoints: (R, 2) px.
        raw_uvz: (R, F, 3) px, px, m.
        raw_valid: (R, F).
        frame_indices: (S,) frames of the slots.
        offsets: (S + 1,) rows of the slots.
        K: (T, 3, 3) px.
        T_camera_world: (T, 4, 4).
        size: Width and height of the image, px.
        point_ids: (R,) which point a row is; None: not known.

    Yields:
        Row, step and what is wrong, of one step a slot.
    """
    # Both ends are rounded to float16, depth included.
    tolerance = _SLACK_PX + 2.0 * float(np.spacing(np.float16(max(size))))
    blocks = [slice(int(a), int(b)) for a, b in pairwise(offsets)]
    if point_ids is not None:
        row_of = _row_table(point_ids, frame_indices, offsets, len(K))
    for slot, rows in enumerate(blocks):
        frame = int(frame_indices[slot])
        if point_ids is not None:
            length = min(raw_uvz.shape[1], len(K) - frame)
            uv = _moved(
                raw_uvz[rows, :length], frame + np.arange(length), frame, K, T_camera_world
            )
            target = row_of[frame : frame + length, point_ids[rows]].T
            known = _liftable(raw_uvz[rows, :length], raw_valid[rows, :length]) & (target >= 0)
            fault = _missed(uv, known, target, keypoints, tolerance, frame)
        elif slot + 1 < len(blocks):
            step = int(frame_indices[slot + 1]) - frame
            if not 0 < step < raw_uvz.shape[1]:
                continue
            steps = raw_uvz[rows, step : step + 1]
            uv = _moved(steps, np.array([frame + step]), frame, K, T_camera_world)[:, 0]
            after = keypoints[blocks[slot + 1]]
            message = _unmet(uv, raw_valid[rows, step], after, tolerance, size)
            fault = None if message is None else (0, step, message)
        else:
            return
        if fault is not None:
            yield rows.start + fault[0], fault[1], fault[2]


def _liftable(uvz: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which steps are valid, before the camera, and inside the range of float16."""
    return valid & np.isfinite(uvz).all(axis=-1) & (uvz[..., 2] > 0)


def _missed(
    uv: NDArray[np.float64],
    known: NDArray[np.bool_],
    target: NDArray[np.int64],
    keypoints: NDArray[np.floating],
    tolerance: float,
    frame: int,
) -> tuple[int, int, str] | None:
    """Return row, step and message of the first step (n, l) that misses its target's keypoint."""
    distance = np.linalg.norm(uv - keypoints[target].astype(np.float64), axis=-1)
    bad = known & ~(distance <= tolerance)
    if not bad.any():
        return None
    row, step = (int(i) for i in np.argwhere(bad)[0])
    return (
        row,
        step,
        f"lands at {np.round(uv[row, step], 1).tolist()} px in frame {frame + step}, the keypoint "
        f"is at {keypoints[target[row, step]].tolist()}: {distance[row, step]:.1f} px away, "
        f"tolerance {tolerance:.1f} ({bad.sum()} steps of this slot)",
    )


def _row_table(
    point_ids: NDArray[np.integer],
    frame_indices: NDArray[np.integer],
    offsets: NDArray[np.integer],
    n_frames: int,
) -> NDArray[np.int64]:
    """Return the row (T, points) of each point in each frame, -1 where it has none."""
    table = np.full((n_frames, int(point_ids.max(initial=0)) + 1), -1)
    table[np.repeat(frame_indices, np.diff(offsets)), point_ids] = np.arange(len(point_ids))
    return table


def _moved(
    uvz: NDArray[np.floating],
    times: NDArray[np.integer],
    frame: int,
    K: NDArray[np.float64],
    T_camera_world: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Move steps (n, l, 3) of one frame's camera to those of their times (l,): px (n, l, 2)."""
    steps = np.asarray(uvz, np.float64)
    z = np.where(steps[..., 2:] > 0, steps[..., 2:], np.nan)
    pixels = np.concatenate([steps[..., :2], np.ones_like(z)], axis=-1)
    with np.errstate(invalid="ignore"):
        xyz = pixels @ np.linalg.inv(K[frame]).T * z
        T_then_now = T_camera_world[times] @ np.linalg.inv(T_camera_world[frame])
        xyz = np.einsum("lij,nlj->nli", T_then_now[:, :3, :3], xyz) + T_then_now[:, :3, 3]
        image = np.einsum("lij,nlj->nli", K[times], xyz)
    return image[..., :2] / np.where(image[..., 2:] > 0, image[..., 2:], np.nan)


def _unmet(
    uv: NDArray[np.float64],
    known: NDArray[np.bool_],
    keypoints: NDArray[np.floating],
    tolerance: float,
    size: tuple[int, int],
) -> str | None:
    """Say if most points (n, 2) that should be seen again are far from every keypoint."""
    inside = known & np.isfinite(uv).all(axis=-1)
    inside &= ((uv > tolerance) & (uv < np.array(size) - tolerance)).all(axis=-1)
    if not inside.any():
        return None
    distance = np.linalg.norm(uv[inside, None] - keypoints[None].astype(np.float64), axis=-1)
    found = (distance.min(axis=1) <= tolerance).mean()
    if found >= _LEAST_FOUND:
        return None
    return (
        f"{found:.0%} of {inside.sum()} points meet a keypoint of the next slot within "
        f"{tolerance:.1f} px, expected {_LEAST_FOUND:.0%} at least"
    )
