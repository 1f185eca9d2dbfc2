"""Own the live tracker: pictures in, keypoints with their history out, one call a picture.

It puts selection, tracking, lifting to 3D and history together. Where the pictures and transforms
come from, and what is done with warnings and timings, is left to whoever holds it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.config import option, validate
from mu0_core.embodiment import FixedPoints
from mu0_core.se3 import transform_points
from mu0_core.traces import Keypoints
from mu0_perception.calibration_check import CalibrationConfig, GripperSight, check_gripper
from mu0_perception.entities import EntityConfig, find_entities
from mu0_perception.following import NS_PER_S, FollowConfig, follow, place_robot_points
from mu0_perception.frame import RgbdFrame
from mu0_perception.history import History, HistoryConfig
from mu0_perception.pointcloud import OrganisedCloud, organised_cloud, stride_for
from mu0_perception.points import POINT, Numbers, no_points, of
from mu0_perception.proposing import Proposer
from mu0_perception.selection import SelectionConfig, Source
from mu0_perception.tracking import FlowConfig, FlowTracker, Tracker

_OFF_IN_A_ROW = 3  # once may be a late transform of a moving arm


@dataclass(frozen=True, slots=True, kw_only=True)
class GripperKeypoints:
    """Say which points fixed to the gripper are followed."""

    frame: str = option("", description="Frame they are fixed to, such as tool0; empty for none")
    xyz: tuple[float, ...] = option((), description="x, y, z of each in turn", unit="m")

    def __post_init__(self) -> None:
        faults = []
        if len(self.xyz) % 3:
            faults.append(f"xyz: expected x, y, z of each point, got {len(self.xyz)} numbers")
        if self.xyz and not self.frame:
            faults.append("frame: expected the frame that xyz is given in, got an empty name")
        validate(self, *faults)

    @classmethod
    def of(cls, points: FixedPoints) -> Self:
        """Return the points of an embodiment."""
        return cls(frame=points.frame, xyz=tuple(float(x) for point in points.xyz for x in point))

    def points(self) -> NDArray[np.float64]:
        """Return (n, 3) m in `frame`."""
        return np.array(self.xyz, np.float64).reshape(-1, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTrackerConfig:
    """Configure the live tracker."""

    selection: SelectionConfig = field(default_factory=SelectionConfig)
    entity: EntityConfig = field(default_factory=EntityConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    follow: FollowConfig = field(default_factory=FollowConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    gripper_keypoints: GripperKeypoints = field(default_factory=GripperKeypoints)
    propose_every_s: float = option(
        2.0, description="Time between proposals of keypoints", unit="s", low=0.0
    )
    propose_below: float = option(
        0.75, description="Share of them left in sight that asks for new ones", low=0.0, high=1.0
    )
    propose_pause_s: float = option(
        0.3, description="Shortest time between proposals", unit="s", low=0.0
    )
    restart_below: float = option(
        0.25,
        description="Share of them left in sight below which this is another scene: the others "
        "are given up at once",
        low=0.0,
        high=1.0,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Hold one thing that is wrong but does not stop the tracker.

    Attributes:
        key: Equal for equal kinds of trouble.
        text: What is wrong, where, and what to do.
    """

    key: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Update:
    """Hold what one picture gave.

    Attributes:
        keypoints: In the picture's camera.
        warnings: What is wrong.
        timings_ms: Wall-clock time of each stage, ms.
    """

    keypoints: Keypoints
    warnings: tuple[Trouble, ...]
    timings_ms: dict[str, float]


