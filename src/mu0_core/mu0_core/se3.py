"""Own rigid transforms as (4, 4) matrices: composition's helpers, SE(3) log and exp, rigid fits.

T_base_camera maps camera points to base: p_base = T_base_camera p_camera, so inner names cancel
in T_a_b @ T_b_c. Quaternions are xyzw, as in ROS. Leading axes are batches and broadcast.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import RigidTransform, Rotation

from mu0_core.errors import CalibrationError, ShapeError, TrajectoryError

_ORTHONORMAL_TOLERANCE = 1e-4  # float32 matrices that went through a few products still pass
_MIN_POINTS = 3
_LINE_RATIO = 1e-10  # of squared extents: across / along, below which points form a line
_MAX_REFITS = 50


@dataclass(frozen=True, slots=True, eq=False)
class RigidFit:
    """Hold a rigid motion fitted to points, some of which may disagree.

    Attributes:
        T: (4, 4) float64 T_target_source.
        inliers: (n,) bool, points that follow T to within the inlier distance.
        rms_m: Root mean square distance of the inliers, m.
    """

    T: NDArray[np.float64]
    inliers: NDArray[np.bool_]
    rms_m: float


def make_transform(R: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """Join rotations (..., 3, 3) and translations (..., 3) into transforms (..., 4, 4)."""
    R, t = np.asarray(R, dtype=np.float64), np.asarray(t, dtype=np.float64)
    if R.shape[-2:] != (3, 3) or t.shape[-1:] != (3,):
        raise ShapeError(f"expected R (..., 3, 3) and t (..., 3), got {R.shape} and {t.shape}")
    T = np.zeros((*np.broadcast_shapes(R.shape[:-2], t.shape[:-1]), 4, 4))
    T[..., :3, :3] = R
    T[..., :3, 3] = t
    T[..., 3, 3] = 1.0
    return T


def check_transform(T: ArrayLike, name: str = "T") -> NDArray[np.float64]:
    """Return T (..., 4, 4) as float64 if it is rigid; call it where a transform comes in.

    Raises:
        CalibrationError: T is not finite, its rotation is not one, or its last row is wrong.
    """
    T = _transforms(T, name)
    if not np.isfinite(T).all():
        raise CalibrationError(f"{name}: expected finite values, got {T.tolist()}")
    R = T[..., :3, :3]
    error = np.abs(np.swapaxes(R, -1, -2) @ R - np.eye(3)).max(initial=0.0)
    if error > _ORTHONORMAL_TOLERANCE or (np.linalg.det(R) < 0.0).any():
        raise CalibrationError(
            f"{name}: expected a rotation in the upper left, but R^T R differs from the identity "
            f"by {error:.2g} (determinant {np.ravel(np.linalg.det(R)).min():.3g})"
        )
    if not np.allclose(T[..., 3, :], (0.0, 0.0, 0.0, 1.0), atol=1e-9):
        raise CalibrationError(f"{name}: expected the last row 0, 0, 0, 1, got {T.tolist()}")
    return T


def inverse(T: ArrayLike) -> NDArray[np.float64]:
    """Invert rigid transforms: T_a_b (..., 4, 4) to T_b_a."""
    T = _transforms(T, "T")
    R_inverse = np.swapaxes(T[..., :3, :3], -1, -2)
    return make_transform(R_inverse, -(R_inverse @ T[..., :3, 3:])[..., 0])


def transform_points(T: ArrayLike, xyz: ArrayLike) -> NDArray[np.float64]:
    """Move points to another frame.

    Args:
        T: (..., 4, 4) T_a_b; its leading axes broadcast against those of xyz, so a batch of
            transforms for points (B, n, 3) has shape (B, 1, 4, 4).
        xyz: (..., 3) m in frame b.

    Returns:
        (..., 3) m in frame a.
    """
    T, xyz = _transforms(T, "T"), np.asarray(xyz, dtype=np.float64)
    if xyz.shape[-1:] != (3,):
        raise ShapeError(f"xyz: expected shape (..., 3), got {xyz.shape}")
    R, t = T[..., :3, :3], T[..., :3, 3]
    if R.ndim == 2 or (R.shape[-3] == 1 and xyz.ndim > 1):  # one for many points: much faster
        R = R if R.ndim == 2 else R[..., 0, :, :]
        return np.asarray(xyz @ np.swapaxes(R, -1, -2) + t)
    return np.einsum("...ij,...j->...i", R, xyz) + t


def transform_coordinates(T: NDArray[np.float64], xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move many points whose coordinates lie apart, several times faster than `transform_points`.

    Args:
        T: (4, 4) T_a_b.
        xyz: (3, ...) m in frame b.

    Returns:
        (3, ...) m in frame a.
    """
    x, y, z = xyz
    moved = np.empty(xyz.shape)
    for (to_x, to_y, to_z, shift), out in zip(T[:3], moved, strict=True):
        # In the order in which `transform_points` adds up, so that both agree to the last bit.
        np.multiply(to_x, x, out=out)
        out += to_z * z
        out += to_y * y
        out += shift
    return moved


