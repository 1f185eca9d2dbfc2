"""Turn the request of the service mu0/predict_traces into what a predictor takes."""

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import ShapeError
from mu0_core.ros.messages import (
    camera_from_info,
    depth_from_image,
    ns_from_stamp,
    rgb_from_image,
)
from mu0_core.traces import Keypoints
from mu0_msgs.srv import PredictTraces
from mu0_world_model.queries import grid_uv, keypoints_without_past


def arrays_from_request(
    request: PredictTraces.Request, *, arc_step: float, history_length: int
) -> tuple[NDArray[np.uint8], Keypoints, NDArray[np.float32] | None]:
    """Convert: picture (H, W, 3), keypoints without a past, and depth (H, W) m if there is one.

    Args:
        request: Without points, a grid of them is made.
        arc_step: As the predictor has it.
        history_length: As the predictor has it.

    Raises:
        ShapeError: A part of the request contradicts itself or another.
        CalibrationError: camera_info is missing, or cannot be right.
    """
    rgb, camera = rgb_from_image(request.color), camera_from_info(request.camera_info)
    if rgb.shape[:2] != (camera.height, camera.width):
        raise ShapeError(
            f"color: expected {camera.width} x {camera.height} px as camera_info says, got "
            f"{rgb.shape[1]} x {rgb.shape[0]}"
        )
    if len(request.uv) % 2:
        raise ShapeError(f"uv: expected u, v of each point, got {len(request.uv)} numbers")
    uv = np.asarray(request.uv, np.float32).reshape(-1, 2) if request.uv else grid_uv(camera)
    depth = depth_from_image(request.depth) if request.depth.data else None
    keypoints = keypoints_without_past(
        uv,
        depth,
        camera,
        stamp_ns=ns_from_stamp(request.color.header.stamp),
        frame_id=request.color.header.frame_id,
        arc_step=arc_step,
        history_length=history_length,
    )
    return rgb, keypoints, depth
