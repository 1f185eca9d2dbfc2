"""Record what a camera sees, with exact tracks of points fixed to bodies.

Points are drawn on the surfaces of objects, of the robot and of the table, and carried along by
their bodies. This reads the simulator's truth: it makes training data, and drives nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mu0_core import se3
from mu0_core.config import option, validate
from mu0_core.episode_captions import Caption
from mu0_core.episode_writer import EpisodeOptions, Recording, write_episode
from mu0_sim.cameras import CameraFrame
from mu0_sim.simulation import Simulation
from mu0_sim.truth import BodyPoints

FloatArray = NDArray[np.float64]

_DRAWN_PER_KEPT = 4
_LEAST_SEEN_SHARE = 1.0 / 3.0
_DEPTH_TOLERANCE_M = 0.01
_MOVING_M = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class PointBudget:
    """Say how many points are tracked, at most."""

    per_object: int = option(64, description="Points on each object", low=1, high=1024)
    gripper: int = option(48, description="Points on the gripper's links", low=0, high=1024)
    arm: int = option(24, description="Points on the arm's links", low=0, high=1024)
    static: int = option(32, description="Points on the table", low=0, high=1024)

    def __post_init__(self) -> None:
        validate(self)


class TrackedTruth(Protocol):
    """Show bodies and their surfaces, as `mu0_sim.truth.Truth` does."""

    @property
    def objects(self) -> Mapping[str, object]:
        """By name of its body, what can be moved."""

    @property
    def static(self) -> Sequence[str]:
        """Names of bodies that rest."""

    @property
    def gripper_links(self) -> Sequence[str]:
        """Names of the gripper's bodies."""

    @property
    def arm_links(self) -> Sequence[str]:
        """Names of the arm's bodies."""

    @property
    def T_world_body(self) -> Mapping[str, FloatArray]:  # noqa: N802
        """Poses (4, 4) of all these bodies."""

    def sample_surface(
        self, bodies: Sequence[str], n: int, rng: np.random.Generator
    ) -> BodyPoints:
        """Draw points on bodies."""


class TrackedScene(Protocol):
    """Be what is recorded."""

    @property
    def seed(self) -> int:
        """Of the choice of points."""

    def truth(self) -> TrackedTruth:
        """Return where everything is."""


class EpisodeRecorder:
    """Collect the frames of one episode; an observer of `mu0_sim.demonstrations.play`."""

    def __init__(self, budget: PointBudget) -> None:
        self._budget = budget
        self._groups: list[tuple[BodyPoints, int]] = []
        self._frames: list[CameraFrame] = []
        self._tracks: list[list[FloatArray]] = []

    def on_reset(self, simulation: TrackedScene) -> None:
        """Begin an episode: choose points on the bodies, by the scene's seed."""
        truth = simulation.truth()
        rng = np.random.default_rng(simulation.seed)
        wanted: list[tuple[tuple[str, ...], int]] = [
            *(((name,), self._budget.per_object) for name in sorted(truth.objects)),
            (tuple(truth.gripper_links), self._budget.gripper),
            (tuple(truth.arm_links), self._budget.arm),
            (tuple(truth.static), self._budget.static),
        ]
        self._groups = [
            (truth.sample_surface(bodies, _DRAWN_PER_KEPT * n, rng), n)
            for bodies, n in wanted
            if n > 0 and bodies
        ]
        self._frames, self._tracks = [], []

    def on_joints(self, simulation: Simulation) -> None:
        """Ignore joints: an episode has none."""

    def on_camera(self, frame: CameraFrame, simulation: TrackedScene) -> None:
        """Keep a picture, and where the points are."""
        poses = simulation.truth().T_world_body
        self._frames.append(frame)
        self._tracks.append([points.xyz_world(poses) for points, _ in self._groups])

    def recording(self) -> Recording:
        """Return what was collected, with the points that were seen enough."""
        tracks, visible, cluster_ids = [], [], []
        n_bodies = 0
        for group, (points, n) in enumerate(self._groups):
            xyz_world = np.stack([step[group] for step in self._tracks])
            seen = np.stack(
                [_visible(frame, xyz) for frame, xyz in zip(self._frames, xyz_world, strict=True)]
            )
            keep = np.flatnonzero(seen.mean(axis=0) >= _LEAST_SEEN_SHARE)[:n]
            tracks.append(xyz_world[:, keep])
            visible.append(seen[:, keep])
            cluster_ids.append(n_bodies + points.body_index[keep])
            n_bodies += len(points.bodies)
        tracks_world = np.concatenate(tracks, axis=1)
        travel = np.linalg.norm(tracks_world - tracks_world[:1], axis=-1).max(axis=0)
        T_world_camera = np.stack([frame.T_world_camera for frame in self._frames])
        return Recording(
            images=np.stack([frame.rgb for frame in self._frames]),
            depth=np.stack([frame.depth_m for frame in self._frames]),
            K=self._frames[0].camera.K,
            T_camera_world=se3.inverse(T_world_camera),
            stamps=np.array([frame.time_s for frame in self._frames]),
            tracks_xyz_world=tracks_world,
            visible=np.concatenate(visible, axis=1),
            moving=travel > _MOVING_M,
            cluster_ids=np.concatenate(cluster_ids),
        )


def write_demonstration(
    path: Path,
    recording: Recording,
    instruction: str,
    options: EpisodeOptions,
    *,
    skills: tuple[str, ...],
    provenance: Mapping[str, Any],
) -> None:
    """Write an episode in which a robot does one thing from the first picture to the last.

    Args:
        path: Its folder.
        recording: From `EpisodeRecorder.recording`.
        instruction: What is done, in words.
        options: Of the traces.
        skills: Labels of what is done.
        provenance: Where it comes from.
    """
    caption = Caption(
        start=0,
        end=recording.n_frames - 1,
        instructions=(instruction,),
        skill_labels=skills,
        embodiment_type="robot_gripper",
    )
    write_episode(
        path,
        recording,
        options,
        captions=[caption],
        description=instruction,
        provenance=dict(provenance),
    )


def _visible(frame: CameraFrame, xyz_world: FloatArray) -> NDArray[np.bool_]:
    """Return which points (n,) lie on the nearest surface of their pixel."""
    T_camera_world = se3.inverse(frame.T_world_camera)
    uvz = frame.camera.project(se3.transform_points(T_camera_world, xyz_world))
    height, width = frame.depth_m.shape
    u, v = np.rint(np.nan_to_num(uvz[:, :2], nan=-1.0)).astype(np.int64).T
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    surface_m = np.full(len(uvz), np.nan)
    surface_m[inside] = frame.depth_m[v[inside], u[inside]]
    return inside & (uvz[:, 2] < surface_m + _DEPTH_TOLERANCE_M)
