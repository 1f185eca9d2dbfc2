import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mu0_core import se3
from mu0_core.errors import ShapeError
from mu0_core.traces import KeypointSource, Traces
from mu0_policy.trace_motions import body_motions, prediction_in_base, shifts, smoothed


def moving_body(n=12, h=10, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.03, 0.03, (n, 3)) + np.array([0.5, 0.0, 0.1])
    R = Rotation.from_rotvec(np.linspace([0, 0, 0.03], [0, 0, 0.3], h)).as_matrix()
    T = se3.make_transform(R, np.linspace([0.01, 0, 0], [0.1, 0, 0.05], h))
    return points, T, np.swapaxes(se3.transform_points(T[:, None], points), 0, 1)


def test_motions_of_exact_points_are_found():
    points, T, xyz = moving_body()
    found = body_motions(points, xyz, inlier_m=0.02)
    middle = points.mean(axis=0)
    apart = se3.transform_points(found, middle) - se3.transform_points(T, middle)
    assert np.linalg.norm(apart, axis=-1).max() < 1e-3


def test_noise_of_points_is_forgiven_and_outliers_do_not_count():
    points, T, xyz = moving_body(n=20)
    rng = np.random.default_rng(1)
    noisy = xyz + 0.005 * rng.standard_normal(xyz.shape)
    noisy[:4] += 0.2
    found = body_motions(points, noisy, inlier_m=0.03)
    middle = points.mean(axis=0)
    apart = se3.transform_points(found, middle) - se3.transform_points(T, middle)
    assert np.linalg.norm(apart, axis=-1).mean() < 0.006


def test_two_points_show_a_shift_only():
    points = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]])
    xyz = np.repeat(points[:, None], 3, 1) + np.array([0.0, 0.2, 0.0])
    found = body_motions(points, xyz, inlier_m=0.01)
    np.testing.assert_allclose(
        found, np.tile(se3.make_transform(np.eye(3), [0, 0.2, 0]), (3, 1, 1))
    )


def test_shifts_are_of_the_middle():
    points = np.zeros((5, 3))
    xyz = np.zeros((5, 2, 3))
    xyz[:, 1, 2] = [0.1, 0.1, 0.1, 0.1, 9.0]
    np.testing.assert_allclose(shifts(points, xyz), [0.0, 0.1])


def test_smoothing_keeps_a_line_and_quietens_noise():
    poses = np.tile(np.eye(4), (20, 1, 1))
    poses[:, 0, 3] = np.linspace(0.0, 0.2, 20)
    np.testing.assert_allclose(smoothed(poses)[3:-3], poses[3:-3], atol=1e-5)
    noisy = poses.copy()
    noisy[:, 1, 3] = 0.01 * (-1.0) ** np.arange(20)
    assert np.abs(smoothed(noisy)[2:-2, 1, 3]).max() < 0.003


def traces(n_robot=4, s=1, h=5, **changes):
    n = n_robot + 2
    source = np.full(n, KeypointSource.ENTITY, np.uint8)
    source[:n_robot] = KeypointSource.ROBOT
    current = np.random.default_rng(0).uniform(-0.1, 0.1, (n, 3)).astype(np.float32)
    values = {
        "stamp_ns": 2_500_000_000,
        "frame_id": "camera",
        "instruction": "lift",
        "model": "test",
        "arc_step": 0.01,
        "ids": np.arange(n, dtype=np.uint32),
        "cluster_ids": np.zeros(n, np.int32),
        "source": source,
        "current_xyz": current,
        "xyz": np.tile(current[None, :, None], (s, 1, h, 1)),
        "control_uvz": np.zeros((s, n, 4, 3), np.float32),
        "valid_prob": np.ones((s, n, h), np.float32),
        "stage_names": (),
        "stage_seconds": np.zeros(0, np.float32),
    }
    return Traces(**(values | changes))


def test_traces_come_into_the_base_frame():
    T_base_camera = se3.make_transform(Rotation.from_rotvec([0, np.pi, 0]).as_matrix(), [1, 2, 3])
    given = traces()
    prediction = prediction_in_base(given, T_base_camera, np.eye(4))
    assert prediction.stamp_s == 2.5
    np.testing.assert_allclose(
        prediction.current_xyz, se3.transform_points(T_base_camera, given.current_xyz), atol=1e-6
    )
    assert prediction.on_gripper.tolist() == [True] * 4 + [False] * 2
    assert prediction.horizon == 5


def test_the_commonest_future_is_taken_not_a_mixture():
    xyz = np.zeros((5, 6, 5, 3), np.float32)
    xyz[:3, ..., 0] = [[[0.010]], [[0.012]], [[0.014]]]
    xyz[3:, ..., 1] = 0.5
    prediction = prediction_in_base(
        traces(s=5, xyz=xyz, valid_prob=np.ones((5, 6, 5), np.float32)), np.eye(4), np.eye(4)
    )
    np.testing.assert_allclose(prediction.xyz[0, 0], [0.012, 0.0, 0.0], atol=1e-6)
    assert prediction.spread_m > 0.2


def test_traces_that_are_not_finite_are_left_out():
    xyz = np.array(traces().xyz)
    xyz[0, 5, 2] = np.nan
    prediction = prediction_in_base(traces(xyz=xyz), np.eye(4), np.eye(4))
    assert len(prediction.current_xyz) == 5
    xyz[0, :3] = np.inf
    with pytest.raises(ShapeError, match="expected at least 3 finite ones .* got 1 of 4"):
        prediction_in_base(traces(xyz=xyz), np.eye(4), np.eye(4))


def test_no_traces_are_refused():
    with pytest.raises(ShapeError, match="got 0 of 0; select the source 'robot'"):
        prediction_in_base(traces(n_robot=0), np.eye(4), np.eye(4))
    with pytest.raises(ShapeError, match="expected at least one sample and one step"):
        prediction_in_base(traces(s=0), np.eye(4), np.eye(4))


def test_the_motion_lasts_as_long_as_its_points_say():
    valid = np.ones((1, 6, 5), np.float32)
    valid[..., 3:] = 0.2
    prediction = prediction_in_base(traces(valid_prob=valid), np.eye(4), np.eye(4))
    assert prediction.n_valid(np.ones(6, dtype=bool)) == 3
