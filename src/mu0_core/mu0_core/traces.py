"""Own the containers that keypoints and traces travel in between the parts of a program.

They hold what mu0_msgs/KeypointArray and mu0_msgs/TraceArray hold, as NumPy arrays that are
checked once, at construction, then copied and read-only. Legend: n keypoints, h history steps,
s samples, d control points. Messages are converted in mu0_core.ros.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum, StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.errors import ShapeError


class KeypointSource(IntEnum):
    """Say where a keypoint comes from; the numbers are those of KeypointArray.msg."""

    ENTITY = 0
    ROBOT = 1
    CLICKED = 2
    GRID = 3
    MASK = 4


class PointsFrom(StrEnum):
    """Say where the points are that action experts are given features of."""

    GRID = "grid"
    """On a grid over the picture, pooled."""
    KEYPOINTS = "keypoints"
    """On things, as tracked: world models are trained on such points."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Keypoints:
    """Hold keypoints tracked in one camera image.

    Attributes:
        stamp_ns: Time of the image, ns.
        frame_id: Optical frame of the image.
        camera: Intrinsics and size of the image.
        arc_step: Arc length between history steps: image fractions and metres in one norm.
        ids: (n,) uint32, unique and stable over time.
        cluster_ids: (n,) int32 entity of each keypoint, -1 = none.
        source: (n,) uint8, values of KeypointSource.
        uv: (n, 2) float32 px.
        z: (n,) float32 m along the optical axis, NaN = unknown.
        visible: (n,) bool, seen in this image.
        history_uvz: (n, h, 3) float32 px, px, m in this image's camera, oldest first; NaN where
            invalid.
        history_valid: (n, h) bool.
    """

    stamp_ns: int
    frame_id: str
    camera: Camera
    arc_step: float
    ids: NDArray[np.uint32]
    cluster_ids: NDArray[np.int32]
    source: NDArray[np.uint8]
    uv: NDArray[np.float32]
    z: NDArray[np.float32]
    visible: NDArray[np.bool_]
    history_uvz: NDArray[np.float32]
    history_valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        layout = {
            "ids": (np.uint32, "n"),
            "cluster_ids": (np.int32, "n"),
            "source": (np.uint8, "n"),
            "uv": (np.float32, "n 2"),
            "z": (np.float32, "n"),
            "visible": (np.bool_, "n"),
            "history_uvz": (np.float32, "n h 3"),
            "history_valid": (np.bool_, "n h"),
        }
        _freeze_arrays(self, layout)
        _check_common(self)

    @property
    def n(self) -> int:
        """Number of keypoints."""
        return len(self.ids)

    @property
    def history_length(self) -> int:
        """Number of history steps."""
        return self.history_valid.shape[1]

    def uvz(self) -> NDArray[np.float32]:
        """Return the keypoints as (n, 3) px, px, m, NaN where z is unknown."""
        return np.concatenate([self.uv, self.z[:, None]], axis=1)

    def xyz(self) -> NDArray[np.float32]:
        """Lift the keypoints: (n, 3) m in frame_id, NaN where z is unknown."""
        return self.camera.unproject(self.uvz()).astype(np.float32)

    def selected(self, keep: NDArray) -> Self:
        """Return the keypoints that `keep` picks: an (n,) bool mask, or indices in an order."""
        names = (f.name for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray))
        return replace(self, **{name: getattr(self, name)[keep] for name in names})

    def of_source(self, source: KeypointSource) -> Self:
        """Return the keypoints that come from one source."""
        return self.selected(self.source == source)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traces:
    """Hold predicted future traces of keypoints.

    A trace is sampled by arc length, not by time: it is a path, and whoever follows it chooses
    the speed.

    Attributes:
        stamp_ns: Time of the image that was predicted from, ns.
        frame_id: Optical frame of that image.
        instruction: As given to the model.
        model: Predictor and checkpoint that made this.
        arc_step: Arc length between points: image fractions and metres in one norm.
        ids: (n,) uint32 of the keypoints, unique.
        cluster_ids: (n,) int32, -1 = none.
        source: (n,) uint8, values of KeypointSource.
        current_xyz: (n, 3) float32 m in frame_id.
        xyz: (s, n, horizon, 3) float32 m in frame_id; the first point is one arc_step ahead.
        control_uvz: (s, n, d, 3) float32 px, px, m: absolute control points of the B-spline.
        valid_prob: (s, n, horizon) float32 probability in [0, 1] that the motion still goes on.
        stage_names: Stages of the prediction, in order.
        stage_seconds: (stages,) float32 wall-clock time of each stage, s.
    """

    stamp_ns: int
    frame_id: str
    instruction: str
    model: str
    arc_step: float
    ids: NDArray[np.uint32]
    cluster_ids: NDArray[np.int32]
    source: NDArray[np.uint8]
    current_xyz: NDArray[np.float32]
    xyz: NDArray[np.float32]
    control_uvz: NDArray[np.float32]
    valid_prob: NDArray[np.float32]
    stage_names: tuple[str, ...]
    stage_seconds: NDArray[np.float32]

    def __post_init__(self) -> None:
        layout = {
            "ids": (np.uint32, "n"),
            "cluster_ids": (np.int32, "n"),
            "source": (np.uint8, "n"),
            "current_xyz": (np.float32, "n 3"),
            "xyz": (np.float32, "s n horizon 3"),
            "control_uvz": (np.float32, "s n d 3"),
            "valid_prob": (np.float32, "s n horizon"),
            "stage_seconds": (np.float32, "stages"),
        }
        _freeze_arrays(self, layout)
        _check_common(self)
        wrong = self.valid_prob[~((self.valid_prob >= 0.0) & (self.valid_prob <= 1.0))]
        if wrong.size:
            raise ShapeError(f"Traces.valid_prob: expected values in [0, 1], got {wrong[0]}")
        if len(self.stage_names) != len(self.stage_seconds):
            raise ShapeError(
                f"Traces.stage_seconds: expected one for each of {self.stage_names}, "
                f"got {len(self.stage_seconds)}"
            )

    @property
    def n(self) -> int:
        """Number of keypoints."""
        return len(self.ids)

    @property
    def s(self) -> int:
        """Number of samples."""
        return self.xyz.shape[0]

    @property
    def horizon(self) -> int:
        """Number of points on a trace."""
        return self.xyz.shape[2]

    @property
    def d(self) -> int:
        """Number of control points of a trace."""
        return self.control_uvz.shape[2]

    def selected(self, keep: NDArray) -> Self:
        """Return the traces of the keypoints that `keep` picks: an (n,) bool mask or indices."""
        per_point = ("ids", "cluster_ids", "source", "current_xyz")
        per_sample = ("xyz", "control_uvz", "valid_prob")
        changes: dict[str, Any] = {name: getattr(self, name)[keep] for name in per_point}
        changes |= {name: getattr(self, name)[:, keep] for name in per_sample}
        return replace(self, **changes)

    def of_source(self, source: KeypointSource) -> Self:
        """Return the traces of keypoints that come from one source."""
        return self.selected(self.source == source)


