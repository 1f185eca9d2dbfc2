"""Own the episode format and its reader: one folder, plain NumPy files, memory-mapped.

The layout is that of the released μ₀ data (its extractor writes it, its trainer reads it). Our
episodes add files that the released reader ignores:

    mu0_episode.json                 manifest, written last: format version, arc step, lengths,
                                     frame rate, units, provenance, sizes of the arrays (bytes)
    stamps.npy                       (T,) float64 s, when each frame was taken
    samples/point_ids.npy            (R,) int32, which track a row belongs to
    samples/step_times.npy           (S,F) float32, frame number of each step of `traj`, between
                                     frames as a fraction; NaN where no row has the step
    samples/step_times_history.npy   (S,B) the same of `traj_history`

An episode without manifest is taken for a released one: arc step 0.05.

Letters: T frames, H, W image size, S slots (frames with traces), R rows of all slots, F future and
B history length. A row is one point seen from the camera of its slot's frame t, at all its times,
as (x_px, y_px, z_m), -inf where not valid. Column 0 is frame t; histories walk backwards.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.episode_captions import CAPTION_FILE, Caption, load_json, read_captions
from mu0_core.errors import EpisodeError

FORMAT_VERSION = 1
MANIFEST_FILE = "mu0_episode.json"
RELEASED_ARC_STEP = 0.05
_KINDS = {"f": "floats", "i": "integers", "u": "unsigned integers", "b": "booleans"}


@dataclass(frozen=True, slots=True)
class RowFile:
    """Describe one array of `samples/` with a row for each point of each slot.

    Attributes:
        field: Name of the array in `Rows`.
        dtype: Type in the file.
        columns: Axes after the rows: numbers, or F and B.
        required: Whether the released trainer needs it.
    """

    field: str
    dtype: type
    columns: tuple[int | str, ...] = ()
    required: bool = False


ROW_FILES = {
    "keypoints": RowFile("uv", np.float16, (2,)),
    "cluster_ids": RowFile("cluster_ids", np.int32),
    "is_moving": RowFile("is_moving", np.bool_, required=True),
    "visibs": RowFile("visible", np.float16),
    "traj": RowFile("future_uvz", np.float16, ("F", 3), True),
    "traj_history": RowFile("history_uvz", np.float16, ("B", 3), True),
    "valid_steps": RowFile("future_valid", np.bool_, ("F",), True),
    "valid_steps_history": RowFile("history_valid", np.bool_, ("B",), True),
    "raw_traj": RowFile("raw_future_uvz", np.float16, ("F", 3)),
    "raw_traj_history": RowFile("raw_history_uvz", np.float16, ("B", 3)),
    "raw_valid_steps": RowFile("raw_future_valid", np.bool_, ("F",)),
    "raw_valid_steps_history": RowFile("raw_history_valid", np.bool_, ("B",)),
}
EXTRA_ROW_FILES = {"point_ids": RowFile("point_ids", np.int32)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Hold the rows of one slot or of all; see the module for the letters and conventions.

    Attributes:
        is_moving: (R,) bool.
        future_uvz: (R, F, 3) px, px, m; steps of equal arc length from frame t on.
        future_valid: (R, F) bool, a prefix: the point exists and the path is that long.
        history_uvz: (R, B, 3) the same backwards from frame t.
        history_valid: (R, B) bool.
        uv: (R, 2) px, the point in frame t; None if not stored, as all that follow.
        cluster_ids: (R,) which entity the point belongs to.
        visible: (R,) 1 where seen in frame t, else 0.
        raw_future_uvz: (R, F, 3) frames t, t+1, ... A point behind the camera has z <= 0.
        raw_future_valid: (R, F) bool.
        raw_history_uvz: (R, B, 3) frames t, t-1, ...
        raw_history_valid: (R, B) bool.
        point_ids: (R,) the same number in every slot for the same point.
    """

    is_moving: NDArray[np.bool_]
    future_uvz: NDArray[np.floating]
    future_valid: NDArray[np.bool_]
    history_uvz: NDArray[np.floating]
    history_valid: NDArray[np.bool_]
    uv: NDArray[np.floating] | None = None
    cluster_ids: NDArray[np.integer] | None = None
    visible: NDArray[np.floating] | None = None
    raw_future_uvz: NDArray[np.floating] | None = None
    raw_future_valid: NDArray[np.bool_] | None = None
    raw_history_uvz: NDArray[np.floating] | None = None
    raw_history_valid: NDArray[np.bool_] | None = None
    point_ids: NDArray[np.integer] | None = None

    def __len__(self) -> int:
        return len(self.is_moving)

    def part(self, rows: slice) -> Self:
        """Return some of the rows, as views."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(
            self, **{name: array[rows] for name, array in arrays.items() if array is not None}
        )


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Hold the rows of one frame.

    Attributes:
        index: Number of the slot.
        frame: Frame t that its points are seen from.
        rows: Its rows.
    """

    index: int
    frame: int
    rows: Rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Episode:
    """Hold an episode; large arrays stay on disk until they are used.

    Attributes:
        path: Its folder; the name of the folder is the id of the episode.
        images: (T, H, W, 3) uint8 RGB.
        depth: (T, H, W) m along the optical axis; 0 or not finite where unknown.
        K: (T, 3, 3) float64 intrinsics, px.
        T_camera_world: (T, 4, 4) float64, world points to camera points.
        frame_indices: (S,) frames with rows, increasing.
        offsets: (S + 1,) rows of slot i are offsets[i] to offsets[i + 1].
        rows: The rows of all slots.
        arc_step: Distance between steps of the traces: image fractions and metres in one norm.
        captions: What happens in ranges of frames.
        stamps: (T,) s.
        step_times: (S, F) frame number of each future step, between frames as a fraction.
        step_times_history: (S, B) the same of the history.
        description: Instructions, one a line.
        meta: Metadata of the source.
        manifest: Content of the manifest.
    """

    path: Path
    images: NDArray[np.uint8]
    depth: NDArray[np.floating] | None
    K: NDArray[np.float64] | None
    T_camera_world: NDArray[np.float64] | None
    frame_indices: NDArray[np.integer]
    offsets: NDArray[np.integer]
    rows: Rows
    arc_step: float
    captions: tuple[Caption, ...]
    stamps: NDArray[np.float64] | None
    step_times: NDArray[np.floating] | None
    step_times_history: NDArray[np.floating] | None
    description: str | None
    meta: dict[str, Any] | None
    manifest: dict[str, Any] | None

    @property
    def n_frames(self) -> int:
        """Number of frames T."""
        return len(self.images)

    @property
    def n_slots(self) -> int:
        """Number of slots S."""
        return len(self.frame_indices)

    @property
    def height(self) -> int:
        """Image height, px."""
        return self.images.shape[1]

    @property
    def width(self) -> int:
        """Image width, px."""
        return self.images.shape[2]

    def camera(self, frame: int) -> Camera:
        """Return the intrinsics of a frame, or raise an EpisodeError if none are stored."""
        if self.K is None:
            raise EpisodeError(f"{self.path}: no cameras.npz, so its cameras are unknown")
        return Camera(self.K[frame], self.width, self.height)

    def slot(self, index: int) -> Slot:
        """Return slot 0 to S - 1."""
        if not 0 <= index < self.n_slots:
            raise IndexError(f"slot {index} of {self.path.name}, which has {self.n_slots}")
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return Slot(index, int(self.frame_indices[index]), self.rows.part(rows))

    def slots(self) -> Iterator[Slot]:
        """Go through the slots in the order of their frames."""
        return (self.slot(i) for i in range(self.n_slots))

    def captions_at(self, frame: int) -> tuple[Caption, ...]:
        """Return the captions whose range covers a frame."""
        return tuple(caption for caption in self.captions if caption.covers(frame))


