"""Command line that checks episodes: `ros2 run mu0_perception validate PATH ...`.

A path is an episode or a folder with episodes. All faults are told, those of `extract.json` too.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mu0_core.episode_validator import Fault, validate_episode
from mu0_perception.extract.sidecar import SIDECAR_FILE, SIDECAR_VERSION, read_sidecar


def episodes_at(path: Path) -> list[Path]:
    """Return the episode at a path, or those in the folders below it."""
    if (path / "images.npy").exists() or not path.is_dir():
        return [path]
    folders = (p.parent for p in path.rglob("images.npy"))
    # A leading dot, of any folder above, marks what is not finished.
    return sorted(
        folder
        for folder in folders
        if not any(part.startswith(".") for part in folder.relative_to(path).parts)
    )


def faults_of(path: Path) -> list[Fault]:
    """Return what is wrong with an episode and its sidecar, if it has one."""
    faults = validate_episode(path)
    try:
        sidecar = read_sidecar(path)
        texts = _sidecar_faults(path, sidecar) if sidecar else []
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        texts = [f"not readable, or not with the arrays beside it: {error!r}"]
    return faults + [Fault("sidecar", text, SIDECAR_FILE) for text in texts]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print all faults, then a summary as JSON; return 1 if there are any."""
    parser = argparse.ArgumentParser(prog="validate", description="Check episodes.")
    parser.add_argument("paths", nargs="+", type=Path, help="episodes, or folders with episodes")
    given = parser.parse_args(arguments)
    checked = {
        episode: faults_of(episode) for path in given.paths for episode in episodes_at(path)
    }
    for episode, faults in checked.items():
        sys.stdout.writelines(f"{episode}: {fault}\n" for fault in faults)
        if not faults:
            sys.stdout.write(f"{episode}: no faults\n")
    faulty = sum(bool(faults) for faults in checked.values())
    sys.stdout.write(json.dumps({"episodes": len(checked), "faulty": faulty}) + "\n")
    return int(faulty > 0 or not checked)


def _sidecar_faults(path: Path, sidecar: dict[str, Any]) -> list[str]:
    """Compare the sidecar with the arrays beside it."""
    if sidecar.get("version") != SIDECAR_VERSION:
        return [f"version {sidecar.get('version')}, expected {SIDECAR_VERSION}"]
    faults = []
    stamps = path / "stamps.npy"
    if stamps.exists() and not np.array_equal(np.load(stamps), sidecar["stamps_s"]):
        faults.append("stamps_s: not those of stamps.npy")
    ids_file = path / "samples/point_ids.npy"
    if not ids_file.exists():
        return faults
    ids, offsets = np.load(ids_file), np.load(path / "samples/offsets.npy")
    frames = np.repeat(np.load(path / "samples/frame_indices.npy"), np.diff(offsets))
    if len(ids) and ids.max() >= len(sidecar["points"]):
        return [*faults, f"points: {len(sidecar['points'])}, but rows name point {ids.max()}"]
    seen = np.zeros((len(sidecar["points"]), len(sidecar["stamps_s"])), np.bool_)
    for i, point in enumerate(sidecar["points"]):
        for first, last in point["seen"]:
            seen[i, first : last + 1] = True
    visible = np.load(path / "samples/visibs.npy") > 0.5
    different = int(np.count_nonzero(seen[ids, frames] != visible))
    if different:
        faults.append(f"points: seen differs from visibs.npy in {different} rows")
    return faults


if __name__ == "__main__":
    sys.exit(main())
