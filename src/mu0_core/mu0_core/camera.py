"""Own the pinhole camera: intrinsics under resize and crop, projection, and depth units.

Pixels follow OpenCV and ROS: u right, v down, an integer is a pixel centre, so an image spans
[-0.5, width - 0.5]. Camera axes follow REP-103 (optical frame): x right, y down, z forward.
Lens distortion is left to whoever rectifies the images.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mu0_core.errors import CalibrationError, ShapeError, unknown_name_message

DepthEncoding = Literal["16UC1", "32FC1"]
_DEPTH_DTYPES = {"16UC1": np.dtype(np.uint16), "32FC1": np.dtype(np.float32)}


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """Hold the intrinsics of one image size.

    Attributes:
        K: (3, 3) float64 intrinsics, px; copied and read-only.
        width: Image width, px.
        height: Image height, px.
    """

    K: NDArray[np.float64]
    width: int
    height: int

    def __post_init__(self) -> None:
        K = np.array(self.K, dtype=np.float64)
        faults = _intrinsics_faults(K) + _size_faults(self.width, self.height)
        if faults:
            raise CalibrationError("camera intrinsics: " + "; ".join(faults))
        K.setflags(write=False)
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "width", int(self.width))
        object.__setattr__(self, "height", int(self.height))

    @classmethod
    def from_fovy(cls, fovy_rad: float, width: int, height: int) -> Self:
        """Make a camera with square pixels and a centred principal point.

        Args:
            fovy_rad: Vertical field of view of the whole image, rad, in (0, pi).
            width: Image width, px.
            height: Image height, px.

        Raises:
            CalibrationError: The field of view or the size is impossible.
        """
        if not 0.0 < fovy_rad < np.pi:
            raise CalibrationError(f"fovy_rad: expected an angle in (0, pi) rad, got {fovy_rad}")
        focal = 0.5 * height / np.tan(0.5 * fovy_rad)
        cx, cy = 0.5 * (width - 1), 0.5 * (height - 1)
        return cls(np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]]), width, height)

    def project(self, xyz: ArrayLike) -> NDArray[np.float64]:
        """Project points of the camera's optical frame.

        Args:
            xyz: (..., 3) m.

        Returns:
            (..., 3) uvz: px, px, m. uv is NaN for points at or behind the camera (z <= 0),
            and may lie outside the image.
        """
        xyz = _last_axis(xyz, 3, "xyz")
        z = xyz[..., 2]
        u, v = self.pixels(xyz[..., 0], xyz[..., 1], z)
        return np.stack([u, v, z], axis=-1)

    def pixels(
        self, x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Project points whose coordinates (m) lie apart: u and v (px), as `project` has them."""
        (fx, skew, cx), (_, fy, cy), _ = self.K
        depth = np.where(z > 0.0, z, np.nan)
        x, y = x / depth, y / depth
        return fx * x + skew * y + cx, fy * y + cy

    def unproject(self, uvz: ArrayLike) -> NDArray[np.float64]:
        """Lift pixels with depth to points of the camera's optical frame.

        Args:
            uvz: (..., 3) px, px, m.

        Returns:
            (..., 3) xyz, m; NaN where z is not a positive finite depth.
        """
        uvz = _last_axis(uvz, 3, "uvz")
        (fx, skew, cx), (_, fy, cy), _ = self.K
        z = uvz[..., 2]
        depth = np.where((z > 0.0) & np.isfinite(z), z, np.nan)
        y = (uvz[..., 1] - cy) / fy
        x = (uvz[..., 0] - cx - skew * y) / fx
        return np.stack([x * depth, y * depth, depth], axis=-1)

    def resized(self, width: int, height: int) -> Self:
        """Return the camera of this image resized to another size.

        Pixel centres move as in a resize without aligned corners: c -> (c + 0.5) s - 0.5.
        """
        scale = np.array([width / self.width, height / self.height])
        K = self.K.copy()
        K[:2, :2] *= scale[:, None]
        K[:2, 2] = (K[:2, 2] + 0.5) * scale - 0.5
        return type(self)(K, width, height)

    def cropped(self, u0: int, v0: int, width: int, height: int) -> Self:
        """Return the camera of a window of this image.

        Args:
            u0: First column of the window, px.
            v0: First row of the window, px.
            width: Width of the window, px.
            height: Height of the window, px.

        Raises:
            CalibrationError: The window does not lie inside the image.
        """
        inside = 0 <= u0 <= self.width - width and 0 <= v0 <= self.height - height
        if not inside:
            raise CalibrationError(
                f"crop: {width}x{height} px at column {u0}, row {v0} does not lie inside the "
                f"{self.width}x{self.height} px image"
            )
        K = self.K.copy()
        K[:2, 2] -= (u0, v0)
        return type(self)(K, width, height)


