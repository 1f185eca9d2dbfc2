"""Own the spline that a trace is predicted as: basis, fit, rendering and derivatives.

The curve is a cubic clamped B-spline on t in [0, 1] whose interior knots j/M have multiplicity
three. That is M cubic Bezier pieces sharing end points, with D = 3M + 1 control points, so the
basis has a closed form (Bernstein polynomials) for any M. The curve is continuous, but its
derivatives may jump at the joints, and it need not start at the anchor. Sources: the model of
arXiv 2606.13769 and its released code.

t is arc length scaled to the horizon, not time: step k of H lies at t = k / H. Everything is
computed and returned in float64. C is the number of coordinates of a point, any.
"""

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mu0_core.errors import ConfigError, ShapeError

_DEGREE = 3


@dataclass(frozen=True, slots=True, eq=False)
class SplineFit:
    """Hold what `fit` found.

    Attributes:
        control: (..., D, C) float64 control points, in the unit of the points; 0 where not valid.
        valid: (...) bool, true where enough steps were valid.
    """

    control: NDArray[np.float64]
    valid: NDArray[np.bool_]


def segment_count(n_ctrl: int) -> int:
    """Return the number of Bezier pieces M of D = 3M + 1 control points.

    Raises:
        ConfigError: No whole number of pieces has that many control points.
    """
    if n_ctrl < _DEGREE + 1 or (n_ctrl - 1) % _DEGREE:
        raise ConfigError(
            "n_ctrl: expected 4, 7, 10, ... control points (3M + 1 for M cubic pieces), "
            f"got {n_ctrl}"
        )
    return (n_ctrl - 1) // _DEGREE


def basis(t: ArrayLike, n_ctrl: int, *, derivative: int = 0) -> NDArray[np.float64]:
    """Evaluate the basis functions, or their derivatives with respect to t.

    Args:
        t: (...) curve parameter in [0, 1].
        n_ctrl: Number of control points D = 3M + 1.
        derivative: 0, 1 or 2. At a joint it is that of the piece that starts there.

    Returns:
        (..., D) float64; times control points (D, C) it gives points of the curve.

    Raises:
        ConfigError: n_ctrl is not 3M + 1.
        ValueError: t lies outside [0, 1], or the derivative is none of 0, 1, 2.
    """
    n_segments = segment_count(n_ctrl)
    t = np.asarray(t, dtype=np.float64)
    if not ((t >= 0.0) & (t <= 1.0)).all():
        raise ValueError(f"t: expected values in [0, 1], got {t.min()} to {t.max()}")
    segment = np.minimum((t * n_segments).astype(np.int64), n_segments - 1)
    local = _bernstein(t * n_segments - segment, derivative) * n_segments**derivative
    rows = np.zeros((*t.shape, n_ctrl))
    columns = _DEGREE * segment[..., None] + np.arange(_DEGREE + 1)
    np.put_along_axis(rows, columns, local, axis=-1)
    return rows


def fit_matrix(horizon: int, n_ctrl: int) -> NDArray[np.float64]:
    """Return the (horizon + 1, D) basis at t = 0, 1/H, ..., 1; row 0 is the anchor."""
    return basis(np.arange(horizon + 1) / horizon, n_ctrl)


def render_matrix(horizon: int, n_ctrl: int) -> NDArray[np.float64]:
    """Return the (horizon, D) basis at t = 1/H, ..., 1."""
    return fit_matrix(horizon, n_ctrl)[1:]


def difference_matrix(n_ctrl: int, order: int) -> NDArray[np.float64]:
    """Return the (D - order, D) differences of neighbouring control points.

    Args:
        n_ctrl: Number of control points D.
        order: 1 for rows (-1, 1), 2 for rows (-1, 2, -1), the released code's signs.

    Raises:
        ConfigError: The order is neither, or n_ctrl is not 3M + 1.
    """
    segment_count(n_ctrl)
    stencils = {1: (-1.0, 1.0), 2: (-1.0, 2.0, -1.0)}
    if order not in stencils:
        raise ConfigError(f"reg_order: expected 1 or 2, got {order}")
    rows = np.zeros((n_ctrl - order, n_ctrl))
    for k, weight in enumerate(stencils[order]):
        rows += weight * np.eye(*rows.shape, k=k)
    return rows


