"""Own the making of one episode: the stages in their order, for one part of a recording."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import to_dict
from mu0_core.episode_statistics import acceleration
from mu0_core.episode_writer import Recording as EpisodeRecording
from mu0_core.episode_writer import write_episode
from mu0_core.se3 import inverse, transform_points
from mu0_perception.extract.captions import (
    Captioned,
    Chunk,
    Writer,
    make_chunk,
    write_captions,
)
from mu0_perception.extract.config import ExtractConfig
from mu0_perception.extract.depth_pose import Placed, placed_pictures
from mu0_perception.extract.entities import make_finder
from mu0_perception.extract.events import find_chunks
from mu0_perception.extract.motion import find_moving, moves_apart
from mu0_perception.extract.recording import Recording
from mu0_perception.extract.rest import find_resting
from mu0_perception.extract.rigid import split_entities
from mu0_perception.extract.robot_frames import (
    astray,
    distinct_frames,
    fix_to_frames,
    stays_on_robot,
    within_budget,
)
from mu0_perception.extract.robot_surface import surface_points
from mu0_perception.extract.sidecar import (
    SIDECAR_VERSION,
    metres_per_step,
    point_records,
    write_sidecar,
)
from mu0_perception.extract.store import PartFrames
from mu0_perception.extract.tracks import Tracks, joined, track

Report = Callable[[str], None]


@dataclass(slots=True)
class Clock:
    """Add up how long stages take: processor time of this process, s."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartOutcome:
    """Hold what became of a part.

    Attributes:
        written: Whether an episode was written; not where nothing moves.
        n_frames: Its pictures.
        n_points: Its points.
        duration_s: Time that it spans.
        losses: Pictures lost, by what.
        caption_failures: Why captions are missing.
        backends: What was used.
    """

    written: bool
    n_frames: int
    n_points: int
    duration_s: float
    losses: dict[str, int]
    caption_failures: tuple[str, ...]
    backends: dict[str, str]


def extract_part(
    recording: Recording,
    indices: NDArray[np.int64],
    path: Path,
    config: ExtractConfig,
    *,
    writer: Writer | None,
    work_folder: Path,
    clock: Clock,
    report: Report = lambda stage: None,
) -> PartOutcome:
    """Make the episode of one part of a recording.

    Args:
        recording: Where from.
        indices: (n,) its pictures.
        path: Folder of the episode.
        config: All stages.
        writer: Who writes captions; None for nobody.
        work_folder: Where a temporary folder may be made.
        clock: Gets the times of the stages.
        report: Is told which stage begins.
    """
    with (
        tempfile.TemporaryDirectory(dir=work_folder, prefix="part.") as temporary,
        ExitStack() as stack,
    ):
        report("read")
        with clock.stage("read and place"):
            pictures = placed_pictures(
                recording, indices, config.place, config.frames, Path(temporary)
            )
            placed = stack.enter_context(pictures)
        return _extract(recording, placed, path, config, writer, clock, report)


def _extract(
    recording: Recording,
    placed: Placed,
    path: Path,
    config: ExtractConfig,
    writer: Writer | None,
    clock: Clock,
    report: Report,
) -> PartOutcome:
    frames = placed.frames
    flat = placed.backends["depth"] == "flat"
    finder = make_finder(config.entities, config.tracks.entity, has_depth=not flat)
    backends = placed.backends | {
        "entities": finder.name,
        "tracks": "Lucas-Kanade with depth",
        "captions": writer.name if writer else "none",
    }
    report("track")
    with clock.stage("track"):
        tracks = track(frames, config.tracks, finder)
    report("motion")
    with clock.stage("motion"):
        found = _moving(recording, frames, tracks, config, flat=flat)
    outcome = PartOutcome(
        written=False,
        n_frames=len(frames),
        n_points=0,
        duration_s=float(frames.stamps_s[-1] - frames.stamps_s[0]),
        losses=placed.losses,
        caption_failures=(),
        backends=backends,
    )
    if found is None:
        return outcome
    tracks, moving, robot = found
    report("caption")
    with clock.stage("caption"):
        told = _captions(recording, frames, tracks, moving, config, writer)
    report("write")
    with clock.stage("write"):
        _write(recording, placed, path, config, tracks, moving, robot, told, backends, clock)
    return replace(outcome, written=True, n_points=tracks.n, caption_failures=told.failures)