def read_episode(path: str | Path) -> Episode:
    """Open an episode: what the released trainer needs must be there, the rest may be missing.

    Args:
        path: Folder of the episode.

    Raises:
        EpisodeError: A needed file is missing, or a file is truncated, of another type, or does
            not fit the others; it names the files and their shapes.
    """
    path = Path(path)
    _refuse_other_layouts(path)
    manifest = read_manifest(path)
    images = load_array(path / "images.npy", "u", (None, None, None, 3))
    T, H, W = images.shape[:3]
    K, T_camera_world = _read_cameras(path, T)
    frame_indices, offsets, rows = _read_samples(path / "samples")
    S, F, B = len(frame_indices), rows.future_uvz.shape[1], rows.history_uvz.shape[1]
    meta, texts = path / "meta.json", path / CAPTION_FILE
    description = path / "description.txt"
    return Episode(
        path=path,
        images=images,
        depth=_load_if_there(path / "depth.npy", "f", (T, H, W)),
        K=K,
        T_camera_world=T_camera_world,
        frame_indices=frame_indices,
        offsets=offsets,
        rows=rows,
        arc_step=RELEASED_ARC_STEP if manifest is None else manifest["arc_step"],
        captions=read_captions(texts) if texts.exists() else (),
        stamps=_load_if_there(path / "stamps.npy", "f", (T,)),
        step_times=_load_if_there(path / "samples/step_times.npy", "f", (S, F)),
        step_times_history=_load_if_there(path / "samples/step_times_history.npy", "f", (S, B)),
        description=description.read_text("utf-8") if description.exists() else None,
        meta=load_json(meta) if meta.exists() else None,
        manifest=manifest,
    )


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Read the manifest of the episode in a folder; None if it has none.

    Raises:
        EpisodeError: It is of another version, lacks the arc step, or a file it lists is missing
            or of another size.
    """
    file = path / MANIFEST_FILE
    if not file.exists():
        return None
    manifest = load_json(file)
    if manifest.get("version") != FORMAT_VERSION:
        raise EpisodeError(
            f"{file}: format version {manifest.get('version')}, expected {FORMAT_VERSION}; "
            "read it with the release that wrote it"
        )
    arc_step = manifest.get("arc_step")
    if not isinstance(arc_step, int | float) or not 0.0 < arc_step < np.inf:
        raise EpisodeError(f"{file}: expected an arc_step above 0, got {arc_step!r}")
    for name, size in manifest.get("files", {}).items():
        found = (path / name).stat().st_size if (path / name).exists() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes"
            raise EpisodeError(f"{path / name}: {state}, the manifest says {size} bytes")
    return manifest


def load_array(path: Path, kinds: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Memory-map a .npy file.

    Args:
        path: The file.
        kinds: NumPy's letters of the kinds of type it may hold.
        shape: Lengths of its axes; None: any.

    Raises:
        EpisodeError: It is missing, truncated, or has another type or shape.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise EpisodeError(f"{path}: missing, and needed") from error
    except (ValueError, EOFError, OSError) as error:
        raise EpisodeError(
            f"{path}: not a whole .npy file ({error}); it may be truncated: copy or write the "
            "episode again"
        ) from error
    if array.dtype.kind not in kinds:
        expected = " or ".join(_KINDS[kind] for kind in kinds)
        raise EpisodeError(f"{path}: expected {expected}, got {array.dtype}")
    fits = array.ndim == len(shape) and all(
        wanted in (None, got) for wanted, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise EpisodeError(f"{path}: expected shape {spell_shape(shape)}, got {array.shape}")
    return array


def spell_shape(shape: tuple[int | str | None, ...]) -> str:
    """Write a shape in which some axes may have any length."""
    return "(" + ", ".join("any" if axis is None else str(axis) for axis in shape) + ")"


def _load_if_there(path: Path, kinds: str, shape: tuple[int | None, ...]) -> NDArray[Any] | None:
    return load_array(path, kinds, shape) if path.exists() else None


def _read_cameras(
    path: Path, n_frames: int
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return K (T, 3, 3) and T_camera_world (T, 4, 4), both None if there is no file."""
    file = path / "cameras.npz"
    if not file.exists():
        return None, None
    arrays = load_npz(file)
    loaded = []
    for key, size in (("intrinsics", 3), ("extrinsics", 4)):
        if key not in arrays:
            raise EpisodeError(f"{file}: no array {key!r}; it holds {', '.join(arrays)}")
        if arrays[key].shape != (n_frames, size, size):
            raise EpisodeError(
                f"{file}: {key}: expected shape ({n_frames}, {size}, {size}) as images.npy has "
                f"{n_frames} frames, got {arrays[key].shape}"
            )
        loaded.append(arrays[key].astype(np.float64))
    return loaded[0], loaded[1]