def transform_from_quat_xyzw(t: ArrayLike, quat_xyzw: ArrayLike) -> NDArray[np.float64]:
    """Make transforms (..., 4, 4) of translations (..., 3) m and quaternions (..., 4).

    Quaternions are normalised.

    Raises:
        CalibrationError: A quaternion is zero or not finite.
    """
    quat = np.asarray(quat_xyzw, dtype=np.float64)
    if quat.shape[-1:] != (4,):
        raise ShapeError(f"quat_xyzw: expected shape (..., 4), got {quat.shape}")
    norm = np.linalg.norm(quat, axis=-1)
    if not (np.isfinite(norm) & (norm > 1e-6)).all():
        raise CalibrationError(
            f"quat_xyzw: expected unit quaternions (0, 0, 0, 1 for no rotation), "
            f"got {quat.tolist()}"
        )
    return make_transform(Rotation.from_quat(quat).as_matrix(), t)


def quat_xyzw_from_transform(T: ArrayLike) -> NDArray[np.float64]:
    """Return unit quaternions (..., 4) with w >= 0 of transforms (..., 4, 4)."""
    return Rotation.from_matrix(check_transform(T)[..., :3, :3]).as_quat(canonical=True)


def interpolate(T0: ArrayLike, T1: ArrayLike, alpha: ArrayLike) -> NDArray[np.float64]:
    """Interpolate between transforms as TF does: translation straight, rotation at even speed.

    Args:
        T0: (..., 4, 4) at alpha 0.
        T1: (..., 4, 4) at alpha 1.
        alpha: (...) in [0, 1]; broadcasts against the leading axes.

    Raises:
        ValueError: alpha lies outside [0, 1]; this never extrapolates.
    """
    T0, T1 = check_transform(T0, "T0"), check_transform(T1, "T1")
    alpha = np.asarray(alpha, dtype=np.float64)[..., None]
    if not ((alpha >= 0.0) & (alpha <= 1.0)).all():
        raise ValueError(f"alpha: expected values in [0, 1], got {alpha[..., 0].tolist()}")
    R0 = T0[..., :3, :3]
    turn = Rotation.from_matrix(np.swapaxes(R0, -1, -2) @ T1[..., :3, :3]).as_rotvec()
    R = R0 @ Rotation.from_rotvec(alpha * turn).as_matrix()
    return make_transform(R, (1.0 - alpha) * T0[..., :3, 3] + alpha * T1[..., :3, 3])


def log(T: ArrayLike) -> NDArray[np.float64]:
    """Return the SE(3) logarithm (..., 6): linear part (m), then rotation vector (rad).

    The order is that of ROS twists and Pinocchio's motions. The rotation angle lies in [0, pi].
    """
    return np.roll(RigidTransform.from_matrix(check_transform(T)).as_exp_coords(), 3, axis=-1)


def exp(twist: ArrayLike) -> NDArray[np.float64]:
    """Return the transforms (..., 4, 4) of twists (..., 6): linear part, rotation vector."""
    twist = np.asarray(twist, dtype=np.float64)
    if twist.shape[-1:] != (6,):
        raise ShapeError(f"twist: expected shape (..., 6), got {twist.shape}")
    return RigidTransform.from_exp_coords(np.roll(twist, 3, axis=-1)).as_matrix()