def normalise_uv(uv: ArrayLike, width: int, height: int) -> NDArray[np.float64]:
    """Scale pixels to the released model's uv_norm: 2u/W - 1, 2v/H - 1 (corner convention).

    Args:
        uv: (..., 2) px.
        width: Width of the original image, px.
        height: Height of the original image, px.
    """
    return _last_axis(uv, 2, "uv") * 2.0 / (width, height) - 1.0


def denormalise_uv(uv_norm: ArrayLike, width: int, height: int) -> NDArray[np.float64]:
    """Turn uv_norm (..., 2) into pixels; the inverse of `normalise_uv`."""
    return (_last_axis(uv_norm, 2, "uv_norm") + 1.0) * 0.5 * (width, height)


def depth_to_metres(depth: NDArray, encoding: DepthEncoding) -> NDArray[np.float32]:
    """Convert a depth image as ROS carries it (REP-118).

    Args:
        depth: (H, W) along the optical axis; uint16 mm for "16UC1", float32 m for "32FC1".
        encoding: "16UC1" or "32FC1".

    Returns:
        (H, W) float32 m, NaN where there is no measurement (zero, negative, not finite); a copy.

    Raises:
        ShapeError: The encoding is unknown, or the array is not what the encoding says.
    """
    if encoding not in _DEPTH_DTYPES:
        raise ShapeError(unknown_name_message("depth encoding", encoding, _DEPTH_DTYPES))
    expected = _DEPTH_DTYPES[encoding]
    if depth.ndim != 2 or depth.dtype != expected:
        raise ShapeError(
            f"depth with encoding {encoding}: expected (H, W) {expected}, "
            f"got {depth.shape} {depth.dtype}"
        )
    metres = depth.astype(np.float32)
    if encoding == "16UC1":
        metres *= np.float32(1e-3)
    metres[~(np.isfinite(metres) & (metres > 0.0))] = np.nan
    return metres


def depth_to_millimetres(depth_m: NDArray) -> NDArray[np.uint16]:
    """Round metres to the whole millimetres of a 16UC1 image.

    Args:
        depth_m: (H, W) m, NaN = no measurement.

    Returns:
        (H, W) uint16 mm; 0 where there is no measurement or it does not fit (above 65.535 m).
    """
    millimetres = np.rint(np.asarray(depth_m, dtype=np.float64) * 1e3)
    fits = (millimetres > 0.0) & (millimetres <= np.iinfo(np.uint16).max)
    return np.where(fits, millimetres, 0.0).astype(np.uint16)


def _intrinsics_faults(K: NDArray[np.float64]) -> list[str]:
    """List what makes K impossible."""
    if K.shape != (3, 3):
        return [f"K: expected shape (3, 3), got {K.shape}"]
    if not np.isfinite(K).all():
        return [f"K: expected finite values, got {K.tolist()}"]
    if not K.any():
        return ["K: all zero, so this camera is not calibrated"]
    faults = []
    if K[0, 0] <= 0.0 or K[1, 1] <= 0.0:
        faults.append(f"K: expected focal lengths above 0 px, got {K[0, 0]} and {K[1, 1]}")
    if K[1, 0] != 0.0 or not np.array_equal(K[2], (0.0, 0.0, 1.0)):
        faults.append(f"K: expected an upper triangle with 1 in the corner, got {K.tolist()}")
    return faults


def _size_faults(width: int, height: int) -> list[str]:
    """List what makes the image size impossible."""
    sizes = (("width", width), ("height", height))
    return [
        f"{name}: expected a whole number of px above 0, got {size!r}"
        for name, size in sizes
        if not isinstance(size, int | np.integer) or size <= 0
    ]


def _last_axis(values: ArrayLike, length: int, name: str) -> NDArray[np.float64]:
    """Return values as float64, checked to have `length` numbers on the last axis."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != length:
        raise ShapeError(f"{name}: expected shape (..., {length}), got {array.shape}")
    return array