def load_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a .npz file, or raise an EpisodeError that names it."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # zipfile and zlib raise what they like on damaged files
        raise EpisodeError(f"{path}: not a whole .npz file ({error})") from error


def _read_samples(folder: Path) -> tuple[NDArray[Any], NDArray[Any], Rows]:
    """Return frame indices, offsets and rows of the samples folder."""
    if not folder.is_dir():
        raise EpisodeError(f"{folder}: missing, and needed")
    if not any(folder.glob("*.npy")):  # written so when nothing moved
        return np.zeros(0, np.int32), np.zeros(1, np.int64), _no_rows()
    frame_indices = load_array(folder / "frame_indices.npy", "iu", (None,))
    offsets = load_array(folder / "offsets.npy", "iu", (len(frame_indices) + 1,))
    n_rows = int(offsets[-1])
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise EpisodeError(
            f"{folder / 'offsets.npy'}: expected to start at 0 and never to fall, got "
            f"{offsets[:8].tolist()}..."
        )
    arrays = {}
    lengths: dict[str, int | None] = {"F": None, "B": None}
    for name, file in (ROW_FILES | EXTRA_ROW_FILES).items():
        path = folder / f"{name}.npy"
        if not file.required and not path.exists():
            continue
        kinds = "iu" if np.issubdtype(file.dtype, np.integer) else np.dtype(file.dtype).kind
        columns = tuple(lengths[axis] if isinstance(axis, str) else axis for axis in file.columns)
        array = load_array(path, kinds, (n_rows, *columns))
        for axis, length in zip(file.columns, array.shape[1:], strict=True):
            if isinstance(axis, str):
                lengths[axis] = length
        arrays[file.field] = array
    return frame_indices, offsets, Rows(**arrays)


def _no_rows() -> Rows:
    steps, valid = np.zeros((0, 0, 3), np.float16), np.zeros((0, 0), np.bool_)
    return Rows(
        is_moving=np.zeros(0, np.bool_),
        future_uvz=steps,
        future_valid=valid,
        history_uvz=steps,
        history_valid=valid,
    )


def _refuse_other_layouts(path: Path) -> None:
    """Raise an EpisodeError for a folder that is no episode, or one in the old layout."""
    if not path.is_dir():
        raise EpisodeError(f"{path}: no such folder")
    if not (path / "images.npy").exists() and (path / "images").is_dir():
        raise EpisodeError(
            f"{path}: an episode in the old layout (a picture file for each frame), which is not "
            "read here; convert it with the extractor that wrote it"
        )
