"""Where depth, intrinsics and poses come from, and what becomes of pictures without them."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_perception.extract import depth_pose, pipeline
from mu0_perception.extract.depth_pose import (
    DepthPoseConfig,
    PoseFrom,
    choose_backends,
    placed_pictures,
)
from mu0_perception.extract.frames import FrameConfig, select_frames
from mu0_perception.extract.learned import WeightsError
from mu0_perception.extract.odometry import Odometry
from mu0_perception.extract.recording import About, Found, LeftOutError, Shot, SourceError
from mu0_perception.extract.sources import SourceConfig, open_recording
from mu0_perception.extract.state import RecordState

CAMERA = Camera(np.array([[30.0, 0, 11.5], [0, 30.0, 7.5], [0, 0, 1]]), 24, 16)
RGB = np.random.default_rng(0).integers(0, 255, (16, 24, 3)).astype(np.uint8)
PLANE = np.full((16, 24), 0.8, np.float32)


class Pictures:
    """A recording of pictures 0.1 s apart, with faults that are asked for."""

    def __init__(self, n=20, *, faults=None, has_pose=True, camera=CAMERA):
        self.problem = ""
        self.faults = faults or {}
        self.n, self.camera = n, camera
        self.about = About(
            name="a", path=Path("a"), source="test", has_depth=True, has_pose=has_pose
        )

    def stamps_s(self):
        return 0.1 * np.arange(self.n)

    def shots(self, indices):
        for i in indices:
            fault = self.faults.get(i, {})
            if fault is None:
                self.problem = self.problem or f"picture {i} is torn"
                yield None
                continue
            usual = {"depth_m": PLANE, "T_world_camera": np.eye(4), "camera": self.camera}
            yield Shot(stamp_s=0.1 * i, rgb=RGB, **(usual | fault))

    def frame_poses(self, stamps_s):
        return {}


@pytest.fixture
def place(tmp_path):
    def run(recording, **config):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        indices = np.arange(recording.n)
        with placed_pictures(
            recording, indices, DepthPoseConfig(**config), FrameConfig(), folder
        ) as placed:
            return placed, np.stack([np.array(d) for d in placed.frames.depth])

    return run


@pytest.mark.parametrize(
    "fault",
    [{"depth_m": None}, {"depth_m": PLANE[:8]}, {"T_world_camera": None}, None],
    ids=["no depth", "small depth", "no pose", "unreadable"],
)
def test_a_picture_that_lacks_something_is_left_out_and_counted(place, fault):
    placed, depth = place(Pictures(faults={5: fault}))
    assert placed.losses == {"unreadable_pictures": 1, "cut_off_pictures": 0}
    assert 5 not in placed.indices and len(placed.indices) == 19
    assert (depth == PLANE).all()


def test_without_depth_only_flat_makes_a_plane(place):
    recording = Pictures(faults={i: {"depth_m": None} for i in range(20)})
    with pytest.raises(LeftOutError, match="0 are readable.*first: it has no depth"):
        place(recording, depth="recorded")
    _, depth = place(recording, depth="flat")
    assert (depth == 1.0).all()


def test_a_gap_that_unreadable_pictures_leave_ends_the_episode(place, tmp_path):
    recording = Pictures(40, faults=dict.fromkeys([*range(9, 16), 30], None))
    placed, _ = place(recording)
    assert placed.indices.tolist() == [*range(16, 30), *range(31, 40)]
    assert placed.losses == {"unreadable_pictures": 8, "cut_off_pictures": 9}
    assert np.diff(placed.frames.stamps_s).max() < 0.5
    assert len(placed.frames) == len(placed.frames.images) == len(placed.frames.T_world_camera)


def test_of_many_runs_the_longest_stays_wherever_it_is(place, tmp_path):
    gaps = [*range(3, 9), *range(20, 27), *range(31, 38)]
    placed, _ = place(Pictures(40, faults=dict.fromkeys(gaps, None)))
    assert placed.indices.tolist() == list(range(9, 20))
    assert len(list(tmp_path.glob("*/*"))) <= 2  # the others take no room


def test_too_few_readable_pictures_are_told_with_the_first_reason(place):
    recording = Pictures(faults=dict.fromkeys(range(4, 20), None))
    with pytest.raises(LeftOutError, match="of 20 pictures 4 are.*--frames.min_frames.*4 is torn"):
        place(recording)


def test_a_wrong_unit_is_seen_behind_empty_pictures(place):
    empty = {"depth_m": np.full_like(PLANE, np.nan)}
    faults = {i: empty if i < 4 else {"depth_m": 1000 * PLANE} for i in range(20)}
    with pytest.raises(SourceError, match="median depth is 800 m"):
        place(Pictures(faults=faults))
    with pytest.raises(LeftOutError, match="depth of 20 pictures is empty"):
        place(Pictures(faults=dict.fromkeys(range(20), empty)))


def test_one_picture_close_to_a_thing_is_no_wrong_unit(place):
    placed, _ = place(Pictures(faults={0: {"depth_m": 0.02 * PLANE}}))
    assert len(placed.indices) == 20


def test_each_part_names_its_own_trouble(place):
    recording = Pictures(faults=dict.fromkeys(range(20), None))
    recording.problem = "of an earlier part"
    with pytest.raises(LeftOutError, match="picture 0 is torn"):
        place(recording)


def test_a_gap_in_tf_ends_the_episode(bag_maker, tmp_path):
    bag = bag_maker()
    with bag.writer:
        for i, stamp in enumerate(1.0 + 0.1 * np.arange(28)):
            bag.image("/color/image_raw", RGB, "rgb8", stamp)
            if not 10 <= i < 17:
                bag.transform("/tf", "world", "camera_optical", np.eye(4), stamp)
    found = Found(name="bag", path=tmp_path / "recordings/bag", source="rosbag2")
    stamps = open_recording(found, SourceConfig()).stamps_s()
    parts = select_frames(stamps, FrameConfig()).parts
    assert [part.tolist() for part in parts] == [list(range(10)), list(range(17, 28))]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_camera_lost_too_often_leaves_the_part_out(place, monkeypatch, share):
    def add(self, rgb, depth_m, camera):
        self._poses.append(np.eye(4))
        self._lost = round(share * len(self._poses))
        return np.eye(4)

    monkeypatch.setattr(Odometry, "add", add)
    recording = Pictures(has_pose=False)
    if share < 0.2:
        assert place(recording)[0].losses["odometry_lost_pictures"] == 2
        return
    with pytest.raises(LeftOutError, match="pose of 10 of 20 pictures, more than 20%"):
        place(recording)


@pytest.mark.parametrize(
    ("camera", "config", "name"),
    [
        (CAMERA, {}, "recorded"),
        (None, {"focal_px": 30.0}, "given"),
        (None, {"depth": "flat"}, "guessed"),
    ],
)
def test_where_intrinsics_come_from_is_told(place, camera, config, name):
    placed, _ = place(Pictures(camera=camera), **config)
    assert placed.backends["intrinsics"] == name


@pytest.mark.parametrize(
    ("has_depth", "has_pose", "cached", "config", "pose"),
    [
        (True, True, True, {"pose_model": "a"}, "recorded"),
        (True, False, True, {}, "odometry"),
        (False, False, False, {}, "odometry"),
        (False, False, True, {}, "learned"),
        (True, False, False, {"pose_model": "a"}, "learned"),
        (True, False, True, {"pose_model": "a", "pose": PoseFrom.ODOMETRY}, "odometry"),
    ],
)
def test_matches_are_used_where_little_is_recorded(
    monkeypatch, has_depth, has_pose, cached, config, pose
):
    monkeypatch.setattr(depth_pose, "is_cached", lambda name: cached)
    recording = Pictures()
    recording.about = replace(recording.about, has_depth=has_depth, has_pose=has_pose)
    assert choose_backends(recording, DepthPoseConfig(**config))[1] == pose


@pytest.mark.parametrize(
    ("config", "name"),
    [({}, "ETH-CVG/lightglue_superpoint"), ({"pose_model": "no/net"}, "no/net")],
)
def test_poses_by_matches_are_refused_without_the_weights(place, monkeypatch, config, name):
    monkeypatch.setattr(depth_pose, "is_cached", lambda name: False)
    told = f"matching network '{name}': its weights are not on this machine.*hf download {name}"
    with pytest.raises(WeightsError, match=told):
        place(Pictures(has_pose=False), pose=PoseFrom.LEARNED, **config)


def _concluded(**parts):
    state = RecordState(source="a", stamp="", finished=True, parts=parts)
    state.figures = {"a": {"unreadable_pictures": 3.0}}
    result = pipeline.Result(name="a")
    pipeline._conclude(state, result)
    return result


def test_parts_left_out_fail_a_recording_only_if_all_are():
    left = f"{pipeline.LEFT_OUT}: too dark"
    result = _concluded(a=pipeline.EPISODE, b=left)
    assert result.status == "done"
    assert result.reason == "1 of 2 parts left out: b: too dark; pictures lost: 3 unreadable"
    result = _concluded(a=left, b=left)
    assert result.status == "failed" and "too dark" in result.reason


def test_a_part_left_out_is_not_tried_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "_is_there", lambda path: True)
    folder = pipeline.OutFolder(tmp_path)
    left = f"{pipeline.LEFT_OUT}: too dark"
    state = RecordState(
        source="a", stamp="", finished=True, parts={"a": pipeline.EPISODE, "b": left}
    )
    assert pipeline._is_finished(state, folder)
    state.parts["a"] = left
    assert not pipeline._is_finished(state, folder)
