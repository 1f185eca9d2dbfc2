"""Own what transforms that never change say of where a bag's cameras are fixed."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core import se3
from mu0_core.errors import CalibrationError, EpisodeError
from mu0_policy.camera_places import CameraPlace, Mount

FloatArray = NDArray[np.float64]


class StaticFrames:
    """Hold the frames of /tf_static.

    Args:
        messages: All that came on the topic; of a frame that came twice the last one counts.
        where: For messages.

    Raises:
        EpisodeError: A transform is none.
    """

    def __init__(self, messages: Iterable[Any], where: str) -> None:
        self._parents: dict[str, tuple[str, FloatArray]] = {}
        for transform in (t for message in messages for t in message.transforms):
            child, t, r = transform.child_frame_id, *_parts(transform.transform)
            try:
                T_parent_child = se3.transform_from_quat_xyzw(t, r)
            except CalibrationError as error:
                raise EpisodeError(f"{where}: {child}: {error}") from error
            self._parents[_plain(child)] = _plain(transform.header.frame_id), T_parent_child

    def place(self, camera: str, base: str, tool: str) -> CameraPlace | None:
        """Return where a camera's frame is fixed.

        Args:
            camera: Optical frame of the camera.
            base: Frame of the robot's base.
            tool: Frame of its tool.

        Returns:
            None where it is connected with neither by transforms that never change.
        """
        root, T_root_camera = self._up(_plain(camera))
        for mount, frame in ((Mount.BASE, base), (Mount.TOOL, tool)):
            other, T_root_mount = self._up(_plain(frame))
            if other == root:
                T_mount_camera = se3.inverse(T_root_mount) @ T_root_camera
                return CameraPlace(mount=mount, T_mount_camera=T_mount_camera)
        return None

    def _up(self, frame: str) -> tuple[str, FloatArray]:
        """Return the frame at the root of another, and T_root_frame (4, 4)."""
        T, seen = np.eye(4), {frame}
        while frame in self._parents:
            frame, T_parent_frame = self._parents[frame]
            if frame in seen:
                break  # a loop, which no TF tree has
            seen.add(frame)
            T = T_parent_frame @ T
        return frame, T


def _parts(transform: Any) -> tuple[list[float], list[float]]:
    t, r = transform.translation, transform.rotation
    return [t.x, t.y, t.z], [r.x, r.y, r.z, r.w]


def _plain(frame: str) -> str:
    return frame.lstrip("/")
