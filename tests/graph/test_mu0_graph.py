"""The whole graph: simulator, tracker, world model and policy, each as the table says."""

import pytest
from std_msgs.msg import String

from mu0_core.ros.interfaces import INTERFACES, Qos, Role
from mu0_msgs.msg import KeypointArray, TraceArray

pytestmark = pytest.mark.ros

OWNERS = ("keypoint_tracker", "world_model", "policy")
# Of every rclpy node, and what is common to all of the project.
OF_EVERY_NODE = {"/rosout", "/parameter_events", "/diagnostics", "/clock", "/tf", "/tf_static"}
SLOW_START_S = 120.0  # importing a deep-learning library on a busy machine


@pytest.fixture(scope="module")
def graph(launch_sim, launch_beside):
    """Return the watcher of a simulated Panda with everything around it, and the launch."""
    sim, watcher = launch_sim("robot:=panda", "max_real_time_factor:=1.0")
    launched = launch_beside(
        sim.domain_id,
        "mu0.launch.py",
        "predictor:=constant_velocity",
        "use_sim_time:=true",
        "rviz:=true",
    )
    watcher.traces = []
    watcher.node.create_subscription(
        TraceArray, "mu0/traces", watcher.traces.append, Qos.RELIABLE.profile
    )
    try:
        watcher.spin_until(
            lambda: watcher.traces and watcher.knows(*OWNERS), timeout_s=SLOW_START_S
        )
    except AssertionError as error:  # once, and not for each row
        raise AssertionError(f"{error}; {launched.stop()}") from None
    watcher.launched = launched
    return watcher


def _absolute(name):
    return name if name.startswith("/") else f"/{name}"


def _rows():
    return [row for row in INTERFACES.values() if row.owner in OWNERS]


def test_the_table_knows_every_node():
    assert {row.owner for row in _rows()} == set(OWNERS)


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row.name)
def test_the_table_is_what_runs(graph, row):
    name = _absolute(row.name)
    if "/action/" in row.type_name:
        name += "/_action/status"
    if row.role is Role.SERVES and "/action/" not in row.type_name:
        graph.spin_until(lambda: dict(graph.node.get_service_names_and_types()).get(name))
        assert dict(graph.node.get_service_names_and_types())[name] == [row.type_name]
        return
    ends = (
        graph.node.get_subscriptions_info_by_topic
        if row.role is Role.SUBSCRIBES
        else graph.node.get_publishers_info_by_topic
    )
    graph.spin_until(lambda: [end for end in ends(name) if end.node_name == row.owner])
    (end,) = [end for end in ends(name) if end.node_name == row.owner]
    if "/action/" in row.type_name:
        return
    assert end.topic_type == row.type_name
    assert end.qos_profile.reliability == row.qos.profile.reliability
    assert end.qos_profile.durability == row.qos.profile.durability


@pytest.mark.parametrize("owner", ["keypoint_tracker", "world_model"])
def test_nothing_is_published_that_is_not_in_the_table(graph, owner):
    table = {_absolute(row.name) for row in INTERFACES.values()}
    published = dict(graph.node.get_publisher_names_and_types_by_node(owner, "/"))
    assert set(published) - OF_EVERY_NODE - {f"/{owner}/transition_event"} <= table


def test_traces_are_of_pictures_of_the_robot_and_of_the_instruction(graph):
    keypoints = {}
    graph.node.create_subscription(
        KeypointArray,
        "mu0/keypoints",
        lambda message: keypoints.update({str(message.header.stamp): message}),
        Qos.RELIABLE.profile,
    )
    teller = graph.node.create_publisher(String, "mu0/instruction", Qos.LATCHED.profile)
    teller.publish(String(data="lift the cube"))

    def matched():
        return [
            traces
            for traces in graph.traces
            if traces.instruction == "lift the cube" and str(traces.header.stamp) in keypoints
        ]

    graph.spin_until(matched)
    traces = matched()[0]
    given = keypoints[str(traces.header.stamp)]
    assert traces.model == "constant_velocity"
    assert traces.header.frame_id == "camera_color_optical_frame"
    assert set(traces.ids) <= set(given.ids) and traces.n >= 10
    assert KeypointArray.SOURCE_ROBOT in traces.source, "points of the embodiment file"
    assert traces.arc_step == given.arc_step


def test_a_missing_viewer_is_said_and_the_rest_goes_on(graph):
    count = len(graph.traces)
    graph.spin_until(lambda: len(graph.traces) > count)
    assert graph.launched.process.poll() is None
    said = graph.launched.stop()
    assert "rviz2 is not installed: going on without RViz" in said or "[rviz2" in said
    assert "Traceback" not in said
