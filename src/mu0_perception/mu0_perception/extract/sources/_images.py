"""Decode pictures as bags hold them, with messages of any ROS library."""

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import depth_to_metres
from mu0_core.compressed import decode_colour, decode_depth
from mu0_core.errors import ShapeError

_PLAIN = {
    "rgb8": None,
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "8UC1": cv2.COLOR_GRAY2RGB,
    "8UC3": cv2.COLOR_BGR2RGB,
    "bayer_rggb8": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
}
_CHANNELS = {"rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4}
_CHANNELS |= {"yuv422": 2, "yuv422_yuy2": 2}
DEPTH_ENCODINGS = ("16UC1", "32FC1", "mono16")
COLOUR_ENCODINGS = tuple(_PLAIN)


def stamp_of(raw: bytes | memoryview) -> float | None:
    """Return the stamp (s) of a serialised message that begins with a header; None for zero."""
    order = "<" if raw[1] & 1 else ">"
    sec, nanosec = struct.unpack_from(f"{order}iI", raw, 4)
    return sec + 1e-9 * nanosec if sec or nanosec else None


def encoding_of(message: Any) -> tuple[str, bool]:
    """Return the encoding of a picture, and whether it is depth."""
    if hasattr(message, "encoding"):
        return message.encoding, message.encoding in DEPTH_ENCODINGS
    return message.format, "compressedDepth" in message.format


def picture_of(
    message: Any, *, depth: bool, depth_unit_m: float | None
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Decode a picture: (H, W, 3) RGB, or (H, W) depth in m, NaN = none.

    Args:
        message: A sensor_msgs Image or CompressedImage.
        depth: What it shows.
        depth_unit_m: Metres of one unit of depth; None: as the encoding says.

    Raises:
        ShapeError: The encoding is unknown or the data are broken.
    """
    if not hasattr(message, "encoding"):
        data = bytes(message.data)
        if not depth:
            return decode_colour(data)
        metres = decode_depth(data, message.format)
        usual_m = 0.001 if message.format.startswith("16UC1") else 1.0
        return metres if depth_unit_m is None else metres * np.float32(depth_unit_m / usual_m)
    if depth:
        return _depth(message, depth_unit_m)
    encoding = message.encoding
    if encoding not in _PLAIN:
        known = ", ".join(_PLAIN)
        raise ShapeError(f"colour picture with encoding {encoding!r}: expected one of {known}")
    pixels = _rows(message, np.dtype(np.uint8), _CHANNELS.get(encoding, 1))
    conversion = _PLAIN[encoding]
    rgb = pixels if conversion is None else cv2.cvtColor(pixels, conversion)
    return np.ascontiguousarray(rgb, np.uint8)


def _depth(message: Any, unit_m: float | None) -> NDArray[np.float32]:
    encoding = message.encoding
    dtype = np.dtype(np.float32 if encoding == "32FC1" else np.uint16)
    values = _rows(message, dtype, 1)
    if unit_m is None:
        return depth_to_metres(values, encoding)
    metres = values.astype(np.float32) * np.float32(unit_m)
    metres[~(np.isfinite(metres) & (metres > 0.0))] = np.nan
    return metres


def _rows(message: Any, dtype: np.dtype[Any], channels: int) -> NDArray[Any]:
    """Return (H, W) or (H, W, channels) pixels without the padding of rows."""
    height, width = int(message.height), int(message.width)
    row = width * channels * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8)
    if message.step < row or len(data) < message.step * height:
        raise ShapeError(
            f"picture {width}x{height} {message.encoding}: expected rows of {row} bytes, got "
            f"step {message.step} and {len(data)} bytes in all"
        )
    rows = np.ascontiguousarray(data[: message.step * height].reshape(height, -1)[:, :row])
    pixels = rows.view(dtype.newbyteorder(">" if message.is_bigendian else "<")).astype(dtype)
    return pixels.reshape(height, width) if channels == 1 else pixels.reshape(height, width, -1)
