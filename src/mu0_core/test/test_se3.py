import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mu0_core import se3
from mu0_core.errors import CalibrationError, ShapeError, TrajectoryError


def random_transforms(shape: tuple[int, ...] = (), seed: int = 0) -> np.ndarray:
    """Transforms with rotation angles below pi."""
    return se3.exp(np.random.default_rng(seed).uniform(-1.7, 1.7, (*shape, 6)))


def random_points(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.1, 0.1, (n, 3))


twists = st.lists(st.floats(-1.7, 1.7), min_size=6, max_size=6).map(np.array)


@given(twists)
def test_log_inverts_exp(twist):
    np.testing.assert_allclose(se3.log(se3.exp(twist)), twist, atol=1e-9)


@given(twists, twists)
def test_inverse_undoes(first, second):
    T_a_b, T_b_c = se3.exp(first), se3.exp(second)
    np.testing.assert_allclose(se3.inverse(T_a_b) @ T_a_b, np.eye(4), atol=1e-12)
    chained = se3.inverse(T_b_c) @ se3.inverse(T_a_b)
    np.testing.assert_allclose(se3.inverse(T_a_b @ T_b_c), chained, atol=1e-12)


@given(twists, twists, st.floats(0, 1))
def test_interpolation_reversed_is_the_same_motion(first, second, alpha):
    T0, T1 = se3.exp(first), se3.exp(second)
    turn = np.linalg.norm(se3.log(se3.inverse(T0) @ T1)[3:])
    if turn < 3.1:  # at pi the way round is not unique
        forward, backward = se3.interpolate(T0, T1, alpha), se3.interpolate(T1, T0, 1 - alpha)
        np.testing.assert_allclose(forward, backward, atol=1e-9)


def test_exp_of_pure_parts_linear_first():
    np.testing.assert_allclose(se3.exp([1, 2, 3, 0, 0, 0])[:3, 3], [1, 2, 3])
    turned = se3.exp([0, 0, 0, 0, 0, np.pi / 2])
    np.testing.assert_allclose(turned[:3, :3], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)


def test_exp_follows_the_screw():
    """A quarter turn about z while moving along x at constant body velocity is a quarter arc."""
    T = se3.exp([np.pi / 2, 0, 0, 0, 0, np.pi / 2])
    np.testing.assert_allclose(T[:3, 3], [1, 1, 0], atol=1e-12)


def test_inverse_and_points_exact():
    T_a_b = se3.make_transform([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [1, 2, 3])
    np.testing.assert_allclose(se3.transform_points(T_a_b, [1, 0, 0]), [1, 3, 3])
    np.testing.assert_allclose(se3.inverse(T_a_b)[:3, 3], [-2, 1, -3])


def test_batches_broadcast():
    T = random_transforms((4,))
    points = np.random.default_rng(1).normal(size=(4, 6, 3))
    moved = se3.transform_points(T[:, None], points)
    for i in range(4):
        expected = points[i] @ T[i, :3, :3].T + T[i, :3, 3]
        np.testing.assert_allclose(moved[i], expected, atol=1e-12)
    assert se3.transform_points(T[0], points).shape == (4, 6, 3)
    assert se3.make_transform(np.eye(3), np.zeros((5, 3))).shape == (5, 4, 4)
    np.testing.assert_allclose(se3.inverse(T)[2], np.linalg.inv(T[2]), atol=1e-12)
    assert se3.log(T).shape == (4, 6)


def test_coordinates_that_lie_apart_move_as_points_do():
    T, points = random_transforms(), random_points(12).reshape(4, 3, 3)
    points[1, 2] = np.nan
    moved = se3.transform_coordinates(T, np.moveaxis(points, -1, 0))
    expected = np.moveaxis(se3.transform_points(T, points), -1, 0)
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-15)


