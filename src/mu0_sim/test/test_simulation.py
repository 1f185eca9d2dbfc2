import subprocess
import sys
import threading

import numpy as np
import pytest

from mu0_core.errors import ConfigError, Mu0Error
from mu0_core.se3 import make_transform
from mu0_sim.robots import ROBOTS
from mu0_sim.simulation import Simulation, SimulationConfig
from mu0_sim.tasks import LIFTED_M

SMALL = {"width": 64, "height": 48}


@pytest.fixture
def simulation():
    simulation = Simulation(SimulationConfig(task="lift_named", seed=2, **SMALL))
    yield simulation
    simulation.close()


def raise_cube(simulation, name, height_m):
    """Put a cube somewhere above its place, as if it had been lifted."""
    simulation._world.data.joint(simulation._world.model.body(name).jntadr[0]).qpos[2] += height_m


def test_all_faults_of_a_configuration_come_at_once():
    with pytest.raises(ConfigError) as caught:
        SimulationConfig(robot="pnda", task="lft", seed=-1, width=4, height=9000, rate_hz=0.0)
    text = str(caught.value)
    for part in ("'pnda'", "'panda'", "'lft'", "got -1", "got 4", "got 9000", "got 0.0"):
        assert part in text


@pytest.mark.parametrize("robot", sorted(ROBOTS))
def test_every_robot_starts_at_home_and_shows_itself(robot):
    simulation = Simulation(SimulationConfig(robot=robot, **SMALL))
    simulation.advance(0.02, lambda _: simulation.home_command())
    state = simulation.joint_state()
    assert state.names == simulation.robot.joint_names
    arm = len(simulation.robot.arm_joints)
    np.testing.assert_allclose(state.q[:arm], simulation.robot.home_q, atol=1e-4)
    assert np.isfinite(state.effort).all()
    frame = simulation.render()
    assert frame.rgb.std() > 10
    assert frame.time_s == state.time_s == pytest.approx(1.02)
    assert frame.camera is simulation.camera
    simulation.close()


def test_time_starts_at_one_and_goes_on_over_a_reset(simulation):
    assert simulation.time_s == 1.0
    asked = []

    def home_at(time_s):
        asked.append(time_s)
        return simulation.home_command()

    simulation.advance(0.01, home_at)
    np.testing.assert_allclose(asked, 1.0 + 0.002 * np.arange(5))
    simulation.reset(seed=3)
    assert simulation.time_s == pytest.approx(1.01)


def test_reset_changes_task_and_seed_and_keeps_what_is_not_named(simulation):
    instruction = simulation.reset(task="lift")
    assert (simulation.task, simulation.seed) == ("lift", 2)
    assert instruction == simulation.instruction
    assert "cube" in instruction
    simulation.reset(seed=9)
    assert (simulation.task, simulation.seed) == ("lift", 9)
    assert set(simulation.truth().objects) == {"cube"}


def test_a_wrong_reset_leaves_the_episode_as_it_was(simulation):
    before = simulation.truth().T_world_body
    with pytest.raises(ConfigError, match="unknown task"):
        simulation.reset(task="fold")
    with pytest.raises(ConfigError, match="got -3"):
        simulation.reset(seed=-3)
    assert (simulation.task, simulation.seed) == ("lift_named", 2)
    for name, T_world_body in simulation.truth().T_world_body.items():
        assert np.array_equal(T_world_body, before[name])


def test_reset_brings_a_scene_back_to_the_bit(simulation):
    first = simulation.render()
    simulation.advance(0.05, lambda _: simulation.home_command())
    simulation.reset()
    second = simulation.render()
    assert np.array_equal(first.rgb, second.rgb)
    assert np.array_equal(first.depth_m, second.depth_m, equal_nan=True)
    assert second.time_s > first.time_s


def test_looking_does_not_change_what_happens():
    ends = []
    for look in (False, True):
        simulation = Simulation(SimulationConfig(robot="ur5e", seed=1, **SMALL))
        for _ in range(20):
            simulation.step(simulation.home_command())
            if look:
                simulation.render()
                simulation.truth()
                simulation.link_transforms()
        ends.append(simulation._world.data.qpos.copy())
        simulation.close()
    assert np.array_equal(*ends)


def test_seeds_differ_in_what_is_seen(simulation):
    first = simulation.render()
    simulation.reset(seed=5)
    second = simulation.render()
    assert np.abs(first.rgb.astype(int) - second.rgb).mean() > 3
    assert not np.allclose(first.T_world_camera, second.T_world_camera)


