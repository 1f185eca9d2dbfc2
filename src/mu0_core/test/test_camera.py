import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu0_core.camera import (
    Camera,
    denormalise_uv,
    depth_to_metres,
    depth_to_millimetres,
    normalise_uv,
)
from mu0_core.errors import CalibrationError, ShapeError

K = np.array([[100.0, 0.0, 31.5], [0.0, 120.0, 23.5], [0.0, 0.0, 1.0]])


def camera() -> Camera:
    return Camera(K, 64, 48)


def test_projects_exact_numbers():
    np.testing.assert_allclose(camera().project([0.5, -0.25, 2.0]), [56.5, 8.5, 2.0], atol=1e-12)


def test_skew_moves_u_with_y():
    skewed = K.copy()
    skewed[0, 1] = 10.0
    uvz = Camera(skewed, 64, 48).project([0.0, 1.0, 2.0])
    np.testing.assert_allclose(uvz, [36.5, 83.5, 2.0], atol=1e-12)
    np.testing.assert_allclose(Camera(skewed, 64, 48).unproject(uvz), [0.0, 1.0, 2.0], atol=1e-12)


@given(
    st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.01, 20)),
    st.floats(20, 2000),
    st.floats(20, 2000),
)
def test_unproject_inverts_project(xyz, fx, fy):
    made = Camera(np.array([[fx, 0, 320.0], [0, fy, 240.0], [0, 0, 1]]), 640, 480)
    np.testing.assert_allclose(made.unproject(made.project(xyz)), xyz, atol=1e-9)


def test_batches_of_any_shape():
    xyz = np.random.default_rng(0).uniform(0.5, 2.0, (2, 5, 3))
    uvz = camera().project(xyz)
    assert uvz.shape == (2, 5, 3)
    np.testing.assert_array_equal(uvz[1, 3], camera().project(xyz[1, 3]))


@pytest.mark.parametrize("z", [0.0, -1.0, np.nan])
def test_points_at_or_behind_the_camera_have_no_pixel(z):
    uvz = camera().project([0.1, 0.1, z])
    assert np.isnan(uvz[:2]).all()
    np.testing.assert_equal(uvz[2], z)


@pytest.mark.parametrize("z", [0.0, -1.0, np.nan, np.inf])
def test_pixels_without_depth_have_no_point(z):
    assert np.isnan(camera().unproject([3.0, 4.0, z])).all()


def test_resize_moves_the_centre_by_the_half_pixel_rule():
    doubled = camera().resized(128, 48)
    np.testing.assert_allclose(doubled.K, [[200, 0, 63.5], [0, 120, 23.5], [0, 0, 1]])
    assert (doubled.width, doubled.height) == (128, 48)


def test_resize_agrees_with_how_opencv_moves_pixels():
    """A blob's centre of mass in the resized image lies where the resized camera projects it."""
    image = np.zeros((48, 64), np.float32)
    image[20:24, 40:44] = 1.0
    xyz = camera().unproject([41.5, 21.5, 1.0])
    resized = cv2.resize(image, (160, 120), interpolation=cv2.INTER_LINEAR)
    rows, columns = np.indices(resized.shape)
    centre = np.array([(columns * resized).sum(), (rows * resized).sum()]) / resized.sum()
    np.testing.assert_allclose(camera().resized(160, 120).project(xyz)[:2], centre, atol=0.02)


def test_resize_there_and_back_is_the_same_camera():
    np.testing.assert_allclose(camera().resized(130, 77).resized(64, 48).K, K, atol=1e-12)


