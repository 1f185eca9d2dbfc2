"""Own how a picture with depth is aligned to an earlier one: by corners, densely, by a network.

What moves by itself, such as a robot, is often the best textured part of a scene. So all ways
propose motions, the dense one again without the pixels that do not follow it, and the motion under
which most pixels agree wins.
"""

import contextlib
import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.errors import Mu0Error
from mu0_core.se3 import inverse, make_transform

FloatArray = NDArray[np.float64]

_CORNERS, _CORNER_QUALITY, _CORNER_PX = 600, 0.002, 8
_RETURN_PX, _REPROJECTION_PX, _LEAST_CORNERS = 1.0, 1.5, 10
_AGREE, _AGREE_GREY = 0.01, 0.04  # m; of full white
_FOREIGN, _FOREIGN_GREY, _FOREIGN_RIM_PX = 0.015, 0.08, 9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """Hold a picture in both sizes.

    Attributes:
        grey: (H, W) uint8.
        depth_m: (H, W) float32, NaN = none.
        camera: Intrinsics of both.
        grey_small: (h, w) float32 in [0, 1], what the dense way reads.
        depth_small: (h, w) float32 m, 0 = none.
        K_small: (3, 3) intrinsics of these.
    """

    grey: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    camera: Camera
    grey_small: NDArray[np.float32]
    depth_small: NDArray[np.float32]
    K_small: FloatArray

    @classmethod
    def of(
        cls,
        rgb: NDArray[np.uint8],
        depth_m: NDArray[np.float32],
        camera: Camera,
        *,
        width: int,
        max_depth_m: float,
    ) -> "Picture":
        """Reduce a picture (H, W, 3) with its depth (H, W) m to about a width, px."""
        step = max(round(camera.width / width), 1)
        size = (camera.width // step, camera.height // step)
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        depth = depth_m[step // 2 :: step, step // 2 :: step][: size[1], : size[0]]
        depth = np.nan_to_num(depth, nan=0.0).astype(np.float32)
        return cls(
            grey=grey.astype(np.uint8),
            depth_m=np.where(depth_m < max_depth_m, depth_m, np.nan),
            camera=camera,
            grey_small=(small / 255.0).astype(np.float32),
            depth_small=np.where(depth < max_depth_m, depth, 0.0).astype(np.float32),
            K_small=np.array(camera.resized(*size).K),
        )


class Matcher(Protocol):
    """Find points that two pictures show."""

    def matches(
        self, before: NDArray[np.uint8], after: NDArray[np.uint8]
    ) -> tuple[FloatArray, FloatArray]:
        """Return them (n, 2) px in either of two grey pictures (H, W)."""


class KeyPicture:
    """Hold a picture that later ones are aligned to, one after the other."""

    def __init__(
        self, picture: Picture, *, max_step_m: float, matcher: Matcher | None = None
    ) -> None:
        """Find the corners.

        Args:
            picture: The picture.
            max_step_m: Depth difference of pixels that the dense way takes for the same, m.
            matcher: What proposes motions beside the corners and the dense way.
        """
        self._picture = picture
        self._max_step_m = max_step_m
        self._matcher = matcher
        corners = _corners(picture.grey)
        known, self._xyz = _with_depth(picture, corners)
        self._uv = corners[known]
        self._seen_uv = self._uv.copy()

    def motion(self, picture: Picture, guess: FloatArray) -> FloatArray | None:
        """Return T_key_camera (4, 4) of a later picture, None where no way finds one.

        Args:
            picture: Seen after all that were asked about before.
            guess: T_key_camera of the picture before it.
        """
        corners = self._by_corners(picture)
        first = [self._compared(picture, T) for T in (guess, corners) if T is not None]
        first += self._by_matches(picture, first[0])
        start = max(first, key=_Comparison.agreement)
        proposed = first[1:]
        found = self._dense(picture, picture.depth_small, start.T_key_camera)
        if found is not None:
            proposed.append(self._compared(picture, found))
            rest = np.where(proposed[-1].foreign(), np.float32(0.0), picture.depth_small)
            again = self._dense(picture, rest, found)
            proposed += [] if again is None else [self._compared(picture, again)]
        best = max(proposed, key=_Comparison.agreement, default=None)
        return None if best is None else best.T_key_camera

    def _by_corners(self, picture: Picture) -> FloatArray | None:
        """Return the motion that most corners agree on."""
        if len(self._uv) < _LEAST_CORNERS:
            return None
        key, now = self._picture.grey, picture.grey
        uv, found = _followed(key, now, self._uv, self._seen_uv)
        back, returned = _followed(now, key, uv, self._uv)
        good = found & returned & (np.linalg.norm(back - self._uv, axis=1) < _RETURN_PX)
        self._seen_uv = np.where(good[:, None], uv, self._seen_uv).astype(np.float32)
        return _agreed(self._xyz[good], uv[good].astype(np.float64), picture.camera)

    def _by_matches(self, picture: Picture, guess: "_Comparison") -> "list[_Comparison]":
        """Return the motion that most matches agree on, if it explains more than the guess."""
        if self._matcher is None:
            return []
        key_uv, uv = self._matcher.matches(self._picture.grey, picture.grey)
        known, xyz = _with_depth(self._picture, key_uv)
        T_key_camera = _agreed(xyz, uv[known], picture.camera)
        if T_key_camera is None:
            return []
        # Wrong matches may turn the camera away, until the few pixels left agree by chance.
        found = self._compared(picture, T_key_camera)
        better = found.agreement() > guess.agreement()
        return [found] if better and 2 * found.agreeing() > guess.agreeing() else []

    def _dense(
        self, picture: Picture, depth: NDArray[np.float32], guess: FloatArray
    ) -> FloatArray | None:
        """Return the motion that Open3D finds, from the pixels with a depth."""
        o3d, key = _open3d(), self._picture
        height, width = depth.shape
        K = picture.K_small
        intrinsics = o3d.camera.PinholeCameraIntrinsic(
            width, height, K[0, 0], K[1, 1], K[0, 2], K[1, 2]
        )
        # What is too far away was left out of the pictures; Open3D's own limit would be 4 m.
        options = o3d.pipelines.odometry.OdometryOption(
            depth_diff_max=self._max_step_m, depth_max=float(key.depth_small.max()) + 1.0
        )
        found, T, _ = o3d.pipelines.odometry.compute_rgbd_odometry(
            _open3d_picture(picture.grey_small, depth),
            _open3d_picture(key.grey_small, key.depth_small),
            intrinsics,
            guess,
            o3d.pipelines.odometry.RGBDOdometryJacobianFromHybridTerm(),
            options,
        )
        return _rigid(np.asarray(T)) if found and np.isfinite(T).all() else None

    def _compared(self, picture: Picture, T_key_camera: FloatArray) -> "_Comparison":
        """Compare a picture with the key picture under a motion."""
        key, K, depth = self._picture, picture.K_small, picture.depth_small
        v, u = np.indices(depth.shape)
        rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], -1)
        xyz = (rays * depth[..., None]) @ T_key_camera[:3, :3].T + T_key_camera[:3, 3]
        z = np.maximum(xyz[..., 2], 1e-6)
        u, v = ((xyz[..., i] / z * K[i, i] + K[i, 2]).astype(np.float32) for i in (0, 1))
        there = cv2.remap(key.depth_small, u, v, cv2.INTER_NEAREST, borderValue=0)
        grey = cv2.remap(key.grey_small, u, v, cv2.INTER_LINEAR, borderValue=0)
        both = (there > 0) & (depth > 0)
        apart = np.abs(there - z), np.abs(grey - picture.grey_small)
        return _Comparison(T_key_camera, both, *apart)


