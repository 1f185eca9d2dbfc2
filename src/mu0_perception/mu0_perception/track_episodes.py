"""Track keypoints in recordings as live: `ros2 run mu0_perception track_episodes "demos/*"`.

Each episode gets `keypoints.npz` beside its pictures, which action experts are trained with. The
tracker is the one that serves, with the same defaults.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mu0_core.config import add_arguments, from_namespace, option, validate
from mu0_core.embodiment import FixedPoints, load_embodiment
from mu0_core.episode import Episode, read_episode
from mu0_core.errors import EpisodeError, Mu0Error
from mu0_core.folders import matching_folders
from mu0_core.keypoint_file import KEYPOINT_FILE, write_keypoints
from mu0_core.se3 import inverse
from mu0_core.shipped_robots import embodiment_file
from mu0_core.traces import Keypoints
from mu0_perception.following import NS_PER_S
from mu0_perception.frame import RgbdFrame
from mu0_perception.live_tracker import GripperKeypoints, LiveTracker, LiveTrackerConfig

_STATES = Path("robot") / "states.npz"
_PERIOD_S = 0.1  # between pictures of episodes that do not tell


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackConfig:
    """Say what is tracked in which episodes."""

    robot: str = option(
        "",
        description="Whose gripper is followed: name of a shipped one, path of an embodiment "
        "file, or none; empty: the one that the episode names",
    )
    again: bool = option(False, description="Also track episodes that have keypoints")

    def __post_init__(self) -> None:
        validate(self)


def track_episode(episode: Episode, robot: str = "") -> list[Keypoints]:
    """Follow keypoints through an episode as the node does through live pictures.

    Args:
        episode: With depth and cameras.
        robot: As in TrackConfig.

    Raises:
        EpisodeError: Depth, cameras or the gripper's poses are missing.
        ConfigError: The robot is not known.
    """
    if episode.depth is None or episode.K is None:
        raise EpisodeError(f"{episode.path}: keypoints need depth and cameras.npz")
    points, T_world_gripper = _gripper(episode, robot)
    gripper = GripperKeypoints() if points is None else GripperKeypoints.of(points)
    tracker = LiveTracker(LiveTrackerConfig(gripper_keypoints=gripper))
    return [tracker.update(frame).keypoints for frame in _frames(episode, T_world_gripper)]


def _frames(episode: Episode, T_world_gripper: NDArray[np.float64] | None) -> Iterator[RgbdFrame]:
    """Yield the pictures as they would come live; 0 in the depth is unknown."""
    assert episode.depth is not None
    stamps_s = np.arange(episode.n_frames) * _PERIOD_S
    if episode.stamps is not None:
        stamps_s = episode.stamps
    T_camera_world = np.tile(np.eye(4), (episode.n_frames, 1, 1))
    if episode.T_camera_world is not None:
        T_camera_world = episode.T_camera_world
    for t in range(episode.n_frames):
        depth_m = np.array(episode.depth[t], np.float32)
        depth_m[~(np.isfinite(depth_m) & (depth_m > 0.0))] = np.nan
        T_camera_gripper = None
        if T_world_gripper is not None:
            T_camera_gripper = T_camera_world[t] @ T_world_gripper[t]
        yield RgbdFrame(
            stamp_ns=round(float(stamps_s[t]) * NS_PER_S),
            frame_id="camera",
            rgb=np.ascontiguousarray(episode.images[t]),
            depth_m=depth_m,
            camera=episode.camera(t),
            T_fixed_camera=inverse(T_camera_world[t]),
            T_camera_gripper=T_camera_gripper,
        )


def _gripper(
    episode: Episode, robot: str
) -> tuple[FixedPoints | None, NDArray[np.float64] | None]:
    """Return the points on the gripper and (T, 4, 4) where it was; None, None without a robot."""
    path = episode.path / _STATES
    if robot == "none" or not (robot or path.is_file()):
        return None, None
    try:
        with np.load(path) as file:
            states = {name: file[name] for name in ("robot", "frames", "T_world_frame")}
    except (OSError, ValueError, KeyError) as error:
        raise EpisodeError(
            f"{path}: does not tell where the gripper was, record anew or give --robot none: "
            f"{error}"
        ) from error
    chosen = embodiment_file(robot or str(states["robot"]))
    assert chosen is not None  # only "none" has none
    points = load_embodiment(chosen).keypoints
    frames = states["frames"].tolist()
    if points.frame not in frames:
        known = (
            f"only {', '.join(frames)}; see --robot" if frames else "nor any other; record anew"
        )
        raise EpisodeError(f"{path}: no frame {points.frame!r}, {known}")
    return points, states["T_world_frame"][:, frames.index(points.frame)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Track episodes; one that is refused ends the command, and the same one goes on there."""
    parser = argparse.ArgumentParser(prog="track_episodes", description=__doc__)
    parser.add_argument("episodes", nargs="+", help="folders of episodes, as globs")
    add_arguments(parser, TrackConfig)
    given = parser.parse_args(arguments)
    try:
        config = from_namespace(TrackConfig, given)
        folders = matching_folders(given.episodes)
        missing = [f for f in folders if config.again or not (f / KEYPOINT_FILE).is_file()]
        n_points: list[int] = []
        for folder in tqdm(missing, unit="episode", disable=None):
            rows = track_episode(read_episode(folder), config.robot)
            write_keypoints(folder, rows)
            n_points += [one.n for one in rows]
    except Mu0Error as error:
        parser.exit(2, f"track_episodes: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "track_episodes: stopped; the same command goes on from here\n")
    mean = f", {np.mean(n_points):.1f} keypoints in a picture" if n_points else ""
    sys.stdout.write(f"{len(missing)} of {len(folders)} episodes tracked{mean}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
