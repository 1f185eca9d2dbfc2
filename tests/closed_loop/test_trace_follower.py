"""The follower lifts the cube from exact traces, in simulation, within every limit."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mu0_core.embodiment import arm_limits, arm_model, load_embodiment
from mu0_sim.robots import ROBOTS
from mu0_sim.simulation import Simulation, SimulationConfig
from mu0_sim.urdf import robot_description


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


exact_traces = _load("exact_traces")


def lifts(robot, seeds, **setting):
    simulation = Simulation(SimulationConfig(robot=robot, seed=seeds[0]))
    made = exact_traces.Setting(**setting)
    return [exact_traces.run_episode(simulation, seed, made) for seed in seeds]


@pytest.mark.parametrize("robot", ROBOTS)
def test_exact_traces_lift_the_cube_within_every_limit(robot):
    (result,) = lifts(robot, [5000])
    assert result.success and result.end == "done", result
    assert result.limit_violations == 0
    assert result.velocity_jump < 1e-6
    assert result.refused == 0


@pytest.mark.slow
@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("noise_m", [0.0, 0.005, 0.01])
def test_ten_scenes_a_robot_and_noise(robot, noise_m):
    results = lifts(robot, range(5000, 5010), noise_m=noise_m)
    assert sum(result.success for result in results) >= 9, results
    assert sum(result.limit_violations for result in results) == 0


def test_traces_without_motion_lift_nothing():
    (result,) = lifts("panda", [5000], horizon_share=0.0, time_limit_s=3.0)
    assert not result.success


@pytest.mark.parametrize("robot", ROBOTS.values(), ids=list(ROBOTS))
def test_embodiment_files_say_what_the_simulated_robots_are(robot):
    embodiment = load_embodiment(exact_traces.EMBODIMENTS / f"{robot.name}.yaml")
    assert embodiment.name == robot.name
    assert embodiment.arm.joints == robot.arm_joints
    np.testing.assert_allclose(embodiment.arm.home_q, robot.home_q, atol=1e-5)
    limits = arm_limits(embodiment, arm_model(embodiment, robot_description(robot)))
    np.testing.assert_allclose(limits.position_lower, robot.position_lower, atol=1e-5)
    np.testing.assert_allclose(limits.position_upper, robot.position_upper, atol=1e-5)
    np.testing.assert_allclose(limits.velocity, robot.velocity_limits, atol=1e-5)
    assert (limits.acceleration <= robot.acceleration_limits).all()
    gripper = embodiment.gripper
    assert gripper.joints == (robot.gripper.joint,)
    assert gripper.open == (robot.gripper.position_open,)
    assert gripper.closed == (robot.gripper.position_closed,)
    travel = abs(robot.gripper.position_closed - robot.gripper.position_open)
    assert 1.5 * travel / gripper.closing_s <= robot.gripper.velocity_limit  # peak of a cubic
