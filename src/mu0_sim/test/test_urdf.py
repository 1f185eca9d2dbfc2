import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pinocchio as pin
import pytest

from mu0_sim.mujoco_gl import mujoco
from mu0_sim.robot_model import BASE_LINK, robot_model
from mu0_sim.robots import ROBOTS, TOOL_FRAME, load_robot
from mu0_sim.urdf import robot_description

ALL = sorted(ROBOTS)


@pytest.fixture(scope="module")
def descriptions():
    return {name: robot_description(load_robot(name)) for name in ALL}


@pytest.mark.parametrize("name", ALL)
def test_frames_agree_with_the_simulator_for_random_joints(name, descriptions):
    urdf = pin.buildModelFromXML(descriptions[name])
    urdf_data = urdf.createData()
    model = robot_model(load_robot(name)).compile()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(7)
    for _ in range(5):
        q = pin.neutral(urdf)
        for index, joint in enumerate(urdf.names[1:], start=1):
            at = urdf.joints[index].idx_q
            q[at] = rng.uniform(urdf.lowerPositionLimit[at], urdf.upperPositionLimit[at])
            data.joint(joint).qpos[0] = q[at]
        pin.framesForwardKinematics(urdf, urdf_data, q)
        mujoco.mj_kinematics(model, data)
        for index in range(1, model.nbody):
            link = data.body(index)
            found = urdf_data.oMf[urdf.getFrameId(link.name)]
            np.testing.assert_allclose(found.translation, link.xpos, atol=1e-6)
            turn = found.rotation.T @ link.xmat.reshape(3, 3)
            assert np.linalg.norm(pin.log3(turn)) < 1e-6


@pytest.mark.parametrize("name", ALL)
def test_root_tool_limits_and_couplings(name, descriptions):
    robot = load_robot(name)
    root = ET.fromstring(descriptions[name])
    links = {link.get("name") for link in root.findall("link")}
    children = {joint.find("child").get("link") for joint in root.findall("joint")}
    assert links - children == {BASE_LINK}
    assert TOOL_FRAME in links
    joints = {joint.get("name"): joint for joint in root.findall("joint")}
    for index, joint in enumerate(robot.arm_joints):
        limit = joints[joint].find("limit")
        assert float(limit.get("velocity")) == pytest.approx(robot.velocity_limits[index])
        assert float(limit.get("effort")) == robot.effort_limits[index]
        assert float(limit.get("lower")) == pytest.approx(robot.position_lower[index], abs=1e-6)
    for joint, (gain, offset) in robot.gripper.mimic.items():
        mimic = joints[joint].find("mimic")
        assert mimic.get("joint") == robot.gripper.joint
        assert (float(mimic.get("multiplier")), float(mimic.get("offset"))) == (gain, offset)
    movable = {name for name, joint in joints.items() if joint.get("type") != "fixed"}
    assert movable == set(robot.joint_names)


@pytest.mark.parametrize("name", ALL)
def test_mass_is_the_simulators(name, descriptions):
    model = robot_model(load_robot(name)).compile()
    masses = ET.fromstring(descriptions[name]).iterfind("link/inertial/mass")
    total = sum(float(mass.get("value")) for mass in masses)
    assert total == pytest.approx(model.body_mass.sum(), rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_every_mesh_is_there(name, descriptions):
    meshes = list(ET.fromstring(descriptions[name]).iter("mesh"))
    assert len(meshes) >= 10
    for mesh in meshes:
        uri = urlparse(mesh.get("filename"))
        assert uri.scheme == "file"
        path = Path(unquote(uri.path))
        assert path.is_file()
        assert path.suffix in {".stl", ".obj", ".dae"}
