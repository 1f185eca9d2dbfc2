"""Read episodes again: the simulator's recordings, released ones, and those made here."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from mu0_core.camera import Camera
from mu0_core.episode import Episode, read_episode
from mu0_core.errors import EpisodeError
from mu0_core.se3 import inverse
from mu0_perception.extract.recording import (
    About,
    FloatArray,
    Found,
    KnownEvent,
    Recording,
    Shot,
    SourceError,
)
from mu0_perception.extract.sources import SourceConfig

NAME = "episode"
_STATES = "robot/states.npz"  # as `ros2 run mu0_sim record --actions` writes it
_SAME_S = 1e-4


def matches(path: Path) -> bool:
    """Say whether a path is the folder of an episode."""
    return (path / "images.npy").is_file()


def find(path: Path, config: SourceConfig) -> list[Found]:
    """Name the recording of an episode."""
    return [Found(name=path.name, path=path, source=NAME)]


def open_recording(found: Found, config: SourceConfig) -> Recording:
    """Open an episode."""
    return EpisodeSource(found, config)


class EpisodeSource:
    """Read pictures, depth, cameras, words and joints; an episode's traces are not looked at.

    Args:
        found: The episode.
        config: Rate of episodes that do not say when their frames were taken; task.

    Raises:
        SourceError: It is no whole episode.
    """

    problem = ""

    def __init__(self, found: Found, config: SourceConfig) -> None:
        try:
            self._episode: Episode = read_episode(found.path)
        except EpisodeError as error:
            raise SourceError(str(error)) from error
        episode = self._episode
        self._stamps = (
            np.arange(episode.n_frames) / config.folder_rate_hz
            if episode.stamps is None
            else np.asarray(episode.stamps, np.float64)
        )
        chunks = [c for c in episode.captions if not c.source_chunk_ids]
        self.about = About(
            name=found.name,
            path=found.path,
            source=NAME,
            instructions=self._instructions(config),
            events=tuple(
                KnownEvent(
                    start_s=float(self._stamps[c.start]),
                    end_s=float(self._stamps[min(c.end, episode.n_frames - 1)]),
                    text=c.instructions[0],
                    skills=c.skill_labels or ("unknown",),
                )
                for c in chunks
            ),
            embodiment=chunks[0].embodiment_type if chunks else "unknown",
            has_depth=episode.depth is not None,
            has_pose=episode.T_camera_world is not None,
            details={"provenance": (episode.manifest or {}).get("provenance", {})},
        )

    def stamps_s(self) -> FloatArray:
        """Return the stamps of the frames, evenly spaced where none are stored."""
        return self._stamps

    def shots(self, indices: Sequence[int]) -> Iterator[Shot | None]:
        """Read pictures."""
        episode = self._episode
        for i in indices:
            depth = None
            if episode.depth is not None:
                depth = np.array(episode.depth[i], np.float32)
                depth[~(np.isfinite(depth) & (depth > 0.0))] = np.nan
            T = episode.T_camera_world
            camera: Camera | None = episode.camera(i) if episode.K is not None else None
            yield Shot(
                stamp_s=float(self._stamps[i]),
                rgb=np.array(episode.images[i]),
                depth_m=depth,
                camera=camera,
                T_world_camera=None if T is None else inverse(T[i]),
            )

    def frame_poses(self, stamps_s: FloatArray) -> dict[str, FloatArray]:
        """Return the robot's frames where the simulator recorded its joints, else nothing.

        Raises:
            SourceError: What it recorded is damaged.
        """
        path = self.about.path / _STATES
        if not path.is_file():
            return {}
        try:
            with np.load(path) as states:
                if "frames" not in states:  # an older recording
                    return {}
                names, T_world_frame = states["frames"], states["T_world_frame"]
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise SourceError(
                f"{path}: cannot be read: {error}; remove it, or record again"
            ) from error
        picture = np.searchsorted(self._stamps, np.asarray(stamps_s) - _SAME_S)
        return {str(name): T_world_frame[picture, i] for i, name in enumerate(names)}

    def _instructions(self, config: SourceConfig) -> tuple[str, ...]:
        if config.instruction:
            return (config.instruction,)
        lines = (self._episode.description or "").splitlines()
        return tuple(line.strip() for line in lines if line.strip())