@dataclass(frozen=True, slots=True, eq=False)
class _Comparison:
    """Hold how far pixels (h, w) are apart under a motion, where both pictures have depth."""

    T_key_camera: FloatArray
    both: NDArray[np.bool_]
    depth_m: FloatArray
    grey: FloatArray

    def agreeing(self) -> int:
        """Return how many pixels agree."""
        return int((self.both & (self.depth_m < _AGREE) & (self.grey < _AGREE_GREY)).sum())

    def agreement(self) -> float:
        """Return the share of pixels that agree."""
        return self.agreeing() / max(int(self.both.sum()), 1)

    def foreign(self) -> NDArray[np.bool_]:
        """Return the pixels that do not follow the motion, and those around them."""
        apart = (self.depth_m > _FOREIGN) | (self.grey > _FOREIGN_GREY)
        lone = np.ones((2, 2), np.uint8)
        foreign = cv2.morphologyEx((self.both & apart).astype(np.uint8), cv2.MORPH_OPEN, lone)
        rim = np.ones((_FOREIGN_RIM_PX, _FOREIGN_RIM_PX), np.uint8)
        return cv2.dilate(foreign, rim).astype(np.bool_)


def _followed(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    uv: NDArray[np.float32],
    guess_uv: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Follow points (n, 2) px from one picture to another; return where they are, if found."""
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        before,
        after,
        uv,
        guess_uv.copy(),
        winSize=(21, 21),
        maxLevel=4,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return there.astype(np.float32), found[:, 0] > 0


def _corners(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the corners (n, 2) px of a picture (H, W)."""
    corners = cv2.goodFeaturesToTrack(grey, _CORNERS, _CORNER_QUALITY, _CORNER_PX)
    return np.zeros((0, 2), np.float32) if corners is None else corners[:, 0].astype(np.float32)


def _with_depth(
    picture: Picture, uv: NDArray[np.float32] | FloatArray
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Say which points (n, 2) px have depth, and where those are: (m, 3) m in the camera."""
    height, width = picture.depth_m.shape
    u, v = np.rint(uv).astype(np.int64).T
    z = picture.depth_m[np.clip(v, 0, height - 1), np.clip(u, 0, width - 1)]
    known = np.isfinite(z) & (z > 0)
    return known, picture.camera.unproject(np.column_stack([uv, z])[known])


def _agreed(xyz: FloatArray, uv: FloatArray, camera: Camera) -> FloatArray | None:
    """Return the motion (4, 4) that most points (n, 3) m, now seen at (n, 2) px, agree on."""
    if len(xyz) < _LEAST_CORNERS:
        return None
    K = camera.K
    solved, turn, shift, inliers = cv2.solvePnPRansac(
        xyz, uv, K, None, reprojectionError=_REPROJECTION_PX, flags=cv2.SOLVEPNP_EPNP
    )
    if not solved or inliers is None or len(inliers) < _LEAST_CORNERS:
        return None
    chosen = inliers[:, 0]
    turn, shift = cv2.solvePnPRefineLM(xyz[chosen], uv[chosen], K, None, turn, shift)
    T_camera_key = make_transform(cv2.Rodrigues(turn)[0], shift[:, 0])
    return inverse(T_camera_key) if np.isfinite(T_camera_key).all() else None


def _rigid(T: FloatArray) -> FloatArray:
    """Return the nearest rigid transform; the dense way's rotations drift off."""
    U, _, Vh = np.linalg.svd(T[:3, :3])
    return make_transform(U @ Vh, T[:3, 3])


def _open3d_picture(grey: NDArray[np.float32], depth: NDArray[np.float32]) -> Any:
    o3d = _open3d()
    picture = o3d.geometry.RGBDImage()
    picture.color, picture.depth = o3d.geometry.Image(grey), o3d.geometry.Image(depth)
    return picture


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
