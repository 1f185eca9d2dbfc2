"""Plan how a robot lifts a cube, from what only the simulator knows.

For demonstrations only: the plan reads object poses from `mu0_sim.truth`. The tool goes above the
cube, down, the gripper closes, the tool rises, each leg from rest to rest; a seed varies path and
speed.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mu0_core import se3
from mu0_core.errors import TrajectoryError
from mu0_sim.controllers import JointTrajectory
from mu0_sim.motion import Leg, chain, joint_path, path_length, time_leg, tool_ik, tool_path
from mu0_sim.robots import GripperSpec, RobotSpec
from mu0_sim.simulation import Simulation
from mu0_sim.truth import ObjectTruth

FloatArray = NDArray[np.float64]

# What the seed varies, as (lowest, highest).
_LIMIT_SHARE = (0.5, 0.8)
_TOOL_SPEED_MPS = (0.12, 0.25)
_HOVER_M = (0.08, 0.14)
_LIFT_M = (0.12, 0.18)
_START_WAIT_S = (0.1, 0.5)
_HOVER_WAIT_S = (0.02, 0.2)
_DETOUR_M = 0.06
# Beside the cube, so that demonstrations show how an approach that is off is mended.
_HOVER_OFFSET_M = 0.025
_HOVER_TURN_RAD = 0.25

_STRAY_HEIGHT_M = (0.0, 0.15)
_STRAY_M = 0.09
_STRAY_CLEAR_M = 0.06
_STRAY_TURN_RAD = 0.4

_SETTLE_S = 0.3
_FINGER_CLEARANCE_M = 0.006


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftPlan:
    """Hold the commands of one demonstration; both start at the same time.

    Attributes:
        arm: Trajectory of the arm joints, ending at rest.
        gripper: Trajectory of the gripper's driving joint, ending closed.
        grasp_s: Time after the start at which the gripper begins to close.
    """

    arm: JointTrajectory
    gripper: JointTrajectory
    grasp_s: float

    def starting_at(self, start_s: float) -> "LiftPlan":
        """Return the plan with its start at a time of the controllers' clock."""
        return replace(
            self,
            arm=replace(self.arm, start_s=start_s),
            gripper=replace(self.gripper, start_s=start_s),
        )


def plan_lift(simulation: Simulation, *, seed: int) -> LiftPlan:
    """Plan the lift of the object that the instruction means, from here and now.

    Args:
        simulation: The scene; it is only looked at.
        seed: Varies path and speed.

    Raises:
        TrajectoryError: The object is too wide for the gripper, or a pose is out of reach.
    """
    rng = np.random.default_rng(seed)
    robot, truth = simulation.robot, simulation.truth()
    ik = tool_ik(robot, simulation.robot_description())
    limit_share, tool_speed = rng.uniform(*_LIMIT_SHARE), rng.uniform(*_TOOL_SPEED_MPS)
    T_base_world = se3.inverse(robot.T_world_base)
    T_start = T_base_world @ truth.T_world_tool
    T_grasp = T_base_world @ grasp_pose(truth.objects[truth.target], truth.T_world_tool, robot)
    T_hover = _raised(T_grasp, rng.uniform(*_HOVER_M)) @ _beside(rng)
    T_end = _raised(T_grasp, rng.uniform(*_LIFT_M))
    detour = rng.uniform(-_DETOUR_M, _DETOUR_M, 3) * (1.0, 1.0, 0.5)

    legs: list[Leg] = []
    q = simulation.joint_state().q[: len(robot.arm_joints)]
    for poses in (
        tool_path(T_start, T_hover, detour),
        tool_path(T_hover, T_grasp),
        tool_path(T_grasp, T_end),
    ):
        q_path = joint_path(ik, poses, q)
        shortest_s = path_length(poses) / tool_speed
        legs.append(time_leg(q_path, robot, limit_share=limit_share, shortest_s=shortest_s))
        q = q_path[-1]
    closing_s = _closing_time_s(robot.gripper)
    waits_s = (rng.uniform(*_START_WAIT_S), rng.uniform(*_HOVER_WAIT_S), closing_s + _SETTLE_S)
    grasp_s = waits_s[0] + legs[0].duration_s + waits_s[1] + legs[1].duration_s
    plan = LiftPlan(
        arm=chain(robot.arm_joints, legs, waits_s),
        gripper=_closing(robot.gripper, grasp_s, closing_s),
        grasp_s=grasp_s,
    )
    return plan.starting_at(simulation.time_s)


