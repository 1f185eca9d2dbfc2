"""Own camera poses from colour and depth: each picture is aligned to a recent key picture."""

import contextlib
import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.config import option, validate
from mu0_core.errors import Mu0Error
from mu0_core.se3 import inverse, log

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class OdometryConfig:
    """Tune RGB-D odometry."""

    width: int = option(320, description="Width that pictures are reduced to", unit="px", low=80)
    max_depth_m: float = option(4.0, description="Depth that is used, at most", unit="m", low=0.1)
    max_step_m: float = option(
        0.03, description="Depth difference of pixels that belong together", unit="m", low=0.001
    )
    key_m: float = option(
        0.10, description="Motion after which a new key picture is taken", unit="m", low=0.0
    )
    key_rad: float = option(
        0.15, description="Turn after which a new key picture is taken", unit="rad", low=0.0
    )
    still_m: float = option(
        0.01, description="Motion below which the camera stood still", unit="m", low=0.0
    )
    still_rad: float = option(
        0.015, description="Turn below which the camera stood still", unit="rad", low=0.0
    )

    def __post_init__(self) -> None:
        validate(self)


class Odometry:
    """Find the pose of each picture in the frame of the first."""

    def __init__(self, config: OdometryConfig) -> None:
        self._config = config
        self._poses: list[FloatArray] = []
        self._key: Any = None
        self._T_world_key: FloatArray = np.eye(4)
        self._lost = 0

    def add(
        self, rgb: NDArray[np.uint8], depth_m: NDArray[np.float32], camera: Camera
    ) -> FloatArray:
        """Return T_world_camera (4, 4) of the next picture; where it is lost, that of the last."""
        picture = self._picture(rgb, depth_m, camera)
        if self._key is None:
            self._key = picture
            self._poses.append(np.eye(4))
            return self._poses[-1]
        guess = inverse(self._T_world_key) @ self._poses[-1]
        T_key_camera = self._aligned(picture, self._key, guess)
        if T_key_camera is None:
            self._lost += 1
            T_key_camera = guess
            pose = self._poses[-1]
        else:
            pose = self._T_world_key @ T_key_camera
        step = log(T_key_camera)
        far = np.linalg.norm(step[:3]) > self._config.key_m
        if far or np.linalg.norm(step[3:]) > self._config.key_rad:
            self._key, self._T_world_key = picture, pose
        self._poses.append(pose)
        return pose

    def finished(self) -> tuple[list[FloatArray], dict[str, float]]:
        """Return all poses, all the same for a camera that stood still, and figures."""
        steps = log(np.stack(self._poses))
        moved = np.linalg.norm(steps[:, :3], axis=1).max()
        turned = np.linalg.norm(steps[:, 3:], axis=1).max()
        figures = {
            "camera_moved_m": float(moved),
            "camera_turned_rad": float(turned),
            "odometry_lost_pictures": float(self._lost),
        }
        if moved < self._config.still_m and turned < self._config.still_rad:
            return [np.eye(4)] * len(self._poses), figures
        return self._poses, figures

    def _picture(
        self, rgb: NDArray[np.uint8], depth_m: NDArray[np.float32], camera: Camera
    ) -> tuple[Any, Any]:
        """Return Open3D's picture and intrinsics at the working size."""
        o3d = _open3d()
        step = max(round(camera.width / self._config.width), 1)
        size = (camera.width // step, camera.height // step)
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        depth = depth_m[step // 2 :: step, step // 2 :: step][: size[1], : size[0]]
        image = o3d.geometry.RGBDImage.create_from_color_and_depth(
            o3d.geometry.Image(np.ascontiguousarray(small)),
            o3d.geometry.Image(np.ascontiguousarray(np.nan_to_num(depth, nan=0.0))),
            depth_scale=1.0,
            depth_trunc=self._config.max_depth_m,
            convert_rgb_to_intensity=True,
        )
        K = camera.resized(*size).K
        return image, o3d.camera.PinholeCameraIntrinsic(*size, K[0, 0], K[1, 1], K[0, 2], K[1, 2])

    def _aligned(self, source: Any, target: Any, guess: FloatArray) -> FloatArray | None:
        """Return T_target_source, or None if the pictures do not fit together."""
        o3d = _open3d()
        options = o3d.pipelines.odometry.OdometryOption(
            depth_diff_max=self._config.max_step_m, depth_max=self._config.max_depth_m
        )
        found, T, _ = o3d.pipelines.odometry.compute_rgbd_odometry(
            source[0],
            target[0],
            target[1],
            guess,
            o3d.pipelines.odometry.RGBDOdometryJacobianFromHybridTerm(),
            options,
        )
        return np.asarray(T) if found and np.isfinite(T).all() else None


@cache
def _open3d() -> Any:
    """Import Open3D, which is slow to load and not always needed.

    Its library wants libusb, also where no camera is near; a wheel brings it to machines without.

    Raises:
        Mu0Error: It cannot be loaded.
    """
    with contextlib.suppress(ImportError, OSError, TypeError):
        import libusb_package

        ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
    try:
        import open3d
    except ImportError as error:
        raise Mu0Error(
            f"RGB-D odometry: Open3D cannot be loaded: {error}; install the package it wants "
            "(apt-get install libusb-1.0-0), or record the camera's TF"
        ) from error
    return open3d
