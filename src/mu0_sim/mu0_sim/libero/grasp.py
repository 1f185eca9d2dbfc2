"""Find where a parallel gripper can take hold of an object from above, among other things.

Candidates are turned and shifted grips over the object. One is free if nothing is where the open
fingers and the palm would be; of the free ones that hold something, the one is taken that holds
nearest to the object's middle with the object in the middle between the fingers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mu0_core import se3
from mu0_core.errors import TrajectoryError

FloatArray = NDArray[np.float64]

# The Panda hand around its grip point, m; see `free`. The fingers open along y, z leaves the hand.
_FINGER_TIP_Z = 0.011
_FINGER_HALF_X = 0.012
_FINGER_Y = (0.039, 0.063)
_PALM_Z = -0.045
_PALM_HALF_XY = (0.034, 0.106)
_PAD_HALF_X, _PAD_Z = 0.008, (-0.012, 0.006)
_GAP_M = 0.004  # that nothing may come nearer than to an open finger

_TURNS_RAD = np.deg2rad(np.arange(-90.0, 90.0, 15.0))
_SHIFTS_M = np.arange(-0.09, 0.091, 0.0075)
_ASIDE_M = (0.0, -0.02, 0.02)
_DEEPEST_M = 0.035  # of the tool below the object's top
_FLOOR_M = 0.014  # of the tool above the object's lowest point
_LEAST_POINTS = 4
_WIDEST_M = 0.072

# What a grip costs: 1 m off the middle costs 1.
_COST_OFF_CENTRE = 2.0  # for each m that the held part is not midway between the fingers
_COST_TURN = 0.01  # for each rad that the hand turns
_COST_HEIGHT = 0.3  # for each m above the deepest grip
_COST_REACH = 0.3  # for each m from the base


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grasp:
    """Hold a grip.

    Attributes:
        T_world_tool: (4, 4) pose of the grip point when the fingers close, pointing down.
        cost: Of the choice; lower is better.
    """

    T_world_tool: FloatArray
    cost: float


def find_grasp(
    target_xyz: FloatArray,
    other_xyz: FloatArray,
    T_world_tool: FloatArray,
    base_xyz: FloatArray,
) -> Grasp:
    """Return the best free grip from above.

    Args:
        target_xyz: (n, 3) points on the object, in world, m.
        other_xyz: (m, 3) points on everything else but what it rests on.
        T_world_tool: (4, 4) pose of the tool now; the hand turns as little as it can.
        base_xyz: (3,) of the robot's base in world, m; of equal grips the nearest is taken.

    Raises:
        TrajectoryError: There is none.
    """
    low, high = target_xyz.min(axis=0), target_xyz.max(axis=0)
    middle = (low + high) / 2.0
    near = other_xyz[np.linalg.norm(other_xyz[:, :2] - middle[:2], axis=1) < 0.3]
    deepest = max(high[2] - _DEEPEST_M, low[2] + _FLOOR_M)
    heights = np.unique([deepest, max(deepest, high[2] - 0.02), max(deepest, high[2] - 0.01)])
    best: Grasp | None = None
    for turn in _TURNS_RAD:
        R = _pointing_down(T_world_tool, turn)
        target, other = (target_xyz - middle) @ R, (near - middle) @ R
        for height in heights:
            up = height - middle[2]
            for aside in _ASIDE_M:
                for shift in _SHIFTS_M:
                    at = np.array([aside, shift, -up])
                    cost = _grip_cost(target - at)
                    if cost is None:
                        continue
                    cost += float(np.hypot(aside, shift)) + _COST_TURN * abs(turn)
                    grip_xyz = middle + R @ at
                    cost += _COST_HEIGHT * (height - deepest)
                    cost += _COST_REACH * float(np.linalg.norm(grip_xyz - base_xyz))
                    if best is not None and cost >= best.cost:
                        continue
                    if free(np.concatenate([target, other]) - at):
                        best = Grasp(T_world_tool=se3.make_transform(R, grip_xyz), cost=cost)
    if best is None:
        size = np.round(high - low, 3).tolist()
        raise TrajectoryError(
            f"no free grip from above on an object of {size} m; the fingers open {_WIDEST_M} m"
        )
    return best


def free(points: FloatArray) -> bool:
    """Say whether nothing is where the open hand would be.

    Args:
        points: (n, 3) in the tool's frame, m.
    """
    x, y, z = np.abs(points[:, 0]), np.abs(points[:, 1]), points[:, 2]
    fingers = (x < _FINGER_HALF_X) & (y > _FINGER_Y[0] - _GAP_M) & (y < _FINGER_Y[1])
    fingers &= (z < _FINGER_TIP_Z) & (z > _PALM_Z)
    palm = (x < _PALM_HALF_XY[0]) & (y < _PALM_HALF_XY[1]) & (z <= _PALM_Z) & (z > -0.2)
    return not bool((fingers | palm).any())


def _grip_cost(target: FloatArray) -> float | None:
    """Return how far from midway between the fingers the held part is; None: nothing is held.

    Args:
        target: (n, 3) points on the object, in the tool's frame, m.
    """
    x, y, z = np.abs(target[:, 0]), target[:, 1], target[:, 2]
    held = (x < _PAD_HALF_X) & (np.abs(y) < _FINGER_Y[0]) & (z > _PAD_Z[0]) & (z < _PAD_Z[1])
    if np.count_nonzero(held) < _LEAST_POINTS:
        return None
    low, high = y[held].min(), y[held].max()
    if high - low > _WIDEST_M:
        return None
    return float(_COST_OFF_CENTRE * abs(low + high) / 2.0)


def _pointing_down(T_world_tool: FloatArray, turn_rad: float) -> FloatArray:
    """Return the rotation of a tool that points down, turned about the vertical from now."""
    y = T_world_tool[:3, 1] * (1.0, 1.0, 0.0)
    y /= np.linalg.norm(y)
    z = np.array([0.0, 0.0, -1.0])
    R = np.stack([np.cross(y, z), y, z], axis=1)
    return Rotation.from_euler("z", turn_rad).as_matrix() @ R
