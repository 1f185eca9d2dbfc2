"""Own `extract.json`: what an episode's own format loses, beside it in the same folder.

version, source        what made the episode, from what
frame_rate_hz, stamps_s, frames
                       when each frame was taken, which picture of the recording it is
backends, config       how it was made
points                 for each point id: entity, robot frame it is fixed to, group (points of
                       one group were proposed in one frame), spans of frames in which it was
                       seen (first and last, inclusive)
metres_per_step        for each slot and step of `traj`: the longest way of a point in it, m
figures                counts, times of stages
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_perception.extract.tracks import Tracks

SIDECAR_FILE = "extract.json"
SIDECAR_VERSION = 1


def write_sidecar(folder: Path, content: dict[str, Any]) -> None:
    """Write the file into the folder of an episode."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    temporary = folder / f"{SIDECAR_FILE}.tmp"
    temporary.write_text(text + "\n", "utf-8")
    temporary.replace(folder / SIDECAR_FILE)


def read_sidecar(folder: Path) -> dict[str, Any]:
    """Read the file of an episode; empty if it has none."""
    path = folder / SIDECAR_FILE
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def point_records(tracks: Tracks, robot: dict[int, str]) -> list[dict[str, Any]]:
    """Return what is known of each point, by its id."""
    return [
        {
            "entity": int(tracks.cluster[i]),
            "robot_frame": robot.get(int(tracks.cluster[i])),
            "group": int(tracks.born[i]),
            "seen": spans(tracks.visible[:, i]),
        }
        for i in range(tracks.n)
    ]


def spans(mask: NDArray[np.bool_]) -> list[list[int]]:
    """Return first and last index, inclusive, of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [[int(a), int(b) - 1] for a, b in zip(edges[::2], edges[1::2], strict=True)]


def metres_per_step(folder: Path, camera: Camera) -> list[list[float]]:
    """Return for each slot the longest way (m) of a point in each step of its future.

    Args:
        folder: Of an episode.
        camera: Its intrinsics.
    """
    samples = folder / "samples"
    if not (samples / "offsets.npy").exists():
        return []
    offsets = np.load(samples / "offsets.npy")
    traj = np.load(samples / "traj.npy", mmap_mode="r")
    valid = np.load(samples / "valid_steps.npy", mmap_mode="r")
    ways = []
    for a, b in pairwise(offsets):
        n_steps = int(valid[a:b].sum(axis=1).max())
        uvz = traj[a:b, :n_steps].astype(np.float64)
        uvz[~valid[a:b, :n_steps]] = np.nan
        length = np.linalg.norm(np.diff(camera.unproject(uvz), axis=1), axis=-1)
        ways.append(np.nanmax(np.nan_to_num(length, nan=0.0), axis=0).round(4).tolist())
    return ways
