import shutil

import numpy as np
import pytest

from mu0_core import se3
from mu0_core.episode import read_episode
from mu0_core.episode_validator import validate_episode
from mu0_core.robot_model import RobotModel
from mu0_sim.episode_recorder import PointBudget
from mu0_sim.recorder import RecorderConfig, episode_path, record
from mu0_sim.robots import load_robot
from mu0_sim.urdf import robot_description

POINTS = PointBudget(per_object=8, gripper=4, static=4)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    config = RecorderConfig(
        out=tmp_path_factory.mktemp("series"),
        episodes=1,
        seed=3,
        width=96,
        height=72,
        rate_hz=5.0,
        points=POINTS,
        actions=True,
    )
    (outcome,) = record(config)
    assert outcome.recorded
    path = episode_path(config, 3)
    with np.load(path / "robot" / "states.npz") as file:
        return config, path, dict(file)


def test_all_is_taken_at_the_times_of_the_pictures(recorded):
    config, path, states = recorded
    n = read_episode(path).n_frames
    assert validate_episode(path) == []
    assert np.load(path / "robot" / "wrist.npy").shape == (n, 120, 160, 3)
    assert states["q"].shape == (n, 7)
    assert states["command_q"].shape == (n + 1, 7)
    assert float(states["rate_hz"]) == config.rate_hz
    assert float(states["wrist_focal_length"]) == pytest.approx(0.5 / np.tan(np.radians(37.5)))
    assert str(states["robot"]) == "panda"
    T_base_camera, T_tool_wrist = states["T_base_camera"], states["T_tool_wrist"]
    assert np.abs(T_base_camera[:3, 3] - [1.18, 0.0, 0.388]).max() < 0.06  # base to camera
    T_world_camera = se3.inverse(read_episode(path).T_camera_world[0])
    T_world_base = T_world_camera @ se3.inverse(T_base_camera)
    assert np.allclose(T_world_base[:3, :3], np.eye(3), atol=1e-4)
    # The grip point lies on the optical axis, in front of the wrist camera.
    in_camera = se3.transform_points(se3.inverse(T_tool_wrist), [0.0, 0.0, 0.01])
    assert np.allclose(in_camera[:2], 0.0, atol=1e-9) and 0.1 < in_camera[2] < 0.2
    # The arm follows its commands closely, and is where it was told a moment before.
    assert np.abs(states["q"] - states["command_q"][:-1]).max() < 0.02


def test_the_links_are_where_the_joints_put_them(recorded):
    _, _, states = recorded
    assert states["T_world_frame"].shape == (len(states["q"]), len(states["frames"]), 4, 4)
    robot = load_robot("panda")
    model = RobotModel.from_urdf(
        robot_description(robot), locked={robot.gripper.joint: robot.gripper.position_open}
    )
    tool = list(states["frames"]).index("tool0")
    for q, placed in zip(states["q"], states["T_world_frame"][:, tool], strict=True):
        q = model.reorder(robot.arm_joints, q)
        expected = robot.T_world_base @ model.forward(q, "tool0")
        np.testing.assert_allclose(placed, expected, atol=2e-3)


def test_the_gripper_is_commanded_from_open_to_closed(recorded):
    _, _, states = recorded
    commanded = states["command_gripper"]
    assert commanded[0] == states["gripper_open"]
    assert commanded[-1] == states["gripper_closed"]
    assert states["gripper_q"][-1] > states["gripper_closed"] + 0.01  # a cube is between


def test_the_wrist_camera_sees_more_of_the_cube_the_nearer_it_is(recorded):
    _, path, _ = recorded
    wrist = np.load(path / "robot" / "wrist.npy").astype(np.int64)
    colourful = (wrist.max(axis=-1) - wrist.min(axis=-1) > 100).sum(axis=(1, 2))
    first, near, held = (colourful[i] for i in (0, len(colourful) // 3, -1))
    assert held > 2 * near > 20 * first


def test_what_is_missing_is_recorded_again(recorded):
    config, path, states = recorded
    shutil.rmtree(path / "robot")
    (outcome,) = record(config)
    assert outcome.recorded
    with np.load(path / "robot" / "states.npz") as file:
        assert np.array_equal(file["command_q"], states["command_q"])
