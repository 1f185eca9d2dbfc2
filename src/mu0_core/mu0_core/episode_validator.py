"""Own the check of an episode against its format: every invariant, each fault with its place.

The numbers in the names of the checks are those of the format's list of invariants:

1. Arrays of `samples/` have equally many rows, slots increase, none is empty.
2. Masks are prefixes; -inf where not valid, finite where valid (raw: but for steps that are
   behind the camera or beyond float16).
3. Column 0 of all four traces is the keypoint, inside the image.
4. Raw traces do not outlast the episode.
5. Cameras are possible; everything has equally many frames.
6. A raw step, seen from the camera of its own time, is the keypoint it has there.
7. Captions stay inside the episode, chunks do not overlap, merged ones span their chunks.

An episode in the released format that lacks our extra files is complete.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core.episode import (
    EXTRA_ROW_FILES,
    ROW_FILES,
    load_array,
    load_npz,
    read_manifest,
    spell_shape,
)
from mu0_core.episode_captions import CAPTION_FILE, caption_entries, load_json
from mu0_core.episode_reprojection import reprojection_faults
from mu0_core.errors import EpisodeError

_ROTATION_TOLERANCE = 1e-3  # float32 poses that a network or an average made


@dataclass(frozen=True, slots=True)
class Fault:
    """Say what is wrong in an episode.

    Attributes:
        code: Short name of the kind of fault, for programs.
        message: What was expected and what is there, with values.
        where: File, and row, frame and step where there is one.
    """

    code: str
    message: str
    where: str

    def __str__(self) -> str:
        return f"{self.code}: {self.where}: {self.message}"


@dataclass(slots=True)
class _Loaded:
    """Hold what could be read of an episode; what could not is a fault already."""

    path: Path
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    has_slots: bool = False  # frame_indices and offsets agree, so rows can be located

    def get(self, *names: str) -> list[NDArray[Any]] | None:
        """Return arrays by name if all of them were read."""
        if all(name in self.arrays for name in names):
            return [self.arrays[name] for name in names]
        return None

    def row_name(self, row: int) -> str:
        """Name a row with its frame."""
        if not self.has_slots:
            return f"row {row}"
        frames, offsets = self.arrays["frame_indices"], self.arrays["offsets"]
        slot = int(np.searchsorted(offsets, row, side="right")) - 1
        return f"row {row} (frame {frames[slot]})"


def validate_episode(path: str | Path) -> list[Fault]:
    """Check an episode and return its faults, none if it is as the format wants it.

    Of a kind of fault, each file reports how often it occurs and the first place.

    Args:
        path: Folder of the episode.
    """
    path = Path(path)
    if not path.is_dir():
        return [Fault("missing_file", "no such folder", str(path))]
    loaded = _Loaded(path)
    _load_frames(loaded)
    _load_cameras(loaded)
    _load_samples(loaded)
    checks: tuple[Callable[[_Loaded], Iterator[Fault]], ...] = (
        _check_manifest,
        _check_frame_counts,
        _check_cameras,
        _check_masks,
        _check_current_points,
        _check_raw_lengths,
        _check_slots_move,
        _check_reprojection,
        _check_captions,
    )
    return loaded.faults + [fault for check in checks for fault in check(loaded)]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the faults of episodes; return 1 if there are any, else 0."""
    parser = argparse.ArgumentParser(
        prog="validate_episode", description="Check episodes against their format."
    )
    parser.add_argument("episodes", nargs="+", type=Path, help="folders of episodes")
    arguments = parser.parse_args(argv)
    n_faults = 0
    for path in arguments.episodes:
        faults = validate_episode(path)
        n_faults += len(faults)
        sys.stdout.writelines(f"{path}: {fault}\n" for fault in faults)
        if not faults:
            sys.stdout.write(f"{path}: no faults\n")
    return int(n_faults > 0)


def _load_frames(loaded: _Loaded) -> None:
    """Load pictures, depth, stamps and the acceleration."""
    _load(loaded, "images.npy", "images", np.uint8, (None, None, None, 3))
    _load(loaded, "depth.npy", "depth", np.float16, (None, None, None))
    if (loaded.path / "stamps.npy").exists():
        _load(loaded, "stamps.npy", "stamps", np.float64, (None,))
    for name, array in _load_archive(loaded, "acceleration.npz", ("acceleration",)).items():
        loaded.arrays[name] = array