def fit(
    points: ArrayLike,
    valid: ArrayLike,
    n_ctrl: int,
    *,
    reg_lambda: float,
    reg_order: int,
    clip: float | None,
    min_valid_steps: int | None = None,
) -> SplineFit:
    """Fit control points to the valid steps of trajectories by regularised least squares.

    Minimises |A P - Y|^2 + |lambda G P|^2 over the valid steps and the anchor (0 at t = 0), with
    A the fit matrix and G the difference matrix. With order 1, control points beyond the valid
    steps hold the last value. Where lambda is 0 and the steps do not determine P, P is the
    smallest solution.

    Args:
        points: (..., H, C) positions at t = 1/H, ..., 1 relative to the anchor, any unit.
        valid: (..., H) bool; invalid steps may hold anything.
        n_ctrl: Number of control points D = 3M + 1.
        reg_lambda: Weight lambda of the differences, at least 0.
        reg_order: Order of the differences, 1 or 2.
        clip: Largest magnitude of a control coordinate, in the unit of the points; None: no limit.
        min_valid_steps: Fewest valid steps of a trajectory that counts; None: D, as released.

    Raises:
        ConfigError: A setting is impossible.
        ShapeError: The arrays do not fit together, or a valid step is not finite.
    """
    _check_fit_settings(reg_lambda, clip, min_valid_steps)
    points, valid = _checked_steps(points, valid)
    batch, (horizon, n_coords) = points.shape[:-2], points.shape[-2:]

    regulariser = reg_lambda * difference_matrix(n_ctrl, reg_order)
    # Trajectories of one group share their mask, so few distinct systems are solved.
    masks, which = np.unique(valid.reshape(-1, horizon), axis=0, return_inverse=True)
    anchored = np.concatenate([np.ones((len(masks), 1), bool), masks], axis=1)
    weighted = anchored[..., None] * fit_matrix(horizon, n_ctrl)
    tall = np.broadcast_to(regulariser, (len(masks), *regulariser.shape))
    # Columns of the solution that act on the steps; anchor and differences have target 0.
    solver = np.linalg.pinv(np.concatenate([weighted, tall], axis=1), rcond=1e-12)
    solver = solver[..., 1 : horizon + 1]

    targets = np.where(valid[..., None], points, 0.0).reshape(-1, horizon, n_coords)
    control = (solver[which.reshape(-1)] @ targets).reshape(*batch, n_ctrl, n_coords)
    if clip is not None:
        control = np.clip(control, -clip, clip)
    enough = valid.sum(axis=-1) >= (n_ctrl if min_valid_steps is None else min_valid_steps)
    return SplineFit(np.where(enough[..., None, None], control, 0.0), enough)


def evaluate(control: ArrayLike, t: ArrayLike, *, derivative: int = 0) -> NDArray[np.float64]:
    """Evaluate curves, or their derivatives with respect to t.

    Args:
        control: (..., D, C) control points.
        t: (k,) curve parameters in [0, 1].
        derivative: 0, 1 or 2.

    Returns:
        (..., k, C) in the unit of the control points (per t, per t^2).
    """
    control = _control_points(control)
    return basis(t, control.shape[-2], derivative=derivative) @ control


def render(control: ArrayLike, horizon: int) -> NDArray[np.float64]:
    """Evaluate curves (..., D, C) at t = 1/H, ..., 1: (..., H, C)."""
    control = _control_points(control)
    return render_matrix(horizon, control.shape[-2]) @ control


def _bernstein(u: NDArray[np.float64], derivative: int) -> NDArray[np.float64]:
    """Evaluate the four cubic Bernstein polynomials, or a derivative, at u (...): (..., 4)."""
    if derivative not in (0, 1, 2):
        raise ValueError(f"derivative: expected 0, 1 or 2, got {derivative}")
    degree = _DEGREE - derivative
    k = np.arange(degree + 1)
    counts = np.array([comb(degree, i) for i in k])
    values = counts * u[..., None] ** k * (1.0 - u[..., None]) ** (degree - k)
    for lower in range(degree + 1, _DEGREE + 1):
        # Derivative rule: B'_k = m (B_{k-1} - B_k), with m the degree of the left-hand side.
        padded = np.pad(values, [(0, 0)] * u.ndim + [(1, 1)])
        values = lower * (padded[..., :-1] - padded[..., 1:])
    return values


def _check_fit_settings(
    reg_lambda: float, clip: float | None, min_valid_steps: int | None
) -> None:
    """Raise one ConfigError with every impossible setting."""
    faults = []
    if not (np.isfinite(reg_lambda) and reg_lambda >= 0.0):
        faults.append(f"reg_lambda: expected a number of at least 0, got {reg_lambda}")
    if clip is not None and not clip > 0.0:
        faults.append(f"clip: expected a number above 0 or None, got {clip}")
    if min_valid_steps is not None and min_valid_steps < 1:
        faults.append(f"min_valid_steps: expected at least 1, got {min_valid_steps}")
    if faults:
        raise ConfigError("spline fit: " + "; ".join(faults))


def _checked_steps(
    points: ArrayLike, valid: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return points (..., H, C) and valid (..., H) as arrays that fit together."""
    points, valid = np.asarray(points, dtype=np.float64), np.asarray(valid)
    if points.ndim < 2 or valid.dtype != np.bool_ or valid.shape != points.shape[:-1]:
        raise ShapeError(
            "spline fit: expected points (..., H, C) with a bool mask (..., H), "
            f"got {points.shape} with {valid.dtype} {valid.shape}"
        )
    bad = valid & ~np.isfinite(points).all(axis=-1)
    if bad.any():
        raise ShapeError(
            f"spline fit: {bad.sum()} valid steps are not finite, the first at index "
            f"{tuple(int(i) for i in np.argwhere(bad)[0])}; mark them invalid"
        )
    return points, valid


def _control_points(control: ArrayLike) -> NDArray[np.float64]:
    """Return control points as float64, checked to be (..., D, C)."""
    array = np.asarray(control, dtype=np.float64)
    if array.ndim < 2:
        raise ShapeError(f"control: expected shape (..., D, C), got {array.shape}")
    return array
