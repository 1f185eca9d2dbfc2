"""Own what one prediction says to the trace follower: tool poses, the grasp, where to let go."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core import se3
from mu0_core.config import option, validate
from mu0_core.errors import TrajectoryError
from mu0_policy.trace_motions import Prediction, body_motions, shifts

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerConfig:
    """Configure how traces are read."""

    inlier_m: float = option(
        0.03, description="How far a point may be off the motion of its body", unit="m", low=1e-3
    )
    moved_m: float = option(
        0.01, description="Shift from which on an object counts as moved", unit="m", low=1e-3
    )
    grasp_m: float = option(
        0.008, description="Distance from the grasp at which to close", unit="m", low=1e-3
    )
    grasp_rad: float = option(
        0.2, description="Angle from the grasp at which to close", unit="rad", low=1e-2
    )
    reach_m: float = option(
        0.08, description="Distance of the tool from what it holds, at most", unit="m", low=1e-2
    )
    shut_share: float = option(
        0.95, description="Share of the way to closed that means empty fingers", low=0.1, high=1.0
    )
    step_back_m: float = option(
        0.08, description="Way back along the hand after a grasp on nothing", unit="m", low=0.0
    )
    stuck_m: float = option(
        0.02, description="Size of the place in which the tool gets stuck", unit="m", low=0.0
    )
    stuck_s: float = option(
        4.0,
        description="Time there, while the motion should go on, after which it plans anew",
        unit="s",
        low=0.5,
    )
    blocked_rad: float = option(
        0.02,
        description="Lag of a joint in the approach from which on it has run into something",
        unit="rad",
        low=1e-3,
    )
    done_m: float = option(
        0.02, description="Way that is left when a load counts as brought", unit="m", low=0.0
    )
    done_predictions: int = option(
        3, description="Predictions in a row that must say that the motion is over", low=1
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """Hold what one prediction says.

    Attributes:
        tool: (v, 4, 4) tool poses of the valid steps.
        grasp: (4, 4) tool pose of the grasp, None if no object moves.
        n_before: Number of steps before the object moves.
        release: Step at which the object stays behind, None if it does not.
    """

    tool: FloatArray
    grasp: FloatArray | None = None
    n_before: int = 0
    release: int | None = None


def held(prediction: Prediction, config: FollowerConfig) -> NDArray[np.bool_] | None:
    """Return the points (n,) of the cluster between the fingers, None if there is none."""
    best, nearest_m = None, config.reach_m
    for cluster in np.unique(prediction.cluster_ids[~prediction.on_gripper]):
        points = ~prediction.on_gripper & (prediction.cluster_ids == cluster)
        middle = np.median(prediction.current_xyz[points], axis=0)
        distance_m = float(np.linalg.norm(middle - prediction.T_base_tool[:3, 3]))
        if distance_m < nearest_m:
            best, nearest_m = points, distance_m
    return best


def read_approach(
    prediction: Prediction,
    target: NDArray[np.bool_] | None,
    n_valid: int,
    config: FollowerConfig,
) -> Reading:
    """Find tool poses and grasp in a prediction made with empty fingers."""
    tool = tool_poses(prediction, prediction.on_gripper, n_valid, config)
    if target is None:
        return Reading(tool=tool)
    current, future = prediction.current_xyz[target], prediction.xyz[target, :n_valid]
    still = shifts(current, future) < config.moved_m
    if still[-1]:
        return Reading(tool=tool)
    first = int(np.flatnonzero(still)[-1]) + 1 if still.any() else 0
    motions = body_motions(current, future[:, first:], inlier_m=config.inlier_m)
    grasp = _grasp(prediction, motions, first, config)
    if grasp is None:
        return Reading(tool=tool)
    gap_m = np.linalg.norm(np.median(current, axis=0) - grasp[:3, 3])
    if gap_m > config.reach_m:  # it moves, but not because it is held: a part of the robot
        return Reading(tool=tool)
    return Reading(tool=tool, grasp=grasp, n_before=first)


def _grasp(
    prediction: Prediction, motions: FloatArray, first: int, config: FollowerConfig
) -> FloatArray | None:
    """Return the tool pose now that has the gripper's predicted place on the object.

    Args:
        prediction: With the object moving from step `first` on.
        motions: (k, 4, 4) of the object at these steps.
        first: Step of the first motion.
        config: Inlier distance.
    """
    gripper = prediction.on_gripper
    steps = slice(first, first + len(motions))
    future = np.swapaxes(prediction.xyz[gripper, steps], 0, 1)
    carried_back = se3.transform_points(se3.inverse(motions)[:, None], future)
    # Near steps count more: a prediction is worse the farther it goes.
    weights = prediction.valid_prob[gripper, steps].mean(axis=0) / (1.0 + np.arange(len(motions)))
    place = np.average(carried_back, axis=0, weights=np.maximum(weights, 1e-6))
    try:
        fit = se3.robust_rigid_fit(
            prediction.current_xyz[gripper], place, inlier_m=config.inlier_m
        )
    except TrajectoryError:
        return None
    return fit.T @ prediction.T_base_tool


def read_carry(
    prediction: Prediction,
    target: NDArray[np.bool_] | None,
    n_valid: int,
    config: FollowerConfig,
) -> Reading:
    """Find tool poses, and where to let go, in a prediction made while holding something."""
    gripper = prediction.on_gripper
    if target is None:
        return Reading(tool=tool_poses(prediction, gripper, n_valid, config))
    object_shift = np.median(
        prediction.xyz[target, :n_valid] - prediction.current_xyz[target, None], axis=0
    )
    gripper_shift = np.median(
        prediction.xyz[gripper, :n_valid] - prediction.current_xyz[gripper, None], axis=0
    )
    apart_m = np.linalg.norm(gripper_shift - object_shift, axis=-1)
    together = apart_m < 3.0 * config.moved_m
    release = None
    if not together[-1]:
        last = int(np.flatnonzero(together)[-1]) if together.any() else 0
        rests_m = np.linalg.norm(object_shift[-1] - object_shift[last])
        release = last if rests_m < config.moved_m else None
    points = gripper if release is not None else gripper | target
    return Reading(tool=tool_poses(prediction, points, n_valid, config), release=release)


def tool_poses(
    prediction: Prediction, points: NDArray[np.bool_], n_valid: int, config: FollowerConfig
) -> FloatArray:
    """Return the tool's predicted poses (n_valid, 4, 4) from points that move with it."""
    motions = body_motions(
        prediction.current_xyz[points], prediction.xyz[points, :n_valid], inlier_m=config.inlier_m
    )
    return motions @ prediction.T_base_tool
