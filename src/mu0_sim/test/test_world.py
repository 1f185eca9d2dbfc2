import itertools

import numpy as np
import pytest

from mu0_core.errors import ShapeError
from mu0_sim.robots import ROBOTS, load_robot
from mu0_sim.tasks import TABLE_HEIGHT_M, make_scene
from mu0_sim.world import DT_S, World

ALL = sorted(ROBOTS)


def make_world(name, task="lift_named", seed=0):
    return World(load_robot(name), make_scene(task, seed), width=64, height=48)


def follow(world, q0, q1, duration_s, gripper0, gripper1):
    """Drive a quintic from q0 to q1; return the largest tracking error on the way, rad."""
    worst, steps = 0.0, round(duration_s / DT_S)
    for i in range(1, steps + 1):
        s = i / steps
        blend = 10 * s**3 - 15 * s**4 + 6 * s**5
        speed = (30 * s**2 - 60 * s**3 + 30 * s**4) / duration_s
        q = q0 + blend * (q1 - q0)
        world.step(q, speed * (q1 - q0), gripper0 + s * (gripper1 - gripper0))
        worst = max(worst, np.abs(world.joints()[0][: len(q)] - q).max())
    return worst


@pytest.mark.parametrize("name", ALL)
def test_free_space_motion_follows_and_ends_within_4e_4_rad(name):
    world = make_world(name)
    robot = world.robot
    target = robot.home_q - 0.3 * (-1.0) ** np.arange(len(robot.home_q))
    opened = robot.gripper.position_open
    assert follow(world, robot.home_q, target, 1.5, opened, opened) < 3e-3
    follow(world, target, target, 0.3, opened, opened)
    assert np.abs(world.joints()[0][: len(target)] - target).max() < 4e-4


@pytest.mark.parametrize("name", ALL)
def test_gripper_closes_with_its_coupling_and_opens_again(name):
    world = make_world(name)
    robot, gripper = world.robot, world.robot.gripper
    span = gripper.position_closed - gripper.position_open
    ends = (gripper.position_open, gripper.position_closed, gripper.position_open)
    for start, end in itertools.pairwise(ends):
        follow(world, robot.home_q, robot.home_q, 0.5, start, end)
        follow(world, robot.home_q, robot.home_q, 0.3, end, end)
        measured = dict(zip(robot.joint_names, world.joints()[0], strict=True))
        assert measured[gripper.joint] == pytest.approx(end, abs=0.02 * abs(span))
        expected = gripper.joint_positions(measured[gripper.joint])
        for joint, value in expected.items():
            assert measured[joint] == pytest.approx(value, abs=2e-3)


def test_cubes_rest_where_the_scene_puts_them():
    world = make_world("panda")
    home, opened = world.robot.home_q, world.robot.gripper.position_open
    follow(world, home, home, 0.5, opened, opened)
    world.refresh()
    for cube in world.scene.cubes:
        expected = (*cube.xy, TABLE_HEIGHT_M + cube.edge_m / 2)
        np.testing.assert_allclose(world.body_pose(cube.name)[:3, 3], expected, atol=5e-4)


@pytest.mark.parametrize("name", ALL)
def test_nothing_touches_at_the_start_but_cubes_and_table(name):
    world = make_world(name, seed=5)
    home, opened = world.robot.home_q, world.robot.gripper.position_open
    follow(world, home, home, 0.02, opened, opened)
    model = world.model
    touching = {
        frozenset(model.body(model.geom_bodyid[g]).name for g in (c.geom1, c.geom2))
        for c in world.data.contact
    }
    assert touching == {frozenset(("table", cube.name)) for cube in world.scene.cubes}


def test_same_scene_and_commands_give_the_same_motion_to_the_bit():
    states = []
    for _ in range(2):
        world = make_world("ur5e", seed=4)
        home, gripper = world.robot.home_q, world.robot.gripper
        follow(world, home, home + 0.1, 0.2, gripper.position_open, gripper.position_closed)
        states.append(world.data.qpos.copy())
    assert np.array_equal(*states)


def test_link_transforms_chain_up_to_the_tool():
    world = make_world("iiwa")
    transforms = world.link_transforms()
    assert set(transforms) == set(world.links())
    T_base_tool, link = np.eye(4), "tool0"
    while link != "base_link":
        link, T_parent_link = transforms[link]
        T_base_tool = T_parent_link @ T_base_tool
    found = world.robot.T_world_base @ T_base_tool
    np.testing.assert_allclose(found, world.body_pose("tool0"), atol=1e-12)


def test_a_command_for_another_arm_is_refused():
    world = make_world("ur5e")
    with pytest.raises(ShapeError, match=r"ur5e: expected q and qd of shape \(6,\), got \(7,\)"):
        world.step(np.zeros(7), np.zeros(6), 0.0)
