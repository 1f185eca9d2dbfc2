"""Own the check that the camera is where TF says: the gripper must be seen where it is.

Points fixed to the gripper, seen through T_camera_gripper, must fall near a surface in the depth
image. Where they float in the air, the transform from the robot's base to the camera is wrong, or
that from the gripper to its keypoints.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.config import option, validate
from mu0_perception.pointcloud import OrganisedCloud


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """Say when gripper points are off."""

    tolerance_m: float = option(
        0.03,
        description="Distance from a surface at which a gripper point is off",
        unit="m",
        low=0.001,
    )
    reach_m: float = option(
        0.15, description="How far around a point a surface is looked for", unit="m", low=0.01
    )
    min_points: int = option(3, description="Gripper points in view to judge by", low=1)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class GripperSight:
    """Hold how gripper points fit a depth image.

    Attributes:
        n_judged: Points in view that nothing hides, with depth around them.
        n_off: Those of them with no surface near.
        median_off_m: Median distance of the judged points from the nearest surface, m; at most
            the reach.
        enough: Whether there were points enough to judge by.
    """

    n_judged: int
    n_off: int
    median_off_m: float
    enough: bool

    @property
    def off(self) -> bool:
        """Whether most points float in the air."""
        return self.enough and 2 * self.n_off > self.n_judged

    def sentence(self, gripper_frame: str, camera_frame: str) -> str:
        """Say what is off and what to do."""
        return (
            f"{self.n_off} of {self.n_judged} gripper keypoints are not where the depth image "
            f"has a surface: off by {100.0 * self.median_off_m:.1f} cm (median) or more, seen "
            f"through TF from {gripper_frame!r} to {camera_frame!r}; check the transform from "
            "the robot's base to the camera (hand-eye calibration), then the gripper keypoints "
            "of the embodiment file"
        )


def check_gripper(
    cloud: OrganisedCloud,
    camera: Camera,
    gripper_xyz: NDArray[np.float64],
    config: CalibrationConfig,
) -> GripperSight:
    """Measure how far gripper points are from the surfaces that the camera sees.

    A point with something well in front of it is hidden, which says nothing.

    Args:
        cloud: The depth image.
        camera: Its intrinsics at full size.
        gripper_xyz: (n, 3) m in the camera's optical frame.
        config: Distances.
    """
    distances = []
    for xyz, (u, v, z) in zip(gripper_xyz, camera.project(gripper_xyz), strict=True):
        if not (0.0 <= u < camera.width and 0.0 <= v < camera.height):
            continue
        window = _window(cloud, camera, u, v, z, config.reach_m)
        seen = np.isfinite(window[..., 2])
        at = cloud.xyz[int(v) // cloud.stride, int(u) // cloud.stride, 2]
        if not seen.any() or at < z - config.reach_m:
            continue
        nearest = float(np.linalg.norm(window[seen] - xyz, axis=-1).min())
        distances.append(min(nearest, config.reach_m))
    off = np.array(distances)
    return GripperSight(
        n_judged=len(off),
        n_off=int(np.count_nonzero(off > config.tolerance_m)),
        median_off_m=float(np.median(off)) if len(off) else 0.0,
        enough=len(off) >= config.min_points,
    )


def _window(
    cloud: OrganisedCloud, camera: Camera, u: float, v: float, z: float, reach_m: float
) -> NDArray[np.float32]:
    """Return the part of a cloud that may lie within reach of a point at a pixel."""
    reach = max(reach_m * camera.K[0, 0] / z, 1.0)
    rows, columns = (
        slice(
            max(int((centre - reach) / cloud.stride), 0),
            int((centre + reach) / cloud.stride) + 1,
        )
        for centre in (v, u)
    )
    return cloud.xyz[rows, columns]
