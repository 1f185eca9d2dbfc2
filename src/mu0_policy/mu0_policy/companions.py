"""Own which entities ride on the gripper: parts of the robot that the tracker took for things.

With empty fingers nothing but the robot moves along with the tool. What has moved as the tool has
is a part of it; as long as the tool has hardly moved since an entity was first seen, what is
predicted to move with it from the first step. The tracker gives an entity that it had lost a new
number: what appears where a thing has been at rest is that thing.
"""

import numpy as np
from numpy.typing import NDArray

from mu0_policy.trace_motions import Prediction

FloatArray = NDArray[np.float64]

_TRAVEL_M = 0.03  # way of the tool from which on its companions are known
_SHARE = 0.4  # of that way by which a companion may be off
_SAME_PLACE_M = 0.03


class Companions:
    """Tell parts of the robot from things, by how they have moved and will move."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._first: dict[int, tuple[FloatArray, FloatArray]] = {}
        self._riding: set[int] = set()
        self._resting: dict[int, FloatArray] = {}

    def see(self, prediction: Prediction) -> None:
        """Take what stands where now; only while the fingers are empty."""
        tool = prediction.T_base_tool[:3, 3]
        for cluster in map(int, np.unique(prediction.cluster_ids[~prediction.on_gripper])):
            points = ~prediction.on_gripper & (prediction.cluster_ids == cluster)
            middle = np.median(prediction.current_xyz[points], axis=0)
            middle_then, tool_then = self._first.setdefault(cluster, (middle, tool))
            if _alike(middle - middle_then, tool - tool_then):
                self._riding.add(cluster)
                self._resting.pop(cluster, None)
            elif np.linalg.norm(tool - tool_then) > _TRAVEL_M or self._at_rest_before(middle):
                self._resting[cluster] = middle

    def ride(self, prediction: Prediction, points: NDArray[np.bool_], n_valid: int) -> bool:
        """Say whether the points (n,) of one entity belong to the robot."""
        cluster = int(prediction.cluster_ids[points][0])
        if cluster in self._riding or cluster in self._resting:
            return cluster in self._riding
        gripper = prediction.on_gripper
        own, tools = (
            np.median(
                prediction.xyz[chosen, :n_valid] - prediction.current_xyz[chosen, None], axis=0
            )
            for chosen in (points, gripper)
        )
        return all(_alike(own[step], tools[step]) for step in (n_valid // 2, n_valid - 1))

    def _at_rest_before(self, middle: FloatArray) -> bool:
        """Say whether a thing at rest was seen at this place (3,)."""
        return any(
            float(np.linalg.norm(place - middle)) < _SAME_PLACE_M
            for place in self._resting.values()
        )


def _alike(way: FloatArray, tool_way: FloatArray) -> bool:
    """Say whether something has gone the way (3,) that the tool has gone, far enough to tell."""
    length_m = float(np.linalg.norm(tool_way))
    return length_m > _TRAVEL_M and float(np.linalg.norm(way - tool_way)) < _SHARE * length_m
