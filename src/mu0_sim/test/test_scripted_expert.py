import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mu0_core import se3
from mu0_core.errors import TrajectoryError
from mu0_sim.demonstrations import go_astray, plan_demonstration, play
from mu0_sim.motion import chain, joint_path, path_length, time_leg, tool_ik, tool_path
from mu0_sim.robot_control import RobotControl
from mu0_sim.robots import ROBOTS, load_robot
from mu0_sim.scripted_expert import grasp_pose, plan_lift
from mu0_sim.simulation import Simulation, SimulationConfig
from mu0_sim.truth import ObjectTruth
from mu0_sim.urdf import robot_description

HAND_DOWN = se3.make_transform(np.diag([1.0, -1.0, -1.0]), [0.0, 0.0, 1.0])


def make_box(yaw_rad, size_m=(0.04, 0.04, 0.04), xyz=(0.1, -0.05, 0.82)):
    pose = se3.make_transform(Rotation.from_euler("z", yaw_rad).as_matrix(), xyz)
    return ObjectTruth(
        name="cube", size_m=np.array(size_m), T_world_object=pose, T_world_start=pose
    )


@settings(deadline=None)
@given(yaw_rad=st.floats(-7.0, 7.0))
def test_fingers_close_on_faces_with_the_least_turn_of_the_hand(yaw_rad):
    box = make_box(yaw_rad)
    T = se3.check_transform(grasp_pose(box, HAND_DOWN, load_robot("panda")))
    np.testing.assert_allclose(T[:3, 2], [0.0, 0.0, -1.0], atol=1e-12)
    np.testing.assert_allclose(T[:3, 3], [0.1, -0.05, 0.82])
    along_faces = np.abs(box.T_world_object[:3, :2].T @ T[:3, 1])
    assert np.sort(along_faces) == pytest.approx([0.0, 1.0], abs=1e-9)
    turn_rad = np.arccos(np.clip(T[:3, 1] @ HAND_DOWN[:3, 1], -1.0, 1.0))
    assert turn_rad <= np.pi / 4 + 1e-9


def test_the_narrow_side_is_grasped():
    T = grasp_pose(make_box(0.0, (0.03, 0.2, 0.04)), HAND_DOWN, load_robot("panda"))
    assert abs(T[:3, 1] @ [1.0, 0.0, 0.0]) == pytest.approx(1.0)


def test_a_box_that_does_not_fit_is_refused():
    with pytest.raises(TrajectoryError, match=r"cube is 0.200 m wide, limit 0.074 m"):
        grasp_pose(make_box(0.0, (0.2, 0.3, 0.04)), HAND_DOWN, load_robot("panda"))


def test_tool_path_goes_from_pose_to_pose_with_a_bend():
    T_to = se3.make_transform(np.eye(3), [0.4, 0.0, 0.0])
    poses = tool_path(np.eye(4), T_to, np.array([0.0, 0.1, 0.0]))
    np.testing.assert_allclose(poses[0], np.eye(4))
    np.testing.assert_allclose(poses[-1], T_to)
    np.testing.assert_allclose(poses[len(poses) // 2][:3, 3], [0.2, 0.1, 0.0])
    assert path_length(tool_path(np.eye(4), T_to)) == pytest.approx(0.4)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**16), limit_share=st.floats(0.1, 1.0))
def test_a_leg_starts_and_ends_at_rest_within_its_share_of_the_limits(seed, limit_share):
    robot = load_robot("ur5e")
    ends = np.random.default_rng(seed).uniform(-1.5, 1.5, (3, 6))
    q_path = np.stack([np.interp(np.linspace(0, 2, 13), [0, 1, 2], q) for q in ends.T], axis=1)
    leg = time_leg(q_path, robot, limit_share=limit_share)
    np.testing.assert_allclose(leg.q[[0, -1]], q_path[[0, -1]], atol=1e-12)
    assert not leg.qd[[0, -1]].any()
    assert (np.abs(leg.qd) <= limit_share * robot.velocity_limits * 1.01).all()
    qdd = np.diff(leg.qd, axis=0) / np.diff(leg.times_s)[:, None]
    assert (np.abs(qdd) <= limit_share * robot.acceleration_limits * 1.01).all()


def test_chained_legs_keep_their_waits():
    robot = load_robot("ur5e")
    out = np.linspace(robot.home_q, robot.home_q + 0.1, 13)
    legs = [time_leg(path, robot, limit_share=0.5) for path in (out, out[::-1])]
    trajectory = chain(robot.arm_joints, legs, (0.25, 0.5))
    assert trajectory.times_s[0] == 0.25
    assert trajectory.duration_s == pytest.approx(0.75 + sum(leg.duration_s for leg in legs))
    assert (np.diff(trajectory.times_s) > 0.0).all()
    assert len(chain(robot.arm_joints, legs, (0.25, 0.0)).times_s) == len(trajectory.times_s) - 1


def test_a_pose_out_of_reach_is_refused():
    robot = load_robot("panda")
    ik = tool_ik(robot, robot_description(robot))
    far = se3.make_transform(HAND_DOWN[:3, :3], [2.0, 0.0, 0.3])
    with pytest.raises(TrajectoryError, match=r"cannot reach \[2.0, 0.0, 0.3\] m"):
        joint_path(ik, far[None], robot.home_q)


@pytest.mark.parametrize("task", ["lift", "lift_named"])
@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_lifts_the_cube_within_the_controllers_rules(name, task):
    simulation = Simulation(SimulationConfig(robot=name, task=task))
    plan = plan_demonstration(simulation, 7)
    control = RobotControl(simulation.robot, simulation.home_command())
    control.arm.accept(plan.arm, simulation.time_s)
    control.gripper.accept(plan.gripper, simulation.time_s)
    assert 0.0 < plan.grasp_s < plan.arm.duration_s
    assert not simulation.success()
    assert play(simulation, plan)
    assert simulation.lifted() == (simulation.truth().target,)


def test_equal_seeds_give_equal_plans_and_others_differ():
    simulation = Simulation(SimulationConfig())
    first, again = (plan_demonstration(simulation, 3) for _ in range(2))
    np.testing.assert_array_equal(first.arm.q, again.arm.q)
    other = plan_demonstration(simulation, 4)
    assert other.arm.duration_s != first.arm.duration_s


@pytest.mark.slow
@pytest.mark.parametrize("task", ["lift", "lift_named"])
@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_lifts_at_least_19_of_20(name, task):
    simulation = Simulation(SimulationConfig(robot=name, task=task))
    lifted = [play(simulation, plan_demonstration(simulation, seed)) for seed in range(20)]
    assert sum(lifted) >= 19


def test_a_demonstration_that_begins_astray_mends_it():
    simulation = Simulation(SimulationConfig())
    control = go_astray(simulation, 5)
    truth = simulation.truth()
    away = truth.T_world_tool[:3, 3] - truth.T_world_body[truth.target][:3, 3]
    assert np.linalg.norm(away[:2]) < 0.12
    assert -0.03 < away[2] < 0.17
    assert not simulation.success()
    assert play(simulation, plan_lift(simulation, seed=5), control=control)
    assert simulation.success()
