"""Own the check of a URDF that names every fault at once; the parser itself names none."""

import xml.etree.ElementTree as ET
from collections import Counter

from mu0_core.errors import unknown_name_message

_JOINT_TYPES = ("revolute", "continuous", "prismatic", "fixed", "floating", "planar")


def urdf_faults(urdf_xml: str) -> list[str]:
    """Return what is wrong with the text of a URDF, one sentence a fault.

    Checked are the XML, links and joints without name or with the same one, links that joints
    name but nobody defines, joint types, missing limits, mimicked joints, and that the links form
    one tree.
    """
    try:
        robot = ET.fromstring(urdf_xml)
    except ET.ParseError as error:
        return [f"not XML ({error}); expected the text of a URDF, starting with <robot>"]
    if robot.tag != "robot":
        return [f"expected <robot> at the top of a URDF, got <{robot.tag}>"]
    links = [link.get("name", "") for link in robot.findall("link")]
    joints = robot.findall("joint")
    names = [joint.get("name", "") for joint in joints]
    faults = [] if links else ["no <link> in it"]
    for kind, given in (("link", links), ("joint", names)):
        faults += [
            f"{n} {kind}s are named {name!r}" for name, n in Counter(given).items() if n > 1
        ]
        faults += [f"a {kind} without a name"] * ("" in given)
    # Legal in URDF, but Pinocchio then cannot tell the two frames apart by name.
    shared = sorted(set(links) & set(names))
    faults += [
        f"a link and a joint are both named {name!r}; rename one" for name in shared if name
    ]
    for joint in joints:
        faults += [
            f"joint {joint.get('name')!r}: {fault}" for fault in _joint_faults(joint, links, names)
        ]
    children = [_link_of(joint, "child") for joint in joints]
    roots = [link for link in links if link not in children]
    if links and len(roots) != 1:
        faults.append(f"expected one root link, got {', '.join(roots) or 'none (a loop)'}")
    twice = [child for child, n in Counter(children).items() if n > 1]
    faults += [f"link {child!r} is the child of several joints" for child in twice]
    return faults


def _joint_faults(joint: ET.Element, links: list[str], names: list[str]) -> list[str]:
    """Return what is wrong with one <joint>."""
    faults = []
    kind = joint.get("type", "")
    if kind not in _JOINT_TYPES:
        faults.append(unknown_name_message("type", kind, _JOINT_TYPES))
    for end in ("parent", "child"):
        link = _link_of(joint, end)
        if link not in links:
            faults.append(f"{end}: " + unknown_name_message("link", link, links))
    if kind in ("revolute", "prismatic") and joint.find("limit") is None:
        faults.append(f"a {kind} joint needs a <limit>")
    mimic = joint.find("mimic")
    if mimic is not None and mimic.get("joint", "") not in names:
        faults.append("mimic: " + unknown_name_message("joint", mimic.get("joint", ""), names))
    return faults


def _link_of(joint: ET.Element, end: str) -> str:
    """Return the name of the link at one end of a joint, empty if there is none."""
    element = joint.find(end)
    return "" if element is None else element.get("link", "")
