"""Read LeRobot data sets, versions 2.0 to 3.0, from a folder.

States and actions must be joint positions in rad with the gripper last, as `export_lerobot` writes
them; a gripper in other units is brought to 0 = open, 1 = closed by the two ends that are given.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from mu0_core.errors import EpisodeError
from mu0_policy.demonstrations.alignment import check_even
from mu0_policy.demonstrations.demonstration import FRONT, Demonstration, Pictures
from mu0_policy.demonstrations.video import VideoPictures

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
_VERSIONS = ("v2.0", "v2.1", "v3.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotNames:
    """Say what a data set's features mean here.

    Attributes:
        cameras: Our names of cameras to the data set's, such as {"front": "top"}; those that are
            not named keep theirs.
        gripper_open: State and action of the open gripper.
        gripper_closed: Of the closed one.
    """

    cameras: Mapping[str, str]
    gripper_open: float = 0.0
    gripper_closed: float = 1.0


@dataclass(frozen=True, slots=True)
class _Part:
    """Say where one episode's rows and pictures are."""

    index: int
    tasks: tuple[str, ...]
    data: Path
    videos: Mapping[str, tuple[Path, float]]


class EncodedPictures:
    """Give pictures that are kept as PNG or JPEG in a table."""

    def __init__(self, name: str, encoded: Sequence[bytes]) -> None:
        self._name, self._encoded = name, encoded

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return a picture; raises an EpisodeError if it cannot be decoded."""
        raw = np.frombuffer(self._encoded[index], np.uint8)
        decoded = cv2.imdecode(raw, cv2.IMREAD_COLOR)
        if decoded is None:
            raise EpisodeError(f"{self._name}: picture {index} cannot be decoded")
        return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def is_lerobot(path: Path) -> bool:
    """Say whether a folder is such a data set."""
    return (path / "meta" / "info.json").is_file()


def read_lerobot(path: Path, names: LeRobotNames) -> Iterator[Demonstration]:
    """Read the episodes of a data set, one after the other.

    Raises:
        EpisodeError: The data set is of another version, or something is missing in it.
    """
    try:
        info = json.loads((path / "meta" / "info.json").read_text(encoding="utf-8"))
        version = info.get("codebase_version")
        if version not in _VERSIONS:
            known = ", ".join(_VERSIONS)
            raise EpisodeError(f"{path}: LeRobot version {version}, expected one of {known}")
        joints = _joints(path, info)
        parts = _parts_v3(path, info) if version == "v3.0" else _parts_v2(path, info)
        for part in parts:
            yield _demonstration(path, info, names, joints, part)
    except (OSError, ValueError, KeyError, IndexError, pyarrow.ArrowException) as error:
        raise EpisodeError(f"{path}: no complete LeRobot data set: {error!r}") from error


def _demonstration(
    path: Path, info: Any, names: LeRobotNames, joints: tuple[str, ...], part: _Part
) -> Demonstration:
    keys = _camera_keys(path, info, names)
    embedded = [key for key in keys.values() if info["features"][key]["dtype"] == "image"]
    table = parquet.read_table(
        part.data,
        columns=["timestamp", STATE, ACTION, *embedded],
        filters=[("episode_index", "=", part.index)],
    )
    name, fps = f"{path}, episode {part.index}", float(info["fps"])
    check_even(name, np.asarray(table["timestamp"], np.float64), fps)
    state, action = (np.array(table[key].to_pylist(), np.float64) for key in (STATE, ACTION))
    span = names.gripper_closed - names.gripper_open
    for array in (state, action):
        array[:, -1] = (array[:, -1] - names.gripper_open) / span
    action[:, -1] = np.clip(action[:, -1], 0.0, 1.0)
    pictures: dict[str, Pictures] = {}
    for camera, key in keys.items():
        if key in embedded:
            rows = [row["bytes"] for row in table[key].to_pylist()]
            pictures[camera] = EncodedPictures(f"{name}, {key}", rows)
        else:
            file, start_s = part.videos[key]
            pictures[camera] = VideoPictures(file, start_s, len(state), fps)
    return Demonstration(
        name=name,
        robot=info.get("robot_type") or "",
        instruction=part.tasks[0] if part.tasks else "",
        rate_hz=fps,
        joints=joints,
        gripper_joints=(),
        pictures=pictures,
        depth=None,
        q=state[:, :-1],
        gripper=state[:, -1],
        commands=action,
    )


def _joints(path: Path, info: Any) -> tuple[str, ...]:
    """Return the joints' names; the gripper's, the last, left out."""
    found = []
    for key in (STATE, ACTION):
        given = info["features"][key].get("names")
        if isinstance(given, dict):
            given = next(iter(given.values()), None)
        if not given or any(not isinstance(name, str) for name in given):
            raise EpisodeError(f"{path}: {key} has no names; joints cannot be told apart")
        found.append(tuple(name.removesuffix(".pos") for name in given))
    if found[0] != found[1]:
        raise EpisodeError(
            f"{path}: states and actions differ: {', '.join(found[0])}; {', '.join(found[1])}"
        )
    if "gripper" not in found[0][-1]:
        raise EpisodeError(f"{path}: expected the gripper last, got {found[0][-1]!r}")
    return found[0][:-1]


def _camera_keys(path: Path, info: Any, names: LeRobotNames) -> dict[str, str]:
    """Return our name of each camera with its key."""
    keys = {
        key.removeprefix(IMAGES): key
        for key, feature in info["features"].items()
        if feature["dtype"] in ("video", "image")
    }
    theirs = {their: ours for ours, their in names.cameras.items()}
    unknown = [their for their in theirs if their not in keys]
    if unknown:
        raise EpisodeError(f"{path}: no camera {unknown[0]!r}, only {', '.join(keys)}")
    found = {theirs.get(their, their): key for their, key in keys.items()}
    if FRONT not in found:
        raise EpisodeError(
            f"{path}: no camera {FRONT!r} among {', '.join(keys)}; say which one it is with "
            f"--camera_names {FRONT}=NAME"
        )
    return found


def _parts_v2(path: Path, info: Any) -> Iterator[_Part]:
    text = (path / "meta" / "episodes.jsonl").read_text(encoding="utf-8")
    for line in filter(None, text.splitlines()):
        row = json.loads(line)
        index = int(row["episode_index"])
        place = {"episode_chunk": index // int(info["chunks_size"]), "episode_index": index}
        videos = {
            key: (path / info["video_path"].format(video_key=key, **place), 0.0)
            for key, feature in info["features"].items()
            if feature["dtype"] == "video"
        }
        yield _Part(index, tuple(row["tasks"]), path / info["data_path"].format(**place), videos)


def _parts_v3(path: Path, info: Any) -> Iterator[_Part]:
    for file in sorted((path / "meta" / "episodes").glob("*/*.parquet")):
        table = parquet.read_table(file)
        wanted = [name for name in table.column_names if not name.startswith("stats/")]
        for row in table.select(wanted).to_pylist():
            videos = {}
            for key, feature in info["features"].items():
                if feature["dtype"] == "video":
                    place = {
                        name: int(row[f"videos/{key}/{name}"])
                        for name in ("chunk_index", "file_index")
                    }
                    video = path / info["video_path"].format(video_key=key, **place)
                    videos[key] = (video, float(row[f"videos/{key}/from_timestamp"]))
            place = {name: int(row[f"data/{name}"]) for name in ("chunk_index", "file_index")}
            data = path / info["data_path"].format(**place)
            yield _Part(int(row["episode_index"]), tuple(row["tasks"]), data, videos)
