import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from mu0_core import bspline
from mu0_core.errors import ConfigError, ShapeError

# The released code keeps its knots and matrices in float32: for D = 10 the knots 1/3 and 2/3 are
# rounded (3e-8), which moves the basis by at most 1.8e-7. D = 4 and 7 agree exactly.
BASIS_TOLERANCE = 2e-7
# It also solves in float32; its own distance to the float64 solution is up to 4.4e-6 where lambda
# is above 0.
FIT_TOLERANCE = 1e-5
# Against its float64 solution only the rounded knots remain.
FIT_FLOAT64_TOLERANCE = 2e-6

counts = st.sampled_from([4, 7, 10, 13, 31])
settings = {"reg_lambda": 0.2, "reg_order": 1, "clip": None}


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "bspline.npz") as arrays:
        return dict(arrays)


def random_control(n_ctrl: int, batch: tuple[int, ...] = (), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*batch, n_ctrl, 3))


@pytest.mark.parametrize("n_ctrl", [4, 7, 10])
@pytest.mark.parametrize("horizon", [8, 16, 32])
def test_golden_basis(golden, n_ctrl, horizon):
    name = f"basis/D{n_ctrl}_H{horizon}"
    fit_matrix = bspline.fit_matrix(horizon, n_ctrl)
    for key in ("with_anchor", "with_anchor_float64"):
        np.testing.assert_allclose(fit_matrix, golden[f"{name}/{key}"], atol=BASIS_TOLERANCE)
    render_matrix = bspline.render_matrix(horizon, n_ctrl)
    np.testing.assert_allclose(render_matrix, golden[f"{name}/render"], atol=BASIS_TOLERANCE)


@pytest.mark.parametrize("n_ctrl", [4, 7, 10])
@pytest.mark.parametrize("order", [1, 2])
def test_golden_differences(golden, n_ctrl, order):
    expected = golden[f"diff_matrix/D{n_ctrl}_order{order}"]
    np.testing.assert_array_equal(bspline.difference_matrix(n_ctrl, order), expected)


def test_golden_fits(golden):
    pattern = re.compile(r"fit/H(\d+)/D(\d+)_lambda([\d.]+)_order(\d)_clip(.+)/ctrl")
    matches = [match for match in map(pattern.fullmatch, golden) if match]
    assert len(matches) == 36
    for match in matches:
        horizon, n_ctrl, reg_lambda, order, clip = match.groups()
        fitted = bspline.fit(
            golden[f"fit/H{horizon}/traj"],
            golden[f"fit/H{horizon}/valid"],
            int(n_ctrl),
            reg_lambda=float(reg_lambda),
            reg_order=int(order),
            clip=None if clip == "None" else float(clip),
        )
        name = match.group().removesuffix("/ctrl")
        np.testing.assert_array_equal(fitted.valid, golden[f"{name}/valid_kp"], err_msg=name)
        if float(reg_lambda) > 0.0:
            rows, atol, atol64 = np.full(8, True), FIT_TOLERANCE, FIT_FLOAT64_TOLERANCE
        else:
            # Without the regulariser several systems amplify rounding by 1e2 to 1e3; those
            # without a unique solution are left out.
            rows, atol, atol64 = golden[f"{name}/full_rank"], 1e-3, 1e-4
        control, exact = golden[match.group()], golden[f"{name}/ctrl_float64_reference"]
        np.testing.assert_allclose(fitted.control[rows], exact[rows], atol=atol64, err_msg=name)
        np.testing.assert_allclose(fitted.control[rows], control[rows], atol=atol, err_msg=name)


@given(counts, st.floats(0, 1))
def test_basis_is_a_partition_of_unity(n_ctrl, t):
    row = bspline.basis(t, n_ctrl)
    assert (row >= 0).all()
    np.testing.assert_allclose(row.sum(), 1.0, atol=1e-12)
    np.testing.assert_allclose(bspline.basis(t, n_ctrl, derivative=1).sum(), 0.0, atol=1e-9)