def _moving(
    recording: Recording,
    frames: PartFrames,
    tracks: Tracks,
    config: ExtractConfig,
    *,
    flat: bool,
) -> tuple[Tracks, NDArray[np.bool_], dict[int, str]] | None:
    """Sort what moves into bodies, and add what rests; None if nothing moves."""
    follow = config.tracks.follow
    on_frames = config.robot.use and not flat
    names, poses = distinct_frames(recording.frame_poses(frames.stamps_s) if on_frames else {})
    tracks, fixed = fix_to_frames(tracks, frames, poses, config.robot, follow)
    surface, its_frames = surface_points(tracks, fixed, frames, poses, follow)
    on_surface = np.arange(tracks.n + surface.n) >= tracks.n
    tracks, fixed = joined(tracks, surface), np.concatenate([fixed, its_frames])
    # Without depth only colour would tell that a point stayed, and things share their colours.
    moving = find_moving(tracks, frames, config.motion, follow, trusted=flat | (fixed >= 0))
    moves = np.asarray(moving.any(axis=0))
    still = tracks.part(~moves)
    if not flat:  # its cells are no things
        moves &= (fixed >= 0) | ~moves_apart(tracks, moves, config.motion)
    moves[moves] = ~astray(tracks.cluster[moves], fixed[moves])
    moves[moves] = ~stays_on_robot(tracks.part(moves), fixed[moves])
    moves[moves] = within_budget(tracks.part(moves), fixed[moves], on_surface[moves], config.robot)
    if not moves.any():
        return None
    tracks, moving, fixed = tracks.part(moves), moving[:, moves], fixed[moves]
    if flat:  # cells are no things: only motion tells what belongs together
        tracks = replace(tracks, cluster=np.zeros_like(tracks.cluster))
    tracks, robot = split_entities(tracks, fixed, names, config.rigid)
    tracks = tracks.trimmed(fixed < 0)
    rest = find_resting(still, tracks, frames, config.rest, follow)
    moving = np.pad(moving, ((0, 0), (0, rest.n)))
    return joined(tracks, rest), moving, robot


def _captions(
    recording: Recording,
    frames: PartFrames,
    tracks: Tracks,
    moving: NDArray[np.bool_],
    config: ExtractConfig,
    writer: Writer | None,
) -> Captioned:
    if writer is None:
        return Captioned(captions=(), failures=())
    uvz = project_all(frames, tracks)
    chunks = [
        _chunk(frames, uvz, moving & tracks.visible, start, end)
        for start, end in find_chunks(acceleration(uvz, tracks.visible, moving), config.events)
    ]
    return write_captions(chunks, recording.about, writer)


def project_all(frames: PartFrames, tracks: Tracks) -> NDArray[np.float64]:
    """Return tracks (T, n, 3) px, px, m as the first camera sees them."""
    T_camera_world = inverse(frames.T_world_camera[0])
    return frames.camera.project(transform_points(T_camera_world, tracks.xyz_world))


def _chunk(
    frames: PartFrames, uvz: NDArray[np.float64], counts: NDArray[np.bool_], start: int, end: int
) -> Chunk:
    """Return what a writer sees of a chunk."""
    both = counts[start] & counts[end]
    moved = np.linalg.norm(uvz[end, :, :2] - uvz[start, :, :2], axis=-1)
    marked = both & (moved >= np.median(moved[both])) if both.any() else counts[start]
    images = cast(NDArray[np.uint8], frames.images)
    return make_chunk(images, frames.stamps_s, start, end, uvz[start, marked, :2])


def _write(
    recording: Recording,
    placed: Placed,
    path: Path,
    config: ExtractConfig,
    tracks: Tracks,
    moving: NDArray[np.bool_],
    robot: dict[int, str],
    told: Captioned,
    backends: dict[str, str],
    clock: Clock,
) -> None:
    frames, about = placed.frames, recording.about
    span_s = float(frames.stamps_s[-1] - frames.stamps_s[0])
    source: dict[str, Any] = {
        "kind": about.source,
        "name": about.name,
        "path": str(about.path),
        **about.details,
    }
    content = {
        "version": SIDECAR_VERSION,
        "source": source,
        "frame_rate_hz": (len(frames) - 1) / span_s,
        "stamps_s": frames.stamps_s.tolist(),
        "frames": placed.indices.tolist(),
        "backends": backends,
        "config": to_dict(config),
        "points": point_records(tracks, robot),
        "figures": {
            **placed.losses,
            **placed.figures,
            **{f"{name}_cpu_s": round(s, 3) for name, s in clock.seconds.items()},
        },
        "caption_failures": list(told.failures),
    }
    episode = EpisodeRecording(
        images=cast(NDArray[np.uint8], frames.images),
        depth=cast(NDArray[np.float32], frames.depth),
        K=frames.camera.K,
        T_camera_world=inverse(frames.T_world_camera),
        tracks_xyz_world=tracks.xyz_world,
        visible=tracks.visible,
        cluster_ids=tracks.cluster,
        moving=moving & np.isfinite(tracks.xyz_world[..., 0]),
        resting=~np.asarray(moving.any(axis=0)),
        stamps=frames.stamps_s,
    )
    write_episode(
        path,
        episode,
        config.episode,
        captions=told.captions,
        description="\n".join(about.instructions) or None,
        meta={"dataset": about.source, "episode_id": about.name},
        provenance={"program": "mu0_perception extract", "source": source, **backends},
        overwrite=True,
        finish=lambda folder: write_sidecar(
            folder, content | {"metres_per_step": metres_per_step(folder, frames.camera)}
        ),
    )
