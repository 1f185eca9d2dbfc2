"""Own which pictures of a recording are used: at an even rate, in parts without gaps."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameConfig:
    """Say which pictures are used."""

    rate_hz: float = option(
        10.0, description="Pictures a second, at most", unit="Hz", low=0.1, high=240.0
    )
    max_gap_s: float = option(
        0.5, description="Longest time without a picture inside an episode", unit="s", low=0.01
    )
    max_frames: int = option(400, description="Pictures of an episode, at most", low=16)
    min_frames: int = option(8, description="Pictures of an episode, at least", low=3)
    start_s: float = option(0.0, description="Time left out at the beginning", unit="s", low=0.0)
    end_s: float | None = option(
        None, description="Time from the beginning at which to stop", unit="s", low=0.0
    )

    def __post_init__(self) -> None:
        fault = None
        if self.end_s is not None and self.end_s <= self.start_s:
            fault = f"end_s: expected more than start_s ({self.start_s} s), got {self.end_s} s"
        validate(self, fault)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """Hold which pictures are used.

    Attributes:
        parts: Indices (n,) of each part, whose stamps rise and have no gap.
        dropped: Pictures with a stamp that is out of order or not finite.
        gaps_s: Length of each gap that was cut at, s.
    """

    parts: tuple[NDArray[np.int64], ...]
    dropped: int
    gaps_s: tuple[float, ...]


def select_frames(stamps_s: NDArray[np.float64], config: FrameConfig) -> Selection:
    """Choose the pictures nearest to an even grid of times, and cut at gaps.

    Args:
        stamps_s: (n,) s, in the order of the pictures.
        config: Rate and lengths.
    """
    rising = _rising(stamps_s)
    dropped = len(stamps_s) - len(rising)
    if len(rising) == 0:
        return Selection(parts=(), dropped=dropped, gaps_s=())
    begin = stamps_s[rising[0]] + config.start_s
    end = np.inf if config.end_s is None else stamps_s[rising[0]] + config.end_s
    times = stamps_s[rising]
    rising = rising[(times >= begin) & (times <= end)]
    chosen = rising[_nearest_to_grid(stamps_s[rising], 1.0 / config.rate_hz)]
    steps = np.diff(stamps_s[chosen])
    cuts = np.flatnonzero(steps > longest_step_s(stamps_s[chosen], config)) + 1
    parts = [p for run in np.split(chosen, cuts) for p in _pieces(run, config)]
    return Selection(parts=tuple(parts), dropped=dropped, gaps_s=tuple(steps[cuts - 1].tolist()))


def longest_step_s(stamps_s: NDArray[np.float64], config: FrameConfig) -> float:
    """Return the time (s) between pictures at rising stamps (n,) beyond which there is a gap."""
    usual = float(np.median(np.diff(stamps_s))) if len(stamps_s) > 1 else 0.0
    return max(config.max_gap_s, 2.5 * usual)


def _rising(stamps_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the indices of the most pictures whose stamps rise: a wrong stamp costs itself only.

    Of runs of one length, that with the earlier pictures.
    """
    finite = np.flatnonzero(np.isfinite(stamps_s))
    times = stamps_s[finite]
    if (np.diff(times) > 0).all():
        return finite
    lowest: list[float] = []  # last stamp of the best run of each length
    ends: list[list[int]] = []  # pictures that a run of each length can end with
    for i, time in enumerate(times.tolist()):
        length = bisect_left(lowest, time)
        if length == len(lowest):
            lowest.append(time)
            ends.append([])
        lowest[length] = time
        ends[length].append(i)
    later = np.inf
    chosen = []
    for candidates in reversed(ends):
        chosen.append(next(i for i in candidates if times[i] < later))
        later = times[chosen[-1]]
    return finite[chosen[::-1]]


def _nearest_to_grid(times: NDArray[np.float64], period_s: float) -> NDArray[np.int64]:
    """Return which of rising times (n,) lie nearest to a grid that begins with the first."""
    if len(times) < 2:
        return np.arange(len(times))
    cell = np.rint((times - times[0]) / period_s).astype(np.int64)
    away = np.abs(times - times[0] - cell * period_s)
    order = np.lexsort((away, cell))
    first = np.ones(len(times), np.bool_)
    first[1:] = np.diff(cell[order]) > 0
    return np.sort(order[first])


def _pieces(run: NDArray[np.int64], config: FrameConfig) -> list[NDArray[np.int64]]:
    """Cut a run into episodes of nearly equal length, none too long, none too short."""
    if len(run) < config.min_frames:
        return []
    n = -(-len(run) // config.max_frames)
    return list(np.array_split(run, n))
