"""Own the measures of predicted traces against true ones.

All on absolute positions: u and v normalised (image width = 2), z in m; or xyz in m. Steps that
are not valid are removed, never penalised. Letters: S samples, K traces, H steps, C coordinates.
Definitions are those of the released evaluation; joint minima and metres are additions.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Coordinates of each measured set; the mixed one adds image units and metres, as released.
_LABELS = {"ade": "ADE", "fde": "FDE", "dtw": "DTW", "frechet": "Frechet"}
AXES: Mapping[str, slice] = {"uvz": slice(0, 3), "uv": slice(0, 2), "depth": slice(2, 3)}


def per_trace(predicted: Array, truth: Array, valid: NDArray[np.bool_]) -> dict[str, Array]:
    """Measure every sample of every trace.

    Args:
        predicted: (S, K, H, C).
        truth: (K, H, C); anything where not valid.
        valid: (K, H).

    Returns:
        ade, fde, dtw, frechet (S, K) and smooth_pred (S, K), smooth_gt (K,); NaN where a trace has
        no step that counts.
    """
    truth = np.where(valid[..., None], truth, 0.0)
    steps = valid.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(valid, np.linalg.norm(predicted - truth, axis=-1), 0.0)  # (S, K, H)
        ade = error.sum(-1) / np.where(steps > 0, steps, np.nan)
    last = valid.shape[-1] - 1 - np.argmax(valid[:, ::-1], axis=-1)
    fde = np.where(steps > 0, error[:, np.arange(len(last)), last], np.nan)
    dtw, frechet = _alignments(predicted, truth, valid)
    return {
        "ade": ade,
        "fde": fde,
        "dtw": dtw,
        "frechet": frechet,
        "smooth_pred": smoothness(predicted, valid),
        "smooth_gt": smoothness(truth, valid),
    }


def smoothness(traces: Array, valid: NDArray[np.bool_]) -> Array:
    """Average |p(t+1) - 2 p(t) + p(t-1)| of (..., K, H, C) where all three steps are valid."""
    if traces.shape[-2] < 3:
        return np.full(traces.shape[:-2], np.nan)
    counts = valid[:, 2:] & valid[:, 1:-1] & valid[:, :-2]
    bend = np.linalg.norm(np.diff(traces, n=2, axis=-2), axis=-1)
    total = counts.sum(-1)
    return np.where(counts, bend, 0.0).sum(-1) / np.where(total > 0, total, np.nan)


def l1_errors(
    predicted: Array, truth: Array, valid: NDArray[np.bool_], scale: Array
) -> dict[str, float]:
    """Sum |error| over coordinates, averaged over all valid steps.

    Args:
        predicted: (K, H, 3).
        truth: (K, H, 3); anything where not valid.
        valid: (K, H).
        scale: (3,) what the model's offsets are divided by.

    Returns:
        l1_abs, l1_uv, l1_depth of the coordinates, l1_delta of scaled offsets; NaN if no step is
        valid.
    """
    error = np.abs(predicted - truth)[valid]
    mean = error.mean(0) if len(error) else np.full(3, np.nan)
    return {
        "l1_abs": float(mean.sum()),
        "l1_uv": float(mean[:2].sum()),
        "l1_depth": float(mean[2]),
        "l1_delta": float((mean / scale).sum()),
    }


def summarise(
    measured: Mapping[str, Array],
    axes: str,
    scenes: NDArray[np.integer],
    keep: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Average the measures of traces; each trace counts once, or each scene for joint minima.

    Single-sample measures use sample 0; minS ones take each trace's best sample, jointS ones the
    sample that is best for its whole scene.

    Args:
        measured: From `per_trace`, for K traces.
        axes: Name of the coordinates, for the names of the results.
        scenes: (K,) number of the scene that each trace belongs to.
        keep: (K,) traces that count; None: all.

    Returns:
        Averages by name, NaN where nothing counted.
    """
    keep = np.ones(len(scenes), bool) if keep is None else keep
    samples = len(measured["ade"])
    means = {}
    for name, label in _LABELS.items():
        values = measured[name][:, keep]
        means[f"{name}_{axes}"] = _mean(values[0])
        if samples > 1:
            means[f"min{label}_{samples}_{axes}"] = _mean(values.min(0))
        if samples > 1 and name in ("ade", "fde"):
            means[f"joint{label}_{samples}_{axes}"] = _joint_minimum(values, scenes[keep])
    means[f"smooth_pred_{axes}"] = _mean(measured["smooth_pred"][:, keep].mean(0))
    means[f"smooth_gt_{axes}"] = _mean(measured["smooth_gt"][keep])
    return means


