"""Pictures of files that are damaged or not what they seem."""

import re
from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from mu0_perception.extract.recording import Found
from mu0_perception.extract.sources import SourceConfig
from mu0_perception.extract.sources._images import picture_of
from mu0_perception.extract.sources.video import FrameFolder, VideoRecording

MM = np.full((24, 32), 800, np.uint16)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "walk"
    (path / "depth").mkdir(parents=True)
    for i in range(4):
        cv2.imwrite(str(path / f"{i}.png"), np.full((24, 32, 3), 60 * i, np.uint8))
        cv2.imwrite(str(path / f"depth/{i}.png"), MM)
    return path


def _read(path):
    found = Found(name="walk", path=path, source="video")
    recording = FrameFolder(found, SourceConfig(depth_unit_m=0.001))
    return recording, list(recording.shots(range(4)))


def test_good_depth_pictures_are_read(folder):
    recording, shots = _read(folder)
    assert all(np.allclose(shot.depth_m, 0.8) for shot in shots) and not recording.problem


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:40]), "not readable as a depth"),
        (lambda file: file.write_bytes(b""), "not readable as a depth"),
        (lambda file: cv2.imwrite(str(file), np.zeros((24, 32, 3), np.uint8)), r"\(24, 32, 3\)"),
        (lambda file: cv2.imwrite(str(file), np.zeros((24, 32), np.uint8)), "16 bits.*uint8"),
    ],
    ids=["torn", "empty", "BGR", "8 bits"],
)
def test_a_bad_depth_picture_costs_its_picture_and_is_named(folder, damage, problem):
    damage(folder / "depth/2.png")
    recording, shots = _read(folder)
    assert [shot is None for shot in shots] == [False, False, True, False]
    assert re.search(problem, recording.problem)
    assert "depth/2.png" in recording.problem


def test_a_bad_colour_picture_is_named(folder):
    (folder / "1.png").write_bytes(b"nothing")
    recording, shots = _read(folder)
    assert [shot is None for shot in shots] == [False, True, False, False]
    assert "1.png: not readable as a picture" in recording.problem


def test_a_broken_packet_costs_its_pictures_only(tmp_path):
    path = tmp_path / "clip.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for i in range(8):
            rgb = np.full((48, 64, 3), 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    third = [i for i in range(len(data)) if data.startswith(b"\x89PNG", i)][3]
    path.write_bytes(data[:third] + b"\x00PNG" + data[third + 4 :])

    recording = VideoRecording(Found(name="clip", path=path, source="video"), SourceConfig())
    shots = list(recording.shots(range(8)))
    assert [i for i, shot in enumerate(shots) if shot is None] == [3]
    assert all((shot.rgb == 20 * i).all() for i, shot in enumerate(shots) if shot)
    assert str(path) in recording.problem


@pytest.mark.parametrize(("unit_m", "metres"), [(None, 0.8), (0.001, 0.8), (0.0001, 0.08)])
def test_a_unit_that_is_given_holds_for_compressed_depth(unit_m, metres):
    data = bytes(12) + cv2.imencode(".png", MM)[1].tobytes()
    message = SimpleNamespace(format="16UC1; compressedDepth png", data=data)
    assert np.allclose(picture_of(message, depth=True, depth_unit_m=unit_m), metres)
