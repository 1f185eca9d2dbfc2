"""Own the rule that brings streams of different clocks and rates to the moments of one row.

At each moment the newest value that has arrived counts: never a later one, never a blend with a
later one. A value that is too old is a gap, and a gap ends the demonstration with an error.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mu0_core.errors import EpisodeError

_SAME_TIME_S = 1e-4


def moments(first_s: float, last_s: float, rate_hz: float) -> NDArray[np.float64]:
    """Return the times (n,) of evenly spaced moments from the first time to the last."""
    n = int(np.floor((last_s - first_s) * rate_hz + 1e-6)) + 1
    return first_s + np.arange(max(n, 0)) / rate_hz


def newest(
    stamps_s: ArrayLike, times_s: ArrayLike, *, oldest_s: float, what: str
) -> NDArray[np.int64]:
    """Return the index (n,) of what a stream has last said at each time.

    Args:
        stamps_s: (m,) times of the stream's values, not falling.
        times_s: (n,) moments.
        oldest_s: How old a value may be.
        what: Name of the stream, for messages.

    Raises:
        EpisodeError: The stream is empty, goes back in time, starts late or has a gap.
    """
    stamps = np.asarray(stamps_s, dtype=np.float64)
    times = np.asarray(times_s, dtype=np.float64)
    if not len(stamps):
        raise EpisodeError(f"{what}: nothing came")
    back = np.flatnonzero(np.diff(stamps) < 0.0)
    if len(back):
        raise EpisodeError(f"{what}: its times go back at {stamps[back[0]]:.3f} s")
    found = np.searchsorted(stamps, times + _SAME_TIME_S, side="right") - 1
    early = np.flatnonzero(found < 0)
    if len(early):
        raise EpisodeError(
            f"{what}: nothing before {stamps[0]:.3f} s, wanted at {times[early[0]]:.3f} s"
        )
    age_s = times - stamps[found]
    worst = int(age_s.argmax()) if len(age_s) else 0
    if len(age_s) and age_s[worst] > oldest_s:
        raise EpisodeError(
            f"{what}: a gap, {age_s[worst]:.3f} s old at {times[worst]:.3f} s, limit "
            f"{oldest_s:.3f} s"
        )
    return found.astype(np.int64)


def check_even(name: str, times_s: NDArray[np.float64], rate_hz: float) -> None:
    """Refuse moments at times (n,) with gaps, or of another rate; raises an EpisodeError."""
    steps_s, period_s = np.diff(times_s), 1.0 / rate_hz
    wrong = np.flatnonzero(~(np.abs(steps_s - period_s) <= 0.1 * period_s))  # NaN too
    if len(wrong):
        raise EpisodeError(
            f"{name}: moments {wrong[0]} and {wrong[0] + 1} are {steps_s[wrong[0]]:.4f} s apart, "
            f"expected {period_s:.4f} s: a gap, or another rate"
        )
