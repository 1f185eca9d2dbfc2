"""Own lenses: intrinsics of a recording, and pictures made straight."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.errors import CalibrationError

_FISHEYE = "equidistant"
_KNOWN = ("", "plumb_bob", "rational_polynomial", _FISHEYE)


class Lens:
    """Hold a pinhole camera and what it takes to make its pictures straight.

    Args:
        camera: Intrinsics of the straight pictures.
        distortion: Coefficients as OpenCV has them; None for a lens without distortion.
        fisheye: Whether they are those of the equidistant model.
    """

    def __init__(
        self, camera: Camera, distortion: NDArray[np.float64] | None, *, fisheye: bool = False
    ) -> None:
        self.camera = camera
        self._maps: tuple[NDArray[Any], NDArray[Any]] | None = None
        if distortion is not None:
            size, K, R = (camera.width, camera.height), camera.K, np.eye(3)
            make = cv2.fisheye if fisheye else cv2
            self._maps = make.initUndistortRectifyMap(K, distortion, R, K, size, cv2.CV_32FC1)

    def straight(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a colour picture without distortion."""
        if self._maps is None:
            return rgb
        return np.asarray(cv2.remap(rgb, *self._maps, cv2.INTER_LINEAR), np.uint8)

    def straight_depth(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a depth picture without distortion; depths are never mixed."""
        if self._maps is None:
            return depth_m
        moved = cv2.remap(
            depth_m, *self._maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )
        return np.where(moved > 0.0, moved, np.float32(np.nan)).astype(np.float32)


def picture_size(info: Any) -> tuple[int, int]:
    """Return (width, height) of the pictures that a CameraInfo is of: its region, binned."""
    region = info.roi if info.roi.width and info.roi.height else info
    return region.width // max(info.binning_x, 1), region.height // max(info.binning_y, 1)


def lens_of(info: Any, *, rectified: bool, name: str) -> Lens:
    """Return the lens of a sensor_msgs CameraInfo, binning and region of interest included.

    Args:
        info: The message.
        rectified: Whether pictures are straight already.
        name: What to call it in errors.

    Raises:
        CalibrationError: The camera is not calibrated, or its distortion is of an unknown kind.
    """
    if rectified:
        K = np.array(info.p, np.float64).reshape(3, 4)[:, :3]
    else:
        K = np.array(info.k, np.float64).reshape(3, 3)
    try:
        camera = Camera(K, int(info.width), int(info.height))
        roi = info.roi
        if roi.width and roi.height:
            camera = camera.cropped(
                int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)
            )
        binning = max(int(info.binning_x), 1), max(int(info.binning_y), 1)
        if binning != (1, 1):
            camera = camera.resized(camera.width // binning[0], camera.height // binning[1])
    except CalibrationError as error:
        raise CalibrationError(f"{name}: {error}") from error
    distortion = np.array(info.d, np.float64)
    if rectified or not distortion.any():
        return Lens(camera, None)
    model = info.distortion_model
    if model not in _KNOWN:
        raise CalibrationError(
            f"{name}: distortion model {model!r}, expected one of {', '.join(_KNOWN[1:])}"
        )
    return Lens(
        camera, distortion[:4] if model == _FISHEYE else distortion, fisheye=model == _FISHEYE
    )
