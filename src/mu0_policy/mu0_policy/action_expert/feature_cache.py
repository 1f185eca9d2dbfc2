"""Own what training needs of each demonstration, computed once and kept on disk.

The frozen world model always gives the same features for the same picture, and serving sends them
in float16 as they are kept here: reading them back is exact. Pictures of the robot's own cameras
are kept at the size that is seen.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import EpisodeError
from mu0_policy.action_expert.eyes import small_picture
from mu0_policy.action_expert.policy import FEATURES, PLACES
from mu0_policy.camera_places import Mount
from mu0_policy.demonstrations.demonstration import FRONT, Demonstration

Extract = Callable[..., Mapping[str, NDArray[np.float16]]]
"""Turn a picture, an instruction, a depth picture and keypoints into features by name."""
_OF_POINTS = ("traces", PLACES)
_N_POINTS = "n_points"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """Hold one demonstration of n moments, ready for training.

    Attributes:
        features: By name, (n, tokens, width) float16.
        n_points: (n,) points of each moment that there are features of; the rest is padding.
        pictures: By camera, (n, SIDE, SIDE, 3) uint8.
        q: (n, j) rad.
        gripper: (n,) share.
        commands: (n, j + 1).
        T_base_camera: (4, 4) pose of the front camera; None = not known, or not on the base.
    """

    features: Mapping[str, NDArray[np.float16]]
    n_points: NDArray[np.int64]
    pictures: Mapping[str, NDArray[np.uint8]]
    q: NDArray[np.float64]
    gripper: NDArray[np.float64]
    commands: NDArray[np.float64]
    T_base_camera: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.q)

    def features_at(self, moment: int) -> dict[str, NDArray[np.float16]]:
        """Return the features of a moment by name, without padding."""
        found = {name: rows[moment] for name, rows in self.features.items()}
        return found | {name: found[name][: self.n_points[moment]] for name in _OF_POINTS}


def prepare(
    shown: Demonstration, cameras: tuple[str, ...], extract: Extract, identity: str, cache: Path
) -> Prepared:
    """Prepare a demonstration, from the cache where it is known.

    Args:
        shown: The demonstration, checked.
        cameras: Cameras beside the front one.
        extract: The world model.
        identity: What tells its features from those of others.
        cache: Folder of the cache.

    Raises:
        EpisodeError: A picture cannot be read, or the cache cannot be written.
    """
    folder = cache / _key(shown, cameras, identity)
    if not folder.is_dir():
        _compute(shown, cameras, extract, folder)
    try:
        features = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FEATURES}
        n_points = np.load(folder / f"{_N_POINTS}.npy")
        pictures = {
            name: np.load(folder / f"camera_{i}.npy", mmap_mode="r")
            for i, name in enumerate(cameras)
        }
    except (OSError, ValueError) as error:
        raise EpisodeError(f"{folder}: damaged; remove it, it is made again: {error}") from error
    place = shown.camera_places.get(FRONT)
    on_base = place is not None and place.mount is Mount.BASE
    return Prepared(
        features=features,
        n_points=n_points,
        pictures=pictures,
        q=shown.q,
        gripper=shown.gripper,
        commands=shown.commands,
        T_base_camera=place.T_mount_camera if place is not None and on_base else None,
    )


def _compute(
    shown: Demonstration, cameras: tuple[str, ...], extract: Extract, folder: Path
) -> None:
    """Compute and keep, whole or not at all."""
    rows: dict[str, list[NDArray[Any]]] = {name: [] for name in FEATURES}
    for i in range(len(shown)):
        depth = None if shown.depth is None else np.asarray(shown.depth[i], np.float32)
        rgb = np.ascontiguousarray(shown.pictures[FRONT][i])
        keypoints = None if shown.keypoints is None else shown.keypoints[i]
        found = extract(rgb, shown.instruction, depth, keypoints)
        for name in FEATURES:
            rows[name].append(found[name])
    rows[_N_POINTS] = [np.array(len(points)) for points in rows[PLACES]]
    most = max(map(len, rows[PLACES]))
    for name in _OF_POINTS:
        rows[name] = [np.pad(one, ((0, most - len(one)), (0, 0))) for one in rows[name]]
    for i, camera in enumerate(cameras):
        frames = shown.pictures[camera]
        rows[f"camera_{i}"] = [small_picture(np.asarray(frames[k])) for k in range(len(shown))]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial.", dir=folder.parent))
    except OSError as error:
        raise EpisodeError(f"{folder}: cannot be written: {error}") from error
    try:
        for name, values in rows.items():
            np.save(partial / f"{name}.npy", np.stack(values))
        os.rename(partial, folder)
    except OSError as error:
        if folder.is_dir():
            return  # another training was quicker
        raise EpisodeError(f"{folder}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _key(shown: Demonstration, cameras: tuple[str, ...], identity: str) -> str:
    """Summarise all that features and pictures depend on, without reading every picture."""
    digest = hashlib.blake2b(digest_size=12)
    for text in (identity, shown.name, shown.instruction, *FEATURES, *cameras):
        digest.update(text.encode() + b"\0")
    for camera in (FRONT, *cameras):
        for i in (0, len(shown) // 2, len(shown) - 1):
            digest.update(np.ascontiguousarray(shown.pictures[camera][i]).tobytes())
    for keypoints in shown.keypoints or ():
        digest.update(keypoints.tobytes())
    digest.update(shown.commands.tobytes())
    return digest.hexdigest()
