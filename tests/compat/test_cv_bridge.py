"""cv_bridge: pixels survive, encodings are obeyed, nonsense is refused by name."""

import cv2
import numpy as np
import pytest
from cv_bridge import CvBridge, CvBridgeError
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

BRIDGE = CvBridge()


def pixels(shape, dtype="uint8"):
    values = np.random.default_rng(0).random(shape) * 200
    return values.astype(dtype)


@pytest.mark.parametrize(
    ("encoding", "shape", "dtype"),
    [
        ("rgb8", (3, 5, 3), "uint8"),
        ("bgra8", (3, 5, 4), "uint8"),
        ("mono8", (3, 5), "uint8"),
        ("mono16", (3, 5), "uint16"),
        ("16UC1", (3, 5), "uint16"),
        ("32FC1", (3, 5), "float32"),
        ("64FC2", (3, 5, 2), "float64"),
        ("32SC1", (3, 5), "int32"),
        ("bayer_rggb8", (3, 5), "uint8"),
    ],
)
def test_pixels_pass_through(encoding, shape, dtype):
    array = pixels(shape, dtype)
    message = BRIDGE.cv2_to_imgmsg(array, encoding)
    assert (message.encoding, message.height, message.width) == (encoding, 3, 5)
    assert message.step == array.nbytes // 3
    back = BRIDGE.imgmsg_to_cv2(message)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_an_unnamed_encoding_is_opencvs_and_the_header_is_kept():
    message = BRIDGE.cv2_to_imgmsg(pixels((2, 2, 3)), header=Header(frame_id="camera"))
    assert message.encoding == "8UC3"
    assert message.header.frame_id == "camera"


@pytest.mark.parametrize(
    ("source", "target", "code"),
    [
        ("rgb8", "bgr8", cv2.COLOR_RGB2BGR),
        ("bgr8", "rgb8", cv2.COLOR_BGR2RGB),
        ("rgb8", "mono8", cv2.COLOR_RGB2GRAY),
        ("bgr8", "rgba8", cv2.COLOR_BGR2RGBA),
    ],
)
def test_colours_convert_as_in_opencv(source, target, code):
    array = pixels((4, 6, 3))
    converted = BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(array, source), target)
    np.testing.assert_array_equal(converted, cv2.cvtColor(array, code))


def test_grey_becomes_three_equal_channels():
    array = pixels((4, 6))
    converted = BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(array, "mono8"), "rgb8")
    np.testing.assert_array_equal(converted, np.repeat(array[:, :, None], 3, axis=2))


def test_only_8_and_16_bits_are_scaled_to_each_other():
    wide = BRIDGE.cv2_to_imgmsg(np.array([[0, 257, 65535]], np.uint16), "mono16")
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(wide, "mono8"), [[0, 1, 255]])
    depth = BRIDGE.cv2_to_imgmsg(np.array([[0, 1500]], np.uint16), "16UC1")
    metres = BRIDGE.imgmsg_to_cv2(depth, "32FC1")
    assert metres.dtype == np.float32
    np.testing.assert_array_equal(metres, [[0.0, 1500.0]])


def test_padded_rows_and_big_endian_pixels_are_read():
    message = Image(height=2, width=2, encoding="16UC1", is_bigendian=1, step=6)
    message.data.frombytes(np.array([[1, 2, 99], [3, 4, 99]], ">u2").tobytes())
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("source", "array", "target", "text"),
    [
        ("32FC1", pixels((2, 2), "float32"), "mono8", "is not a color format"),
        ("rgb8", pixels((2, 2, 3)), "8UC1", "8UC1"),
        ("rgb8", pixels((2, 2, 3)), "purple", "purple"),
    ],
)
def test_conversions_without_sense_are_refused(source, array, target, text):
    message = BRIDGE.cv2_to_imgmsg(array, source)
    with pytest.raises(CvBridgeError, match=text):
        BRIDGE.imgmsg_to_cv2(message, target)


def test_an_array_that_does_not_fit_the_encoding_is_refused():
    with pytest.raises(CvBridgeError, match="incompatible type 8UC1"):
        BRIDGE.cv2_to_imgmsg(pixels((2, 2)), "rgb8")
    with pytest.raises(TypeError, match="numpy"):
        BRIDGE.cv2_to_imgmsg([[0]])


def test_a_message_with_too_few_bytes_is_refused():
    message = BRIDGE.cv2_to_imgmsg(pixels((4, 4)), "mono8")
    message.height = 5
    with pytest.raises(TypeError):
        BRIDGE.imgmsg_to_cv2(message)


def test_compressed_pictures():
    array = pixels((8, 8, 3))
    message = BRIDGE.cv2_to_compressed_imgmsg(array, "png")
    assert isinstance(message, CompressedImage)
    assert message.format == "png"
    np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(message), array)
    np.testing.assert_array_equal(
        BRIDGE.compressed_imgmsg_to_cv2(message, "rgb8"), array[:, :, ::-1]
    )