def _load_cameras(loaded: _Loaded) -> None:
    """Load intrinsics and extrinsics."""
    keys = ("intrinsics", "extrinsics", "height", "width")
    arrays = _load_archive(loaded, "cameras.npz", keys)
    for name, size in (("intrinsics", 3), ("extrinsics", 4)):
        if name in arrays and arrays[name].shape[1:] == (size, size):
            loaded.arrays[name] = arrays[name]
        elif name in arrays:
            message = f"expected shape (T, {size}, {size}), got {arrays[name].shape}"
            loaded.faults.append(Fault("shape", message, f"cameras.npz {name}"))
    loaded.arrays |= {name: arrays[name] for name in ("height", "width") if name in arrays}


def _load_samples(loaded: _Loaded) -> None:
    """Load the rows, and settle where slots begin and end (invariant 1)."""
    folder = loaded.path / "samples"
    if folder.is_dir() and not any(folder.iterdir()):
        return  # nothing moved
    _load(loaded, "samples/frame_indices.npy", "frame_indices", np.int32, (None,))
    _load(loaded, "samples/offsets.npy", "offsets", np.int64, (None,))
    loaded.faults += _slot_faults(loaded)
    slots = loaded.get("offsets")
    n_rows = int(slots[0][-1]) if slots and len(slots[0]) else None
    lengths: dict[str, int | None] = {"F": None, "B": None}
    for name, file in (ROW_FILES | EXTRA_ROW_FILES).items():
        if name in EXTRA_ROW_FILES and not (folder / f"{name}.npy").exists():
            continue
        columns = tuple(lengths[axis] if isinstance(axis, str) else axis for axis in file.columns)
        _load(loaded, f"samples/{name}.npy", name, file.dtype, (n_rows, *columns))
        if name in loaded.arrays:
            sizes = zip(file.columns, loaded.arrays[name].shape[1:], strict=True)
            lengths |= {axis: size for axis, size in sizes if isinstance(axis, str)}


def _slot_faults(loaded: _Loaded) -> Iterator[Fault]:
    """Check frame numbers and offsets of the slots (invariant 1)."""
    arrays = loaded.get("frame_indices", "offsets")
    if arrays is None:
        return
    frames, offsets = arrays
    where = "samples/offsets.npy"
    if len(offsets) != len(frames) + 1:
        message = f"expected {len(frames) + 1} entries, one more than slots, got {len(offsets)}"
        yield Fault("offsets", message, where)
        return
    steps = np.diff(offsets)
    if offsets[0] != 0 or (steps < 0).any():
        yield Fault("offsets", f"expected 0, then never falling, got {offsets.tolist()}", where)
        return
    loaded.has_slots = True
    for slot in np.flatnonzero(steps == 0)[:1]:
        message = f"{(steps == 0).sum()} slots have no rows; leave such frames out"
        yield Fault("offsets", message, f"{where} slot {slot} (frame {frames[slot]})")
    where = "samples/frame_indices.npy"
    for slot in np.flatnonzero(np.diff(frames) <= 0)[:1]:
        message = f"expected increasing frames, got {frames[slot]}, then {frames[slot + 1]}"
        yield Fault("frame_indices", message, f"{where} slot {slot}")
    images = loaded.get("images")
    if images and len(frames) and (frames.min() < 0 or frames.max() > len(images[0]) - 2):
        message = (
            f"expected frames in [0, {len(images[0]) - 2}] (the last one has no future), "
            f"got {frames.min()} to {frames.max()}"
        )
        yield Fault("frame_indices", message, where)


def _check_manifest(loaded: _Loaded) -> Iterator[Fault]:
    """Check our manifest against the files, if there is one."""
    try:
        read_manifest(loaded.path)
    except EpisodeError as error:
        yield Fault("manifest", str(error), "mu0_episode.json")