def test_crop_shifts_pixels():
    cropped = camera().cropped(10, 5, 20, 30)
    assert (cropped.width, cropped.height) == (20, 30)
    xyz = [0.1, 0.05, 1.0]
    shift = camera().project(xyz) - cropped.project(xyz)
    np.testing.assert_allclose(shift, [10.0, 5.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("window", [(-1, 0, 10, 10), (60, 0, 10, 10), (0, 40, 10, 10)])
def test_crop_outside_the_image_is_refused(window):
    with pytest.raises(CalibrationError, match="does not lie inside the 64x48 px image"):
        camera().cropped(*window)


def test_field_of_view_spans_the_image_edges():
    made = Camera.from_fovy(np.deg2rad(90.0), 64, 48)
    np.testing.assert_allclose(made.K, [[24, 0, 31.5], [0, 24, 23.5], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(made.project([0.0, 1.0, 1.0])[1], 47.5)


@pytest.mark.parametrize("fovy", [0.0, np.pi, np.nan])
def test_impossible_field_of_view_is_refused(fovy):
    with pytest.raises(CalibrationError, match="fovy_rad: expected an angle"):
        Camera.from_fovy(fovy, 64, 48)


def changed(row: int, column: int, value: float) -> np.ndarray:
    result = K.copy()
    result[row, column] = value
    return result


@pytest.mark.parametrize(
    ("bad_K", "message"),
    [
        (np.eye(4), r"expected shape \(3, 3\), got \(4, 4\)"),
        (np.zeros((3, 3)), "not calibrated"),
        (changed(0, 0, -100.0), r"focal lengths above 0 px, got -100\.0 and 120\.0"),
        (changed(1, 1, 0.0), "focal lengths above 0"),
        (changed(0, 2, np.nan), "expected finite values"),
        (changed(1, 0, 1.0), "upper triangle"),
        (changed(2, 2, 2.0), "upper triangle"),
    ],
)
def test_impossible_intrinsics_are_refused(bad_K, message):
    with pytest.raises(CalibrationError, match=message):
        Camera(bad_K, 64, 48)


def test_all_faults_are_reported_at_once():
    with pytest.raises(CalibrationError, match="focal lengths.*width.*got 0.*height.*got 4.5"):
        Camera(changed(0, 0, 0.0), 0, 4.5)


def test_camera_keeps_its_own_read_only_intrinsics():
    mine = K.copy()
    made = Camera(mine, 64, 48)
    mine[0, 0] = 1.0
    assert made.K[0, 0] == 100.0
    with pytest.raises(ValueError, match="read-only"):
        made.K[0, 0] = 1.0


def test_wrong_last_axis_is_named():
    with pytest.raises(ShapeError, match=r"xyz: expected shape \(\.\.\., 3\), got \(4,\)"):
        camera().project(np.zeros(4))


def test_uv_norm_follows_the_corner_convention():
    uv = [[0.0, 0.0], [64.0, 48.0], [16.0, 36.0]]
    expected = [[-1.0, -1.0], [1.0, 1.0], [-0.5, 0.5]]
    np.testing.assert_allclose(normalise_uv(uv, 64, 48), expected)
    np.testing.assert_allclose(denormalise_uv(expected, 64, 48), uv)


def test_uv_norm_checks_its_shape():
    with pytest.raises(ShapeError, match="uv: expected"):
        normalise_uv(np.zeros((2, 3)), 64, 48)
    with pytest.raises(ShapeError, match="uv_norm: expected"):
        denormalise_uv(np.zeros((2, 3)), 64, 48)


def test_millimetres_become_metres_and_zero_becomes_none():
    depth = np.array([[0, 1, 1500, 65535]], np.uint16)
    metres = depth_to_metres(depth, "16UC1")
    assert metres.dtype == np.float32
    np.testing.assert_allclose(metres, [[np.nan, 0.001, 1.5, 65.535]], rtol=1e-6)


def test_float_depth_keeps_metres_and_drops_what_is_no_distance():
    depth = np.array([[0.5, 0.0, -1.0, np.inf, np.nan]], np.float32)
    before = depth.copy()
    expected = np.array([[0.5, np.nan, np.nan, np.nan, np.nan]], np.float32)
    np.testing.assert_array_equal(depth_to_metres(depth, "32FC1"), expected)
    np.testing.assert_array_equal(depth, before)


def test_metres_become_millimetres():
    depth = np.array([[np.nan, 0.0, -1.0, 0.0004, 1.0006, 65.535, 65.536, np.inf]])
    expected = np.array([[0, 0, 0, 0, 1001, 65535, 0, 0]], np.uint16)
    result = depth_to_millimetres(depth)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, expected)


def test_every_millimetre_survives_the_round_trip():
    depth = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(depth_to_millimetres(depth_to_metres(depth, "16UC1")), depth)


def test_unknown_depth_encoding_is_refused():
    with pytest.raises(ShapeError, match="unknown depth encoding '16UC2': known are 16UC1, 32FC1"):
        depth_to_metres(np.zeros((2, 2), np.uint16), "16UC2")


@pytest.mark.parametrize(
    ("depth", "encoding"),
    [
        (np.zeros((2, 2), np.float32), "16UC1"),
        (np.zeros((2, 2), np.uint16), "32FC1"),
        (np.zeros((2, 2, 1), np.uint16), "16UC1"),
    ],
)
def test_depth_that_is_not_what_its_encoding_says_is_refused(depth, encoding):
    with pytest.raises(ShapeError, match=f"depth with encoding {encoding}: expected"):
        depth_to_metres(depth, encoding)