def _mean(values: Array) -> float:
    """Average what is not NaN."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _joint_minimum(values: Array, scenes: NDArray[np.integer]) -> float:
    """Average over scenes the mean of (S, K) over a scene's traces, of its best sample."""
    known = np.isfinite(values[0])
    _, scene = np.unique(scenes[known], return_inverse=True)
    if not scene.size:
        return float("nan")
    sums = np.stack([np.bincount(scene, weights=row[known]) for row in values])
    return float((sums / np.bincount(scene)).min(0).mean())


def done_accuracy(
    valid_prob: NDArray[np.floating],
    valid: NDArray[np.bool_],
    real: NDArray[np.bool_],
    threshold: float,
) -> float:
    """Return the share of steps (K, H) of real keypoints (K,) whose validity is told right."""
    return float(((valid_prob >= threshold) == valid)[real].mean())


def done_end_step_error(
    valid_prob: NDArray[np.floating],
    valid: NDArray[np.bool_],
    real: NDArray[np.bool_],
    threshold: float,
) -> tuple[float, float]:
    """Compare the first step told invalid with the true one.

    Returns:
        Mean |difference| in steps over real keypoints whose validity is a prefix, and the share of
        real keypoints whose validity is not.
    """
    true_end = _first_off(valid)
    is_prefix = valid.sum(-1) == true_end
    counted = real & is_prefix
    error = np.abs(_first_off(valid_prob >= threshold) - true_end)
    mean = float(error[counted].mean()) if counted.any() else float("nan")
    return mean, float((real & ~is_prefix).sum() / max(real.sum(), 1))


def _first_off(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the first false step of (K, H), H if there is none."""
    return np.where(flags.all(-1), flags.shape[-1], np.argmin(flags, axis=-1))


def _alignments(predicted: Array, truth: Array, valid: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Compute dynamic time warping and the discrete Fréchet distance, both (S, K).

    Both are dynamic programs over pairs of steps; they run on all traces at once, with the valid
    steps moved to the front.
    """
    order = np.argsort(~valid, axis=-1, kind="stable")[..., None]
    truth = np.take_along_axis(truth, order, axis=-2)
    predicted = np.take_along_axis(predicted, order[None], axis=-2)
    steps = valid.sum(-1)
    horizon = int(steps.max(initial=0))
    shape = predicted.shape[:2]
    dtw, frechet = np.full(shape, np.nan), np.full(shape, np.nan)
    # The last finished row of each program; a border of infinities stands before the first column.
    infinite = np.full((*shape, horizon + 1), np.inf)
    sum_row, max_row = infinite, infinite
    for i in range(horizon):
        cost = np.linalg.norm(predicted[:, :, i, None] - truth[None, :, :horizon], axis=-1)
        sum_next, max_next = infinite.copy(), infinite.copy()
        for j in range(horizon):
            c = cost[..., j]
            if i == j == 0:
                sum_next[..., 1], max_next[..., 1] = c, c
                continue
            best_sum, best_max = (
                np.minimum(np.minimum(above[..., j], above[..., j + 1]), left[..., j])
                for above, left in ((sum_row, sum_next), (max_row, max_next))
            )
            sum_next[..., j + 1] = best_sum + c
            max_next[..., j + 1] = np.maximum(best_max, c)
        sum_row, max_row = sum_next, max_next
        ends = steps == i + 1
        dtw[:, ends] = sum_row[:, ends, i + 1] / (i + 1)
        frechet[:, ends] = max_row[:, ends, i + 1]
    return dtw, frechet
