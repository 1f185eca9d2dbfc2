"""Own what the live tracker takes in: one aligned colour and depth picture and its geometry."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.errors import ShapeError
from mu0_core.se3 import check_transform


def _identity() -> NDArray[np.float64]:
    return np.eye(4)


def _no_points() -> NDArray[np.float64]:
    return np.empty((0, 3))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RgbdFrame:
    """Hold one picture; arrays are not copied and must not be changed afterwards.

    Attributes:
        stamp_ns: Time of the picture, ns.
        frame_id: Its optical frame.
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32 m along the optical axis on the same pixels, NaN = none.
        camera: Intrinsics of both.
        T_fixed_camera: (4, 4) pose of the camera in a frame that does not move; the identity for
            a camera that stands still.
        T_camera_gripper: (4, 4) pose of the frame that robot keypoints are fixed to; None =
            unknown.
        clicked_xyz: (k, 3) m in the camera's optical frame, points newly asked for.
        mask: (H, W) bool, a region newly asked for; None = none.
    """

    stamp_ns: int
    frame_id: str
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    camera: Camera
    T_fixed_camera: NDArray[np.float64] = field(default_factory=_identity)
    T_camera_gripper: NDArray[np.float64] | None = None
    clicked_xyz: NDArray[np.float64] = field(default_factory=_no_points)
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        height, width = self.camera.height, self.camera.width
        faults = [
            _fault("colour image", self.rgb, (height, width, 3), np.dtype(np.uint8)),
            _fault("depth image", self.depth_m, (height, width), np.dtype(np.float32)),
        ]
        if self.mask is not None:
            faults.append(_fault("mask", self.mask, (height, width), np.dtype(np.bool_)))
        if found := [fault for fault in faults if fault]:
            raise ShapeError(
                f"frame {self.frame_id!r}, camera_info says {width}x{height} px: "
                + "; ".join(found)
            )
        check_transform(self.T_fixed_camera, "T_fixed_camera")
        if self.T_camera_gripper is not None:
            check_transform(self.T_camera_gripper, "T_camera_gripper")


def _fault(name: str, image: NDArray, shape: tuple[int, ...], dtype: np.dtype) -> str | None:
    """Say how an image differs from what the camera makes."""
    if image.shape == shape and image.dtype == dtype:
        return None
    size = f"{image.shape[1]}x{image.shape[0]} px" if image.ndim > 1 else str(image.shape)
    hint = "; publish depth aligned to colour" if name.startswith("depth") else ""
    return (
        f"{name}: expected {shape[1]}x{shape[0]} px {dtype} {shape}, "
        f"got {size} {image.dtype} {image.shape}{hint}"
    )