def test_quaternions_are_xyzw_and_normalised():
    half = np.sqrt(0.5)
    T = se3.transform_from_quat_xyzw([1, 2, 3], [0, 0, 2 * half, 2 * half])
    np.testing.assert_allclose(T[:3, :3], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(se3.quat_xyzw_from_transform(T), [0, 0, half, half], atol=1e-12)


def test_quaternion_round_trip_in_a_batch():
    T = random_transforms((3, 2))
    quat = se3.quat_xyzw_from_transform(T)
    assert quat.shape == (3, 2, 4) and (quat[..., 3] >= 0).all()
    np.testing.assert_allclose(se3.transform_from_quat_xyzw(T[..., :3, 3], quat), T, atol=1e-12)


@pytest.mark.parametrize("quat", [[0, 0, 0, 0], [0, 0, np.nan, 1]])
def test_quaternions_without_direction_are_refused(quat):
    with pytest.raises(CalibrationError, match="quat_xyzw: expected unit quaternions"):
        se3.transform_from_quat_xyzw([0, 0, 0], quat)


def test_interpolation_ends_and_middle():
    T0 = np.eye(4)
    T1 = se3.make_transform(Rotation.from_euler("z", 90, degrees=True).as_matrix(), [2, 4, 6])
    many = se3.interpolate(T0, T1, [0.0, 0.5, 1.0])
    middle = se3.make_transform(Rotation.from_euler("z", 45, degrees=True).as_matrix(), [1, 2, 3])
    np.testing.assert_allclose(many, [T0, middle, T1], atol=1e-12)
    np.testing.assert_allclose(se3.interpolate(T0, T1, 0.5), middle, atol=1e-12)


@pytest.mark.parametrize("alpha", [-0.01, 1.01, np.nan])
def test_interpolation_never_extrapolates(alpha):
    with pytest.raises(ValueError, match=r"alpha: expected values in \[0, 1\]"):
        se3.interpolate(np.eye(4), np.eye(4), alpha)


@pytest.mark.parametrize(
    ("T", "message"),
    [
        (np.diag([1.0, 1.0, -1.0, 1.0]), "determinant -1"),
        (np.diag([2.0, 1.0, 1.0, 1.0]), "differs from the identity by 3"),
        (np.full((4, 4), np.nan), "expected finite values"),
        (np.vstack([np.eye(4)[:3], [0, 0, 1, 1]]), "last row"),
    ],
)
def test_what_is_not_rigid_is_refused(T, message):
    with pytest.raises(CalibrationError, match=f"T_base_camera: .*{message}"):
        se3.check_transform(T, "T_base_camera")
    with pytest.raises(CalibrationError, match=message):
        se3.log(T)


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"T: expected shape \(\.\.\., 4, 4\), got \(3, 3\)"):
        se3.inverse(np.eye(3))
    with pytest.raises(ShapeError, match="xyz: expected"):
        se3.transform_points(np.eye(4), np.zeros((5, 2)))
    with pytest.raises(ShapeError, match="twist: expected"):
        se3.exp(np.zeros(3))
    with pytest.raises(ShapeError, match="quat_xyzw: expected"):
        se3.transform_from_quat_xyzw(np.zeros(3), np.zeros(3))
    with pytest.raises(ShapeError, match=r"expected R .* and t"):
        se3.make_transform(np.eye(4), np.zeros(3))


def test_make_transform_does_not_alias():
    R, t = np.eye(3), np.zeros(3)
    T = se3.make_transform(R, t)
    R[0, 0], t[0] = 5.0, 5.0
    np.testing.assert_array_equal(T, np.eye(4))


@given(twists, st.integers(3, 12))
def test_rigid_fit_recovers_any_motion(twist, n):
    source = random_points(n)
    T = se3.exp(twist)
    np.testing.assert_allclose(
        se3.rigid_fit(source, se3.transform_points(T, source)), T, atol=1e-9
    )


def test_rigid_fit_in_a_batch_is_the_single_fit():
    T = random_transforms((2, 3))
    source = np.random.default_rng(2).normal(size=(2, 3, 7, 3))
    target = se3.transform_points(T[:, :, None], source)
    target += np.random.default_rng(3).normal(scale=0.01, size=target.shape)
    fitted = se3.rigid_fit(source, target)
    np.testing.assert_allclose(fitted[1, 2], se3.rigid_fit(source[1, 2], target[1, 2]))
    assert np.abs(fitted - T).max() < 0.05


def test_rigid_fit_of_a_plane_and_of_a_mirror_image_is_a_rotation():
    plane = random_points(8) * [1, 1, 0]
    T = random_transforms()
    fitted = se3.rigid_fit(plane, se3.transform_points(T, plane))
    np.testing.assert_allclose(fitted, T, atol=1e-9)
    solid = random_points(8)
    mirrored = se3.rigid_fit(solid, solid * [1, 1, -1])
    np.testing.assert_allclose(np.linalg.det(mirrored[:3, :3]), 1.0)


def test_rigid_fit_is_the_least_squares_optimum():
    """No small motion of the result lowers the weighted error."""
    source, weights = random_points(9), np.linspace(0.1, 2.0, 9)
    target = se3.transform_points(random_transforms(), source) + 0.02 * random_points(9, seed=5)
    T = se3.rigid_fit(source, target, weights)

    def cost(transform):
        return weights @ ((se3.transform_points(transform, source) - target) ** 2).sum(1)

    for direction in np.vstack([np.eye(6), -np.eye(6)]):
        assert cost(T @ se3.exp(1e-4 * direction)) > cost(T)


def test_points_of_weight_zero_do_not_count():
    source = random_points(6)
    T = random_transforms()
    target = se3.transform_points(T, source)
    target[2] += 1.0
    weights = np.ones(6)
    weights[2] = 0.0
    np.testing.assert_allclose(se3.rigid_fit(source, target, weights), T, atol=1e-9)