class LiveTracker:
    """Follow keypoints from picture to picture.

    Args:
        config: All settings.
        tracker: What finds points in pictures; None for Lucas-Kanade.
        now_s: Monotonic clock for the timings.
    """

    def __init__(
        self,
        config: LiveTrackerConfig,
        tracker: Tracker | None = None,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._config = config
        self._tracker = FlowTracker(config.flow) if tracker is None else tracker
        self._now_s = now_s
        self._gripper_xyz = config.gripper_keypoints.points()
        self._numbers = Numbers()
        self._history = History(config.history)
        self._camera: Camera | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all keypoints and pictures; ids go on."""
        self._tracker.reset()
        self._history.clear()
        self._points = no_points()
        self._stamp_ns: int | None = None
        self._proposed_ns: int | None = None
        self._n_proposed = 0
        self._off_in_a_row = 0
        if Source.ROBOT in self._config.selection.sources and len(self._gripper_xyz):
            self._points = self._robot_rows()

    def update(self, frame: RgbdFrame) -> Update:
        """Take in a picture.

        A picture older than the one before, or of another camera, starts everything anew.
        """
        warnings: list[Trouble] = []
        timings: dict[str, float] = {}
        clock = _StopWatch(self._now_s, timings)
        warnings += self._continuity(frame)
        self._follow(frame)
        clock.stage("track")
        if frame.T_camera_gripper is None and of(self._points, Source.ROBOT).any():
            warnings.append(self._no_gripper(frame))
        warnings += self._propose(frame)
        clock.stage("propose")
        self._history.append(frame.stamp_ns, self._points["id"], self._points["xyz"])
        steps, valid = self._history.resampled(frame.camera, frame.T_fixed_camera)
        clock.stage("history")
        if not len(self._points):
            warnings.append(self._nothing(frame))
        keypoints = self._keypoints(frame, steps, valid)
        self._stamp_ns, self._camera = frame.stamp_ns, frame.camera
        return Update(keypoints=keypoints, warnings=tuple(warnings), timings_ms=timings)

    def _continuity(self, frame: RgbdFrame) -> list[Trouble]:
        """Start anew if this picture does not continue the one before."""
        if self._stamp_ns is None or self._camera is None:
            return []
        before, now = self._camera, frame.camera
        reason = ""
        if frame.stamp_ns < self._stamp_ns:
            back_s = (self._stamp_ns - frame.stamp_ns) / NS_PER_S
            reason = f"the clock jumped back by {back_s:.3f} s"
        elif (now.width, now.height) != (before.width, before.height):
            reason = (
                f"the picture was {before.width}x{before.height} px and is now "
                f"{now.width}x{now.height} px"
            )
        if not reason:
            return []
        self.reset()
        return [Trouble(key="restart", text=f"{reason}: keypoints and history start anew")]

    def _follow(self, frame: RgbdFrame) -> None:
        """Move the keypoints to this picture."""
        before_ns = frame.stamp_ns if self._stamp_ns is None else self._stamp_ns
        robot = of(self._points, Source.ROBOT)
        seen = follow(
            self._points[~robot],
            frame,
            self._tracker,
            self._config.follow,
            dt_s=(frame.stamp_ns - before_ns) / NS_PER_S,
        )
        self._points = np.concatenate([self._points[robot], seen])
        place_robot_points(self._points, self._gripper_xyz, frame, self._config.follow)
        if self._n_in_sight() < self._config.restart_below * self._n_proposed:
            chosen = of(self._points, Source.ENTITY) | of(self._points, Source.GRID)
            self._points = self._points[~chosen | self._points["visible"]]
            self._proposed_ns = None

    def _propose(self, frame: RgbdFrame) -> list[Trouble]:
        """Add keypoints where they are due, and look whether the gripper is where TF says."""
        config = self._config.selection
        proposer = Proposer(
            frame=frame,
            config=config,
            numbers=self._numbers,
            room=int(of(self._points, Source.ROBOT).sum()),
        )
        warnings = []
        for xyz in frame.clicked_xyz if Source.CLICKED in config.sources else ():
            self._points, refusal = proposer.with_click(self._points, xyz)
            if refusal:
                warnings.append(Trouble(key="click", text=refusal))
        if Source.MASK in config.sources and frame.mask is not None:
            self._points = proposer.with_mask(self._points, frame.mask)
        if not self._due(frame.stamp_ns):
            return warnings
        cloud = organised_cloud(
            frame.rgb,
            frame.depth_m,
            frame.camera,
            stride=stride_for(frame.camera, self._config.entity.working_width),
        )
        if Source.ENTITY in config.sources:
            entities = find_entities(cloud, self._config.entity)
            self._points = proposer.with_entities(self._points, entities)
        if Source.GRID in config.sources:
            self._points = proposer.with_grid(self._points)
        self._proposed_ns, self._n_proposed = frame.stamp_ns, self._n_in_sight()
        return warnings + self._check_calibration(frame, cloud)

    def _due(self, stamp_ns: int) -> bool:
        """Say whether to propose keypoints in this picture."""
        if self._proposed_ns is None:
            return True
        passed_s = (stamp_ns - self._proposed_ns) / NS_PER_S
        few = self._n_in_sight() < self._config.propose_below * max(self._n_proposed, 1)
        pause_s = self._config.propose_pause_s if few else self._config.propose_every_s
        return passed_s >= pause_s

    def _n_in_sight(self) -> int:
        return int(np.count_nonzero(self._points["visible"] & ~of(self._points, Source.ROBOT)))

    def _check_calibration(self, frame: RgbdFrame, cloud: OrganisedCloud) -> list[Trouble]:
        """Warn if gripper points float in the air in several pictures in a row."""
        if frame.T_camera_gripper is None or not len(self._gripper_xyz):
            return []
        sight: GripperSight = check_gripper(
            cloud,
            frame.camera,
            transform_points(frame.T_camera_gripper, self._gripper_xyz),
            self._config.calibration,
        )
        self._off_in_a_row = self._off_in_a_row + 1 if sight.off else 0
        if self._off_in_a_row < _OFF_IN_A_ROW:
            return []
        text = sight.sentence(self._config.gripper_keypoints.frame, frame.frame_id)
        return [Trouble(key="calibration", text=text)]

    def _no_gripper(self, frame: RgbdFrame) -> Trouble:
        gripper = self._config.gripper_keypoints.frame
        return Trouble(
            key="gripper",
            text=f"no transform from {gripper!r} to {frame.frame_id!r} at the picture's time: "
            f"{len(self._gripper_xyz)} gripper keypoints are left out",
        )

    def _nothing(self, frame: RgbdFrame) -> Trouble:
        share = 100.0 * float(np.isfinite(frame.depth_m).mean())
        names = ", ".join(source.value for source in self._config.selection.sources)
        return Trouble(
            key="nothing",
            text=f"no keypoints from {names}: {share:.0f} % of the picture has depth; "
            "check the depth camera's range and what stands in view",
        )

    def _robot_rows(self) -> NDArray[np.void]:
        """Make the rows of the gripper's keypoints; they get a place with the first picture."""
        rows = np.zeros(len(self._gripper_xyz), POINT)
        rows["id"] = self._numbers.ids(len(rows))
        rows["cluster"] = self._numbers.cluster()
        rows["source"] = Source.ROBOT.code
        return rows

    def _keypoints(
        self, frame: RgbdFrame, steps: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> Keypoints:
        """Pack the keypoints that have a place."""
        placed = np.isfinite(self._points["uv"]).all(axis=1)
        points = self._points[placed]
        return Keypoints(
            stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id,
            camera=frame.camera,
            arc_step=self._config.history.arc_step,
            ids=points["id"],
            cluster_ids=points["cluster"],
            source=points["source"],
            uv=points["uv"],
            z=points["z"],
            visible=points["visible"],
            history_uvz=steps[placed],
            history_valid=valid[placed],
        )


class _StopWatch:
    """Write down how long each stage took."""

    def __init__(self, now_s: Callable[[], float], timings_ms: dict[str, float]) -> None:
        self._now_s, self._timings_ms, self._last_s = now_s, timings_ms, now_s()

    def stage(self, name: str) -> None:
        """End a stage."""
        now_s = self._now_s()
        self._timings_ms[name] = 1e3 * (now_s - self._last_s)
        self._last_s = now_s
