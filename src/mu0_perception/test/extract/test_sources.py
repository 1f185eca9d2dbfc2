"""Recordings of all kinds, and what is wrong with some."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from rosbags.rosbag2 import StoragePlugin

from mu0_core.camera import Camera
from mu0_core.episode_writer import EpisodeOptions, write_episode
from mu0_core.episode_writer import Recording as EpisodeRecording
from mu0_core.errors import CalibrationError, ConfigError, Mu0Error
from mu0_core.se3 import inverse
from mu0_perception.extract.recording import SourceError
from mu0_perception.extract.sources import SourceConfig, find_recordings, open_recording


def opened(path, **config):
    config = SourceConfig(**config)
    (found,) = find_recordings(path, config)
    return open_recording(found, config)


def shots(recording):
    return list(recording.shots(range(len(recording.stamps_s()))))


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("compressed", [False, True])
def test_a_bag_gives_back_what_was_recorded(film, bag, storage, compressed):
    film = film(4, camera_moves=True)
    recording = opened(bag(film, storage=storage, compressed=compressed))
    assert recording.about.instructions == ("carry the red box",)
    assert recording.about.details["fixed_frame"] == "world"
    assert np.allclose(recording.stamps_s(), film.stamps_s)
    for i, shot in enumerate(shots(recording)):
        assert np.array_equal(shot.rgb, film.rgb[i])
        assert np.nanmax(np.abs(shot.depth_m - film.depth_m[i])) < 0.0006
        assert np.allclose(shot.T_world_camera, film.T_world_camera[i])
        assert np.allclose(shot.camera.K, film.camera.K)


def test_part_of_a_bag_can_be_read(film, bag):
    film = film(5)
    recording = opened(bag(film))
    stamps = [shot.stamp_s for shot in recording.shots([1, 4])]
    assert stamps == pytest.approx(film.stamps_s[[1, 4]])


def test_a_bag_knows_the_frames_of_its_robot(film, bag):
    film = film(4)
    recording = opened(bag(film, robot=True))
    poses = recording.frame_poses(recording.stamps_s())
    assert list(poses) == ["hand"]
    assert np.allclose(poses["hand"], film.T_world_moved)


def colour_bag(maker, film, transforms):
    """Write colour pictures and rows of (topic, stamp, parent, child, transform)."""
    with maker.writer:
        for topic, stamp, parent, child, T in transforms:
            maker.transform(topic, parent, child, T, stamp)
        for rgb, stamp in zip(film.rgb, film.stamps_s, strict=True):
            maker.image("/camera/color/image_raw", rgb, "rgb8", stamp)
    return maker.writer.path


def test_a_gap_in_tf_costs_that_gap_only(film, bag_maker):
    film = film(8)
    transforms = [
        ("/tf", stamp, "world", "camera_optical", T)
        for stamp, T in zip(film.stamps_s, film.T_world_camera, strict=True)
        if not 1.25 < stamp < 1.55
    ]
    recording = opened(colour_bag(bag_maker(), film, transforms), max_tf_gap_s=0.25)
    there = [shot is not None for shot in shots(recording)]
    assert there == [True, True, True, False, False, False, True, True]
    assert "no transform" in recording.problem


def test_a_camera_with_the_tf_of_its_driver_only_has_no_poses(film, bag_maker):
    film = film(2)
    rows = [("/tf_static", 1.0, "camera_link", "camera_optical", film.T_world_camera[0])]
    recording = opened(colour_bag(bag_maker(), film, rows))
    assert not recording.about.has_pose and recording.frame_poses(film.stamps_s) == {}
    assert recording.about.details["fixed_frame"] is None
    assert "in a hand" in recording.about.details["fixed_frame_why"]
    assert shots(recording)[0].T_world_camera is None
    asked = opened(recording.about.path, fixed_frame="/camera_link")
    assert asked.about.has_pose
    assert np.allclose(shots(asked)[0].T_world_camera, film.T_world_camera[0])


def test_a_camera_beside_an_arm_has_the_pose_of_its_calibration(film, bag_maker):
    film = film(3)
    rows = [("/tf_static", 1.0, "base_link", "camera_optical", film.T_world_camera[0])]
    rows += [
        ("/tf", stamp, "base_link", "hand", T)
        for stamp, T in zip(film.stamps_s, film.T_world_moved, strict=True)
    ]
    recording = opened(colour_bag(bag_maker(), film, rows))
    assert recording.about.details["fixed_frame"] == "base_link"
    assert np.allclose(shots(recording)[2].T_world_camera, film.T_world_camera[0])
    assert list(recording.frame_poses(film.stamps_s)) == ["hand"]


def test_frames_that_are_not_connected_are_refused_at_once(film, bag_maker):
    film = film(1)
    rows = [
        ("/tf_static", 1.0, "camera_link", "camera_optical", np.eye(4)),
        ("/tf_static", 1.0, "base_link", "hand", np.eye(4)),
    ]
    path = colour_bag(bag_maker(), film, rows)
    with pytest.raises(Mu0Error, match="not connected"):
        opened(path, fixed_frame="base_link")


def test_a_bag_without_depth_or_tf_is_still_pictures(film, bag):
    recording = opened(bag(film(3), without=("depth", "tf")))
    assert not recording.about.has_depth and not recording.about.has_pose
    assert shots(recording)[0].depth_m is None


def test_a_bag_without_colour_says_what_there_is(film, bag, tmp_path):
    path = bag(film(3))
    with pytest.raises(SourceError, match=r"no color pictures on '/front'.*/tf_static"):
        opened(path, color_topic="/front")


def test_depth_that_does_not_say_its_unit_is_refused(film, bag):
    with pytest.raises(SourceError, match="mono16.*depth_unit_m"):
        opened(bag(film(3), encoding="mono16"))


def test_a_truncated_bag_is_named_with_a_remedy(film, bag):
    path = bag(film(3))
    file = next(path.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(SourceError, match="not readable as a bag.*mcap recover"):
        opened(path)


def test_a_frame_that_tf_does_not_know_is_refused(film, bag):
    with pytest.raises(SourceError, match="'map'.*world"):
        opened(bag(film(3)), fixed_frame="map")


def _video(path, film, rate=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.bit_rate = 8_000_000
        for rgb in film.rgb:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())


def test_a_video_has_its_own_times(film, tmp_path):
    film = film(5)
    _video(tmp_path / "clip.mp4", film)
    recording = opened(tmp_path / "clip.mp4", instruction="carry it")
    assert recording.about.instructions == ("carry it",)
    assert np.allclose(np.diff(recording.stamps_s()), 0.1)
    (third,) = recording.shots([3])
    assert np.abs(third.rgb.astype(int) - film.rgb[3]).mean() < 6.0


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="not readable as a video"):
        opened(tmp_path / "clip.mp4")


def _frames(folder: Path, film, depth):
    (folder / "depth").mkdir(parents=True)
    for i, rgb in enumerate(film.rgb):
        cv2.imwrite(str(folder / f"frame_{i}.png"), np.ascontiguousarray(rgb[..., ::-1]))
        if depth:
            mm = np.rint(1000 * np.nan_to_num(film.depth_m[i])).astype(np.uint16)
            cv2.imwrite(str(folder / "depth" / f"frame_{i}.png"), mm)
    if not depth:
        (folder / "depth").rmdir()


def test_a_folder_of_frames_is_read_in_natural_order_with_its_depth(film, tmp_path):
    film = film(11)
    _frames(tmp_path / "walk", film, depth=True)
    recording = opened(tmp_path / "walk", depth_unit_m=0.001)
    (shot,) = recording.shots([10])
    assert np.array_equal(shot.rgb, film.rgb[10])
    assert np.nanmax(np.abs(shot.depth_m - film.depth_m[10])) < 0.0006


def test_depth_pictures_without_a_unit_are_refused(film, tmp_path):
    _frames(tmp_path / "walk", film(3), depth=True)
    with pytest.raises(SourceError, match="depth_unit_m"):
        opened(tmp_path / "walk")


def _lerobot(root: Path, film, version):
    key = "observation.images.front"
    joined = version.startswith("v3")
    pattern = (
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if joined
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    )
    info = {
        "codebase_version": version,
        "fps": 10,
        "robot_type": "so100",
        "chunks_size": 1000,
        "video_path": pattern,
        "features": {key: {"dtype": "video"}, "action": {"dtype": "float32"}},
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    n = len(film.rgb)
    if not joined:
        rows = [{"episode_index": 0, "tasks": ["carry the box"], "length": n}]
        text = "\n".join(json.dumps(row) for row in rows)
        (root / "meta/episodes.jsonl").write_text(text + "\n")
        _video(root / f"videos/chunk-000/{key}/episode_000000.mp4", film)
        return
    rows = [
        {
            "episode_index": i,
            "tasks": [task],
            "length": n // 2,
            f"videos/{key}/chunk_index": 0,
            f"videos/{key}/file_index": 0,
            f"videos/{key}/from_timestamp": i * n / 20,
            f"videos/{key}/to_timestamp": (i + 1) * n / 20,
        }
        for i, task in enumerate(("first", "second"))
    ]
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, root / "meta/episodes/chunk-000/file-000.parquet")
    _video(root / f"videos/{key}/chunk-000/file-000.mp4", film)


def test_lerobot_2_1_has_a_video_for_each_episode(film, tmp_path):
    film = film(4)
    _lerobot(tmp_path / "data", film, "v2.1")
    recording = opened(tmp_path / "data")
    assert recording.about.instructions == ("carry the box",)
    assert np.allclose(recording.stamps_s(), [0.0, 0.1, 0.2, 0.3])


def test_lerobot_3_finds_an_episode_inside_a_file(film, tmp_path):
    film = film(8)
    _lerobot(tmp_path / "data", film, "v3.0")
    config = SourceConfig()
    found = find_recordings(tmp_path / "data", config)
    assert [f.name for f in found] == ["data_episode_000000", "data_episode_000001"]
    second = open_recording(found[1], config)
    assert second.about.instructions == ("second",)
    assert np.allclose(second.stamps_s(), [0.0, 0.1, 0.2, 0.3])
    (shot,) = second.shots([1])
    assert np.abs(shot.rgb.astype(int) - film.rgb[5]).mean() < 6.0


def test_nothing_known_is_said(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match="no recording of a known kind"):
        find_recordings(tmp_path, SourceConfig())
    with pytest.raises(SourceError, match="no such file"):
        find_recordings(tmp_path / "nowhere", SourceConfig())
    with pytest.raises(ConfigError, match="did you mean 'rosbag2'"):
        find_recordings(tmp_path, SourceConfig(kind="rosbag"))


def test_recordings_of_one_name_are_told_apart_by_their_folders(film, bag, tmp_path):
    path = bag(film(3), "one")
    root = path.parent
    for day in ("monday", "tuesday"):
        shutil.copytree(path, root / day / "one")
    shutil.rmtree(path)
    names = [f.name for f in find_recordings(root, SourceConfig())]
    assert names == ["monday__one", "tuesday__one"]


def test_a_lens_with_distortion_is_made_straight(film, bag):
    from mu0_perception.extract.sources._calibration import lens_of

    film = film(1)

    class Info:
        k, p = film.camera.K.ravel(), np.hstack([film.camera.K, np.zeros((3, 1))]).ravel()
        d, distortion_model = [0.1, 0.0, 0.0, 0.0, 0.0], "plumb_bob"
        width, height, binning_x, binning_y = 320, 240, 0, 0

        class roi:  # noqa: N801
            width = height = x_offset = y_offset = 0

    lens = lens_of(Info, rectified=False, name="info")
    assert not np.array_equal(lens.straight(film.rgb[0]), film.rgb[0])
    assert lens.straight_depth(film.depth_m[0]).shape == (240, 320)
    Info.distortion_model = "unheard_of"
    with pytest.raises(CalibrationError, match="unheard_of"):
        lens_of(Info, rectified=False, name="info")
    Info.k = np.zeros(9)
    with pytest.raises(CalibrationError, match="not calibrated"):
        lens_of(Info, rectified=False, name="info")


def test_poses_are_those_of_the_camera(film, bag):
    film = film(3, camera_moves=True)
    shot = shots(opened(bag(film)))[2]
    moved = inverse(film.T_world_camera[0]) @ shot.T_world_camera
    assert np.linalg.norm(moved[:3, 3]) > 0.004


def test_the_frames_of_a_simulated_robot_are_those_of_its_pictures(tmp_path):
    stamps = 1.0 + 0.1 * np.arange(5)
    path = tmp_path / "lift"
    tracks = np.tile([0.0, 0.0, 1.0], (5, 1, 1))
    tracks[:, 0, 0] = 0.02 * np.arange(5)
    recorded = EpisodeRecording(
        images=np.zeros((5, 8, 8, 3), np.uint8),
        depth=np.ones((5, 8, 8), np.float32),
        K=Camera.from_fovy(0.8, 8, 8).K,
        T_camera_world=np.eye(4),
        tracks_xyz_world=tracks,
        visible=np.ones((5, 1), np.bool_),
        cluster_ids=np.zeros(1, np.int32),
        moving=np.ones(1, np.bool_),
        stamps=stamps,
    )
    write_episode(path, recorded, EpisodeOptions(arc_step=0.01))
    config = SourceConfig()
    recording = open_recording(find_recordings(path, config)[0], config)
    assert recording.frame_poses(stamps) == {}

    poses = np.tile(np.eye(4), (5, 2, 1, 1))
    poses[:, 1, 0, 3] = np.arange(5)
    states = path / "robot/states.npz"
    states.parent.mkdir()
    np.savez(states, frames=("arm", "hand"), T_world_frame=poses)
    found = recording.frame_poses(stamps[[1, 4]])
    assert list(found) == ["arm", "hand"]
    np.testing.assert_array_equal(found["hand"][:, 0, 3], [1.0, 4.0])

    states.write_bytes(states.read_bytes()[:100])
    with pytest.raises(SourceError, match="states.npz"):
        recording.frame_poses(stamps)
