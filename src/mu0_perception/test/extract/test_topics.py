"""Which topics of a bag belong to one camera."""

import struct

import cv2
import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_perception.extract.recording import SourceError
from mu0_perception.extract.sources import SourceConfig, find_recordings, open_recording

SIZE = (32, 24)  # smaller ones are no pictures of a camera
CAMERA = Camera(np.array([[30.0, 0.0, 15.5], [0.0, 30.0, 11.5], [0.0, 0.0, 1.0]]), *SIZE)
MM = np.full(SIZE[::-1], 800, np.uint16)
RGB = np.tile(np.arange(SIZE[0], dtype=np.uint8)[None, :, None], (SIZE[1], 1, 3))


def colour(topic, frame="camera_optical", size=SIZE):
    return "colour", topic, frame, size


def depth(topic, frame="camera_optical", size=SIZE):
    return "depth", topic, frame, size


def info(topic, frame="camera_optical", size=SIZE, **details):
    return "info", topic, frame, size, details


@pytest.fixture
def bag_of(bag_maker):
    """Write a bag of one message on each topic."""

    def make(*rows):
        maker = bag_maker()
        with maker.writer:
            for kind, topic, frame, (width, height), *details in rows:
                rgb, mm = cv2.resize(RGB, (width, height)), cv2.resize(MM, (width, height))
                if kind == "info":
                    camera = Camera(CAMERA.K, width, height)
                    maker.info(topic, camera, 1.0, frame_id=frame, **details[0])
                elif topic.endswith("/compressedDepth"):
                    data = struct.pack("<iff", 0, 0.0, 0.0) + cv2.imencode(".png", mm)[1].tobytes()
                    maker.compressed(topic, data, "16UC1; compressedDepth png", 1.0, frame)
                elif topic.endswith("/compressed"):
                    data = cv2.imencode(".png", rgb)[1].tobytes()
                    maker.compressed(topic, data, "png", 1.0, frame)
                elif kind == "colour":
                    maker.image(topic, rgb, "rgb8", 1.0, frame)
                else:
                    maker.image(topic, mm, "16UC1", 1.0, frame)
        return maker.writer.path

    return make


def opened(path, **config):
    config = SourceConfig(**config)
    (found,) = find_recordings(path, config)
    return open_recording(found, config)


def chosen(path, **config):
    details = opened(path, **config).about.details
    return tuple(details[f"{kind}_topic"] for kind in ("color", "depth", "info"))


@pytest.mark.parametrize(
    ("one", "other", "frames"),
    [
        ("/images/front/compressed", "/images/wrist/compressed", ("", "")),
        ("/cam/image_left", "/cam/image_right", ("cam", "cam")),
        ("/cam/image_raw", "/cam/image_rect_color", ("left", "right")),
    ],
)
def test_two_cameras_are_not_taken_for_one(bag_of, one, other, frames):
    path = bag_of(colour(one, frames[0]), colour(other, frames[1]))
    with pytest.raises(SourceError, match="2 cameras.*color_topic"):
        opened(path)
    assert chosen(path, color_topic=other)[0] == other


def test_of_the_forms_of_one_camera_the_straight_one_is_taken(bag_of):
    forms = ("image_raw", "image_raw/compressed", "image_color", "image_rect_color")
    path = bag_of(*(colour(f"/cam/{form}") for form in forms))
    assert chosen(path)[0] == "/cam/image_rect_color"


def test_depth_is_that_of_the_camera_also_where_frames_have_no_names(bag_of):
    rows = [
        row
        for side in ("left", "right")
        for row in (colour(f"/{side}/color/image_raw", ""), depth(f"/{side}/depth/image_raw", ""))
    ]
    path = bag_of(*rows)
    for side in ("left", "right"):
        names = chosen(path, color_topic=f"/{side}/color/image_raw")
        assert names[1] == f"/{side}/depth/image_raw"


def test_depth_of_another_camera_is_not_taken(bag_of):
    path = bag_of(
        colour("/front/color/image_raw", ""),
        depth("/front/depth/image_raw", ""),
        colour("/wrist/color/image_raw", ""),
    )
    assert chosen(path, color_topic="/wrist/color/image_raw")[1] is None
    assert chosen(path, color_topic="/front/color/image_raw")[1] == "/front/depth/image_raw"