def test_success_is_for_the_named_cube_alone(simulation):
    target = simulation.truth().target
    (other,) = set(simulation.truth().objects) - {target}
    assert not simulation.success()
    raise_cube(simulation, other, LIFTED_M + 0.001)
    assert simulation.lifted() == (other,)
    assert not simulation.success()
    raise_cube(simulation, target, LIFTED_M - 0.001)
    assert not simulation.success()
    raise_cube(simulation, target, 0.002)
    assert simulation.success()


def test_truth_is_a_snapshot_with_the_start_kept(simulation):
    before = simulation.truth()
    raise_cube(simulation, "red_cube", 0.1)
    after = simulation.truth().objects["red_cube"]
    assert after.T_world_object[2, 3] == pytest.approx(after.T_world_start[2, 3] + 0.1)
    np.testing.assert_allclose(
        before.objects["red_cube"].T_world_object, after.T_world_start, atol=1e-12
    )
    np.testing.assert_allclose(after.size_m, 2 * (after.T_world_start[2, 3] - 0.8), atol=1e-12)


def test_surface_points_lie_on_the_cube_and_on_the_gripper(simulation):
    truth = simulation.truth()
    rng = np.random.default_rng(0)
    cube = truth.sample_surface(["red_cube"], 600, rng)
    half = truth.objects["red_cube"].size_m / 2
    np.testing.assert_allclose(np.abs(cube.xyz_body / half).max(axis=1), 1.0, atol=1e-9)
    faces = np.argmax(np.abs(cube.xyz_body / half), axis=1)
    assert np.bincount(faces, minlength=3).min() > 150  # 200 each on average
    assert truth.gripper_links[0] == "panda_hand"
    assert "panda_leftfinger" in truth.gripper_links
    gripper = truth.sample_surface(truth.gripper_links, 300, rng)
    distance = np.linalg.norm(
        gripper.xyz_world(truth.T_world_body) - truth.T_world_tool[:3, 3], axis=1
    )
    assert distance.max() < 0.2
    assert distance.min() < 0.06


def test_bodies_without_a_surface_are_refused(simulation):
    with pytest.raises(ValueError, match="tool0"):
        simulation.truth().sample_surface(["tool0"], 3, np.random.default_rng(0))


def test_depth_noise_is_seeded_and_leaves_holes():
    frames = []
    for _ in range(2):
        simulation = Simulation(SimulationConfig(depth_noise=True, seed=6, **SMALL))
        frames.append([simulation.render().depth_m for _ in range(2)])
        simulation.close()
    assert np.array_equal(frames[0], frames[1], equal_nan=True)
    assert not np.array_equal(*frames[0], equal_nan=True)
    assert 0.0 < np.isnan(frames[0][0]).mean() < 0.5


def test_bodies_are_seen_where_they_are(simulation):
    frame, bodies = simulation.render(), simulation.render_bodies()
    np.testing.assert_array_equal(bodies.depth_m, frame.depth_m)
    cube = bodies.names.index("red_cube")
    v, u = np.nonzero(bodies.index == cube)
    assert len(v) > 4
    assert (frame.rgb[v, u, 0] > frame.rgb[v, u, 2]).all()
    truth = simulation.truth().T_world_body["red_cube"]
    np.testing.assert_allclose(bodies.T_world_body[cube], truth)
    again = simulation.render()
    np.testing.assert_array_equal(again.rgb, frame.rgb)


def test_the_camera_can_be_moved_until_the_next_reset(simulation):
    home = simulation.T_world_camera.copy()
    goal = make_transform(home[:3, :3], home[:3, 3] + [0.0, 0.0, 0.1])
    before = simulation.render()
    simulation.move_camera(goal)
    np.testing.assert_allclose(simulation.T_world_camera, goal, atol=1e-12)
    assert not np.array_equal(simulation.render().rgb, before.rgb)
    simulation.reset()
    np.testing.assert_allclose(simulation.T_world_camera, home)


def test_rendering_stays_on_its_thread_over_a_reset(simulation):
    simulation.render()
    simulation.reset(seed=8)
    caught = []

    def render():
        try:
            simulation.render()
        except Mu0Error as error:
            caught.append(str(error))

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert "render and close from one thread only" in caught[0]
    assert simulation.render().rgb.std() > 10


def test_the_library_keeps_ros_robosuite_and_torch_out():
    code = (
        "import sys, mu0_sim.simulation\n"
        "print([m for m in ('rclpy', 'robosuite', 'torch', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
