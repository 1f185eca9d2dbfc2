import cv2
import numpy as np
import pytest

from mu0_perception.tracking import (
    FlowConfig,
    FlowTracker,
    colour_at,
    colour_change,
    depth_at,
    inside,
)

IDS = np.arange(30, dtype=np.uint32)


def _texture(height=200, width=260, seed=0):
    small = np.random.default_rng(seed).integers(0, 255, (height // 5, width // 5, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def _points():
    rng = np.random.default_rng(1)
    return rng.uniform((40, 40), (220, 160), (30, 2)).astype(np.float32)


def test_points_follow_a_homography():
    rgb, uv = _texture(), _points()
    H = np.array([[1.02, 0.01, 4.3], [-0.015, 1.01, -2.6], [2e-5, -1e-5, 1.0]])
    moved = cv2.warpPerspective(rgb, H, (260, 200))
    exact = cv2.perspectiveTransform(uv[:, None].astype(np.float64), H)[:, 0]
    tracker = FlowTracker(FlowConfig())
    tracker.track(rgb, IDS, uv, uv)
    tracked = tracker.track(moved, IDS, uv, uv)
    assert np.count_nonzero(tracked.found) >= 28
    error = np.linalg.norm(tracked.uv - exact, axis=1)[tracked.found]
    assert np.median(error) < 0.1 and error.max() < 0.5


def test_a_large_motion_is_found_with_an_expectation():
    rgb, uv = _texture(), _points()
    shift = np.array([60.0, 0.0], np.float32)
    moved = cv2.warpAffine(rgb, np.array([[1.0, 0.0, 60.0], [0.0, 1.0, 0.0]]), (260, 200))
    stay = uv[:, 0] < 180
    tracker = FlowTracker(FlowConfig(pyramid_levels=1))
    tracker.track(rgb, IDS, uv, uv)
    tracked = tracker.track(moved, IDS, uv, uv + shift + 2.0)
    error = np.linalg.norm(tracked.uv - uv - shift, axis=1)
    assert tracked.found[stay].all() and error[stay].max() < 0.3
    assert not tracked.found[uv[:, 0] > 200].any()


def test_the_backward_check_finds_another_picture_out():
    uv = _points()
    tracker = FlowTracker(FlowConfig())
    tracker.track(_texture(seed=0), IDS, uv, uv)
    tracked = tracker.track(_texture(seed=7), IDS, uv, uv)
    # A third may match something by chance: depth and colour are asked next.
    assert np.count_nonzero(tracked.found) <= 10


def test_a_blank_picture_and_a_first_picture_find_nothing():
    uv = _points()
    tracker = FlowTracker(FlowConfig())
    assert not tracker.track(_texture(), IDS, uv, uv).found.any()
    blank = np.full((200, 260, 3), 90, np.uint8)
    assert not tracker.track(blank, IDS, uv, uv).found.any()
    assert not tracker.track(blank, IDS, uv, uv).found.any()
    tracker.reset()
    assert not tracker.track(_texture(), IDS, uv, uv).found.any()


def test_no_points_are_no_trouble():
    tracker = FlowTracker(FlowConfig())
    none = np.empty((0, 2), np.float32)
    for _ in range(2):
        tracked = tracker.track(_texture(), IDS[:0], none, none)
        assert tracked.uv.shape == (0, 2) and tracked.found.shape == (0,)


def test_depth_beside_an_edge_is_that_of_the_point():
    depth = np.full((20, 20), 1.0, np.float32)
    depth[:, 10:] = 0.8
    uv = np.array([[10.2, 5.0], [9.4, 5.0], [3.0, 3.0]], np.float32)
    expected = np.array([0.81, 0.99, 0.5], np.float32)
    z, other = depth_at(depth, uv, expected, np.full(3, 0.03, np.float32))
    np.testing.assert_allclose(z[:2], [0.8, 1.0])
    assert np.isnan(z[2]) and other.tolist() == [False, False, True]


def test_a_hole_is_unknown_and_not_another_surface():
    depth = np.full((20, 20), np.nan, np.float32)
    uv = np.array([[5.0, 5.0], [-30.0, 5.0], [np.nan, 5.0]], np.float32)
    z, other = depth_at(depth, uv, np.ones(3, np.float32), np.ones(3, np.float32))
    assert np.isnan(z).all() and not other.any()


def test_the_median_of_what_agrees_counts():
    depth = np.full((3, 3), 0.5, np.float32)
    depth.flat[:5] = (1.00, 1.01, 1.02, 1.03, 1.04)
    z, _ = depth_at(
        depth,
        np.array([[1.0, 1.0]], np.float32),
        np.array([1.0], np.float32),
        np.array([0.1], np.float32),
    )
    assert z[0] == pytest.approx(1.02)


def test_colour_is_found_again_two_pixels_away_and_not_further():
    rgb = np.full((20, 40, 3), (120, 120, 120), np.uint8)
    rgb[:, 20:] = (200, 20, 20)
    red = colour_at(rgb, np.array([[30.0, 10.0]], np.float32))
    at = np.array([[18.0, 10.0], [17.0, 10.0]], np.float32)
    change = colour_change(rgb, at, np.repeat(red, 2, axis=0))
    assert change[0] < 1.0 and change[1] > 50.0


def test_shadow_changes_colour_less_than_another_thing():
    rgb = np.zeros((10, 30, 3), np.uint8)
    rgb[:, :10], rgb[:, 10:20], rgb[:, 20:] = (200, 40, 40), (150, 30, 30), (130, 130, 130)
    lit = colour_at(rgb, np.array([[5.0, 5.0]], np.float32))
    at = np.array([[15.0, 5.0], [25.0, 5.0]], np.float32)
    shadow, other = colour_change(rgb, at, np.repeat(lit, 2, axis=0))
    assert shadow < 22.0 < other


def test_inside_ends_half_a_pixel_beyond_the_centres():
    image = np.zeros((10, 20))
    uv = np.array([[-0.5, 0], [-0.6, 0], [19.4, 9.4], [19.5, 0], [0, 9.5], [np.nan, 0]])
    assert inside(uv, image).tolist() == [True, False, True, False, False, False]
