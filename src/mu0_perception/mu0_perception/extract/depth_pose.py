"""Own where depth, intrinsics and camera poses come from: the recording, odometry, or networks.

What the recording has is used. Depth without poses is put together by RGB-D odometry, to which a
network that matches pictures adds motions that corners cannot follow. Pictures alone need a depth
network whose weights are on this machine; episodes without any depth, in which all points lie one
metre away, are made only when `flat` is asked for.
"""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.config import option, validate
from mu0_core.errors import CalibrationError
from mu0_perception.extract.frames import FrameConfig, longest_step_s
from mu0_perception.extract.learned import DepthNetwork, MatchNetwork, is_cached
from mu0_perception.extract.odometry import Odometry, OdometryConfig
from mu0_perception.extract.recording import LeftOutError, Recording, Shot, SourceError
from mu0_perception.extract.resize import resized
from mu0_perception.extract.store import PartFrames, PictureFile

FloatArray = NDArray[np.float64]
_KNOWN_MATCHERS = ("ETH-CVG/lightglue_superpoint", "magic-leap-community/superglue_indoor")
_LEAST_CONTRAST = 2.0  # grey levels
_PLAUSIBLE_M = (0.05, 60.0)
_CHECKED = 10  # pictures with depth whose median tells its unit
_MOST_LOST = 0.2  # of the pictures, by odometry
_STAMP_S = 1e-6  # by which stamps are rounded


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
    LEARNED = "learned"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthPoseConfig:
    """Say where depth and poses come from."""

    depth: DepthFrom = option(
        DepthFrom.AUTO, description="Source of depth; auto: recorded, else learned"
    )
    pose: PoseFrom = option(
        PoseFrom.AUTO,
        description="Source of camera poses; learned: odometry with a matching network; auto: "
        "recorded, else learned if --place.pose_model names a network, or depth is learned and "
        "one's weights are here, else odometry",
    )
    depth_model: str = option(
        "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf",
        description="Depth network: a folder, or a name in the local cache of transformers",
    )
    pose_model: str = option(
        "",
        description="Matching network: a folder, or a name in the local cache; empty: LightGlue "
        "or SuperGlue",
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
        losses: Pictures of the part that were lost, by what.
        backends: What gave depth, intrinsics and poses.
        figures: Numbers for the log.
    """

    frames: PartFrames
    indices: NDArray[np.int64]
    losses: dict[str, int]
    backends: dict[str, str]
    figures: dict[str, float]


@contextlib.contextmanager
def placed_pictures(
    recording: Recording,
    indices: NDArray[np.int64],
    config: DepthPoseConfig,
    frames: FrameConfig,
    folder: Path,
) -> Iterator[Placed]:
    """Read a part of a recording onto disk and give every picture depth and a pose.

    Where unreadable pictures leave a gap, the longest run beside one is kept.

    Args:
        recording: Where from.
        indices: (n,) rising, its pictures.
        config: Where depth and poses come from.
        frames: What is a gap, and how many pictures are enough.
        folder: An empty folder; what is in it may be deleted afterwards.

    Raises:
        LeftOutError: Too few pictures are readable, they show nothing, or odometry lost them.
        SourceError: Depth or calibration is missing or wrong.
    """
    reading = _Reading(recording, config, folder)
    try:
        yield reading.placed(indices, frames)
    finally:
        reading.close()


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
        learned = depth is DepthFrom.LEARNED and any(map(is_cached, _KNOWN_MATCHERS))
        if pose is PoseFrom.ODOMETRY and (config.pose_model or learned):
            pose = PoseFrom.LEARNED
        if depth is DepthFrom.FLAT:
            pose = PoseFrom.FIXED  # without depth nothing tells motion of the camera
    if pose is PoseFrom.RECORDED and not about.has_pose:
        raise SourceError(f"{about.path}: has no camera poses; choose --place.pose odometry")
    return depth, pose


class _Run:
    """Collect pictures that follow each other without a gap.

    Args:
        folder: A folder of its own; is made.
        odometry: What finds poses; None takes those of the pictures.
    """

    def __init__(self, folder: Path, odometry: Odometry | None) -> None:
        folder.mkdir()
        self._folder, self.odometry = folder, odometry
        self.files: list[PictureFile] = []
        self.indices: list[int] = []
        self.stamps_s: list[float] = []
        self.poses: list[FloatArray] = []
        self.contrast = 0.0

    def __len__(self) -> int:
        return len(self.indices)

    def add(
        self, index: int, shot: Shot, depth_m: NDArray[np.float32], T_world_camera: FloatArray
    ) -> None:
        """Add a picture."""
        assert shot.camera is not None
        if not self.files:
            self.files = [
                PictureFile(self._folder / "images.raw", shot.rgb.shape, np.uint8),
                PictureFile(self._folder / "depth.raw", depth_m.shape, np.float32),
            ]
        self.files[0].append(shot.rgb)
        self.files[1].append(depth_m)
        self.indices.append(index)
        self.stamps_s.append(shot.stamp_s)
        self.contrast = max(self.contrast, float(shot.rgb[::8, ::8].std()))
        if self.odometry is not None:
            T_world_camera = self.odometry.add(shot.rgb, depth_m, shot.camera)
        self.poses.append(T_world_camera)

    def close(self) -> None:
        """Let go of the files."""
        for file in self.files:
            file.close()

    def delete(self) -> None:
        """Make room for other runs."""
        self.close()
        shutil.rmtree(self._folder)


class _Reading:
    """Read the pictures of a part."""

    def __init__(self, recording: Recording, config: DepthPoseConfig, folder: Path) -> None:
        self._recording, self._config, self._folder = recording, config, folder
        self._depth_from, self._pose_from = choose_backends(recording, config)
        learned = self._depth_from is DepthFrom.LEARNED
        self._network = DepthNetwork(config.depth_model) if learned else None
        self._matcher: MatchNetwork | None = None
        if self._pose_from is PoseFrom.LEARNED:
            cached = next(filter(is_cached, _KNOWN_MATCHERS), _KNOWN_MATCHERS[0])
            self._matcher = MatchNetwork(config.pose_model or cached)
        self._runs: list[_Run] = []
        self._n_runs = 0
        self._camera: Camera | None = None
        self._intrinsics = "recorded"
        self._medians_m: list[float] = []

    def placed(self, indices: NDArray[np.int64], frames: FrameConfig) -> Placed:
        """Return the longest run of pictures."""
        stamps = self._recording.stamps_s()[indices]
        longest_s = max(longest_step_s(stamps, frames), float(np.diff(stamps).max(initial=0.0)))
        readable, problem = 0, ""
        self._recording.problem = ""  # that of an earlier part was told there
        for index, shot in zip(indices, self._recording.shots(indices.tolist()), strict=True):
            fault = self._fault_of(shot)
            if shot is None or fault:
                problem = problem or fault
                continue
            readable += 1
            self._add(int(index), shot, longest_s)
        run = max(self._runs, key=len, default=None)
        if run is None or len(run) < frames.min_frames:
            why = f"; what is wrong with the first: {problem}" if problem else ""
            raise LeftOutError(
                f"{self._recording.about.path}: of {len(indices)} pictures {readable} are "
                f"readable, and {len(run or ())} of those follow each other, fewer than "
                f"{frames.min_frames} (--frames.min_frames){why}"
            )
        losses = {
            "unreadable_pictures": len(indices) - readable,
            "cut_off_pictures": readable - len(run),
        }
        return self._finished(run, losses)

    def close(self) -> None:
        """Let go of all files."""
        for run in self._runs:
            run.close()

    def _fault_of(self, shot: Shot | None) -> str:
        """Say why a picture cannot be used; nothing if it can."""
        if shot is None:
            return self._recording.problem or "not readable"
        if self._depth_from is DepthFrom.RECORDED:
            if shot.depth_m is None:
                return "it has no depth"
            if shot.depth_m.shape != shot.rgb.shape[:2]:
                (h, w), (H, W) = shot.depth_m.shape, shot.rgb.shape[:2]
                return f"its depth has {w}x{h} pixels, its colour {W}x{H}"
        if self._pose_from is PoseFrom.RECORDED and shot.T_world_camera is None:
            return "its camera pose is not known"
        return ""

    def _add(self, index: int, shot: Shot, longest_s: float) -> None:
        """Add a picture to the last run, or to a new one behind a gap."""
        if self._depth_from is not DepthFrom.RECORDED:
            shot = replace(shot, depth_m=None)
        shot = resized(self._with_camera(shot), self._config.max_width)
        assert shot.camera is not None
        self._camera = self._camera or shot.camera
        if not _same(self._camera, shot.camera):
            raise SourceError(
                f"{self._recording.about.path}: intrinsics or size of pictures change at "
                f"{shot.stamp_s:.3f} s; record one camera setting at a time"
            )
        depth_m = self._depth(shot)
        if not self._runs or shot.stamp_s - self._runs[-1].stamps_s[-1] > longest_s + _STAMP_S:
            self._begin_run()
        pose = shot.T_world_camera if self._pose_from is PoseFrom.RECORDED else None
        self._runs[-1].add(index, shot, depth_m, np.eye(4) if pose is None else pose)

    def _begin_run(self) -> None:
        """Begin a run; of those before, the longest stays."""
        longest = max(self._runs, key=len, default=None)
        for run in self._runs:
            if run is not longest:
                run.delete()
        odometry = None
        if self._pose_from in (PoseFrom.ODOMETRY, PoseFrom.LEARNED):
            odometry = Odometry(self._config.odometry, self._matcher)
        new = _Run(self._folder / f"run{self._n_runs}", odometry)
        self._n_runs += 1
        self._runs = [new] if longest is None else [longest, new]

    def _with_camera(self, shot: Shot) -> Shot:
        """Return a picture with intrinsics."""
        if shot.camera is not None:
            return shot
        height, width = shot.rgb.shape[:2]
        focal, self._intrinsics = self._config.focal_px, "given"
        if focal is None and self._depth_from is not DepthFrom.RECORDED:
            # Of a usual lens; depth is a guess as well.
            focal, self._intrinsics = 1.0 * max(width, height), "guessed"
        if focal is None:
            raise CalibrationError(
                f"{self._recording.about.path}: no calibration of the colour camera is recorded; "
                "record its camera_info, or give its focal length with --place.focal_px"
            )
        K = np.diag([focal, focal, 1.0])
        K[:2, 2] = 0.5 * (width - 1), 0.5 * (height - 1)
        return replace(shot, camera=Camera(K, width, height))

    def _depth(self, shot: Shot) -> NDArray[np.float32]:
        """Return the depth (H, W) m of a picture."""
        if self._network is not None:
            depth_m = self._network.depth(shot.rgb)
        elif shot.depth_m is not None:
            depth_m = shot.depth_m
        else:
            depth_m = np.ones(shot.rgb.shape[:2], np.float32)  # flat was asked for
        known = depth_m[np.isfinite(depth_m)]
        if len(known) and len(self._medians_m) < _CHECKED:
            self._medians_m.append(float(np.median(known)))
            if len(self._medians_m) == _CHECKED:
                self._check_unit()
        return depth_m

    def _check_unit(self) -> None:
        """Refuse depth in a wrong unit; holes, or a picture close to a thing, are no fault."""
        median = float(np.median(self._medians_m))
        low, high = _PLAUSIBLE_M
        if not low < median < high:
            raise SourceError(
                f"{self._recording.about.path}: the median depth is {median:.4g} m, so its unit "
                "is not what its encoding says; give it with --source.depth_unit_m (0.001 for "
                "millimetres)"
            )

    def _finished(self, run: _Run, losses: dict[str, int]) -> Placed:
        """Check a run as a whole and return it."""
        path = self._recording.about.path
        if not self._medians_m:
            raise LeftOutError(f"{path}: the depth of {len(run)} pictures is empty")
        self._check_unit()
        if run.contrast < _LEAST_CONTRAST:
            raise LeftOutError(f"{path}: the pictures show nothing (all of one colour)")
        poses = run.poses
        figures: dict[str, float] = {}
        if run.odometry is not None:
            poses, figures = run.odometry.finished()
            lost = int(figures["odometry_lost_pictures"])
            losses |= {"odometry_lost_pictures": lost}
            if lost > _MOST_LOST * len(run):
                raise LeftOutError(
                    f"{path}: odometry did not find the pose of {lost} of {len(run)} pictures, "
                    f"more than {_MOST_LOST:.0%}; record the camera's TF, or say that it stood "
                    "still with --place.pose fixed"
                )
        assert self._camera is not None
        stamps_s, T_world_camera = np.array(run.stamps_s), np.stack(poses)
        return Placed(
            frames=PartFrames(run.files[0], run.files[1], stamps_s, self._camera, T_world_camera),
            indices=np.array(run.indices, np.int64),
            losses=losses,
            backends={
                "depth": self._network.name if self._network else self._depth_from.value,
                "intrinsics": self._intrinsics,
                "pose": self._poses_by() if run.odometry else self._pose_from.value,
            },
            figures=figures,
        )

    def _poses_by(self) -> str:
        """Name what odometry goes by."""
        if self._matcher is None:
            return "RGB-D odometry (corners and Open3D)"
        return f"RGB-D odometry (corners, Open3D and {self._matcher.name})"


def _same(a: Camera, b: Camera) -> bool:
    return (a.width, a.height) == (b.width, b.height) and np.allclose(a.K, b.K, atol=1e-3)