def _check_frame_counts(loaded: _Loaded) -> Iterator[Fault]:
    """Check that everything has as many frames as there are pictures (invariant 5)."""
    images = loaded.get("images")
    if images is None:
        return
    T, H, W = images[0].shape[:3]
    for name in ("depth", "intrinsics", "extrinsics", "acceleration", "stamps"):
        array = loaded.arrays.get(name)
        if array is not None and len(array) != T:
            yield Fault("frame_count", f"{len(array)} frames, images.npy has {T}", name)
    depth = loaded.arrays.get("depth")
    if depth is not None and depth.shape[1:] != (H, W):
        message = f"expected pictures of {H} x {W} as images.npy, got {depth.shape[1:]}"
        yield Fault("shape", message, "depth.npy")
    for name, expected in (("height", H), ("width", W)):
        found = loaded.arrays.get(name)
        if found is not None and int(found) != expected:
            message = f"{int(found)} px, images.npy has {expected}"
            yield Fault("image_size", message, f"cameras.npz {name}")
    stamps = loaded.arrays.get("stamps")
    if stamps is not None and not (np.isfinite(stamps).all() and (np.diff(stamps) > 0).all()):
        frame = int(np.argmin(np.nan_to_num(np.diff(stamps), nan=-np.inf)))
        message = f"expected increasing seconds, got {stamps[frame]}, then {stamps[frame + 1]}"
        yield Fault("stamps", message, f"stamps.npy frame {frame}")


def _check_cameras(loaded: _Loaded) -> Iterator[Fault]:
    """Check that intrinsics and poses are possible (invariant 5)."""
    K, E = loaded.arrays.get("intrinsics"), loaded.arrays.get("extrinsics")
    if K is not None:
        lower = np.abs(K[:, [1, 2, 2], [0, 0, 1]]).max(axis=-1)
        focal = K[:, [0, 1], [0, 1]].min(axis=-1)
        bad = ~(np.isfinite(K).all(axis=(1, 2)) & (lower < 1e-6) & (focal > 0))
        bad |= np.abs(K[:, 2, 2] - 1.0) > 1e-6
        yield from _first_frame(
            bad, "intrinsics", "expected an upper triangular K with positive focal lengths", K
        )
    if E is not None:
        R = E[:, :3, :3].astype(np.float64)
        skew = np.abs(np.swapaxes(R, 1, 2) @ R - np.eye(3)).max(axis=(1, 2))
        last_row = np.abs(E[:, 3] - (0, 0, 0, 1)).max(axis=-1)
        bad = ~(np.isfinite(E).all(axis=(1, 2)) & (skew < _ROTATION_TOLERANCE))
        bad |= ~(np.linalg.det(R) > 0) | (last_row > 1e-6)
        yield from _first_frame(bad, "extrinsics", "expected a rigid transform", E)


def _first_frame(
    bad: NDArray[np.bool_], name: str, expected: str, values: NDArray[Any]
) -> Iterator[Fault]:
    """Report the first frame of a bad camera array."""
    for frame in np.flatnonzero(bad)[:1]:
        message = f"{expected}, got {values[frame].tolist()} ({bad.sum()} frames)"
        yield Fault(name, message, f"cameras.npz {name} frame {frame}")


def _check_masks(loaded: _Loaded) -> Iterator[Fault]:
    """Check that masks are prefixes and match what is finite (invariant 2)."""
    for trace in ("traj", "traj_history", "raw_traj", "raw_traj_history"):
        mask_name = trace.replace("traj", "valid_steps")
        pair = loaded.get(trace, mask_name)
        if pair is None or pair[0].shape[:2] != pair[1].shape:
            continue
        uvz, valid = pair
        gap = valid[:, 1:] & ~valid[:, :-1]
        yield from _first_step(
            loaded, gap, "mask_prefix", mask_name, "valid after an invalid step"
        )
        missing = ~valid[:, :1]
        yield from _first_step(loaded, missing, "mask_start", mask_name, "column 0 is not valid")
        unpadded = ~valid & (uvz != -np.inf).any(axis=-1)
        yield from _first_step(loaded, unpadded, "padding", trace, "not valid and not -inf", uvz)
        if trace.startswith("raw"):
            lost = ~np.isfinite(uvz[..., 2])
            lost |= (uvz[..., 2] > 0) & np.isnan(uvz[..., :2]).any(axis=-1)
        else:
            lost = ~np.isfinite(uvz).all(axis=-1)
        yield from _first_step(loaded, valid & lost, "not_finite", trace, "valid and unknown", uvz)


