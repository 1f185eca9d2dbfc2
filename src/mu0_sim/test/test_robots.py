import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu0_core.errors import ConfigError
from mu0_sim.mujoco_gl import mujoco
from mu0_sim.robot_model import robot_model
from mu0_sim.robots import ROBOTS, load_robot

ALL = sorted(ROBOTS)
PADS = {
    "panda": ("finger1_pad_collision", "finger2_pad_collision"),
    "ur5e": ("left_fingerpad_collision", "right_fingerpad_collision"),
    "iiwa": ("left_fingerpad_collision", "right_fingerpad_collision"),
}
PAD_HALF_M = {"panda": 0.004, "ur5e": 0.001, "iiwa": 0.001}


@pytest.fixture(scope="module")
def models():
    return {name: robot_model(load_robot(name)).compile() for name in ALL}


def test_unknown_robot_names_the_known_and_the_nearest():
    with pytest.raises(ConfigError, match=r"iiwa, panda, ur5e; did you mean 'panda'\?"):
        load_robot("pandas")


@pytest.mark.parametrize("name", ALL)
def test_every_joint_quantity_has_one_value_per_joint_and_home_is_inside(name):
    robot = load_robot(name)
    size = (len(robot.arm_joints),)
    for limits in (robot.velocity_limits, robot.acceleration_limits, robot.effort_limits):
        assert limits.shape == size
        assert (limits > 0).all()
    assert (robot.home_q > robot.position_lower).all()
    assert (robot.home_q < robot.position_upper).all()


@pytest.mark.parametrize("name", ALL)
def test_arrays_cannot_be_changed(name):
    with pytest.raises(ValueError, match="read-only"):
        load_robot(name).home_q[0] = 1.0


@pytest.mark.parametrize("name", ALL)
def test_joint_names_and_position_limits_are_those_of_the_model(name, models):
    robot, model = load_robot(name), models[name]
    assert {model.joint(i).name for i in range(model.njnt)} == set(robot.joint_names)
    ranges = np.array([model.joint(joint).range for joint in robot.arm_joints])
    np.testing.assert_allclose(ranges[:, 0], robot.position_lower, atol=1e-6)
    np.testing.assert_allclose(ranges[:, 1], robot.position_upper, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_opening_is_the_distance_between_the_pads_of_the_model(name, share, models):
    robot, model = load_robot(name), models[name]
    smallest, largest = robot.gripper.opening_range_m
    opening = smallest + share * (largest - smallest)
    data = mujoco.MjData(model)
    position = robot.gripper.position_from_opening(opening)
    for joint, value in robot.gripper.joint_positions(position).items():
        data.joint(joint).qpos[0] = value
    mujoco.mj_forward(model, data)
    tool = data.body("tool0")
    R_world_tool = tool.xmat.reshape(3, 3)
    left, right = ((data.geom(pad).xpos - tool.xpos) @ R_world_tool for pad in PADS[name])
    between = abs(left[1] - right[1]) - 2 * PAD_HALF_M[name]
    # The Panda's pads stand 0.5 mm proud of its fingers.
    assert between == pytest.approx(opening, abs=1.1e-3 if name == "panda" else 1e-5)
    assert left[:2] + right[:2] == pytest.approx([0.0, 0.0], abs=2e-4)  # tool0 is in the middle


@pytest.mark.parametrize("name", ALL)
@given(share=st.floats(0.0, 1.0))
def test_opening_map_is_undone_by_its_inverse(name, share):
    gripper = load_robot(name).gripper
    smallest, largest = gripper.opening_range_m
    opening = smallest + share * (largest - smallest)
    position = gripper.position_from_opening(opening)
    assert gripper.opening_from_position(position) == pytest.approx(opening, abs=1e-9)
    lower, upper = gripper.position_range
    assert lower - 1e-6 <= position <= upper + 1e-6


@pytest.mark.parametrize("opening", [-0.01, 0.081, float("nan")])
def test_opening_outside_the_range_names_range_and_value(opening):
    with pytest.raises(ConfigError, match=rf"0\.0000 to 0\.0800 m, got {opening} m"):
        load_robot("panda").gripper.position_from_opening(opening)


@pytest.mark.parametrize("name", ALL)
def test_fingertips_that_hold_4_cm_reach_1_cm_beyond_the_tool(name, models):
    robot, model = load_robot(name), models[name]
    data = mujoco.MjData(model)
    position = robot.gripper.position_from_opening(0.04)
    for joint, value in robot.gripper.joint_positions(position).items():
        data.joint(joint).qpos[0] = value
    mujoco.mj_forward(model, data)
    tool = data.body("tool0")
    assert _reach(model, data, tool) == pytest.approx(0.01, abs=1e-3)


def _reach(model, data, tool):
    """Return how far any finger stands out beyond the tool frame along its z."""
    reach = -np.inf
    for geom in range(model.ngeom):
        body = model.body(model.geom_bodyid[geom]).name
        if "finger" not in body or model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_MESH:
            continue
        mesh = model.geom_dataid[geom]
        first = model.mesh_vertadr[mesh]
        vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
        xyz = vertices @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
        reach = max(reach, float(((xyz - tool.xpos) @ tool.xmat.reshape(3, 3)[:, 2]).max()))
    for geom in ("left_fingertip_collision", "right_fingertip_collision"):
        if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, geom) >= 0:
            box = data.geom(geom)
            half = np.abs(box.xmat.reshape(3, 3)) @ model.geom(geom).size
            centre = (box.xpos - tool.xpos) @ tool.xmat.reshape(3, 3)[:, 2]
            z = np.abs(tool.xmat.reshape(3, 3)[:, 2])
            reach = max(reach, float(centre + z @ half))
    return reach