def test_depth_that_may_be_any_of_several_is_asked_for(bag_of):
    path = bag_of(
        colour("/cam/image_raw"), depth("/cam/depth_left/image"), depth("/cam/depth_right/image")
    )
    with pytest.raises(SourceError, match="depth_left/image, .*depth_right/image.*depth_topic"):
        opened(path)
    asked = "/cam/depth_right/image"
    assert chosen(path, depth_topic=asked)[1] == asked


def test_depth_aligned_to_colour_goes_before_other_depth(bag_of):
    path = bag_of(
        colour("/camera/color/image_raw"),
        depth("/camera/depth/image_rect_raw"),
        depth("/camera/aligned_depth_to_color/image_raw"),
        depth("/camera/aligned_depth_to_color/image_raw/compressedDepth"),
    )
    assert chosen(path)[1] == "/camera/aligned_depth_to_color/image_raw"


def test_depth_of_another_size_than_compressed_colour_is_refused(bag_of):
    path = bag_of(colour("/cam/image_raw/compressed"), depth("/cam/depth/image", size=(64, 48)))
    with pytest.raises(SourceError, match=r"not on the pixels of /cam.*\(32, 24\)"):
        opened(path)


@pytest.mark.parametrize("transport", ["", "/compressed"])
@pytest.mark.parametrize(
    ("row", "belongs"),
    [
        (info("/camera/color/camera_info"), True),
        (info("/camera/color/camera_info", ""), True),
        (info("/camera/color/image_raw/camera_info"), True),
        (info("/elsewhere/camera_info"), True),
        (info("/camera/color/camera_info", size=(64, 48)), False),
        (info("/camera/color/camera_info", "other_optical"), False),
        (info("/camera/depth/camera_info", "depth_optical"), False),
        (info("/camera/depth/camera_info", size=(64, 48)), False),
        (info("/elsewhere/camera_info", ""), False),
    ],
)
def test_a_calibration_has_the_frame_and_size_of_its_camera(bag_of, transport, row, belongs):
    path = bag_of(colour(f"/camera/color/image_raw{transport}"), row)
    details = opened(path).about.details
    assert details["info_topic"] == (row[1] if belongs else None)
    assert details["other_info_topics"] == ([] if belongs else [row[1]])


def test_a_calibration_far_away_needs_the_name_of_a_frame(bag_of):
    path = bag_of(colour("/camera/color/image_raw", ""), info("/elsewhere/camera_info", ""))
    assert chosen(path)[2] is None
    assert chosen(path, info_topic="/elsewhere/camera_info")[2] == "/elsewhere/camera_info"


@pytest.mark.parametrize(
    ("name", "straight"),
    [
        ("image_rect_color/compressed", True),
        ("rect/image", True),
        ("image_raw/compressed", False),
        ("image_direct", False),
    ],
)
def test_rectified_pictures_are_known_by_name_and_not_made_straight_again(bag_of, name, straight):
    topic = f"/cam/{name}"
    beside = topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
    path = bag_of(colour(topic), info(beside, d=(0.5, 0.0, 0.0, 0.0, 0.0)))
    (shot,) = opened(path).shots([0])
    assert np.array_equal(shot.rgb, RGB) == straight


def test_compressed_depth_comes_in_metres_of_the_unit_that_is_given(bag_of):
    name = "/cam/depth/image/compressedDepth"
    path = bag_of(colour("/cam/image_raw/compressed"), depth(name))
    for unit_m, metres in ((None, 0.8), (0.0005, 0.4)):
        recording = opened(path, depth_unit_m=unit_m)
        assert recording.about.details["depth_topic"] == name
        (shot,) = recording.shots([0])
        assert np.allclose(shot.depth_m, metres)


def test_what_is_wrong_with_pictures_is_told(bag_maker):
    maker = bag_maker()
    with maker.writer:
        maker.image("/cam/image_raw", RGB, "unheard_of", 1.0)
    recording = opened(maker.writer.path)
    assert recording.problem == ""
    assert list(recording.shots([0])) == [None]
    assert "/cam/image_raw" in recording.problem and "unheard_of" in recording.problem


def test_pictures_of_another_size_than_their_calibration_are_told(bag_of):
    path = bag_of(colour("/cam/image_raw"), info("/far/camera_info", size=(64, 48)))
    recording = opened(path, info_topic="/far/camera_info")
    assert list(recording.shots([0])) == [None]
    assert "32x24 pixels, their CameraInfo has 64x48" in recording.problem