def _check_current_points(loaded: _Loaded) -> Iterator[Fault]:
    """Check that column 0 is the same everywhere and inside the image (invariant 3)."""
    reference = loaded.arrays.get("traj")
    if reference is None or reference.shape[1] == 0:
        return
    current = reference[:, 0].astype(np.float32)
    tolerance = np.spacing(np.abs(reference[:, 0]).astype(np.float16)).astype(np.float32)
    for name in ("traj_history", "raw_traj", "raw_traj_history", "keypoints"):
        other = loaded.arrays.get(name)
        if other is None or len(other) != len(current) or other.shape[1] == 0:
            continue
        points = (other if name == "keypoints" else other[:, 0]).astype(np.float32)
        axes = points.shape[-1]
        difference = np.abs(points - current[:, :axes])
        bad = ~np.all(difference <= tolerance[:, :axes], axis=-1, keepdims=True)
        expected = "not the point in column 0 of traj"
        yield from _first_step(loaded, bad, "current_point", name, expected, points[:, None])
    images = loaded.arrays.get("images")
    if images is None:
        return
    size = np.array([images.shape[2], images.shape[1]])
    step = np.spacing(size.astype(np.float16)).astype(np.float32)
    uv = loaded.arrays.get("keypoints", current[:, :2]).astype(np.float32)
    outside = ~np.all((uv >= 0) & (uv <= size + step), axis=-1, keepdims=True)
    expected = f"outside the image of {size[0]} x {size[1]} px"
    file = "keypoints" if "keypoints" in loaded.arrays else "traj"
    yield from _first_step(loaded, outside, "outside_image", file, expected, uv[:, None])


def _check_raw_lengths(loaded: _Loaded) -> Iterator[Fault]:
    """Check that raw traces stay inside the episode (invariant 4)."""
    images = loaded.arrays.get("images")
    if images is None or not loaded.has_slots:
        return
    offsets, frames = loaded.arrays["offsets"], loaded.arrays["frame_indices"]
    frame = np.repeat(frames, np.diff(offsets))
    for name, longest in (
        ("raw_valid_steps", len(images) - frame),
        ("raw_valid_steps_history", frame + 1),
    ):
        valid = loaded.arrays.get(name)
        if valid is None:
            continue
        lengths = valid.sum(axis=1)
        for row in np.flatnonzero(lengths > longest)[:1]:
            message = f"{lengths[row]} steps, the episode has {longest[row]} from there"
            where = f"samples/{name}.npy {loaded.row_name(row)}"
            yield Fault("raw_length", message, where)


def _check_slots_move(loaded: _Loaded) -> Iterator[Fault]:
    """Check that in each slot some path is a step long; others are not to be written."""
    valid = loaded.arrays.get("valid_steps")
    if valid is None or not loaded.has_slots:
        return
    offsets, frames = loaded.arrays["offsets"], loaded.arrays["frame_indices"]
    longest = np.array([valid[a:b].sum(axis=1).max(initial=0) for a, b in pairwise(offsets)])
    bad = (longest < 2) & (np.diff(offsets) > 0)
    for slot in np.flatnonzero(bad)[:1]:
        message = f"no row has 2 valid steps ({bad.sum()} such slots); leave such frames out"
        yield Fault("still_slot", message, f"samples slot {slot} (frame {frames[slot]})")


def _check_reprojection(loaded: _Loaded) -> Iterator[Fault]:
    """Check that raw steps meet the keypoints of later frames (invariant 6)."""
    names = ("keypoints", "raw_traj", "raw_valid_steps", "intrinsics", "extrinsics", "images")
    arrays = loaded.get(*names)
    if arrays is None or not loaded.has_slots:
        return
    keypoints, raw, valid, K, E, images = arrays
    T, H, W = images.shape[:3]
    frames, offsets = loaded.arrays["frame_indices"], loaded.arrays["offsets"]
    if len(K) != T or len(E) != T or not len(frames) or frames.min() < 0 or frames.max() >= T:
        return
    for row, step, message in reprojection_faults(
        keypoints=keypoints,
        raw_uvz=raw,
        raw_valid=valid,
        frame_indices=frames,
        offsets=offsets,
        K=K.astype(np.float64),
        T_camera_world=E.astype(np.float64),
        size=(W, H),
        point_ids=loaded.arrays.get("point_ids"),
    ):
        where = f"samples/raw_traj.npy {loaded.row_name(row)} step {step}"
        yield Fault("reprojection", message, where)


