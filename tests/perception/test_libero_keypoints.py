"""Keypoints in LIBERO: a policy is shown what recordings are given, on the real gripper."""

import numpy as np
import pytest

pytest.importorskip("libero", reason="requirements/libero.txt is not installed")

from mu0_core.benchmark import load_keypoint_tracker
from mu0_core.embodiment import load_embodiment
from mu0_core.episode import read_episode
from mu0_core.keypoint_file import read_keypoints
from mu0_core.se3 import transform_points
from mu0_core.shipped_robots import embodiment_file
from mu0_perception.track_episodes import main
from mu0_sim.libero.drivers import policy_settings
from mu0_sim.libero.environment import LiberoEnvironment
from mu0_sim.libero.recording import LiberoRecorder
from mu0_sim.libero.suites import load_suite

ACTION = np.array([0.3, 0.2, -0.5, 0.0, 0.0, 0.2, 1.0])  # down and aside, closing
N = 6


@pytest.mark.slow
def test_what_is_shown_is_what_is_recorded(tmp_path):
    environment = LiberoEnvironment(load_suite("libero_object")[0], size=256)
    try:
        environment.reset(0)
        recorder, seen = LiberoRecorder(environment), []
        for _ in range(N):
            recorder.take(ACTION)
            seen.append((environment.observe(), environment.T_world_tool))
            environment.step(ACTION)
        recorder.write(tmp_path / "one", {})
        tracker = load_keypoint_tracker(policy_settings(None, ""))
        shown = [tracker.update(observation) for observation, _ in seen]
        T_base_world = np.linalg.inv(environment.T_world_base)
    finally:
        environment.close()
    assert main([str(tmp_path / "one")]) == 0
    recorded = read_keypoints(tmp_path / "one")
    points = load_embodiment(embodiment_file("panda")).keypoints
    for rows, expected, (observation, T_world_tool) in zip(shown, recorded, seen, strict=True):
        assert len(rows) == len(expected) > 30
        np.testing.assert_allclose(rows, expected, atol=0.05)
        T_camera_tool = np.linalg.inv(observation.T_base_camera) @ T_base_world @ T_world_tool
        on_gripper = observation.camera.project(transform_points(T_camera_tool, points.xyz))
        np.testing.assert_allclose(rows[: len(on_gripper)], on_gripper, atol=0.1)
        u, v = np.rint(on_gripper[:, :2]).astype(int).T
        beside_m = np.abs(observation.depth_m[v, u] - on_gripper[:, 2])
        assert np.median(beside_m) < 0.005  # some lie on edges
    with np.load(tmp_path / "one" / "robot" / "states.npz") as file:
        tool = file["T_world_frame"][:, file["frames"].tolist().index("tool0")]
    np.testing.assert_allclose(tool, [T for _, T in seen], atol=1e-3)
    assert read_episode(tmp_path / "one").n_frames == N
