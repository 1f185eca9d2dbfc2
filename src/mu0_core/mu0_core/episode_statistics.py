"""Own the numbers about motion that an episode carries beside its traces.

They follow the released extractor, at the saved image size: points are seen from the camera of
frame 0 as (x_px, y_px, 0.1 z_m), which takes camera motion out.
"""

import numpy as np
from numpy.typing import NDArray

from mu0_core.se3 import inverse

DEPTH_WEIGHT = 0.1  # of a metre of depth against a pixel
_RUN = 6  # frames a point must be seen in, up to and from the frame that counts
_MAX_POSITIONS = 64


def acceleration(
    uvz: NDArray[np.float64], visible: NDArray[np.bool_], moving: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the mean acceleration (T,) of moving points, px/frame^2; 0 where none counts.

    A point counts in a frame if it moves then and was seen in 6 unbroken frames up to it and from
    it on.

    Args:
        uvz: (T, n, 3) px, px, m in one camera; NaN where unknown.
        visible: (T, n).
        moving: (T, n).
    """
    T = len(uvz)
    means = np.zeros(T, np.float32)
    if T < 2 * _RUN - 1:
        return means
    scaled = uvz * (1.0, 1.0, DEPTH_WEIGHT)
    lengths = np.linalg.norm(np.diff(scaled, n=2, axis=0), axis=-1)
    seen = visible & np.isfinite(uvz).all(axis=-1)
    run = 2 * _RUN - 1
    unbroken = np.lib.stride_tricks.sliding_window_view(seen, run, axis=0).all(axis=-1)
    centres = slice(_RUN - 1, T - _RUN + 1)
    counts = unbroken & moving[centres]
    total = np.where(counts, lengths[_RUN - 2 : T - _RUN], 0.0).sum(axis=1)
    means[centres] = total / np.maximum(counts.sum(axis=1), 1)
    return means


def displacement(uvz: NDArray[np.float64], visible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how far apart (n,) the visible positions of each point get, px; 0 if seen once.

    Of long episodes, 64 frames at equal distances are looked at.

    Args:
        uvz: (T, n, 3) px, px, m in one camera; NaN where unknown.
        visible: (T, n).
    """
    frames = np.unique(np.linspace(0, len(uvz) - 1, min(len(uvz), _MAX_POSITIONS)).astype(int))
    scaled = np.where(visible[frames, :, None], uvz[frames] * (1.0, 1.0, DEPTH_WEIGHT), np.nan)
    largest = np.zeros(uvz.shape[1])
    for position in scaled:
        distances = np.linalg.norm(scaled - position, axis=-1)
        largest = np.maximum(largest, np.nan_to_num(distances, nan=0.0).max(axis=0))
    return largest


def movement_statistics(
    displacement_px: NDArray[np.float64],
    T_camera_world: NDArray[np.float64],
    *,
    width: int,
    height: int,
) -> dict[str, NDArray]:
    """Return the arrays of `movement_statistics.npz`.

    Args:
        displacement_px: (n,) px, from `displacement`.
        T_camera_world: (T, 4, 4) of each frame.
        width: Image width, px.
        height: Image height, px.
    """
    share = displacement_px / max(width, height)
    T_world_camera = inverse(T_camera_world)
    step = np.linalg.norm(np.diff(T_world_camera[:, :3, 3], axis=0), axis=-1)
    R = T_world_camera[:, :3, :3]
    turn = np.swapaxes(R[:-1], -1, -2) @ R[1:]
    # The sine keeps small angles exact where the cosine alone rounds them away.
    sine = np.linalg.norm(turn - np.swapaxes(turn, -1, -2), axis=(-1, -2)) / np.sqrt(8.0)
    angle = np.arctan2(sine, 0.5 * (np.trace(turn, axis1=-2, axis2=-1) - 1.0))
    values = {
        "cam_trans_step": step,
        "cam_rot_step_rad": angle,
        "cam_trans_total": step.sum(),
        "cam_trans_mean": step.mean(),
        "cam_trans_max": step.max(),
        "cam_rot_total_rad": angle.sum(),
        "cam_rot_mean_rad": angle.mean(),
        "cam_rot_max_rad": angle.max(),
    }
    return {
        "total_unique_kps": np.array(len(share)),
        "n_above_005": np.array((share > 0.05).sum()),
        "n_above_010": np.array((share > 0.10).sum()),
        **{name: np.asarray(value, np.float32) for name, value in values.items()},
    }
