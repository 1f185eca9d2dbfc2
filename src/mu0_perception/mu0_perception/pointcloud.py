"""Own the organised point cloud: a depth image lifted to 3D, thinned to a working size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OrganisedCloud:
    """Hold every stride-th pixel of a colour and depth picture, lifted to 3D.

    Attributes:
        stride: Pixels of the picture between neighbours of the grid.
        xyz: (h, w, 3) float32 m in the camera's optical frame, NaN = no depth.
        rgb: (h, w, 3) uint8.
    """

    stride: int
    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(h, w), whether there is depth."""
        return np.isfinite(self.xyz[..., 2])

    def points(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return the points that have depth: (n, 3) m and their (n, 3) RGB."""
        valid = self.valid
        return self.xyz[valid], self.rgb[valid]


def stride_for(camera: Camera, max_width: int) -> int:
    """Return the smallest stride that makes a picture at most max_width wide."""
    return -(-camera.width // max_width)


def organised_cloud(
    rgb: NDArray[np.uint8], depth_m: NDArray[np.float32], camera: Camera, *, stride: int
) -> OrganisedCloud:
    """Lift every stride-th pixel to 3D.

    Args:
        rgb: (H, W, 3).
        depth_m: (H, W) m along the optical axis, NaN = none.
        camera: Intrinsics of both.
        stride: Pixels between neighbours of the grid; 1 takes all.
    """
    z = depth_m[::stride, ::stride]
    (fx, skew, cx), (_, fy, cy), _ = camera.K.astype(np.float32)
    y = ((np.arange(0, camera.height, stride, dtype=np.float32) - cy) / fy)[:, None]
    x = (np.arange(0, camera.width, stride, dtype=np.float32) - cx - skew * y) / fx
    xyz = np.stack([x * z, y * z, z], axis=-1)
    return OrganisedCloud(stride=stride, xyz=xyz, rgb=rgb[::stride, ::stride])