LINE = np.outer(np.arange(5.0), [1, 2, 3])


@pytest.mark.parametrize(
    "fit", [se3.rigid_fit, lambda a, b: se3.robust_rigid_fit(a, b, inlier_m=1)]
)
@pytest.mark.parametrize(
    ("source", "target", "error", "message"),
    [
        (random_points(2), random_points(2), TrajectoryError, "at least 3 points .*got 2"),
        (random_points(4), random_points(5), ShapeError, r"one shape .*\(4, 3\) and \(5, 3\)"),
        (random_points(3) * np.nan, random_points(3), TrajectoryError, "3 of 3 points are not f"),
    ],
)
def test_unusable_points_are_refused(fit, source, target, error, message):
    with pytest.raises(error, match=message):
        fit(source, target)


@pytest.mark.parametrize("points", [LINE, np.ones((5, 3)), LINE.astype(np.float32) * 0.01 + 1])
def test_points_on_a_line_are_refused(points):
    with pytest.raises(TrajectoryError, match="lie on a line or in one place"):
        se3.rigid_fit(points, points)
    with pytest.raises(TrajectoryError, match="move as one body"):
        se3.robust_rigid_fit(points, points, inlier_m=0.01)


def test_wrong_weights_are_refused():
    points = random_points(4)
    with pytest.raises(ShapeError, match=r"expected weights \(4,\), got \(3,\)"):
        se3.rigid_fit(points, points, np.ones(3))
    with pytest.raises(TrajectoryError, match="weights of at least 0"):
        se3.rigid_fit(points, points, [1, 1, 1, -1])
    with pytest.raises(TrajectoryError, match="at least 3 points with weight, got 2"):
        se3.rigid_fit(points, points, [1, 1, 0, 0])


@pytest.mark.parametrize("n", [9, 60])
def test_robust_fit_ignores_outliers(n):
    """Four of nine points, or 40 %, go elsewhere; the rest carry 1 mm of noise."""
    rng = np.random.default_rng(7)
    source = rng.uniform(-0.1, 0.1, (n, 3))
    T = random_transforms(seed=8)
    target = se3.transform_points(T, source) + rng.normal(scale=0.001, size=(n, 3))
    wrong = np.arange(n) < 0.4 * n
    target[wrong] += rng.uniform(0.05, 0.3, (wrong.sum(), 3))
    found = se3.robust_rigid_fit(source, target, inlier_m=0.006)
    np.testing.assert_array_equal(found.inliers, ~wrong)
    np.testing.assert_allclose(found.T, se3.rigid_fit(source[~wrong], target[~wrong]), atol=1e-12)
    assert 0.0005 < found.rms_m < 0.002
    plain = se3.rigid_fit(source, target)
    assert np.linalg.norm(se3.log(se3.inverse(T) @ found.T)) < 0.05
    assert np.linalg.norm(se3.log(se3.inverse(T) @ plain)) > 0.2


def test_robust_fit_is_the_same_each_time():
    source = random_points(40)
    target = source + 0.02 * random_points(40, seed=1)
    first, second = (se3.robust_rigid_fit(source, target, inlier_m=0.002) for _ in range(2))
    np.testing.assert_array_equal(first.T, second.T)
    np.testing.assert_array_equal(first.inliers, second.inliers)


def test_robust_fit_weighs_points():
    """Two bodies of equal size: the heavier one wins."""
    source = random_points(12)
    first, second = random_transforms(seed=1), random_transforms(seed=2)
    target = se3.transform_points(first, source)
    target[6:] = se3.transform_points(second, source[6:])
    weights = np.where(np.arange(12) < 6, 0.2, 1.0)
    found = se3.robust_rigid_fit(source, target, inlier_m=0.005, weights=weights)
    np.testing.assert_allclose(found.T, second, atol=1e-9)
    np.testing.assert_array_equal(found.inliers, np.arange(12) >= 6)


def test_robust_fit_says_when_nothing_agrees():
    with pytest.raises(TrajectoryError, match=r"no 3 of 6 points move as one body within 1e-05 m"):
        se3.robust_rigid_fit(random_points(6), random_points(6, seed=1), inlier_m=1e-5)


def test_robust_fit_takes_one_body_and_a_distance():
    points = random_points(4)
    with pytest.raises(ShapeError, match=r"expected points \(n, 3\), got \(1, 4, 3\)"):
        se3.robust_rigid_fit(points[None], points[None], inlier_m=0.01)
    with pytest.raises(ValueError, match="inlier_m: expected a distance above 0 m, got 0"):
        se3.robust_rigid_fit(points, points, inlier_m=0)