def rigid_fit(
    source_xyz: ArrayLike, target_xyz: ArrayLike, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Fit the rigid motion between matched points by weighted least squares (Kabsch, Umeyama).

    Args:
        source_xyz: (..., n, 3) m.
        target_xyz: (..., n, 3) m, the same points after the motion.
        weights: (..., n) of at least 0; None: all equal.

    Returns:
        (..., 4, 4) T_target_source, a proper rotation also where a mirror image fits better.

    Raises:
        ShapeError: The arrays do not match.
        TrajectoryError: Fewer than 3 points, not finite, or all on a line.
    """
    source, target, weights = _checked_pairs(source_xyz, target_xyz, weights)
    T, spans_plane = _kabsch(source, target, weights)
    if not spans_plane.all():
        raise TrajectoryError(
            "rigid fit: the points with weight lie on a line or in one place, so the rotation is "
            "not determined; choose points that span a plane"
        )
    return T


def robust_rigid_fit(
    source_xyz: ArrayLike,
    target_xyz: ArrayLike,
    *,
    inlier_m: float,
    weights: ArrayLike | None = None,
    n_trials: int = 256,
    seed: int = 0,
) -> RigidFit:
    """Fit the rigid motion that most points agree on (RANSAC with truncated squares, then refits).

    Args:
        source_xyz: (n, 3) m.
        target_xyz: (n, 3) m, the same points after the motion, some of them wrong.
        inlier_m: Largest distance of a point that agrees, m.
        weights: (n,) of at least 0; None: all equal.
        n_trials: Triples of points tried; with few points all triples are.
        seed: Seed of the choice of triples; equal seeds give equal results.

    Raises:
        ShapeError: The arrays do not match.
        TrajectoryError: Fewer than 3 points, not finite, or no 3 points that agree and span a
            plane.
    """
    source, target, weights = _checked_pairs(source_xyz, target_xyz, weights)
    if source.ndim != 2:
        raise ShapeError(f"robust rigid fit: expected points (n, 3), got {source.shape}")
    if not inlier_m > 0.0:
        raise ValueError(f"inlier_m: expected a distance above 0 m, got {inlier_m}")
    inliers = _best_consensus(source, target, weights, inlier_m, _triples(source, n_trials, seed))
    for _ in range(_MAX_REFITS):
        if np.count_nonzero(inliers & (weights > 0.0)) < _MIN_POINTS:
            raise TrajectoryError(
                f"robust rigid fit: no {_MIN_POINTS} of {len(source)} points move as one body "
                f"within {inlier_m} m; they belong to several bodies or are too noisy"
            )
        T = rigid_fit(source[inliers], target[inliers], weights[inliers])
        distances = np.linalg.norm(transform_points(T, source) - target, axis=-1)
        previous, inliers = inliers, distances <= inlier_m
        if np.array_equal(previous, inliers):
            break
    return RigidFit(T, inliers, float(np.sqrt(np.mean(distances[inliers] ** 2))))


def _triples(points: NDArray[np.float64], n_trials: int, seed: int) -> NDArray[np.int64]:
    """Return triples of indices (k, 3): all of them if they are few, else a random choice."""
    n = len(points)
    if comb(n, _MIN_POINTS) <= n_trials:
        return np.array(list(combinations(range(n), _MIN_POINTS)))
    order = np.random.default_rng(seed).random((n_trials, n))
    return np.argpartition(order, _MIN_POINTS, axis=1)[:, :_MIN_POINTS]


def _best_consensus(
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    weights: NDArray[np.float64],
    inlier_m: float,
    triples: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return which points (n,) agree with the best motion that one triple (k, 3) proposes."""
    T, spans_plane = _kabsch(source[triples], target[triples], np.ones(triples.shape))
    moved = transform_points(T[:, None], source)
    squared = np.sum((moved - target) ** 2, axis=-1)
    costs = np.minimum(squared, inlier_m**2) @ weights
    best = np.argmin(np.where(spans_plane, costs, np.inf))
    return (squared[best] <= inlier_m**2) & spans_plane[best]


def _kabsch(
    source: NDArray[np.float64], target: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Fit (..., n, 3) to (..., n, 3): the transforms, and whether the points determine them."""
    share = (weights / weights.sum(axis=-1, keepdims=True))[..., None]
    source_mean = (share * source).sum(axis=-2, keepdims=True)
    target_mean = (share * target).sum(axis=-2, keepdims=True)
    covariance = np.swapaxes(source - source_mean, -1, -2) @ (share * (target - target_mean))
    U, extents, Vt = np.linalg.svd(covariance)
    V, Ut = np.swapaxes(Vt, -1, -2), np.swapaxes(U, -1, -2)
    # The weakest direction takes the sign that makes a rotation of what may be a reflection.
    signs = np.ones(extents.shape)
    signs[..., 2] = np.sign(np.linalg.det(V @ Ut))
    R = (V * signs[..., None, :]) @ Ut
    t = target_mean[..., 0, :] - (R @ np.swapaxes(source_mean, -1, -2))[..., 0]
    return make_transform(R, t), extents[..., 1] > _LINE_RATIO * extents[..., 0]


def _checked_pairs(
    source: ArrayLike, target: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return matched points (..., n, 3) and weights (..., n) as float64, checked."""
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.ndim < 2 or source.shape[-1] != 3 or source.shape != target.shape:
        raise ShapeError(
            "rigid fit: expected source and target of one shape (..., n, 3), "
            f"got {source.shape} and {target.shape}"
        )
    w = np.ones(source.shape[:-1]) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != source.shape[:-1]:
        raise ShapeError(f"rigid fit: expected weights {source.shape[:-1]}, got {w.shape}")
    if not (np.isfinite(w) & (w >= 0.0)).all():
        raise TrajectoryError("rigid fit: expected finite weights of at least 0")
    bad = ~(np.isfinite(source) & np.isfinite(target)).all(axis=-1)
    if bad.any():
        raise TrajectoryError(
            f"rigid fit: {bad.sum()} of {bad.size} points are not finite, the first at index "
            f"{tuple(int(i) for i in np.argwhere(bad)[0])}; leave them out"
        )
    fewest = int((w > 0.0).sum(axis=-1).min(initial=source.shape[-2]))
    if fewest < _MIN_POINTS:
        raise TrajectoryError(
            f"rigid fit: expected at least {_MIN_POINTS} points with weight, got {fewest}"
        )
    return source, target, w


def _transforms(T: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return transforms as float64, checked to be (..., 4, 4)."""
    array = np.asarray(T, dtype=np.float64)
    if array.shape[-2:] != (4, 4):
        raise ShapeError(f"{name}: expected shape (..., 4, 4), got {array.shape}")
    return array
