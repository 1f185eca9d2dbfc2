"""Own the decoding of compressed pictures as ROS image_transport sends them."""

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import depth_to_metres
from mu0_core.errors import ShapeError

_HEADER = struct.Struct("<iff")  # compressed_depth_image_transport: format, quantisation a and b


def decode_colour(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG picture to (H, W, 3) RGB.

    Raises:
        ShapeError: The data are no picture.
    """
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if bgr is None:
        raise ShapeError(
            "compressed colour image: expected JPEG or PNG, "
            f"got {len(data)} bytes that are neither"
        )
    return np.ascontiguousarray(bgr[..., ::-1]).astype(np.uint8, copy=False)


def decode_depth(data: bytes, image_format: str) -> NDArray[np.float32]:
    """Decode what compressed_depth_image_transport sends.

    After a header of 12 bytes comes a PNG: millimetres for 16UC1, for 32FC1 inverse depths
    quantised as depth = a / (value - b).

    Args:
        data: The payload.
        image_format: The message's format, such as "16UC1; compressedDepth png".

    Returns:
        (H, W) m, NaN = none.

    Raises:
        ShapeError: The encoding is unknown, or the data are no such picture.
    """
    encoding = image_format.split(";")[0].strip()
    if encoding not in ("16UC1", "32FC1"):
        raise ShapeError(
            "compressed depth image: expected a format beginning with 16UC1 or 32FC1 "
            f"(transport compressedDepth), got {image_format!r}"
        )
    payload = np.frombuffer(data, np.uint8)[_HEADER.size :]
    values = cv2.imdecode(payload, cv2.IMREAD_UNCHANGED) if payload.size else None
    if values is None or values.ndim != 2 or values.dtype != np.uint16:
        raise ShapeError(
            f"compressed depth image: expected a 16-bit PNG after {_HEADER.size} bytes of header, "
            f"got {len(data)} bytes that are none"
        )
    if encoding == "16UC1":
        return depth_to_metres(values, "16UC1")
    _, a, b = _HEADER.unpack_from(data)
    inverse = values.astype(np.float32) - np.float32(b)
    metres = np.divide(np.float32(a), inverse, out=np.zeros_like(inverse), where=values > 0)
    return depth_to_metres(metres, "32FC1")
