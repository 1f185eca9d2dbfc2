"""The layouts of RViz and Foxglove show what the graph publishes, and can receive it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy

from mu0_core.ros.interfaces import INTERFACES

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
RVIZ = yaml.safe_load((LAUNCH / "rviz" / "mu0.rviz").read_text())
FOXGLOVE = json.loads((LAUNCH / "foxglove" / "mu0.json").read_text())
TREE = RVIZ["Visualization Manager"]

# Classes of RViz for ROS 2, with what a display takes.
DISPLAYS = {
    "rviz_default_plugins/Grid": None,
    "rviz_default_plugins/TF": None,
    "rviz_default_plugins/RobotModel": "std_msgs/msg/String",
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
}
OTHERS = {
    "rviz_common/Displays",
    "rviz_common/Time",
    "rviz_common/Tool Properties",
    "rviz_default_plugins/FocusCamera",
    "rviz_default_plugins/Interact",
    "rviz_default_plugins/MoveCamera",
    "rviz_default_plugins/Orbit",
    "rviz_default_plugins/PublishPoint",
    "rviz_default_plugins/Select",
    "rviz_default_plugins/TF",
}
MUST_SHOW = {
    "camera/color/image_raw",
    "robot_description",
    "mu0/points",
    "mu0/markers",
    "mu0/overlay",
}


def _topic(display):
    return display.get("Topic", display.get("Description Topic"))


def _with_topics():
    return [display for display in TREE["Displays"] if _topic(display)]


@pytest.mark.parametrize("display", TREE["Displays"], ids=lambda display: display["Name"])
def test_rviz_has_the_displays(display):
    assert display["Class"] in DISPLAYS
    assert (DISPLAYS[display["Class"]] is None) == (_topic(display) is None)


def test_rviz_has_the_tools_panels_and_the_view():
    parts = [*RVIZ["Panels"], *TREE["Tools"], TREE["Views"]["Current"]]
    classes = {part["Class"] for part in parts} | {TREE["Transformation"]["Current"]["Class"]}
    assert classes <= OTHERS


@pytest.mark.parametrize("display", _with_topics(), ids=lambda display: display["Name"])
def test_rviz_receives_the_topic(display):
    topic = _topic(display)
    row = INTERFACES[topic["Value"]]
    assert row.type_name == DISPLAYS[display["Class"]]
    profile = row.qos.profile
    # A subscription must not ask for more than is offered, and wants what is kept for it.
    if profile.reliability is QoSReliabilityPolicy.BEST_EFFORT:
        assert topic["Reliability Policy"] == "Best Effort"
    kept = profile.durability is QoSDurabilityPolicy.TRANSIENT_LOCAL
    assert topic["Durability Policy"] == ("Transient Local" if kept else "Volatile")


def test_rviz_shows_it_all():
    assert {_topic(display)["Value"] for display in _with_topics()} == MUST_SHOW
    assert all(display["Enabled"] for display in _with_topics())


def test_foxglove_shows_the_same():
    panels = FOXGLOVE["configById"]
    pictures = {
        config["imageMode"]["imageTopic"]: "sensor_msgs/msg/Image"
        for name, config in panels.items()
        if name.startswith("Image!")
    }
    scene = panels["3D!scene"]
    shown = {topic for topic, settings in scene["topics"].items() if settings["visible"]}
    shown |= {layer["topic"] for layer in scene["layers"].values() if "topic" in layer}
    assert {topic.removeprefix("/") for topic in {*pictures, *shown}} == MUST_SHOW
    for topic, type_name in pictures.items():
        assert INTERFACES[topic.removeprefix("/")].type_name == type_name
    published = panels["Publish!instruction"]
    assert INTERFACES[published["topicName"].removeprefix("/")].type_name == published["datatype"]
    json.loads(published["value"])
    assert panels["DiagnosticSummary!nodes"]["topicToRender"] in INTERFACES


def test_foxglove_places_every_panel():
    placed = re.findall(r'"(\w+!\w+)"', json.dumps(FOXGLOVE["layout"]))
    assert sorted(placed) == sorted(FOXGLOVE["configById"])


def test_both_take_clicked_points():
    (tool,) = [tool for tool in TREE["Tools"] if tool["Class"].endswith("PublishPoint")]
    foxglove = FOXGLOVE["configById"]["3D!scene"]["publish"]["pointTopic"]
    assert tool["Topic"]["Value"] == foxglove == "/clicked_point"