def plan_stray(simulation: Simulation, *, seed: int) -> JointTrajectory:
    """Plan a way from home to a place beside the target, as after a miss, fingers open.

    Raises:
        TrajectoryError: A pose is out of reach.
    """
    rng = np.random.default_rng([seed, 1])
    robot, truth = simulation.robot, simulation.truth()
    ik = tool_ik(robot, simulation.robot_description())
    T_base_world = se3.inverse(robot.T_world_base)
    T_start = T_base_world @ truth.T_world_tool
    T_grasp = T_base_world @ grasp_pose(truth.objects[truth.target], truth.T_world_tool, robot)
    height_m = rng.uniform(*_STRAY_HEIGHT_M)
    # Low down, a gripper that is nearer would push the cube.
    nearest_m = _STRAY_CLEAR_M if height_m < _STRAY_CLEAR_M else 0.0
    distance_m, direction = rng.uniform(nearest_m, _STRAY_M), rng.uniform(-np.pi, np.pi)
    turn = Rotation.from_euler("z", rng.uniform(-_STRAY_TURN_RAD, _STRAY_TURN_RAD)).as_matrix()
    T_stray = T_grasp.copy()
    T_stray[:3, :3] = turn @ T_grasp[:3, :3]
    T_stray[:3, 3] += distance_m * np.array([np.cos(direction), np.sin(direction), 0.0])
    T_stray[2, 3] += height_m
    T_above = T_stray.copy()
    T_above[2, 3] = max(T_stray[2, 3], T_grasp[2, 3] + _HOVER_M[1])
    legs: list[Leg] = []
    q = simulation.joint_state().q[: len(robot.arm_joints)]
    for poses in (tool_path(T_start, T_above), tool_path(T_above, T_stray)):
        q_path = joint_path(ik, poses, q)
        legs.append(time_leg(q_path, robot, limit_share=_LIMIT_SHARE[1]))
        q = q_path[-1]
    trajectory = chain(robot.arm_joints, legs, (_SETTLE_S, 0.0))
    return replace(trajectory, start_s=simulation.time_s)


def grasp_pose(target: ObjectTruth, T_world_tool: FloatArray, robot: RobotSpec) -> FloatArray:
    """Return T_world_tool of a grasp from above, the fingers on two opposite faces.

    Of the directions that fit between the fingers, the one nearest to the hand's own is taken; a
    gripper turned by half a turn is the same gripper.

    Args:
        target: The box to grasp.
        T_world_tool: (4, 4) pose of the tool frame now: z out of the hand, fingers open along y.
        robot: Its gripper's opening counts.

    Raises:
        TrajectoryError: No pair of side faces fits between the fingers.
    """
    R_world_object = target.T_world_object[:3, :3]
    upright = int(np.argmax(np.abs(R_world_object[2])))
    widest = robot.gripper.opening_range_m[1] - _FINGER_CLEARANCE_M
    sides = [axis for axis in range(3) if axis != upright]
    fitting = [axis for axis in sides if target.size_m[axis] <= widest]
    if not fitting:
        raise TrajectoryError(
            f"{target.name} is {min(target.size_m[sides]):.3f} m wide, limit {widest:.3f} m: "
            f"it does not fit between the fingers of {robot.name}"
        )
    hand_y = T_world_tool[:3, 1]
    directions = [sign * R_world_object[:, axis] for axis in fitting for sign in (1.0, -1.0)]
    y = max(directions, key=lambda direction: float(direction @ hand_y)) * (1.0, 1.0, 0.0)
    y /= np.linalg.norm(y)
    z = np.array([0.0, 0.0, -1.0])
    R_world_grasp = np.stack([np.cross(y, z), y, z], axis=1)
    return se3.make_transform(R_world_grasp, target.T_world_object[:3, 3])


def _raised(T: FloatArray, height_m: float) -> FloatArray:
    """Return the pose moved up by a height."""
    raised = T.copy()
    raised[2, 3] += height_m
    return raised


def _beside(rng: np.random.Generator) -> FloatArray:
    """Draw a small shift and turn in the plane of the fingers' openings."""
    turn = Rotation.from_euler("z", rng.uniform(-_HOVER_TURN_RAD, _HOVER_TURN_RAD)).as_matrix()
    shift = rng.uniform(-_HOVER_OFFSET_M, _HOVER_OFFSET_M, 3) * (1.0, 1.0, 0.0)
    return se3.make_transform(turn, shift)


def _closing_time_s(gripper: GripperSpec) -> float:
    """Return how long a cubic from open to closed takes within the velocity limit, s."""
    travel = abs(gripper.position_closed - gripper.position_open)
    return max(0.3, 1.6 * travel / gripper.velocity_limit)


def _closing(gripper: GripperSpec, grasp_s: float, closing_s: float) -> JointTrajectory:
    """Keep the gripper open until the grasp, then close it."""
    return JointTrajectory(
        joint_names=(gripper.joint,),
        times_s=np.array([grasp_s, grasp_s + closing_s]),
        q=np.array([[gripper.position_open], [gripper.position_closed]]),
        qd=np.zeros((2, 1)),
    )
