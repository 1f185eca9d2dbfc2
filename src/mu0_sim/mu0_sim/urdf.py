"""Describe a robot for ROS: URDF made from the model that the simulator runs.

Links, joint frames, limits, couplings and inertia are the simulator's own, so that a description
cannot differ from what moves. Meshes are referenced where robosuite installed them.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mu0_sim.mujoco_gl import mujoco
from mu0_sim.robot_model import BASE_LINK, robot_model
from mu0_sim.robots import RobotSpec

_VISUAL_GROUP = 1
_GIMBAL_LOCK = 1e-9
_JOINT_TYPES = {
    mujoco.mjtJoint.mjJNT_SLIDE: "prismatic",
    mujoco.mjtJoint.mjJNT_HINGE: "revolute",
}


def robot_description(robot: RobotSpec) -> str:
    """Return the URDF of a robot: root base_link, tool frame tool0, mimic joints in the gripper.

    Position limits are the model's, velocity and effort limits the specification's.
    """
    spec = robot_model(robot)
    model = spec.compile()
    base = spec.body(BASE_LINK)
    description = ET.Element("robot", name=robot.name)
    description.append(_link_element(spec, model, base))
    for body in base.find_all("body"):
        description.append(_link_element(spec, model, body))
        description.append(_joint_element(robot, model, body))
    ET.indent(description)
    return ET.tostring(description, encoding="unicode", xml_declaration=True)


def _link_element(spec: mujoco.MjSpec, model: mujoco.MjModel, body: mujoco.MjsBody) -> ET.Element:
    """Make a link with its inertia and the meshes and boxes that are seen of it."""
    link = ET.Element("link", name=body.name)
    compiled = model.body(body.name)
    if compiled.mass[0] > 0.0:
        inertial = ET.SubElement(link, "inertial")
        _add_origin(inertial, compiled.ipos, compiled.iquat)
        ET.SubElement(inertial, "mass", value=_text(compiled.mass))
        ixx, iyy, izz = (_text([moment]) for moment in compiled.inertia)
        ET.SubElement(inertial, "inertia", ixx=ixx, iyy=iyy, izz=izz, ixy="0", ixz="0", iyz="0")
    for geom in body.geoms:
        if geom.group == _VISUAL_GROUP:
            _add_visual(link, spec, geom)
    return link


def _add_visual(link: ET.Element, spec: mujoco.MjSpec, geom: mujoco.MjsGeom) -> None:
    """Append what is seen of one geom."""
    visual = ET.SubElement(link, "visual")
    _add_origin(visual, geom.pos, geom.quat)
    shape = ET.SubElement(visual, "geometry")
    if geom.type == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = spec.mesh(geom.meshname)
        uri = Path(mesh.file).as_uri()
        ET.SubElement(shape, "mesh", filename=uri, scale=_text(mesh.scale))
    elif geom.type == mujoco.mjtGeom.mjGEOM_BOX:
        ET.SubElement(shape, "box", size=_text(2.0 * geom.size))
    else:
        raise NotImplementedError(f"geom {geom.name!r} of type {geom.type} has no URDF form here")
    rgba = spec.material(geom.material).rgba if geom.material else geom.rgba
    name = f"{link.get('name')}_{len(link.findall('visual'))}"
    material = ET.SubElement(visual, "material", name=name)
    ET.SubElement(material, "color", rgba=_text(rgba))


def _joint_element(robot: RobotSpec, model: mujoco.MjModel, body: mujoco.MjsBody) -> ET.Element:
    """Make the joint between a link and its parent; fixed where the model has none."""
    joint = body.joints[0] if body.joints else None
    name = joint.name if joint else f"{body.name}_fixed"
    kind = _JOINT_TYPES[joint.type] if joint else "fixed"
    element = ET.Element("joint", name=name, type=kind)
    compiled = model.body(body.name)
    _add_origin(element, compiled.pos, compiled.quat)
    ET.SubElement(element, "parent", link=body.parent.name)
    ET.SubElement(element, "child", link=body.name)
    if joint is None:
        return element
    ET.SubElement(element, "axis", xyz=_text(joint.axis))
    velocity, effort = _limits(robot, name)
    limits = {"velocity": velocity, "effort": effort}
    limits["lower"], limits["upper"] = joint.range
    ET.SubElement(element, "limit", {key: _text([value]) for key, value in limits.items()})
    if name in robot.gripper.mimic:
        gain, offset = (_text([value]) for value in robot.gripper.mimic[name])
        leader = robot.gripper.joint
        ET.SubElement(element, "mimic", joint=leader, multiplier=gain, offset=offset)
    return element


def _limits(robot: RobotSpec, joint: str) -> tuple[float, float]:
    """Return velocity and effort limit of an arm or gripper joint."""
    if joint in robot.arm_joints:
        index = robot.arm_joints.index(joint)
        return robot.velocity_limits[index], robot.effort_limits[index]
    gain, _ = robot.gripper.mimic.get(joint, (1.0, 0.0))
    return abs(gain) * robot.gripper.velocity_limit, robot.gripper.effort_limit


def _add_origin(element: ET.Element, pos: Iterable[float], quat_wxyz: np.ndarray) -> None:
    """Append an origin."""
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, quat_wxyz / np.linalg.norm(quat_wxyz))
    rpy = _roll_pitch_yaw(rotation.reshape(3, 3))
    ET.SubElement(element, "origin", xyz=_text(pos), rpy=_text(rpy))


def _roll_pitch_yaw(R: np.ndarray) -> tuple[float, float, float]:
    """Return URDF's angles (about fixed x, y, z) of a rotation; yaw is 0 at gimbal lock."""
    cos_pitch = np.hypot(R[0, 0], R[1, 0])
    pitch = np.arctan2(-R[2, 0], cos_pitch)
    if cos_pitch < _GIMBAL_LOCK:
        return np.arctan2(-R[1, 2], R[1, 1]), pitch, 0.0
    return np.arctan2(R[2, 1], R[2, 2]), pitch, np.arctan2(R[1, 0], R[0, 0])


def _text(values: Iterable[float]) -> str:
    """Write numbers as an attribute."""
    return " ".join(f"{value:.12g}" for value in values)
