"""What an episode says of the motion in it."""

import numpy as np
import pytest

from mu0_core.episode_statistics import acceleration, displacement

T, N = 14, 8


def test_acceleration_counts_points_seen_without_a_break():
    t = np.arange(20.0)[:, None]
    uvz = np.stack([0.5 * 3.0 * t**2, 0 * t, 0 * t + 1], axis=-1)  # 3 px/frame^2
    seen, moves = np.ones((20, 1), bool), np.ones((20, 1), bool)
    values = acceleration(uvz, seen, moves)
    np.testing.assert_allclose(values, [0] * 5 + [3] * 10 + [0] * 5, atol=1e-5)
    seen[8] = False
    np.testing.assert_allclose(acceleration(uvz, seen, moves), [0] * 14 + [3] + [0] * 5, atol=1e-5)
    assert not acceleration(uvz, seen, ~moves).any()
    assert not acceleration(uvz[:10], seen[:10], moves[:10]).any()


def test_displacement_is_the_largest_distance_of_visible_positions():
    uvz = np.zeros((3, 2, 3))
    uvz[:, 0] = [[0, 0, 1], [3, 4, 1], [9, 12, 1]]
    uvz[:, 1] = [[0, 0, 1], [0, 0, 21], [0, 0, 1]]
    seen = np.ones((3, 2), bool)
    np.testing.assert_allclose(displacement(uvz, seen), [15, 2])
    seen[2, 0] = False
    np.testing.assert_allclose(displacement(uvz, seen), [5, 2])


def test_camera_motion_is_recorded(written, recording):
    statistics = np.load(written / "movement_statistics.npz")
    assert int(statistics["total_unique_kps"]) == N
    assert statistics["cam_rot_step_rad"].shape == (T - 1,)
    turn = np.linalg.norm([0.1, 0.05])
    assert float(statistics["cam_rot_total_rad"]) == pytest.approx(turn, rel=1e-4)
    centres = np.linalg.inv(recording.T_camera_world)[:, :3, 3]
    path = np.linalg.norm(np.diff(centres, axis=0), axis=1).sum()
    assert float(statistics["cam_trans_total"]) == pytest.approx(path, rel=1e-5)