def _check_captions(loaded: _Loaded) -> Iterator[Fault]:
    """Check the ranges of captions (invariant 7)."""
    path = loaded.path / CAPTION_FILE
    if not path.exists():
        return
    images = loaded.arrays.get("images")
    last = np.inf if images is None else len(images) - 1
    try:
        entries = caption_entries(load_json(path))
        spans = {(key, i): (int(e["start_idx"]), int(e["end_idx"])) for key, i, e in entries}
    except (EpisodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        yield Fault("captions", f"not readable: {error!r}", CAPTION_FILE)
        return
    for (key, i), (start, end) in spans.items():
        if not 0 <= start <= end <= last:
            message = f"frames {start} to {end} are no range inside 0 to {last}"
            yield Fault("captions", message, f"{CAPTION_FILE} {key}[{i}]")
    chunks = [span for (key, _), span in spans.items() if key == "chunk_texts"]
    for i, (before, after) in enumerate(pairwise(chunks)):
        if after[0] <= before[1]:
            message = f"begins at frame {after[0]}, the chunk before ends at {before[1]}"
            yield Fault("captions", message, f"{CAPTION_FILE} chunk_texts[{i + 1}]")
    for key, i, entry in entries:
        ids = entry.get("source_chunk_ids", ()) if key == "merged_texts" else ()
        sources = [chunks[k] for k in ids if 0 <= k < len(chunks)]
        span = (min(s for s, _ in sources), max(e for _, e in sources)) if sources else None
        if ids and (len(sources) < len(ids) or span != spans[key, i]):
            message = f"frames {spans[key, i]}, its chunks {list(ids)} span {span}"
            yield Fault("captions", message, f"{CAPTION_FILE} merged_texts[{i}]")


def _first_step(
    loaded: _Loaded,
    bad: Any,
    code: str,
    name: str,
    what: str,
    values: NDArray[Any] | None = None,
) -> Iterator[Fault]:
    """Report the first bad step of an array (R, L), with its value and how many there are."""
    if not bad.any():
        return
    row, step = (int(i) for i in np.argwhere(bad)[0])
    value = "" if values is None else f": {values[row, step].tolist()}"
    count = f" ({bad.sum()} of {bad.size})"
    where = f"samples/{name}.npy {loaded.row_name(row)} step {step}"
    yield Fault(code, what + value + count, where)


def _load(
    loaded: _Loaded, file: str, name: str, dtype: type, shape: tuple[int | None, ...]
) -> None:
    """Load a .npy file into the arrays; what is wrong with it becomes faults."""
    path = loaded.path / file
    if not path.exists():
        loaded.faults.append(Fault("missing_file", "part of the format, and missing", file))
        return
    try:
        array = load_array(path, "biuf", (None,) * len(shape))
    except EpisodeError as error:
        loaded.faults.append(Fault("unreadable_file", str(error), file))
        return
    if array.dtype != dtype:
        message = f"expected {np.dtype(dtype)}, got {array.dtype}"
        loaded.faults.append(Fault("dtype", message, file))
    if array.dtype.kind != np.dtype(dtype).kind:
        return
    if any(wanted not in (None, got) for wanted, got in zip(shape, array.shape, strict=True)):
        message = f"expected shape {spell_shape(shape)}, got {array.shape}"
        loaded.faults.append(Fault("shape", message, file))
        return
    loaded.arrays[name] = array


def _load_archive(loaded: _Loaded, file: str, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read a .npz file that must hold some arrays; what is wrong with it becomes faults."""
    if not (loaded.path / file).exists():
        loaded.faults.append(Fault("missing_file", "part of the format, and missing", file))
        return {}
    try:
        arrays = load_npz(loaded.path / file)
    except EpisodeError as error:
        loaded.faults.append(Fault("unreadable_file", str(error), file))
        return {}
    loaded.faults += [
        Fault("missing_array", f"no {key!r}; it holds {', '.join(arrays)}", file)
        for key in keys
        if key not in arrays
    ]
    return {key: arrays[key] for key in keys if key in arrays}


if __name__ == "__main__":
    sys.exit(main())
