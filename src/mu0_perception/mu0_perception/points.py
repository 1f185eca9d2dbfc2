"""Own the table of keypoints that are being followed: one row each."""

import numpy as np
from numpy.typing import NDArray

from mu0_perception.selection import Source

POINT = np.dtype(
    [
        ("id", np.uint32),  # stable as long as the point is followed, never used again
        ("cluster", np.int32),  # entity, -1 = none
        ("source", np.uint8),  # Source.code
        ("uv", np.float32, 2),  # px in the newest picture
        ("z", np.float32),  # m in the newest picture
        ("xyz", np.float64, 3),  # m in the fixed frame
        ("velocity", np.float64, 3),  # m/s in the fixed frame
        ("visible", np.bool_),  # seen in the newest picture
        ("seen_ns", np.int64),  # stamp of the picture in which it was last seen
        ("colour", np.float32, 3),  # at its birth
    ]
)


def no_points() -> NDArray[np.void]:
    """Return a table without rows."""
    return np.empty(0, POINT)


def of(points: NDArray[np.void], source: Source) -> NDArray[np.bool_]:
    """Say which rows come from a source."""
    return points["source"] == source.code


class Numbers:
    """Give out ids and cluster ids, each once."""

    def __init__(self) -> None:
        self._next_id = 0
        self._next_cluster = 0

    def ids(self, n: int) -> NDArray[np.uint32]:
        """Return n new ids."""
        self._next_id += n
        return np.arange(self._next_id - n, self._next_id, dtype=np.uint32)

    def cluster(self) -> int:
        """Return a new cluster id."""
        self._next_cluster += 1
        return self._next_cluster - 1
