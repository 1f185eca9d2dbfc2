import numpy as np
import pytest

from mu0_core.arclength import retarget
from mu0_core.camera import Camera
from mu0_core.se3 import inverse, make_transform, transform_points
from mu0_perception.history import History, HistoryConfig

CAMERA = Camera.from_fovy(0.8, 320, 240)
IDS = np.array([3, 7], np.uint32)
STILL = np.array([-0.1, 0.0, 1.0])


def _run(config, tracks, *, dt_s=0.1, ids=IDS):
    history = History(config)
    for k, xyz in enumerate(tracks):
        history.append(10**9 + round(k * dt_s * 1e9), ids, np.asarray(xyz, np.float64))
    return history


def _receding(n_frames, step_m):
    """One point that moves away along its ray, and one that stays."""
    return [[[0.0, 0.0, 1.0 + step_m * k], STILL] for k in range(n_frames)]


def test_steps_lie_on_the_path_at_equal_arc_length_oldest_first():
    history = _run(HistoryConfig(arc_step=0.01, length=4, smoothing_s=0.0), _receding(30, 0.008))
    uvz, valid = history.resampled(CAMERA, np.eye(4))
    assert uvz.shape == (2, 4, 3) and valid.all()
    newest = 1.0 + 29 * 0.008
    # Most distant from now first; the moving point is on the optical axis.
    np.testing.assert_allclose(uvz[0, :, 2], newest - 0.01 * np.array([4, 3, 2, 1]), atol=1e-5)
    np.testing.assert_allclose(uvz[1], np.tile(CAMERA.project(STILL), (4, 1)), atol=1e-3)


def test_it_is_what_the_rule_of_the_episodes_gives():
    rng = np.random.default_rng(0)
    pace = np.cumsum(rng.normal(0.0, 0.004, (60, 2, 3)), axis=0)
    steps = np.cumsum(pace, axis=0) + np.array([0.0, 0.0, 4.0])
    history = _run(HistoryConfig(arc_step=0.05, smoothing_s=0.0, buffer_s=100.0), steps)
    uvz, valid = history.resampled(CAMERA, np.eye(4))
    exact = retarget(
        CAMERA.project(steps[::-1]).swapaxes(0, 1),
        width=320,
        height=240,
        arc_step=0.05,
        n_samples=9,
    )
    assert valid.all()
    # Pictures half a step apart are enough: the corners cut are less than that.
    assert np.abs((uvz - exact.uvz[:, :0:-1]) / (320, 240, 1)).max() < 0.025


def test_what_is_too_short_is_invalid():
    history = _run(HistoryConfig(arc_step=0.01, length=8, smoothing_s=0.0), _receding(4, 0.012))
    uvz, valid = history.resampled(CAMERA, np.eye(4))
    # 36 mm make three steps of 10 mm, the newest ones.
    assert valid.tolist() == [[False] * 5 + [True] * 3] * 2
    assert np.isnan(uvz[:, :5]).all() and np.isfinite(uvz[:, 5:]).all()


def test_noise_at_rest_makes_no_history():
    rng = np.random.default_rng(0)
    xyz = np.array([[x, y, 0.8] for x in (-0.2, 0.0, 0.2) for y in (-0.1, 0.1)])
    frames = [xyz + rng.normal(0.0, (2e-4, 2e-4, 0.002), xyz.shape) for _ in range(200)]
    ids = np.arange(6, dtype=np.uint32)
    history = _run(HistoryConfig(arc_step=0.02), frames, dt_s=1 / 30, ids=ids)
    assert not history.resampled(CAMERA, np.eye(4))[1].any()


def test_rest_before_a_motion_costs_nothing():
    path = [*_receding(1, 0.0) * 20, *_receding(12, 0.01), *[_receding(12, 0.01)[-1]] * 20]
    history = _run(HistoryConfig(arc_step=0.01, length=8, smoothing_s=0.0), path)
    uvz, valid = history.resampled(CAMERA, np.eye(4))
    assert valid.all()
    np.testing.assert_allclose(uvz[0, -1, 2], 1.10, atol=1e-5)


def test_a_late_point_has_steps_only_since_it_came():
    history = History(HistoryConfig(arc_step=0.01, length=6, smoothing_s=0.0))
    for k, frame in enumerate(_receding(20, 0.01)):
        ids = IDS if k >= 17 else IDS[:1]
        history.append(k * 10**8, ids, np.array(frame[: len(ids)]))
    _, valid = history.resampled(CAMERA, np.eye(4))
    assert valid[0].all()
    assert valid[1].tolist() == [False] * 4 + [True] * 2


def test_points_are_matched_by_id_and_forgotten_when_gone():
    history = History(HistoryConfig(arc_step=0.01, length=2, smoothing_s=0.0))
    for k, frame in enumerate(_receding(6, 0.01)):
        order = [0, 1] if k % 2 else [1, 0]
        history.append(k * 10**8, IDS[order], np.array(frame)[order])
    uvz, _ = history.resampled(CAMERA, np.eye(4))
    np.testing.assert_allclose(uvz[0, :, 2], [1.03, 1.04], atol=1e-5)
    history.append(6 * 10**8, IDS[1:], STILL[None])
    history.append(7 * 10**8, IDS, np.array(_receding(8, 0.01)[-1]))
    assert not history.resampled(CAMERA, np.eye(4))[1][0].any()


def test_a_moving_camera_sees_the_past_from_where_it_is_now():
    tracks = _receding(10, 0.01)
    T_fixed_camera = make_transform(np.eye(3), (0.05, -0.02, -0.1))
    history = _run(HistoryConfig(arc_step=0.01, length=3, smoothing_s=0.0), tracks)
    uvz, valid = history.resampled(CAMERA, T_fixed_camera)
    expected = CAMERA.project(transform_points(inverse(T_fixed_camera), STILL))
    assert valid.all()
    np.testing.assert_allclose(uvz[1, 0], expected, atol=1e-3)


def test_the_buffer_is_bounded_in_time_and_rate():
    config = HistoryConfig(buffer_s=2.0, rate_hz=10.0)
    history = _run(config, _receding(400, 0.001), dt_s=1 / 60)
    assert 1.8 <= history.span_s <= 2.0
    assert len(history._stamps_ns) <= 24


def test_unknown_places_drive_nothing():
    tracks = np.array(_receding(20, 0.01))
    tracks[::3, 0] = np.nan
    history = _run(HistoryConfig(arc_step=0.01, length=4, smoothing_s=0.0), tracks)
    uvz, valid = history.resampled(CAMERA, np.eye(4))
    assert np.isnan(uvz[~valid]).all() and np.isfinite(uvz[valid]).all()


@pytest.mark.parametrize("n_frames", [0, 1])
def test_an_empty_past_is_invalid(n_frames):
    history = _run(HistoryConfig(length=5), _receding(n_frames, 0.01))
    uvz, valid = history.resampled(CAMERA, np.eye(4))
    assert uvz.shape == (2 * n_frames, 5, 3) and not valid.any()
    history.clear()
    assert history.span_s == 0.0
