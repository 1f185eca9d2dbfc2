"""Read LeRobot data sets, versions 2.1 and 3: videos of one camera, timestamps and tasks.

Version 2.1 has a parquet file and a video for each episode; version 3 joins many episodes into
files, and its metadata say where each begins. Depth is not part of either.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from mu0_perception.extract.recording import (
    About,
    FloatArray,
    Found,
    Recording,
    Shot,
    SourceError,
)
from mu0_perception.extract.sources import SourceConfig
from mu0_perception.extract.sources.video import video_pictures, video_stamps
from mu0_perception.extract.state import fingerprint

NAME = "lerobot"
_INFO = "meta/info.json"


def matches(path: Path) -> bool:
    """Say whether a path is a LeRobot data set."""
    return (path / _INFO).is_file()


def find(path: Path, config: SourceConfig) -> list[Found]:
    """Name all episodes of a data set; one that is broken is named as a whole."""
    try:
        rows = _data_set(path).rows
    except SourceError:  # is said when it is opened: others beside it are extracted
        return [Found(name=path.name, path=path, source=NAME)]
    return [
        Found(name=f"{path.name}_episode_{index:06d}", path=path, source=NAME, key=str(index))
        for index in rows
    ]


def stamp(found: Found, config: SourceConfig) -> str:
    """Return a text that changes with an episode's video and metadata, but not with others'."""
    data = _data_set(found.path)
    row = _row(data, found)
    clip = _clip(found.path, data.info, row, _camera_key(data.info, config, found.path))
    told = repr((data.info["fps"], sorted(row.items())))
    return f"{fingerprint(clip.path)}, {hashlib.sha256(told.encode()).hexdigest()[:16]}"


def open_recording(found: Found, config: SourceConfig) -> Recording:
    """Open one episode of a data set."""
    return LeRobotEpisode(found, config)


@dataclass(frozen=True, slots=True)
class _DataSet:
    """Hold what a data set says of itself, and of each episode by its number."""

    info: dict[str, Any]
    rows: dict[int, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Clip:
    """Hold where the pictures of an episode are."""

    path: Path
    start_s: float
    end_s: float


class LeRobotEpisode:
    """Decode the video of one camera in one episode.

    Args:
        found: The data set, and in key the number of the episode.
        config: Which camera (color_topic holds its key), task.

    Raises:
        SourceError: The data set is of another version, or has several cameras and none is chosen.
    """

    def __init__(self, found: Found, config: SourceConfig) -> None:
        self.problem = ""
        data = _data_set(found.path)
        info, row = data.info, _row(data, found)
        camera = _camera_key(info, config, found.path)
        self._clip = _clip(found.path, info, row, camera)
        stamps = video_stamps(self._clip.path)
        half = 0.5 / float(info["fps"])
        own = (stamps > self._clip.start_s - half) & (stamps < self._clip.end_s - half)
        self._video_stamps = stamps[own]
        texts = (config.instruction,) if config.instruction else _tasks(row)
        self.about = About(
            name=found.name,
            path=found.path,
            source=NAME,
            instructions=texts,
            embodiment="robot_gripper",
            details={
                "episode_index": int(found.key),
                "camera": camera,
                "robot": info.get("robot_type"),
            },
        )

    def stamps_s(self) -> FloatArray:
        """Return the time of each picture from the beginning of the episode."""
        return self._video_stamps - self._clip.start_s

    def shots(self, indices: Sequence[int]) -> Iterator[Shot | None]:
        """Decode pictures."""
        stamps = self._video_stamps[list(indices)]
        pictures = video_pictures(self._clip.path, stamps, self._note)
        for stamp, rgb in zip(stamps - self._clip.start_s, pictures, strict=True):
            yield None if rgb is None else Shot(stamp_s=float(stamp), rgb=rgb)

    def frame_poses(self, stamps_s: FloatArray) -> dict[str, FloatArray]:
        """Return nothing: joints without a description say nothing of poses."""
        return {}

    def _note(self, problem: str) -> None:
        self.problem = self.problem or problem


def _data_set(path: Path) -> _DataSet:
    """Read the metadata of a data set, once for as long as they stay as they are."""
    return _read(path, fingerprint(path / "meta"))


@lru_cache(maxsize=4)
def _read(path: Path, meta_stamp: str) -> _DataSet:
    info = _info(path)
    try:
        rows = {int(row["episode_index"]): row for row in _episode_rows(path, info)}
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path}: metadata of episodes not readable: {error!r}") from error
    return _DataSet(info, rows)


def _row(data: _DataSet, found: Found) -> dict[str, Any]:
    row = data.rows.get(int(found.key)) if found.key else None
    if row is None:
        raise SourceError(f"{found.path}: has no episode {found.key!r}")
    return row


def _info(path: Path) -> dict[str, Any]:
    try:
        info: dict[str, Any] = json.loads((path / _INFO).read_text("utf-8"))
        version = str(info["codebase_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path / _INFO}: not readable: {error!r}") from error
    if not version.startswith(("v2.1", "v2.0", "v3")):
        raise SourceError(f"{path}: LeRobot data set of version {version}, expected v2.1 or v3.0")
    return info


def _is_joined(info: dict[str, Any]) -> bool:
    """Say whether files hold many episodes, as of version 3."""
    return str(info["codebase_version"]).startswith("v3")


def _episode_rows(path: Path, info: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the metadata say of each episode."""
    try:
        if not _is_joined(info):
            lines = (path / "meta/episodes.jsonl").read_text("utf-8").splitlines()
            return [json.loads(line) for line in lines if line.strip()]
        files = sorted((path / "meta/episodes").rglob("*.parquet"))
        tables = [parquet.read_table(file) for file in files]
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: metadata of episodes not readable: {error}") from error
    rows = []
    for table in tables:
        names = [n for n in table.column_names if not n.startswith("stats/")]
        rows += table.select(names).to_pylist()
    return rows


def _camera_key(info: dict[str, Any], config: SourceConfig, path: Path) -> str:
    """Choose the camera."""
    videos = [k for k, f in info["features"].items() if f.get("dtype") == "video"]
    asked = config.color_topic
    if asked in videos:
        return asked
    if asked or len(videos) != 1:
        problem = f"no camera {asked!r}" if asked else f"{len(videos)} cameras with video"
        raise SourceError(
            f"{path}: {problem}; choose one of {', '.join(videos) or 'none'} with "
            "--source.color_topic"
        )
    return videos[0]


def _clip(path: Path, info: dict[str, Any], row: dict[str, Any], camera: str) -> _Clip:
    """Return where the pictures of an episode are."""
    index = int(row["episode_index"])
    if _is_joined(info):
        place = f"videos/{camera}"
        file = info["video_path"].format(
            video_key=camera,
            chunk_index=int(row[f"{place}/chunk_index"]),
            file_index=int(row[f"{place}/file_index"]),
        )
        start, end = float(row[f"{place}/from_timestamp"]), float(row[f"{place}/to_timestamp"])
        return _Clip(path / file, start, end)
    file = info["video_path"].format(
        video_key=camera,
        episode_index=index,
        episode_chunk=index // int(info.get("chunks_size", 1000)),
    )
    return _Clip(path / file, 0.0, float(row["length"]) / float(info["fps"]))


def _tasks(row: dict[str, Any]) -> tuple[str, ...]:
    tasks = row.get("tasks") or ()
    return tuple(str(t) for t in (tasks if isinstance(tasks, Sequence) else (tasks,)) if str(t))
