"""Own the files of the predict command: pictures, depth and points in, a prediction out."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.bspline import render
from mu0_core.camera import depth_to_metres
from mu0_core.errors import ConfigError, ShapeError
from mu0_core.traces import Keypoints, Traces
from mu0_world_model.drawing import overlay

OVERLAY, ARRAYS, TEXT = "overlay.png", "traces.npz", "traces.json"

_FARTHEST_M = 100.0


class DepthUnit(StrEnum):
    """Name the unit of a depth file."""

    MILLIMETRES = "mm"
    METRES = "m"


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as (H, W, 3) RGB.

    Raises:
        ConfigError: There is no such file, or it is no picture.
    """
    bgr = cv2.imdecode(_bytes("image", path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ConfigError(f"image: expected a picture such as PNG or JPEG, {path} is none")
    return np.ascontiguousarray(bgr[..., ::-1]).astype(np.uint8, copy=False)


def read_depth(path: Path, unit: DepthUnit | None) -> NDArray[np.float32]:
    """Read a depth image as (H, W) m along the optical axis, NaN = none.

    Args:
        path: A 16-bit PNG, or a NumPy array of whole numbers or floats.
        unit: Its unit; None: mm for whole numbers and m for floats, as ROS has it (REP-118).

    Raises:
        ConfigError: There is no such file, it is no depth image, or its unit is improbable.
    """
    values = _array("depth", path) if path.suffix == ".npy" else _depth_picture(path)
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise ConfigError(
            f"depth: expected numbers (H, W), {path} has {values.dtype} {values.shape}"
        )
    if values.dtype == np.uint8:
        raise ConfigError(
            f"depth: {path} has 8 bits, as a picture of depth; expected 16 or floats"
        )
    if unit is None:
        unit = DepthUnit.METRES if values.dtype.kind == "f" else DepthUnit.MILLIMETRES
    scale = {DepthUnit.METRES: 1.0, DepthUnit.MILLIMETRES: 1e-3}[unit]
    metres = depth_to_metres(values.astype(np.float32) * np.float32(scale), "32FC1")
    known = metres[np.isfinite(metres)]
    if not known.size:
        raise ConfigError(f"depth: {path} has no measurement, all values are zero or not finite")
    if np.median(known) > _FARTHEST_M:
        raise ConfigError(
            f"depth: {path} is {np.median(known):.0f} m in the median if its unit is {unit}; "
            "give another --depth_unit"
        )
    return metres


def read_points(path: Path) -> NDArray[np.float32]:
    """Read points (n, 2) px: a NumPy array, JSON, or a text with u and v on each line.

    Raises:
        ConfigError: There is no such file, or it holds no points.
    """
    try:
        if path.suffix == ".npy":
            values = _array("points_file", path)
        elif path.suffix == ".json":
            values = np.array(json.loads(path.read_text(encoding="utf-8")))
        else:
            text = path.read_text(encoding="utf-8").replace(",", " ")
            lines = [line.split() for line in text.splitlines() if line.strip()]
            values = np.array([[float(word) for word in line] for line in lines])
    except OSError as error:
        raise ConfigError(f"points_file: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"points_file: {path} has no list of u, v: {error}") from error
    if values.ndim != 2 or values.shape[1] != 2 or values.dtype.kind not in "uif":
        raise ConfigError(
            f"points_file: expected numbers (n, 2), {path} has {values.dtype} {values.shape}"
        )
    return values.astype(np.float32)


def read_mask(path: Path, shape: tuple[int, ...], n: int, seed: int) -> NDArray[np.float32]:
    """Choose up to n of the pixels where a mask is not zero, evenly at random: (n, 2) px.

    Raises:
        ConfigError: There is no such file, it is no picture, or all of it is zero.
        ShapeError: It is not of the picture's size.
    """
    mask = cv2.imdecode(_bytes("mask", path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ConfigError(f"mask: expected a picture such as PNG, {path} is none")
    if mask.shape != shape:
        raise ShapeError(f"mask: expected the picture's {shape} px, {path} has {mask.shape}")
    inside = np.argwhere(mask)[:, ::-1]
    if not len(inside):
        raise ConfigError(f"mask: {path} is zero everywhere, there is nothing to predict")
    chosen = np.random.default_rng(seed).permutation(len(inside))[:n]
    return inside[np.sort(chosen)].astype(np.float32)


def write_prediction(
    folder: Path,
    rgb: NDArray[np.uint8],
    keypoints: Keypoints,
    traces: Traces,
    facts: dict[str, Any],
) -> dict[str, str]:
    """Write overlay picture, arrays and text into a folder.

    Args:
        folder: Made if it is not there.
        rgb: (H, W, 3) the picture.
        keypoints: What was asked.
        traces: What was predicted.
        facts: What else the text is to tell.

    Returns:
        Paths by kind: overlay, arrays, text.

    Raises:
        ConfigError: It cannot be written.
    """
    uvz = render(traces.control_uvz, traces.horizon).astype(np.float32)
    picture = overlay(rgb, traces, keypoints.camera, keypoints.uv)
    arrays: dict[str, Any] = {
        "uv": keypoints.uv,
        "z": keypoints.z,
        "K": keypoints.camera.K,
        "uvz": uvz,
        "xyz": traces.xyz,
        "control_uvz": traces.control_uvz,
        "valid_prob": traces.valid_prob,
    }
    text = {**facts, "keypoints": [_told(keypoints, traces, uvz, i) for i in range(traces.n)]}
    names = {"overlay": OVERLAY, "arrays": ARRAYS, "text": TEXT}
    paths = {kind: folder / name for kind, name in names.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths["overlay"].write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
        np.savez(paths["arrays"], **arrays)
        paths["text"].write_text(json.dumps(text, allow_nan=False), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"output: {folder} cannot be written: {error.strerror}") from error
    return {kind: str(path) for kind, path in paths.items()}


def _told(
    keypoints: Keypoints, traces: Traces, uvz: NDArray[np.float32], i: int
) -> dict[str, Any]:
    """Write a keypoint as plain values; what is unknown is null."""
    return {
        "uv": _plain(keypoints.uv[i], 2),
        "z": _plain(keypoints.z[i], 4),
        "uvz": _plain(uvz[:, i], 4),
        "xyz": _plain(traces.xyz[:, i], 4),
        "valid_prob": _plain(traces.valid_prob[:, i], 3),
    }


def _plain(values: Any, digits: int) -> Any:
    """Round, and turn what is not finite into None."""
    rounded = np.asarray(np.round(np.asarray(values, np.float64), digits))
    told = rounded.astype(object)
    told[~np.isfinite(rounded)] = None
    return told.tolist()


def _depth_picture(path: Path) -> NDArray[Any]:
    values = cv2.imdecode(_bytes("depth", path), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ConfigError(f"depth: expected a 16-bit PNG or a NumPy array, {path} is none")
    return values


def _bytes(option: str, path: Path) -> NDArray[np.uint8]:
    """Read a file; at least one byte, which OpenCV wants."""
    try:
        return np.frombuffer(path.read_bytes() or b"\0", np.uint8)
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be read: {error.strerror}") from error


def _array(option: str, path: Path) -> NDArray[Any]:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ConfigError(f"{option}: {path} is no NumPy array: {error}") from error
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be read: {error.strerror}") from error
