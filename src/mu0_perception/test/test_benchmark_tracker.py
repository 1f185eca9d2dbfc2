"""Keypoints in benchmarks are those that the same pictures get when they are recorded."""

import re
from pathlib import Path

import numpy as np
import pytest

from mu0_core.benchmark import FRONT, TRACKER_GROUP, Observation, PolicySettings
from mu0_core.episode import read_episode
from mu0_core.episode_writer import EpisodeOptions, Recording, write_episode
from mu0_core.errors import ConfigError
from mu0_core.robot_model import RobotModel
from mu0_core.se3 import inverse, make_transform
from mu0_perception.benchmark_tracker import make
from mu0_perception.track_episodes import track_episode

N = 6
URDF = """
<robot name="planar">
  <link name="base_link"/><link name="tool0"/><link name="finger"/>
  <joint name="j1" type="prismatic">
    <parent link="base_link"/><child link="tool0"/>
    <origin xyz="0 0 0.1"/><axis xyz="1 0 0"/>
    <limit lower="-1" upper="1" velocity="1" effort="1"/>
  </joint>
  <joint name="jaw" type="prismatic">
    <parent link="tool0"/><child link="finger"/><axis xyz="0 1 0"/>
    <limit lower="0" upper="0.04" velocity="1" effort="1"/>
  </joint>
</robot>
"""
FILE = """
name: planar
base_frame: base_link
tool_frame: tool0
arm: {joints: [j1], controller: a, home_q: [0.0], acceleration: [5.0], jerk: [60.0]}
gripper: {joints: [jaw], open: [0.04], closed: [0.0], controller: g, closing_s: 0.6}
keypoints:
  frame: FRAME
  xyz: [[0.0, 0.02, 0.0], [0.0, -0.02, 0.0], [0.02, 0.0, 0.0]]
workspace: {lower: [0.3, -0.6, -0.5], upper: [0.98, 0.6, 0.5]}
"""
T_WORLD_BASE = make_transform([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], [0.1, 0.2, 0])


@pytest.fixture
def seen(scene):
    """Observations of a box that moves under a gripper that moves."""
    found = []
    for k in range(N):
        scene.boxes[0].T_world_box[0, 3] += 0.004
        frame = scene.frame(0, depth_noise_m=0.002, seed=k)
        found.append(
            Observation(
                pictures={FRONT: frame.rgb},
                depth_m=frame.depth_m,
                camera=scene.camera,
                T_base_camera=inverse(T_WORLD_BASE) @ scene.T_world_camera,
                q=np.array([0.01 * k]),
                gripper=0.0,
                joints=("j1",),
                rate_hz=20.0,
                time_s=0.05 * k,
            )
        )
    return found


@pytest.fixture
def episode(tmp_path, scene, seen):
    """The same, recorded."""
    recording = Recording(
        images=np.stack([one.pictures[FRONT] for one in seen]),
        depth=np.stack([one.depth_m for one in seen]),
        K=scene.camera.K,
        T_camera_world=np.tile(inverse(scene.T_world_camera), (N, 1, 1)),
        stamps=np.array([one.time_s for one in seen]),
        tracks_xyz_world=np.linspace(0.0, 0.1, N * 24).reshape(N, 8, 3),
        visible=np.ones((N, 8), bool),
        moving=np.ones(8, bool),
        cluster_ids=np.zeros(8, np.int32),
    )
    folder = tmp_path / "one"
    write_episode(folder, recording, EpisodeOptions(arc_step=0.02))
    model = RobotModel.from_urdf(URDF, locked={"jaw": 0.0})
    poses = np.stack([T_WORLD_BASE @ model.forward(one.q, "tool0") for one in seen])
    (folder / "robot").mkdir()
    np.savez(
        folder / "robot" / "states.npz",
        robot="planar",
        frames=("tool0",),
        T_world_frame=poses[:, None],
    )
    return read_episode(folder)


@pytest.fixture
def robot(tmp_path):
    path = tmp_path / "planar.yaml"
    path.write_text(FILE.replace("FRAME", "tool0"))
    return str(path)


@pytest.mark.parametrize("with_gripper", [True, False])
def test_they_are_those_of_the_recording(seen, episode, robot, with_gripper):
    robot = robot if with_gripper else "none"
    recorded = [keypoints.uvz() for keypoints in track_episode(episode, robot)]
    tracker = make(PolicySettings(robot_description=URDF, robot=robot))
    for _ in range(2):  # an episode begins anew
        tracker.reset()
        live = [tracker.update(one) for one in seen]
        assert [len(rows) for rows in live] == [len(rows) for rows in recorded]
        assert len(live[0]) > 10
        for rows, expected in zip(live, recorded, strict=True):  # cameras are kept in float32
            np.testing.assert_allclose(rows, expected, atol=0.01)
    if with_gripper:
        moved = live[-1][:3, :2] - live[0][:3, :2]
        assert (np.linalg.norm(moved, axis=1) > 5.0).all()


def test_a_gripper_that_is_not_in_the_description_is_named(tmp_path):
    path = tmp_path / "planar.yaml"
    path.write_text(FILE.replace("FRAME", "flange"))
    with pytest.raises(ConfigError, match="unknown frame 'flange'"):
        make(PolicySettings(robot_description=URDF, robot=str(path)))


def test_the_benchmarks_find_it_by_its_name():
    setup = (Path(__file__).parents[1] / "setup.py").read_text()
    assert re.search(rf'"{TRACKER_GROUP}": \[\s*"live = {make.__module__}:make"', setup)
