"""Own the question whether the tool gets on."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_PAUSE_S = 0.5  # without a look: the arm was held, which is no lack of progress


class Progress:
    """Tell when the tool has stayed in one place for too long.

    Args:
        within_m: Size of a place.
        for_s: How long is too long.
    """

    def __init__(self, within_m: float, for_s: float) -> None:
        self._within_m, self._for_s = within_m, for_s
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._place: FloatArray | None = None
        self._since_s = self._seen_s = -np.inf

    def stuck(self, now_s: float, place: FloatArray) -> bool:
        """Take where the tool (3,) is now; say whether it has been there for too long."""
        paused = now_s - self._seen_s > _PAUSE_S
        self._seen_s = now_s
        moved = self._place is None or np.linalg.norm(place - self._place) > self._within_m
        if moved or paused:
            self._place, self._since_s = place.copy(), now_s
        return now_s - self._since_s > self._for_s
