"""Own the writing of episodes: tracks, pictures and cameras to a folder, whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import ArrayLike, NDArray

from mu0_core.camera import Camera
from mu0_core.config import option, validate
from mu0_core.episode import (
    EXTRA_ROW_FILES,
    FORMAT_VERSION,
    MANIFEST_FILE,
    ROW_FILES,
)
from mu0_core.episode_captions import CAPTION_FILE, Caption, caption_texts
from mu0_core.episode_rows import FrameRows, View, frame_rows
from mu0_core.episode_statistics import acceleration, displacement, movement_statistics
from mu0_core.errors import EpisodeError
from mu0_core.se3 import check_transform, transform_points

_UNITS = {
    "traces": "x px, y px, z m in the camera of the row's frame",
    "depth": "m",
    "extrinsics": "world to camera, m",
    "stamps": "s",
    "arc_step": "image fractions and metres in one norm",
    "step_times": "frames",
    "acceleration": "px/frame^2 at the saved image size",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeOptions:
    """Say how tracks become traces."""

    arc_step: float = option(
        description="Distance between steps of the traces, image fractions and metres in one norm "
        "(0.05 in released data, about 0.01 for table-top scenes)",
        low=1e-4,
    )
    future_len: int = option(128, description="Steps of the future, the present included", low=2)
    history_len: int = option(32, description="Steps of the history, the present included", low=1)
    static_share: float = option(
        0.0,
        description="Share of the points that get rows also while they rest",
        low=0.0,
        high=1.0,
    )
    seed: int = option(0, description="Seed of the choice of resting points", low=0)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """Hold what an episode is made from; pictures and depth are kept by reference.

    Attributes:
        images: (T, H, W, 3) uint8 RGB.
        depth: (T, H, W) float, m along the optical axis; 0 or not finite where unknown.
        K: (3, 3) or (T, 3, 3) intrinsics, px.
        T_camera_world: (4, 4) or (T, 4, 4) world points to camera points.
        tracks_xyz_world: (T, n, 3) m; NaN before a point exists and after it ends.
        visible: (T, n) bool, seen in the picture.
        cluster_ids: (n,) int, the entity each point belongs to, over the whole episode.
        moving: (n,) or (T, n) bool, whether a point moves, at all or in that frame.
        stamps: (T,) s, increasing; None if not known.
    """

    images: NDArray[np.uint8]
    depth: NDArray[np.floating]
    K: NDArray[np.float64]
    T_camera_world: NDArray[np.float64]
    tracks_xyz_world: NDArray[np.float64]
    visible: NDArray[np.bool_]
    cluster_ids: NDArray[np.integer]
    moving: NDArray[np.bool_]
    stamps: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        faults = _layout_faults(self)
        if faults:
            raise EpisodeError("recording: " + "; ".join(faults))
        T, n = self.tracks_xyz_world.shape[:2]
        K = np.broadcast_to(np.asarray(self.K, np.float64), (T, 3, 3))
        pose = check_transform(self.T_camera_world, "T_camera_world")
        moving = np.broadcast_to(self.moving, (T, n))
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "T_camera_world", np.broadcast_to(pose, (T, 4, 4)))
        object.__setattr__(self, "moving", moving)
        faults = _value_faults(self)
        if faults:
            raise EpisodeError("recording: " + "; ".join(faults))

    @property
    def n_frames(self) -> int:
        """Number of frames T."""
        return len(self.images)

    def camera(self, frame: int) -> Camera:
        """Return the intrinsics of a frame."""
        return Camera(self.K[frame], self.images.shape[2], self.images.shape[1])


def write_episode(
    path: str | Path,
    recording: Recording,
    options: EpisodeOptions,
    *,
    captions: Sequence[Caption] = (),
    description: str | None = None,
    meta: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """Write an episode; it appears complete under its path, or not at all.

    Args:
        path: Folder to make; its name becomes the id of the episode.
        recording: Pictures, cameras and tracks.
        options: How tracks become traces.
        captions: Chunks in order, and merged ones.
        description: Instructions, one a line.
        meta: Metadata of the source, for `meta.json`.
        provenance: What made the episode (program, version, seed, recording), for the manifest.
        overwrite: Whether to replace an episode that is there.
        finish: Is called with the complete folder before it is put in place, to add files of the
            caller's own.

    Returns:
        The path.

    Raises:
        EpisodeError: The path is taken, or a caption does not fit.
        CalibrationError: Intrinsics are impossible.
    """
    path = Path(path)
    _check_target(path, overwrite)
    texts = caption_texts(captions, video_id=path.name, n_frames=recording.n_frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    folder = temporary / path.name
    try:
        folder.mkdir()  # unlike the folder around it, with the user's usual permissions
        slots = _write_samples(folder / "samples", recording, options)
        _write_frames(folder, recording)
        _write_cameras(folder, recording)
        _write_statistics(folder, recording)
        if captions:
            _write_json(folder / CAPTION_FILE, texts)
        if description is not None:
            (folder / "description.txt").write_text(description.rstrip("\n") + "\n", "utf-8")
        if meta is not None:
            _write_json(folder / "meta.json", meta)
        manifest = _manifest(folder, recording, options, slots, dict(provenance or {}))
        _write_json(folder / MANIFEST_FILE, manifest)
        if finish is not None:
            finish(folder)
        _check_target(path, overwrite)
        _put_in_place(folder, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _check_target(path: Path, overwrite: bool) -> None:
    """Refuse a path that is taken, and to replace what is not an episode."""
    if not path.exists():
        return
    if not overwrite:
        raise EpisodeError(f"{path}: exists already; pass overwrite=True to replace it")
    if not (path / "images.npy").exists():
        raise EpisodeError(f"{path}: holds no images.npy, so it is no episode; not replaced")


def _put_in_place(folder: Path, path: Path) -> None:
    """Move a finished folder to its path, and bring back what was there if that fails."""
    replaced = folder.parent / "replaced"
    if path.exists():
        path.rename(replaced)
    try:
        folder.rename(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise


def _write_samples(
    folder: Path, recording: Recording, options: EpisodeOptions
) -> list[tuple[int, int]]:
    """Write the rows of all frames; return frame and number of rows of each slot."""
    n = recording.tracks_xyz_world.shape[1]
    rank = np.random.default_rng(options.seed).permutation(n)
    keep = recording.moving | (rank < round(options.static_share * n))
    xyz_world = np.ascontiguousarray(recording.tracks_xyz_world.T, np.float64)
    slots = []
    for frames in _frames_of_one_camera(recording):
        view = View.of(
            xyz_world,
            frames,
            camera=recording.camera(frames.start),
            T_camera_world=recording.T_camera_world[frames.start],
        )
        for frame in frames:
            rows = frame_rows(
                view,
                keep[frame],
                frame=frame,
                arc_step=options.arc_step,
                future_len=options.future_len,
                history_len=options.history_len,
            )
            if rows:
                slots.append(rows)
    folder.mkdir()
    if slots:
        _write_slots(folder, recording, slots)
    return [(slot.frame, len(slot.points)) for slot in slots]


def _frames_of_one_camera(recording: Recording) -> list[range]:
    """Split the frames where intrinsics or pose change: one range where the camera is fixed."""
    K, pose = recording.K, recording.T_camera_world
    changes = (K[1:] != K[:-1]).any(axis=(1, 2)) | (pose[1:] != pose[:-1]).any(axis=(1, 2))
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), recording.n_frames]
    return [range(start, end) for start, end in pairwise(edges)]


def _write_slots(folder: Path, recording: Recording, slots: Sequence[FrameRows]) -> None:
    """Write the arrays of `samples/`, in the order of the released extractor."""
    counts = [len(slot.points) for slot in slots]
    frames = np.array([slot.frame for slot in slots], np.int32)
    points = np.concatenate([slot.points for slot in slots])
    at_frame = np.repeat(frames, counts), points
    fields = {
        "uv": np.concatenate([slot.future.raw.uvz[:, 0, :2] for slot in slots]),
        "cluster_ids": recording.cluster_ids[points],
        "is_moving": recording.moving[at_frame],
        "visible": recording.visible[at_frame],
        "future_uvz": np.concatenate([slot.future.sampled.uvz for slot in slots]),
        "future_valid": np.concatenate([slot.future.sampled.valid for slot in slots]),
        "history_uvz": np.concatenate([slot.history.sampled.uvz for slot in slots]),
        "history_valid": np.concatenate([slot.history.sampled.valid for slot in slots]),
        "raw_future_uvz": np.concatenate([slot.future.raw.uvz for slot in slots]),
        "raw_future_valid": np.concatenate([slot.future.raw.valid for slot in slots]),
        "raw_history_uvz": np.concatenate([slot.history.raw.uvz for slot in slots]),
        "raw_history_valid": np.concatenate([slot.history.raw.valid for slot in slots]),
        "point_ids": points,
    }
    np.save(folder / "frame_indices.npy", frames)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    for name, file in (ROW_FILES | EXTRA_ROW_FILES).items():
        np.save(folder / f"{name}.npy", fields[file.field].astype(file.dtype))
    future = [slot.frame + slot.future.source_index for slot in slots]
    history = [slot.frame - slot.history.source_index for slot in slots]
    np.save(folder / "step_times.npy", np.array(future, np.float32))
    np.save(folder / "step_times_history.npy", np.array(history, np.float32))


def _write_frames(folder: Path, recording: Recording) -> None:
    """Write pictures, depth and stamps; frame by frame, so that memory does not grow."""
    for name, source, dtype in (
        ("images", recording.images, np.uint8),
        ("depth", recording.depth, np.float16),
    ):
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": source.shape}
        with (folder / f"{name}.npy").open("wb") as file:
            write_array_header_1_0(file, header)
            for picture in source:
                file.write(np.ascontiguousarray(picture, dtype).tobytes())
    if recording.stamps is not None:
        np.save(folder / "stamps.npy", np.asarray(recording.stamps, np.float64))


def _write_cameras(folder: Path, recording: Recording) -> None:
    H, W = recording.images.shape[1:3]
    np.savez(
        folder / "cameras.npz",
        intrinsics=recording.K.astype(np.float32),
        extrinsics=recording.T_camera_world.astype(np.float32),
        height=np.int32(H),
        width=np.int32(W),
    )


def _write_statistics(folder: Path, recording: Recording) -> None:
    """Write acceleration and movement, as seen from the first camera."""
    xyz = transform_points(recording.T_camera_world[0], recording.tracks_xyz_world)
    uvz = recording.camera(0).project(xyz)
    values = acceleration(uvz, recording.visible, recording.moving)
    np.savez(folder / "acceleration.npz", acceleration=values)
    H, W = recording.images.shape[1:3]
    moved = displacement(uvz, recording.visible)
    statistics = movement_statistics(moved, recording.T_camera_world, width=W, height=H)
    np.savez(folder / "movement_statistics.npz", allow_pickle=False, **statistics)


def _manifest(
    folder: Path,
    recording: Recording,
    options: EpisodeOptions,
    slots: Sequence[tuple[int, int]],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Return the content of the manifest, made when all other files are there."""
    stamps = recording.stamps
    rate = None if stamps is None else (len(stamps) - 1) / float(stamps[-1] - stamps[0])
    arrays = sorted([*folder.rglob("*.npy"), *folder.rglob("*.npz")])
    return {
        "format": "mu0 episode",
        "version": FORMAT_VERSION,
        "arc_step": options.arc_step,
        "future_len": options.future_len,
        "history_len": options.history_len,
        "static_share": options.static_share,
        "seed": options.seed,
        "frame_rate_hz": rate,
        "n_frames": recording.n_frames,
        "height": recording.images.shape[1],
        "width": recording.images.shape[2],
        "n_slots": len(slots),
        "n_rows": sum(n_rows for _, n_rows in slots),
        "units": _UNITS,
        "provenance": provenance,
        "files": {str(f.relative_to(folder)): f.stat().st_size for f in arrays},
    }


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def _layout_faults(recording: Recording) -> list[str]:
    """Return what is wrong with shapes and types, against the images and tracks."""
    images, tracks = recording.images, recording.tracks_xyz_world
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or len(images) < 2:
        found = f"{images.dtype} {images.shape}"
        return [f"images: expected uint8 (T, H, W, 3) with T above 1, got {found}"]
    T = len(images)
    if tracks.ndim != 3 or tracks.shape[0] != T or tracks.shape[2] != 3 or tracks.shape[1] == 0:
        return [f"tracks_xyz_world: expected ({T}, n, 3) with n above 0, got {tracks.shape}"]
    n = tracks.shape[1]
    expected: dict[str, tuple[str, ArrayLike | None, list[tuple[int, ...]]]] = {
        "depth": ("f", recording.depth, [images.shape[:3]]),
        "K": ("f", recording.K, [(3, 3), (T, 3, 3)]),
        "T_camera_world": ("f", recording.T_camera_world, [(4, 4), (T, 4, 4)]),
        "tracks_xyz_world": ("f", tracks, [tracks.shape]),
        "visible": ("b", recording.visible, [(T, n)]),
        "cluster_ids": ("iu", recording.cluster_ids, [(n,)]),
        "moving": ("b", recording.moving, [(n,), (T, n)]),
        "stamps": ("f", recording.stamps, [(T,)]),
    }
    faults = []
    for name, (kinds, value, shapes) in expected.items():
        if value is None:
            continue
        # What reads its pictures from a file one by one is not to be read whole.
        array: Any = value if hasattr(value, "dtype") else np.asanyarray(value)
        if array.shape not in shapes or array.dtype.kind not in kinds:
            wanted = " or ".join(str(shape) for shape in shapes)
            kind = {"f": "float", "b": "bool", "iu": "integer"}[kinds]
            faults.append(f"{name}: expected {kind} {wanted}, got {array.dtype} {array.shape}")
    return faults


def _value_faults(recording: Recording) -> list[str]:
    """Return what is wrong with tracks and stamps."""
    tracks, stamps = recording.tracks_xyz_world, recording.stamps
    faults = []
    if np.isinf(tracks).any():
        frame, point = (axis[0] for axis in np.nonzero(np.isinf(tracks))[:2])
        faults.append(f"tracks_xyz_world: point {point} is infinite in frame {frame}")
    exists = np.asarray(np.isfinite(tracks).all(axis=-1))
    starts = np.sum(exists[1:] & ~exists[:-1], axis=0) + exists[0]
    with_gaps = np.flatnonzero(starts > 1)
    if with_gaps.size:
        faults.append(
            f"tracks_xyz_world: {len(with_gaps)} points have gaps, the first is {with_gaps[0]}; "
            "fill them, or let another point begin after the gap"
        )
    if stamps is not None and not (np.isfinite(stamps).all() and (np.diff(stamps) > 0).all()):
        faults.append("stamps: expected finite, increasing seconds")
    return faults
