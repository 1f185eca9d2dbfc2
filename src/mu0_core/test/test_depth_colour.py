import numpy as np
import pytest

from mu0_core.depth_colour import depth_to_rgb, turbo_lut

RANGE = {"log_min": np.log(0.25), "log_max": np.log(2.0)}


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "depth_rgb.npz") as arrays:
        return dict(arrays)


def test_golden_table(golden):
    np.testing.assert_array_equal(turbo_lut(), golden["turbo_lut"])


@pytest.mark.parametrize("name", ["a", "b", "degenerate", "f16"])
def test_golden_pictures_are_equal_bit_for_bit(golden, name):
    depth = golden[f"{name}/depth"]
    before = depth.copy()
    log_min, log_max = golden[f"{name}/log_range"]
    for bounds in ((log_min, log_max), (float(log_min), float(log_max))):
        rgb = depth_to_rgb(depth, log_min=bounds[0], log_max=bounds[1])
        assert rgb.dtype == np.float32
        np.testing.assert_array_equal(rgb, golden[f"{name}/rgb"])
    np.testing.assert_array_equal(depth, before)


def test_ends_of_the_table():
    np.testing.assert_allclose(turbo_lut()[0], [0.13572138, 0.09140261, 0.10667330], atol=1e-7)
    # The sums of the coefficients; blue's is negative.
    np.testing.assert_allclose(turbo_lut()[255], [0.56585921, 0.05038886, 0.0], atol=1e-7)
    with pytest.raises(ValueError, match="read-only"):
        turbo_lut()[0] = 0.0


def test_near_is_the_last_colour_and_far_the_first():
    lut = turbo_lut()
    rgb = depth_to_rgb(np.array([0.1, 0.25, 2.0, 50.0], np.float32), **RANGE)
    np.testing.assert_array_equal(rgb, lut[[255, 255, 0, 0]])


def test_the_middle_of_the_logarithmic_range_is_the_middle_colour():
    middle = np.sqrt(0.25 * 2.0) * np.array([1.001, 0.999], np.float32)
    np.testing.assert_array_equal(depth_to_rgb(middle, **RANGE), turbo_lut()[[127, 127]])


@pytest.mark.parametrize("unknown", [np.nan, np.inf, -np.inf, 0.0, -1.0, 0.001])
def test_unknown_depth_looks_farthest(unknown):
    rgb = depth_to_rgb(np.array([[unknown]], np.float32), **RANGE)
    np.testing.assert_array_equal(rgb[0, 0], turbo_lut()[0])
