"""Keypoints of recorded episodes are those that the live tracker gives."""

import numpy as np
import pytest

from mu0_core.episode_writer import EpisodeOptions, Recording, write_episode
from mu0_core.errors import EpisodeError
from mu0_core.keypoint_file import KEYPOINT_FILE, read_keypoints
from mu0_core.se3 import inverse, make_transform
from mu0_core.traces import KeypointSource
from mu0_perception.live_tracker import LiveTracker, LiveTrackerConfig
from mu0_perception.track_episodes import main

N = 6
FILE = """
name: planar
base_frame: base_link
tool_frame: tool0
arm: {joints: [j1], controller: a, home_q: [0.0], acceleration: [5.0], jerk: [60.0]}
gripper: {joints: [jaw], open: [0.04], closed: [0.0], controller: g, closing_s: 0.6}
keypoints:
  frame: tool0
  xyz: [[0.0, 0.02, 0.0], [0.0, -0.02, 0.0], [0.02, 0.0, 0.0]]
workspace: {lower: [0.3, -0.6, -0.5], upper: [0.98, 0.6, 0.5]}
"""


@pytest.fixture
def frames(scene):
    return [scene.frame(10**9 + k * 10**8) for k in range(N)]


@pytest.fixture
def episode(tmp_path, scene, frames):
    xyz = np.random.default_rng(0).uniform(-0.1, 0.1, (8, 3))
    recording = Recording(
        images=np.stack([frame.rgb for frame in frames]),
        depth=np.stack([np.nan_to_num(frame.depth_m) for frame in frames]),
        K=scene.camera.K,
        T_camera_world=np.tile(inverse(scene.T_world_camera), (N, 1, 1)),
        stamps=np.array([frame.stamp_ns * 1e-9 for frame in frames]),
        tracks_xyz_world=xyz + np.linspace(0, 0.1, N)[:, None, None],
        visible=np.ones((N, 8), bool),
        moving=np.ones(8, bool),
        cluster_ids=np.zeros(8, np.int32),
    )
    folder = tmp_path / "one"
    write_episode(folder, recording, EpisodeOptions(arc_step=0.02))
    return folder


def test_they_are_what_the_live_tracker_gives(episode, frames, capsys):
    assert main([str(episode)]) == 0
    tracker = LiveTracker(LiveTrackerConfig())
    live = [tracker.update(frame).keypoints.uvz() for frame in frames]
    found = read_keypoints(episode)
    assert [len(rows) for rows in found] == [len(rows) for rows in live] != [0] * N
    for rows, expected in zip(found, live, strict=True):  # depth is kept in float16
        assert np.allclose(rows[:, :2], expected[:, :2], atol=1.0)
        assert np.allclose(rows[:, 2], expected[:, 2], atol=2e-3, equal_nan=True)
    (episode / KEYPOINT_FILE).write_bytes(b"PK")
    assert main([str(episode)]) == 0
    assert "0 of 1 episodes" in capsys.readouterr().out
    with pytest.raises(EpisodeError, match="damaged"):
        read_keypoints(episode)
    assert main([str(episode), "--again"]) == 0
    assert len(read_keypoints(episode)) == N


def test_points_on_the_gripper_follow_its_frame(episode, scene, tmp_path, capsys):
    robot = tmp_path / "planar.yaml"
    robot.write_text(FILE)
    (episode / "robot").mkdir()
    above = scene.boxes[0].T_world_box @ make_transform(np.eye(3), [0.0, 0.0, 0.1])
    states = {
        "robot": "planar",
        "frames": ("tool0",),
        "T_world_frame": np.tile(above, (N, 1, 1, 1)),
    }
    np.savez(episode / "robot" / "states.npz", **states)
    assert main([str(episode), "--robot", str(robot)]) == 0
    with np.load(episode / KEYPOINT_FILE) as file:
        assert (file["source"] == KeypointSource.ROBOT).sum() == 3 * N
    np.savez(episode / "robot" / "states.npz", robot="planar")
    with pytest.raises(SystemExit):
        main([str(episode), "--robot", str(robot), "--again"])
    assert "record anew or give --robot none" in capsys.readouterr().err
    assert main([str(episode), "--robot", "none", "--again"]) == 0
