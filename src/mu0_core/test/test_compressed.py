import struct

import cv2
import numpy as np
import pytest

from mu0_core.compressed import decode_colour, decode_depth
from mu0_core.errors import ShapeError


def _png(values):
    return cv2.imencode(".png", values)[1].tobytes()


def test_colour_comes_back_as_rgb():
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[..., 0], rgb[..., 2] = 250, 10
    np.testing.assert_array_equal(decode_colour(_png(rgb[..., ::-1])), rgb)


def test_millimetres_become_metres():
    values = np.array([[0, 1000], [1234, 65535]], np.uint16)
    depth = decode_depth(struct.pack("<iff", 0, 0.0, 0.0) + _png(values), "16UC1; compressedDepth")
    np.testing.assert_allclose(depth, [[np.nan, 1.0], [1.234, 65.535]])


def test_quantised_inverse_depth_becomes_metres():
    a, b = 20000.0, -50.0
    exact = np.array([[0.5, 1.0], [2.0, 4.0]])
    values = np.rint(a / exact + b).astype(np.uint16)
    values[1, 1] = 0
    depth = decode_depth(struct.pack("<iff", 0, a, b) + _png(values), "32FC1; compressedDepth png")
    np.testing.assert_allclose(depth, [[0.5, 1.0], [2.0, np.nan]], atol=1e-3)


@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_colour_that_is_no_picture_is_refused(data):
    with pytest.raises(ShapeError, match=f"expected JPEG or PNG, got {len(data)} bytes"):
        decode_colour(data)


@pytest.mark.parametrize(
    ("data", "image_format", "text"),
    [
        (b"x" * 40, "16UC1; compressedDepth", "expected a 16-bit PNG after 12 bytes"),
        (b"", "16UC1; compressedDepth", "got 0 bytes"),
        (b"x" * 40, "rgb8; jpeg compressed bgr8", "beginning with 16UC1 or 32FC1"),
        (b"x" * 12 + _png(np.zeros((3, 3), np.uint8)), "16UC1; compressedDepth", "16-bit PNG"),
    ],
)
def test_depth_that_is_none_is_refused(data, image_format, text):
    with pytest.raises(ShapeError, match=text):
        decode_depth(data, image_format)
