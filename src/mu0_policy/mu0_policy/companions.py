"""Own which entities ride on the gripper: parts of the robot that the tracker took for things.

With empty fingers nothing but the robot moves along with the tool. What has moved as the tool has
is a part of it; before the tool has moved, what is predicted to move with it from the first step.
"""

import numpy as np
from numpy.typing import NDArray

from mu0_policy.trace_motions import Prediction

FloatArray = NDArray[np.float64]

_TRAVEL_M = 0.03  # way of the tool from which on its companions are known
_SHARE = 0.4  # of that way by which a companion may be off


class Companions:
    """Tell parts of the robot from things, by how they have moved and will move."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._first: dict[int, tuple[FloatArray, FloatArray]] = {}
        self._start: FloatArray | None = None
        self._riding: set[int] = set()
        self._travelled = False

    def see(self, prediction: Prediction) -> None:
        """Take what stands where now; only while the fingers are empty."""
        tool = prediction.T_base_tool[:3, 3]
        if self._start is None:
            self._start = tool
        self._travelled |= bool(np.linalg.norm(tool - self._start) > _TRAVEL_M)
        for cluster in np.unique(prediction.cluster_ids[~prediction.on_gripper]):
            points = ~prediction.on_gripper & (prediction.cluster_ids == cluster)
            middle = np.median(prediction.current_xyz[points], axis=0)
            middle_then, tool_then = self._first.setdefault(int(cluster), (middle, tool))
            if _alike(middle - middle_then, tool - tool_then):
                self._riding.add(int(cluster))

    def ride(self, prediction: Prediction, points: NDArray[np.bool_], n_valid: int) -> bool:
        """Say whether the points (n,) of one entity belong to the robot."""
        if int(prediction.cluster_ids[points][0]) in self._riding:
            return True
        if self._travelled:
            return False
        gripper = prediction.on_gripper
        own, tools = (
            np.median(
                prediction.xyz[chosen, :n_valid] - prediction.current_xyz[chosen, None], axis=0
            )
            for chosen in (points, gripper)
        )
        return all(_alike(own[step], tools[step]) for step in (n_valid // 2, n_valid - 1))


def _alike(way: FloatArray, tool_way: FloatArray) -> bool:
    """Say whether something has gone the way (3,) that the tool has gone, far enough to tell."""
    length_m = float(np.linalg.norm(tool_way))
    return length_m > _TRAVEL_M and float(np.linalg.norm(way - tool_way)) < _SHARE * length_m
