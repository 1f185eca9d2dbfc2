"""Own the reduction of pictures that are larger than wanted."""

from dataclasses import replace

import cv2
import numpy as np

from mu0_perception.extract.recording import Shot


def resized(shot: Shot, max_width: int) -> Shot:
    """Return a picture at most max_width wide, its depth and intrinsics with it.

    Depths are picked, never mixed.
    """
    height, width = shot.rgb.shape[:2]
    if width <= max_width:
        return shot
    new_height = max(round(height * max_width / width), 1)
    size = (max_width, new_height)
    depth_m = shot.depth_m
    if depth_m is not None:
        # The pixel whose centre is nearest to the new centre; cv2's nearest takes its corner.
        rows = ((np.arange(new_height) + 0.5) * height / new_height).astype(int)
        columns = ((np.arange(max_width) + 0.5) * width / max_width).astype(int)
        depth_m = np.ascontiguousarray(depth_m[rows[:, None], columns])
    return replace(
        shot,
        rgb=np.asarray(cv2.resize(shot.rgb, size, interpolation=cv2.INTER_AREA), np.uint8),
        depth_m=depth_m,
        camera=None if shot.camera is None else shot.camera.resized(*size),
    )
