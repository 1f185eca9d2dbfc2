"""Own `keypoints.npz`: the keypoints of each picture of a recording, beside its pictures.

offsets     (T + 1,) int64, rows of picture t are offsets[t] to offsets[t + 1]
ids         (R,) uint32, the same number for the same point
uvz         (R, 3) float32 px, px, m along the optical axis, NaN = unknown
source      (R,) uint8, values of KeypointSource
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import EpisodeError
from mu0_core.traces import Keypoints

KEYPOINT_FILE = "keypoints.npz"


def write_keypoints(folder: Path, rows: Sequence[Keypoints]) -> None:
    """Write the file of T pictures into a folder, whole or not at all.

    Raises:
        EpisodeError: It cannot be written.
    """
    partial = None
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".keypoints.", delete=False) as file:
            partial = Path(file.name)
            np.savez(
                file,
                offsets=np.cumsum([0, *(one.n for one in rows)], dtype=np.int64),
                ids=np.concatenate([one.ids for one in rows]),
                uvz=np.concatenate([one.uvz() for one in rows]),
                source=np.concatenate([one.source for one in rows]),
            )
        partial.chmod(0o644)
        os.replace(partial, folder / KEYPOINT_FILE)
    except OSError as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        raise EpisodeError(f"{folder / KEYPOINT_FILE}: cannot be written: {error}") from error


def read_keypoints(folder: Path) -> list[NDArray[np.float32]] | None:
    """Return the keypoints of each picture, (n, 3) px, px, m; None if there is no file.

    Raises:
        EpisodeError: The file is damaged.
    """
    path = folder / KEYPOINT_FILE
    if not path.is_file():
        return None
    try:
        with np.load(path) as file:
            offsets, rows = file["offsets"], np.asarray(file["uvz"], np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise EpisodeError(f"{path}: damaged, make it again: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != 3 or not len(offsets) or offsets[-1] != len(rows):
        raise EpisodeError(
            f"{path}: damaged, make it again: {len(rows)} rows, {offsets[-1:]} told"
        )
    return np.split(rows, offsets[1:-1])
