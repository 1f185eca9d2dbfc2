"""Own where depth, intrinsics and camera poses come from: the recording, odometry, or networks.

What the recording has is used. Depth without poses is put together by RGB-D odometry. Pictures
alone need a depth network whose weights are on this machine; episodes without any depth, in which
all points lie one metre away, are made only when `flat` is asked for.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.config import option, validate
from mu0_core.errors import CalibrationError
from mu0_perception.extract.learned import DepthNetwork
from mu0_perception.extract.odometry import Odometry, OdometryConfig
from mu0_perception.extract.recording import Recording, Shot, SourceError
from mu0_perception.extract.resize import resized
from mu0_perception.extract.store import PartFrames, PictureFile

FloatArray = NDArray[np.float64]
_LEAST_CONTRAST = 2.0  # grey levels
_PLAUSIBLE_M = (0.05, 60.0)


class DepthFrom(StrEnum):
    """Name where depth comes from."""

    AUTO = "auto"
    RECORDED = "recorded"
    LEARNED = "learned"
    FLAT = "flat"


class PoseFrom(StrEnum):
    """Name where camera poses come from."""

    AUTO = "auto"
    RECORDED = "recorded"
    ODOMETRY = "odometry"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthPoseConfig:
    """Say where depth and poses come from."""

    depth: DepthFrom = option(
        DepthFrom.AUTO, description="Source of depth; auto: recorded, else learned"
    )
    pose: PoseFrom = option(
        PoseFrom.AUTO, description="Source of camera poses; auto: recorded, else odometry"
    )
    depth_model: str = option(
        "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf",
        description="Depth network: a folder, or a name in the local cache of transformers",
    )
    focal_px: float | None = option(
        None, description="Focal length where no calibration is recorded", unit="px", low=1.0
    )
    max_width: int = option(
        640, description="Width that larger pictures are reduced to", unit="px", low=64
    )
    odometry: OdometryConfig = field(default_factory=OdometryConfig)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """Hold the pictures of a part with depth and poses.

    Attributes:
        frames: The pictures.
        indices: (T,) which pictures of the recording they are.
        unreadable: Pictures that were left out.
        backends: What gave depth and poses.
        figures: Numbers for the log.
    """

    frames: PartFrames
    indices: NDArray[np.int64]
    unreadable: int
    backends: dict[str, str]
    figures: dict[str, float]


@contextlib.contextmanager
def placed_pictures(
    recording: Recording, indices: NDArray[np.int64], config: DepthPoseConfig, folder: Path
) -> Iterator[Placed]:
    """Read a part of a recording onto disk and give every picture depth and a pose.

    Args:
        recording: Where from.
        indices: (n,) rising, its pictures.
        config: Where depth and poses come from.
        folder: An empty folder; what is in it may be deleted afterwards.

    Raises:
        SourceError: Depth or calibration is missing, or the pictures show nothing.
    """
    depth_from, pose_from = choose_backends(recording, config)
    network = DepthNetwork(config.depth_model) if depth_from is DepthFrom.LEARNED else None
    files: list[PictureFile] = []
    try:
        yield _placed(recording, indices, config, folder, files, depth_from, pose_from, network)
    finally:
        for file in files:
            file.close()


def choose_backends(recording: Recording, config: DepthPoseConfig) -> tuple[DepthFrom, PoseFrom]:
    """Settle where depth and poses come from.

    Raises:
        SourceError: What was asked for is not recorded.
    """
    about = recording.about
    depth, pose = config.depth, config.pose
    if depth is DepthFrom.AUTO:
        depth = DepthFrom.RECORDED if about.has_depth else DepthFrom.LEARNED
    if depth is DepthFrom.RECORDED and not about.has_depth:
        raise SourceError(f"{about.path}: has no depth; choose --place.depth learned or flat")
    if pose is PoseFrom.AUTO:
        pose = PoseFrom.RECORDED if about.has_pose else PoseFrom.ODOMETRY
        if depth is DepthFrom.FLAT:
            pose = PoseFrom.FIXED  # without depth nothing tells motion of the camera
    if pose is PoseFrom.RECORDED and not about.has_pose:
        raise SourceError(f"{about.path}: has no camera poses; choose --place.pose odometry")
    return depth, pose


def _placed(
    recording: Recording,
    indices: NDArray[np.int64],
    config: DepthPoseConfig,
    folder: Path,
    files: list[PictureFile],
    depth_from: DepthFrom,
    pose_from: PoseFrom,
    network: DepthNetwork | None,
) -> Placed:
    stamps, poses, kept = [], [], []
    camera: Camera | None = None
    contrast = 0.0
    odometry = Odometry(config.odometry) if pose_from is PoseFrom.ODOMETRY else None
    for index, shot in zip(indices, recording.shots(indices.tolist()), strict=True):
        if shot is None:
            continue
        shot = resized(_with_camera(shot, config, depth_from, recording), config.max_width)
        assert shot.camera is not None
        depth_m = _depth(shot, depth_from, network)
        if camera is None:
            camera = shot.camera
            _check_depth(depth_m, recording)
            files += [
                PictureFile(folder / "images.raw", shot.rgb.shape, np.uint8),
                PictureFile(folder / "depth.raw", depth_m.shape, np.float32),
            ]
        elif not _same(camera, shot.camera):
            raise SourceError(
                f"{recording.about.path}: intrinsics or size of pictures change at "
                f"{shot.stamp_s:.3f} s; record one camera setting at a time"
            )
        files[0].append(shot.rgb)
        files[1].append(depth_m)
        stamps.append(shot.stamp_s)
        kept.append(index)
        contrast = max(contrast, float(shot.rgb[::8, ::8].std()))
        if odometry is not None:
            poses.append(odometry.add(shot.rgb, depth_m, shot.camera))
        elif pose_from is PoseFrom.RECORDED and shot.T_world_camera is not None:
            poses.append(shot.T_world_camera)
        else:
            poses.append(np.eye(4))
    if camera is None or len(kept) < 2:
        raise SourceError(f"{recording.about.path}: fewer than two readable pictures in this part")
    if contrast < _LEAST_CONTRAST:
        raise SourceError(f"{recording.about.path}: the pictures show nothing (all of one colour)")
    figures: dict[str, float] = {}
    if odometry is not None:
        poses, figures = odometry.finished()
    frames = PartFrames(files[0], files[1], np.array(stamps), camera, np.stack(poses))
    backends = {
        "depth": network.name if network else depth_from.value,
        "pose": "RGB-D odometry (corners and Open3D)" if odometry else pose_from.value,
    }
    return Placed(
        frames=frames,
        indices=np.array(kept, np.int64),
        unreadable=len(indices) - len(kept),
        backends=backends,
        figures=figures,
    )


def _with_camera(
    shot: Shot, config: DepthPoseConfig, depth_from: DepthFrom, recording: Recording
) -> Shot:
    """Return a picture with intrinsics."""
    if shot.camera is not None:
        return shot
    height, width = shot.rgb.shape[:2]
    focal = config.focal_px
    if focal is None and depth_from is not DepthFrom.RECORDED:
        focal = 1.0 * max(width, height)  # of a usual lens; depth is a guess as well
    if focal is None:
        raise CalibrationError(
            f"{recording.about.path}: no calibration of the colour camera is recorded; record its "
            "camera_info, or give its focal length with --place.focal_px"
        )
    K = np.array([[focal, 0.0, 0.5 * (width - 1)], [0.0, focal, 0.5 * (height - 1)], [0, 0, 1.0]])
    return Shot(
        stamp_s=shot.stamp_s,
        rgb=shot.rgb,
        depth_m=shot.depth_m,
        camera=Camera(K, width, height),
        T_world_camera=shot.T_world_camera,
    )


def _depth(shot: Shot, depth_from: DepthFrom, network: DepthNetwork | None) -> NDArray[np.float32]:
    """Return the depth (H, W) of a picture."""
    if network is not None:
        return network.depth(shot.rgb)
    if depth_from is DepthFrom.FLAT or shot.depth_m is None:
        return np.ones(shot.rgb.shape[:2], np.float32)
    return shot.depth_m


def _check_depth(depth_m: NDArray[np.float32], recording: Recording) -> None:
    """Refuse depth in a wrong unit; holes alone are no fault."""
    known = depth_m[np.isfinite(depth_m)]
    if not len(known):
        return
    median = float(np.median(known))
    low, high = _PLAUSIBLE_M
    if not low < median < high:
        raise SourceError(
            f"{recording.about.path}: the median depth is {median:.4g} m, so its unit is not what "
            "its encoding says; give it with --source.depth_unit_m (0.001 for millimetres)"
        )


def _same(a: Camera, b: Camera) -> bool:
    return (a.width, a.height) == (b.width, b.height) and np.allclose(a.K, b.K, atol=1e-3)
