"""Stand-in for cv_bridge where ROS 2 comes from wheels, which lack it.

Converts between sensor_msgs images and NumPy arrays on the Python side of OpenCV, by the rules of
the real package. Bayer and YUV pictures can only pass through.
"""

import re
import sys
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

__all__ = ["CvBridge", "CvBridgeError"]

_DEPTHS = {
    "8U": "uint8",
    "8S": "int8",
    "16U": "uint16",
    "16S": "int16",
    "32S": "int32",
    "32F": "float32",
    "64F": "float64",
}
_DEPTH_NAMES = {dtype: name for name, dtype in _DEPTHS.items()}
# encoding -> (layout, bits, channels)
_COLOURS = {
    f"{layout.lower()}{bits}": (layout, bits, channels)
    for layout, channels in (("RGB", 3), ("BGR", 3), ("RGBA", 4), ("BGRA", 4))
    for bits in (8, 16)
} | {"mono8": ("GRAY", 8, 1), "mono16": ("GRAY", 16, 1)}
_RAW = {"yuv422": ("8U", 2), "yuv422_yuy2": ("8U", 2)} | {
    f"bayer_{pattern}{bits}": (f"{bits}U", 1)
    for pattern in ("rggb", "bggr", "gbrg", "grbg")
    for bits in (8, 16)
}


class CvBridgeError(TypeError):
    """An image cannot be converted; the text says why."""


def _depth_and_channels(encoding: str) -> tuple[str, int]:
    """Return OpenCV's depth name and the channels of an encoding."""
    if encoding in _COLOURS:
        _, bits, channels = _COLOURS[encoding]
        return f"{bits}U", channels
    if encoding in _RAW:
        return _RAW[encoding]
    if match := re.fullmatch(r"(8U|8S|16U|16S|32S|32F|64F)(?:C([0-9]+))?", encoding):
        return match[1], int(match[2] or 1)
    raise CvBridgeError(f"Unrecognized image encoding [{encoding}]")


def _rescale(image: np.ndarray, source_depth: str, target_depth: str) -> np.ndarray:
    """Change the number type; only 8 and 16 bit unsigned numbers are scaled to full range."""
    scale = {("8U", "16U"): 65535.0 / 255.0, ("16U", "8U"): 255.0 / 65535.0}
    factor = scale.get((source_depth, target_depth), 1.0)
    if source_depth == target_depth:
        return image
    dtype = np.dtype(_DEPTHS[target_depth])
    values = image.astype(np.float64) * factor
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)  # OpenCV saturates, and turns NaN into the smallest number
    values = np.nan_to_num(np.rint(values), nan=limits.min)
    return np.clip(values, limits.min, limits.max).astype(dtype)


def _convert(image: np.ndarray, source: str, target: str) -> np.ndarray:
    """Convert colours and number type from one encoding to another."""
    if source == target:
        return image
    source_depth, source_channels = _depth_and_channels(source)
    target_depth, target_channels = _depth_and_channels(target)
    if source in _RAW or target in _RAW:
        raise CvBridgeError(
            f"Unsupported conversion from [{source}] to [{target}]: Bayer and YUV pictures only "
            "pass through here; ROS 2's own cv_bridge converts them"
        )
    if source in _COLOURS and target in _COLOURS:
        source_layout, target_layout = _COLOURS[source][0], _COLOURS[target][0]
        if source_layout != target_layout:
            image = cv2.cvtColor(image, getattr(cv2, f"COLOR_{source_layout}2{target_layout}"))
    elif target in _COLOURS:
        raise CvBridgeError(
            f"[{source}] is not a color format. but [{target}] is. "
            "The conversion does not make sense"
        )
    elif source_channels != target_channels:
        raise CvBridgeError(
            f"[{source}] and [{target}] do not have the same number of channel: "
            f"{source_channels} and {target_channels}"
        )
    return _rescale(image, source_depth, target_depth)


class CvBridge:
    """Converts images; holds no state."""

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> np.ndarray:
        """Return the pixels, (H, W) or (H, W, C), in `desired_encoding`.

        Without conversion the array may share the message's memory.

        Raises:
            CvBridgeError: an encoding is unknown or the two do not convert.
            TypeError: the message holds fewer bytes than its size says.
        """
        depth, channels = _depth_and_channels(img_msg.encoding)
        dtype = np.dtype(_DEPTHS[depth]).newbyteorder(">" if img_msg.is_bigendian else "<")
        columns = img_msg.step // (dtype.itemsize * channels)
        shape = (img_msg.height, columns) + ((channels,) if channels > 1 else ())
        image = np.ndarray(shape, dtype, buffer=img_msg.data)
        image = np.ascontiguousarray(image[:, : img_msg.width])
        image = image.astype(dtype.newbyteorder("="), copy=False)
        if desired_encoding == "passthrough":
            return image
        return _convert(image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(
        self, cvim: np.ndarray, encoding: str = "passthrough", header: Header | None = None
    ) -> Image:
        """Return a message with a copy of the pixels.

        Raises:
            CvBridgeError: the array's type or channels are not those of `encoding`.
        """
        _require_array(cvim)
        channels = 1 if cvim.ndim < 3 else cvim.shape[2]
        own = f"{_DEPTH_NAMES[cvim.dtype.name]}C{channels}"
        if encoding != "passthrough":
            depth, expected = _depth_and_channels(encoding)
            if f"{depth}C{expected}" != own:
                raise CvBridgeError(
                    f"encoding specified as {encoding}, but image has incompatible type {own}"
                )
        message = Image(height=cvim.shape[0], width=cvim.shape[1])
        if header is not None:
            message.header = header
        message.encoding = own if encoding == "passthrough" else encoding
        big = cvim.dtype.byteorder == ">" or (
            cvim.dtype.byteorder == "=" and sys.byteorder == "big"
        )
        message.is_bigendian = int(big)
        message.data.frombytes(cvim.tobytes())
        message.step = len(message.data) // message.height
        return message

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> np.ndarray:
        """Decode a JPEG, PNG, ...; without `desired_encoding` colours come as BGR."""
        packed = np.frombuffer(cmprs_img_msg.data, np.uint8)
        image = cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)
        if image is None:
            raise CvBridgeError(
                f"{packed.size} bytes of format [{cmprs_img_msg.format}] are no picture that "
                "OpenCV reads"
            )
        return (
            image
            if desired_encoding == "passthrough"
            else _convert(image, "bgr8", desired_encoding)
        )

    def cv2_to_compressed_imgmsg(
        self, cvim: np.ndarray, dst_format: str = "jpg"
    ) -> CompressedImage:
        """Encode a grey or BGR picture."""
        _require_array(cvim)
        message = CompressedImage(format=dst_format)
        message.data.frombytes(cv2.imencode(f".{dst_format}", cvim)[1].tobytes())
        return message


def _require_array(image: Any) -> None:
    if not isinstance(image, np.ndarray):
        raise TypeError("Your input type is not a numpy array")
