"""Own the measurement of speed and memory of a predictor, beside the yardstick of its machine.

A yardstick is run before and after each prediction, and a prediction is measured in the mean of
its two neighbours: what else the machine does then slows both alike. Medians are reported.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.traces import Keypoints, Traces
from mu0_world_model.memory import growth_mb, peak_mb, stored_mb
from mu0_world_model.predictor import Predictor
from mu0_world_model.queries import keypoints_without_past
from mu0_world_model.untrained import INSTRUCTION

_SIDE_PX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Say what is asked in a prediction.

    Attributes:
        keypoints: Number of keypoints.
        samples: Samples of each.
        steps: Euler steps.
        history: Whether the keypoints have a past.
        depth: Whether there is a depth image.
    """

    keypoints: int
    samples: int
    steps: int
    history: bool
    depth: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Figures:
    """Hold what was measured of a case.

    Attributes:
        yardsticks: Time of a prediction from a new picture, in yardsticks; None without.
        seconds: The same in s.
        again_seconds: Time of a further prediction from the same picture, s.
        stages: Time of each stage, s.
        peak_memory_mb: Weights, and by how much memory grew during a prediction; None where that
            cannot be told.
        process_peak_mb: Most resident memory of the whole process meanwhile; None likewise.
        offsets: (s, n, D, 3) px, px, m: predicted control points minus their keypoints.
    """

    yardsticks: float | None
    seconds: float
    again_seconds: float
    stages: dict[str, float]
    peak_memory_mb: float | None
    process_peak_mb: float | None
    offsets: NDArray[np.float32]


def cases(
    keypoints: Sequence[int],
    samples: Sequence[int],
    steps: Sequence[int],
    history: Sequence[bool],
    depth: Sequence[bool],
) -> Iterator[Case]:
    """List all combinations."""
    for n, s, k, h, d in itertools.product(keypoints, samples, steps, history, depth):
        yield Case(keypoints=n, samples=s, steps=k, history=h, depth=d)


def measure(
    predictor: Predictor, case: Case, yardstick: Callable[[], object] | None, repeats: int
) -> Figures:
    """Measure one case.

    Args:
        predictor: What is measured.
        case: What is asked.
        yardstick: The unit; None leaves it out.
        repeats: Predictions that count, after one that warms up and one for the memory.
    """
    predictor.n_steps = case.steps
    rgb, depth, keypoints = _inputs(predictor, case)

    def predict() -> Traces:
        return predictor.predict(
            rgb, keypoints, INSTRUCTION, depth=depth, samples=case.samples, seed=0
        )

    def predict_anew() -> Traces:
        predictor.forget()
        return predict()

    traces = predict_anew()
    growth = growth_mb(predictor.device, predict_anew)
    peak = peak_mb()
    seconds, again, ratios, stages = [], [], [], []
    before_s = 0.0 if yardstick is None else _seconds(yardstick)
    for _ in range(repeats):
        started_s = perf_counter()
        traces = predict_anew()
        seconds.append(perf_counter() - started_s)
        if yardstick is not None:
            after_s = _seconds(yardstick)
            ratios.append(seconds[-1] / fmean([before_s, after_s]))
            before_s = after_s
        stages.append(dict(zip(traces.stage_names, traces.stage_seconds.tolist(), strict=True)))
        again.append(_seconds(predict))
    return Figures(
        yardsticks=median(ratios) if ratios else None,
        seconds=median(seconds),
        again_seconds=median(again),
        stages={name: median(stage[name] for stage in stages) for name in stages[0]},
        peak_memory_mb=None if growth is None else stored_mb(predictor.model) + growth,
        process_peak_mb=peak,
        offsets=traces.control_uvz - np.column_stack([keypoints.uv, keypoints.z])[:, None],
    )


def row(case: Case, precision: str, figures: Figures, exact: Figures | None) -> dict[str, Any]:
    """Write a case as plain values.

    Args:
        case: What was asked.
        precision: Number format.
        figures: What was measured.
        exact: The same case in float32, to compare with.

    Returns:
        Values by name. error_max: largest difference of a control point from float32's, by the
        largest distance of a control point from its keypoint; error_rms: likewise of root mean
        squares. Of the three axes, the worst one counts.
    """
    errors = (None, None) if exact is None else _errors(figures.offsets, exact.offsets)
    return {
        **asdict(case),
        "dtype": precision,
        "yardsticks": _rounded(figures.yardsticks),
        "seconds": _rounded(figures.seconds),
        "again_seconds": _rounded(figures.again_seconds),
        "traces_per_second": _rounded(case.keypoints * case.samples / figures.seconds),
        "peak_memory_mb": _rounded(figures.peak_memory_mb),
        "process_peak_mb": _rounded(figures.process_peak_mb),
        "error_max": _rounded(errors[0]),
        "error_rms": _rounded(errors[1]),
        "stages": {name: _rounded(value) for name, value in figures.stages.items()},
    }


def _inputs(
    predictor: Predictor, case: Case
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None, Keypoints]:
    """Make a picture of noise, depth, and keypoints that came along straight lines."""
    rng = np.random.default_rng(0)
    camera = Camera.from_fovy(0.9, _SIDE_PX, _SIDE_PX)
    rgb = rng.integers(0, 256, (_SIDE_PX, _SIDE_PX, 3), dtype=np.uint8)
    depth = rng.uniform(0.4, 2.0, (_SIDE_PX, _SIDE_PX)).astype(np.float32)
    uv = rng.uniform(0, _SIDE_PX - 1, (case.keypoints, 2)).astype(np.float32)
    keypoints = keypoints_without_past(
        uv,
        depth,
        camera,
        stamp_ns=0,
        frame_id="camera",
        arc_step=predictor.arc_step,
        history_length=predictor.history_len,
    )
    if case.history:
        back = np.arange(predictor.history_len, 0, -1)[:, None] * [-3.0, 2.0, 0.01]
        uvz = np.column_stack([keypoints.uv, keypoints.z])[:, None] + back
        keypoints = replace(
            keypoints,
            history_uvz=uvz.astype(np.float32),
            history_valid=np.ones(uvz.shape[:2], np.bool_),
        )
    return rgb, depth if case.depth else None, keypoints


def _seconds(work: Callable[[], object]) -> float:
    started_s = perf_counter()
    work()
    return perf_counter() - started_s


def _errors(offsets: NDArray[np.float32], exact: NDArray[np.float32]) -> tuple[float, float]:
    wrong, right = (
        np.abs(array.astype(np.float64)).reshape(-1, 3) for array in (offsets - exact, exact)
    )
    largest = wrong.max(0) / right.max(0)
    mean = np.sqrt(np.square(wrong).mean(0) / np.square(right).mean(0))
    return float(largest.max()), float(mean.max())


def _rounded(value: float | None) -> float | None:
    """Keep four digits."""
    return None if value is None else float(f"{value:.4g}")