def _freeze_arrays(container: Any, layout: Mapping[str, tuple[type, str]]) -> None:
    """Check dtype and shape of the container's arrays, and replace them by read-only copies.

    Args:
        container: The frozen dataclass under construction.
        layout: Field name -> dtype and axes; an axis is a number or a letter, and a letter has
            the same length in every field, the first field that has it deciding.
    """
    lengths: dict[str, int] = {}
    for name, (dtype, axes) in layout.items():
        value = getattr(container, name)
        where = f"{type(container).__name__}.{name}"
        wanted = f"{np.dtype(dtype)} ({_spell(axes.split(), lengths)})"
        if not isinstance(value, np.ndarray):
            raise ShapeError(f"{where}: expected an array {wanted}, got {type(value).__name__}")
        if value.dtype != dtype or not _axes_fit(axes.split(), value.shape, lengths):
            raise ShapeError(f"{where}: expected {wanted}, got {value.dtype} {value.shape}")
        copy = value.copy()
        copy.setflags(write=False)
        object.__setattr__(container, name, copy)


def _axes_fit(axes: Sequence[str], shape: tuple[int, ...], lengths: dict[str, int]) -> bool:
    """Compare a shape with named axes; axes not met before take their length from it."""
    if len(axes) != len(shape):
        return False
    return all(
        size == (int(axis) if axis.isdigit() else lengths.setdefault(axis, size))
        for axis, size in zip(axes, shape, strict=True)
    )


def _spell(axes: Sequence[str], lengths: Mapping[str, int]) -> str:
    """Write axes as "n=5, h, 3"."""
    return ", ".join(f"{axis}={lengths[axis]}" if axis in lengths else axis for axis in axes)


def _check_common(container: Keypoints | Traces) -> None:
    """Check what the values of both containers have in common."""
    kind = type(container).__name__
    if not (np.isfinite(container.arc_step) and container.arc_step > 0.0):
        raise ShapeError(f"{kind}.arc_step: expected a length above 0, got {container.arc_step}")
    if len(np.unique(container.ids)) != len(container.ids):
        raise ShapeError(f"{kind}.ids: expected unique ids, got {container.ids.tolist()}")
    known = [int(source) for source in KeypointSource]
    wrong = container.source[~np.isin(container.source, known)]
    if wrong.size:
        raise ShapeError(f"{kind}.source: expected one of {known}, got {wrong[0]}")
