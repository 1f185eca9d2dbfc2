"""Own camera poses from colour and depth: each picture is aligned to a recent key picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.config import option, validate
from mu0_core.se3 import inverse, log
from mu0_perception.extract.alignment import KeyPicture, Matcher, Picture

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
    """Find the pose of each picture in the frame of the first.

    Args:
        config: The settings.
        matcher: What finds points of a key picture in others, beside corners.
    """

    def __init__(self, config: OdometryConfig, matcher: Matcher | None = None) -> None:
        self._config, self._matcher = config, matcher
        self._poses: list[FloatArray] = []
        self._key: KeyPicture | None = None
        self._T_world_key: FloatArray = np.eye(4)
        self._lost = 0

    def add(
        self, rgb: NDArray[np.uint8], depth_m: NDArray[np.float32], camera: Camera
    ) -> FloatArray:
        """Return T_world_camera (4, 4) of the next picture; where it is lost, that of the last."""
        config = self._config
        picture = Picture.of(
            rgb, depth_m, camera, width=config.width, max_depth_m=config.max_depth_m
        )
        if self._key is None:
            return self._keep(np.eye(4), picture)
        guess = inverse(self._T_world_key) @ self._poses[-1]
        T_key_camera = self._key.motion(picture, guess)
        if T_key_camera is None:
            self._lost += 1
            T_key_camera = guess
        pose = self._T_world_key @ T_key_camera
        step = log(T_key_camera)
        far = np.linalg.norm(step[:3]) > config.key_m or np.linalg.norm(step[3:]) > config.key_rad
        return self._keep(pose, picture if far else None)

    def _keep(self, pose: FloatArray, key: Picture | None) -> FloatArray:
        """Note a pose, and the picture as the next key if it is to be one."""
        self._poses.append(pose)
        if key is not None:
            step_m = self._config.max_step_m
            self._key = KeyPicture(key, max_step_m=step_m, matcher=self._matcher)
            self._T_world_key = pose
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