@pytest.mark.parametrize("n_ctrl", [4, 7, 10, 13])
@pytest.mark.parametrize("derivative", [0, 1, 2])
def test_agrees_with_the_general_recursion(n_ctrl, derivative):
    """SciPy evaluates the same knots without knowing the closed form."""
    inner = np.repeat(np.arange(1, (n_ctrl - 1) // 3) / ((n_ctrl - 1) // 3), 3)
    knots = np.concatenate([np.zeros(4), inner, np.ones(4)])
    t = np.random.default_rng(0).uniform(size=50)
    expected = BSpline(knots, np.eye(n_ctrl), 3)(t, nu=derivative)
    ours = bspline.basis(t, n_ctrl, derivative=derivative)
    np.testing.assert_allclose(ours, expected, atol=1e-9)


@pytest.mark.parametrize("n_ctrl", [4, 7, 10])
def test_curve_touches_ends_and_joints(n_ctrl):
    control = random_control(n_ctrl)
    joints = np.arange(0, n_ctrl, 3)
    curve = bspline.evaluate(control, np.linspace(0.0, 1.0, len(joints)))
    np.testing.assert_allclose(curve, control[joints], atol=1e-12)


def test_derivatives_at_the_ends_are_exact():
    """One piece: 3 (P1 - P0) at the start, 6 (P3 - 2 P2 + P1) at the end."""
    control = random_control(4)
    start = bspline.evaluate(control, [0.0], derivative=1)[0]
    end = bspline.evaluate(control, [1.0], derivative=2)[0]
    np.testing.assert_allclose(start, 3 * (control[1] - control[0]))
    np.testing.assert_allclose(end, 6 * (control[3] - 2 * control[2] + control[1]))


@given(counts, st.floats(0.01, 0.99), st.integers(1, 2))
def test_derivatives_are_slopes(n_ctrl, t, derivative):
    """Compare with central differences, away from the joints, where derivatives jump."""
    step = 1e-5
    n_pieces = (n_ctrl - 1) // 3
    if abs(t * n_pieces - round(t * n_pieces)) < 0.01:
        return
    control = random_control(n_ctrl)
    lower = bspline.evaluate(control, [t - step, t + step], derivative=derivative - 1)
    slope = (lower[1] - lower[0]) / (2 * step)
    ours = bspline.evaluate(control, [t], derivative=derivative)[0]
    np.testing.assert_allclose(ours, slope, rtol=1e-5, atol=1e-4 * n_pieces**3)


@pytest.mark.parametrize("n_ctrl", [4, 7, 10])
def test_fit_of_a_rendered_curve_returns_its_control_points(n_ctrl):
    control = random_control(n_ctrl, (2, 5))
    control[..., 0, :] = 0.0
    points = bspline.render(control, 32)
    fitted = bspline.fit(
        points, np.full((2, 5, 32), True), n_ctrl, reg_lambda=0.0, reg_order=1, clip=None
    )
    np.testing.assert_allclose(fitted.control, control, atol=1e-9)
    assert fitted.valid.shape == (2, 5) and fitted.valid.all()


def test_render_is_the_curve_at_the_steps():
    control = random_control(10, (3,))
    points = bspline.render(control, 8)
    np.testing.assert_allclose(points, bspline.evaluate(control, np.arange(1, 9) / 8))
    np.testing.assert_allclose(points[:, -1], control[:, -1])


def test_control_points_beyond_the_valid_steps_hold_the_last_value():
    points = np.broadcast_to(np.minimum(np.arange(1, 33) / 12, 1.0)[:, None], (32, 1))
    fitted = bspline.fit(points, np.arange(32) < 12, 10, **settings)
    np.testing.assert_allclose(fitted.control[6:], fitted.control[-1:].repeat(4, 0), atol=0.03)
    assert fitted.control[-1, 0] > 0.9


def test_regulariser_weighs_lambda_squared():
    """The result solves the normal equations of |A P - Y|^2 + lambda^2 |G P|^2."""
    points = random_control(16)
    fitted = bspline.fit(points, np.full(16, True), 7, reg_lambda=0.3, reg_order=2, clip=None)
    A, G = bspline.fit_matrix(16, 7), bspline.difference_matrix(7, 2)
    left = A.T @ A + 0.09 * G.T @ G
    np.testing.assert_allclose(left @ fitted.control, A[1:].T @ points, atol=1e-10)


def test_invalid_steps_may_hold_anything_and_input_stays():
    points, valid = random_control(16), np.arange(16) < 12
    expected = bspline.fit(points, valid, 10, **settings)
    points[12:] = -np.inf
    before = points.copy()
    fitted = bspline.fit(points, valid, 10, **settings)
    np.testing.assert_array_equal(fitted.control, expected.control)
    np.testing.assert_array_equal(points, before)


def test_clip_bounds_control_points():
    points = 10.0 * random_control(16)
    fitted = bspline.fit(points, np.full(16, True), 10, reg_lambda=0.2, reg_order=1, clip=1.5)
    free = bspline.fit(points, np.full(16, True), 10, **settings)
    np.testing.assert_array_equal(fitted.control, np.clip(free.control, -1.5, 1.5))


def test_fewest_valid_steps_default_to_the_number_of_control_points():
    points = random_control(32, (3,))
    valid = np.arange(32) < np.array([[9], [10], [3]])
    released = bspline.fit(points, valid, 10, **settings)
    np.testing.assert_array_equal(released.valid, [False, True, False])
    assert not released.control[0].any()
    finer = bspline.fit(points, valid, 10, **settings, min_valid_steps=3)
    assert finer.valid.all() and finer.control[2].any()
    np.testing.assert_array_equal(finer.control[1], released.control[1])


def test_short_trajectory_is_followed_by_a_regularised_fit():
    """Three valid steps of a straight path, fitted with 10 control points."""
    points = np.arange(1, 33)[:, None] / 32 * np.ones(3)
    fitted = bspline.fit(
        points, np.arange(32) < 3, 10, reg_lambda=0.02, reg_order=1, clip=None, min_valid_steps=3
    )
    np.testing.assert_allclose(bspline.render(fitted.control, 32)[:3], points[:3], atol=2e-3)


@pytest.mark.parametrize("n_ctrl", [0, 1, 3, 5, 8, 12])
def test_numbers_of_control_points_that_make_no_pieces_are_refused(n_ctrl):
    message = f"expected 4, 7, 10, .* got {n_ctrl}$"
    with pytest.raises(ConfigError, match=message):
        bspline.basis(0.5, n_ctrl)
    with pytest.raises(ConfigError, match=message):
        bspline.difference_matrix(n_ctrl, 1)
    with pytest.raises(ConfigError, match=message):
        bspline.render(np.zeros((n_ctrl, 3)), 8)


def test_all_impossible_settings_are_reported_at_once():
    with pytest.raises(ConfigError, match="reg_lambda: .*-1.*clip: .*0.*min_valid_steps: .*0"):
        bspline.fit(
            np.zeros((8, 3)),
            np.full(8, True),
            4,
            reg_lambda=-1,
            reg_order=1,
            clip=0,
            min_valid_steps=0,
        )


def test_unknown_order_is_refused():
    with pytest.raises(ConfigError, match="reg_order: expected 1 or 2, got 3"):
        bspline.difference_matrix(10, 3)


@pytest.mark.parametrize("t", [-0.01, 1.01, np.nan])
def test_parameters_outside_the_curve_are_refused(t):
    with pytest.raises(ValueError, match=r"t: expected values in \[0, 1\]"):
        bspline.basis(t, 4)


def test_higher_derivatives_are_refused():
    with pytest.raises(ValueError, match="derivative: expected 0, 1 or 2, got 3"):
        bspline.basis(0.5, 4, derivative=3)


@pytest.mark.parametrize("valid", [np.full(7, True), np.ones(8)])
def test_arrays_that_do_not_match_are_refused(valid):
    with pytest.raises(ShapeError, match=r"expected points \(\.\.\., H, C\) with a bool mask"):
        bspline.fit(np.zeros((8, 3)), valid, 4, **settings)


def test_valid_steps_that_are_not_finite_are_refused():
    points = np.zeros((2, 8, 3))
    points[1, 3, 2] = np.nan
    with pytest.raises(ShapeError, match=r"1 valid steps are not finite, the first at .*\(1, 3\)"):
        bspline.fit(points, np.full((2, 8), True), 4, **settings)


def test_control_points_need_two_axes():
    with pytest.raises(ShapeError, match=r"control: expected shape \(\.\.\., D, C\), got \(4,\)"):
        bspline.render(np.zeros(4), 8)
