"""Own the cutting of an episode into chunks, between the peaks of its smoothed acceleration.

The rule is that of the released data. Two things differ: as many chunks may come of it as the
configuration says, and camera motion plays no part, since it is known and taken out.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks, savgol_filter

from mu0_core.config import option, validate

_FLAT = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class EventConfig:
    """Say how long chunks are and what counts as a peak."""

    min_len: int = option(25, description="Pictures of a chunk, at least", low=2)
    max_len: int = option(200, description="Pictures of a chunk, at most", low=4)
    max_chunks: int = option(6, description="Chunks, unless the episode is very long", low=1)
    smooth: int = option(11, description="Pictures that acceleration is smoothed over", low=3)
    height: float = option(
        0.40, description="Least height of a peak, of the whole range", low=0.0, high=1.0
    )
    prominence: float = option(
        0.40, description="Least prominence of a peak, of the whole range", low=0.0, high=1.0
    )

    def __post_init__(self) -> None:
        fault = None
        if self.max_len < 2 * self.min_len:
            fault = (
                f"max_len: expected at least twice min_len ({self.min_len}), got {self.max_len}"
            )
        validate(self, fault)


def find_chunks(acceleration: NDArray[np.floating], config: EventConfig) -> list[tuple[int, int]]:
    """Cut an episode into chunks.

    Args:
        acceleration: (T,) of what moves, T above 0.
        config: Lengths and peaks.

    Returns:
        First and last frame, inclusive, of each chunk; they follow each other without gap.
    """
    n = len(acceleration)
    if n <= max(config.min_len, 2):
        return [(0, n - 1)]
    smooth = _smoothed(np.asarray(acceleration, np.float64), config.smooth)
    peaks = _peaks(smooth, config)
    if len(peaks):
        starts = [0, *(_valley(smooth, a, b) for a, b in pairwise(peaks))]
    else:
        step = max(config.min_len, min(config.max_len, n // 3))
        starts = list(range(0, n, step))
    return _fitted(starts, n, config)


def _smoothed(values: NDArray[np.float64], span: int) -> NDArray[np.float64]:
    window = min(span, len(values))
    window = max(window - 1 + window % 2, 3)
    return np.asarray(savgol_filter(values, window, 2))


def _peaks(smooth: NDArray[np.float64], config: EventConfig) -> NDArray[np.int64]:
    """Return the frames (k,) of the most prominent peaks, in order."""
    low, span = float(smooth.min()), float(np.ptp(smooth))
    if span < _FLAT:
        return np.empty(0, np.int64)
    peaks, found = find_peaks(
        smooth,
        height=low + config.height * span,
        distance=config.min_len,
        prominence=config.prominence * span,
    )
    most = max(config.max_chunks, len(smooth) // config.max_len)
    best = np.argsort(-found["prominences"], kind="stable")[:most]
    return np.sort(peaks[best])


def _valley(smooth: NDArray[np.float64], before: int, after: int) -> int:
    """Return the lowest frame strictly between two peaks."""
    return before + 1 + int(np.argmin(smooth[before + 1 : after]))


def _fitted(starts: list[int], n: int, config: EventConfig) -> list[tuple[int, int]]:
    """Join chunks that are too short to their shorter neighbour, and divide those too long."""
    lengths = np.diff([*starts, n]).tolist()
    while len(lengths) > 1 and min(lengths) < config.min_len:
        i = next(k for k, length in enumerate(lengths) if length < config.min_len)
        sides = [k for k in (i - 1, i + 1) if 0 <= k < len(lengths)]
        other = min(sides, key=lambda k: lengths[k])
        lengths[other] += lengths[i]
        del lengths[i]
    pieces = [len(p) for length in lengths for p in _divided(length, config.max_len)]
    ends = np.cumsum(pieces)
    return [(int(e - size), int(e - 1)) for e, size in zip(ends, pieces, strict=True)]


def _divided(length: int, longest: int) -> list[range]:
    """Divide a length into equal parts, the remainder given to the first ones."""
    parts = -(-length // longest)
    return [range(len(p)) for p in np.array_split(np.arange(length), parts)]
