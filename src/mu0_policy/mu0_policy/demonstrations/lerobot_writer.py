"""Write demonstrations as a LeRobot data set, version 3.0."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from mu0_core.errors import EpisodeError
from mu0_core.video import write_video
from mu0_policy.action_expert.actions import state_names
from mu0_policy.demonstrations.demonstration import Demonstration, Wanted, check
from mu0_policy.demonstrations.lerobot import ACTION, IMAGES, STATE

_CHUNK = 1000  # files in a folder
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_LOOKED_AT = 16  # pictures of an episode that count in the statistics


def write_lerobot(demonstrations: Iterable[Demonstration], path: Path) -> dict[str, int]:
    """Write a data set; it appears complete under its path, or not at all.

    Args:
        demonstrations: At least one; all of one robot, with the same cameras and rate.
        path: Folder to make.

    Returns:
        Numbers of episodes, frames and tasks.

    Raises:
        EpisodeError: The folder exists, a demonstration cannot be used, or they do not fit.
    """
    if path.exists():
        raise EpisodeError(f"{path}: exists; name another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        writer = _Writer(partial)
        for demonstration in demonstrations:
            writer.add(demonstration)
        numbers = writer.finish()
        partial.chmod(0o755)
        os.rename(partial, path)
        return numbers
    except OSError as error:
        raise EpisodeError(f"{path}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Writer:
    """Write episode after episode, then what describes them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first: Demonstration | None = None
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._n_frames = 0
        self._rows: dict[str, list[NDArray[np.float64]]] = {STATE: [], ACTION: []}
        self._colours: dict[str, list[NDArray[np.float64]]] = {}

    def add(self, shown: Demonstration) -> None:
        first = self._first or shown
        self._first = first
        cameras = tuple(first.pictures)
        check(shown, Wanted(joints=first.joints, cameras=cameras, rate_hz=first.rate_hz))
        if shown.robot != first.robot:
            raise EpisodeError(
                f"{shown.name}: robot: expected {first.robot!r}, got {shown.robot!r}"
            )
        for camera in cameras:
            size, wanted = shown.picture_size(camera), first.picture_size(camera)
            if size != wanted:
                raise EpisodeError(
                    f"{shown.name}: {camera} camera: pictures of {size[0]}x{size[1]} px, those "
                    f"before have {wanted[0]}x{wanted[1]}"
                )
        index, n = len(self._episodes), len(shown)
        place = {"chunk_index": index // _CHUNK, "file_index": index % _CHUNK}
        task = self._tasks.setdefault(shown.instruction, len(self._tasks))
        state = np.concatenate([shown.q, shown.gripper[:, None]], axis=1)
        self._write_rows(place, index, task, state, shown)
        episode: dict[str, Any] = {
            "episode_index": index,
            "tasks": [shown.instruction],
            "length": n,
            "dataset_from_index": self._n_frames,
            "dataset_to_index": self._n_frames + n,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            **{f"data/{name}": value for name, value in place.items()},
        }
        for camera in cameras:
            key, frames = f"{IMAGES}{camera}", shown.pictures[camera]
            file = self._folder / _VIDEO.format(video_key=key, **place)
            write_video(file, (frames[i] for i in range(n)), shown.rate_hz)
            episode |= {f"videos/{key}/{name}": value for name, value in place.items()}
            episode |= {
                f"videos/{key}/from_timestamp": 0.0,
                f"videos/{key}/to_timestamp": n / shown.rate_hz,
            }
            some = np.linspace(0, n - 1, min(n, _LOOKED_AT)).astype(int)
            pixels = np.stack([frames[int(i)][::4, ::4] for i in some]) / 255.0
            self._colours.setdefault(key, []).append(pixels.reshape(-1, 3))
        self._rows[STATE].append(state)
        self._rows[ACTION].append(shown.commands)
        self._episodes.append(episode)
        self._n_frames += n

    def _write_rows(
        self,
        place: dict[str, int],
        index: int,
        task: int,
        state: NDArray[np.float64],
        shown: Demonstration,
    ) -> None:
        n = len(shown)
        columns = {
            STATE: _lists(state),
            ACTION: _lists(shown.commands),
            "timestamp": pyarrow.array((np.arange(n) / shown.rate_hz).astype(np.float32)),
            "frame_index": pyarrow.array(np.arange(n)),
            "episode_index": pyarrow.array(np.full(n, index)),
            "index": pyarrow.array(np.arange(self._n_frames, self._n_frames + n)),
            "task_index": pyarrow.array(np.full(n, task)),
        }
        self._save(_DATA.format(**place), pyarrow.table(columns))

    def finish(self) -> dict[str, int]:
        """Write the descriptions and return the numbers."""
        first = self._first
        if first is None:
            raise EpisodeError("no demonstration was given")
        place = "meta/episodes/chunk-000/file-000.parquet"
        self._save(place, pyarrow.Table.from_pylist(self._episodes))
        self._save("meta/tasks.parquet", _task_table(list(self._tasks)))
        self._write_json("meta/stats.json", self._statistics())
        self._write_json("meta/info.json", self._info(first))
        return {
            "episodes": len(self._episodes),
            "frames": self._n_frames,
            "tasks": len(self._tasks),
        }

    def _info(self, first: Demonstration) -> dict[str, Any]:
        names = list(state_names(first.joints))
        rows = {"dtype": "float32", "shape": [len(names)], "names": names}
        features: dict[str, Any] = {STATE: rows, ACTION: rows}
        for camera in first.pictures:
            width, height = first.picture_size(camera)
            features[f"{IMAGES}{camera}"] = {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": "h264",
                    "video.pix_fmt": "yuv420p",
                    "video.is_depth_map": False,
                    "video.fps": first.rate_hz,
                    "video.channels": 3,
                    "has_audio": False,
                },
            }
        counters = ("frame_index", "episode_index", "index", "task_index")
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        features |= {name: {"dtype": "int64", "shape": [1], "names": None} for name in counters}
        rate = int(first.rate_hz) if float(first.rate_hz).is_integer() else first.rate_hz
        return {
            "codebase_version": "v3.0",
            "robot_type": first.robot or None,
            "total_episodes": len(self._episodes),
            "total_frames": self._n_frames,
            "total_tasks": len(self._tasks),
            "chunks_size": _CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": rate,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": _DATA,
            "video_path": _VIDEO,
            "features": features,
        }

    def _statistics(self) -> dict[str, Any]:
        numbers: dict[str, Any] = {
            key: _described(np.concatenate(rows)) for key, rows in self._rows.items()
        }
        for key, pixels in self._colours.items():
            described = _described(np.concatenate(pixels))
            numbers[key] = {
                name: values if name == "count" else [[[value]] for value in values]
                for name, values in described.items()
            }
        return numbers

    def _save(self, relative: str, table: pyarrow.Table) -> None:
        file = self._folder / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, file)

    def _write_json(self, relative: str, content: Any) -> None:
        text = json.dumps(content, indent=2)
        (self._folder / relative).write_text(text, encoding="utf-8")


def _lists(rows: NDArray[np.float64]) -> pyarrow.Array:
    """Return rows (n, a) as a column of float32 lists of fixed length."""
    flat = pyarrow.array(rows.astype(np.float32).ravel())
    return pyarrow.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def _task_table(tasks: list[str]) -> pyarrow.Table:
    """Return the tasks as pandas would write them, with the text as the index."""
    table = pyarrow.table({"task_index": np.arange(len(tasks)), "task": tasks})
    columns = [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_kind,
            "metadata": None,
        }
        for name, kind, numpy_kind in (
            ("task_index", "int64", "int64"),
            ("task", "unicode", "object"),
        )
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns}
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _described(rows: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return what LeRobot normalises with, of each column."""
    return {
        "min": rows.min(axis=0).tolist(),
        "max": rows.max(axis=0).tolist(),
        "mean": rows.mean(axis=0).tolist(),
        "std": rows.std(axis=0).tolist(),
        "count": [len(rows)],
    }
