import os
import threading
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from mu0_core.ros import messages  # noqa: E402
from mu0_core.ros.executor import WatchedExecutor  # noqa: E402
from mu0_core.ros.interfaces import (  # noqa: E402
    INTERFACES,
    Role,
    create_client,
    create_publisher,
    create_subscription,
)
from mu0_msgs.msg import TraceArray  # noqa: E402
from mu0_msgs.srv import ResetSimulation  # noqa: E402
from mu0_sim.nodes.sim_node import SimNode  # noqa: E402
from mu0_sim.robots import load_robot  # noqa: E402

pytestmark = pytest.mark.ros
ROBOT = load_robot("panda")


class Graph:
    """Run a simulator node in threads, and watch it from a node of its own."""

    def __init__(self, **parameters):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=101 + os.getpid() % 100)
        overrides = dict(width=64, height=48, max_real_time_factor=0.0) | parameters
        self.sim = SimNode(
            context=self.context,
            parameter_overrides=[Parameter(name, value=v) for name, v in overrides.items()],
        )
        self.server = WatchedExecutor(2, context=self.context)
        self.server.add_node(self.sim)
        self.thread = threading.Thread(target=self.server.spin, daemon=True)
        self.thread.start()
        self.node = rclpy.create_node("watcher", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.last, self.counts = {}, {}

    def watch(self, *names):
        for name in names:
            create_subscription(self.node, name, lambda m, n=name: self._take(n, m))

    def _take(self, name, message):
        self.last[name] = message
        self.counts[name] = self.counts.get(name, 0) + 1

    def activate(self):
        self.sim.trigger_configure()
        assert self.sim.state == "inactive"
        self.sim.trigger_activate()
        assert self.sim.state == "active"

    def spin_until(self, predicate, deadline_s=60.0):
        end_s = time.monotonic() + deadline_s
        while not predicate():
            assert time.monotonic() < end_s, f"nothing happened; got {self.counts}"
            self.executor.spin_once(timeout_sec=0.05)

    def now_s(self):
        return messages.seconds_from_stamp(self.last["/clock"].clock)

    def call(self, name, request):
        client = create_client(self.node, name)
        self.spin_until(client.service_is_ready)
        future = client.call_async(request)
        self.spin_until(future.done)
        return future.result()

    def send(self, controller, names, path):
        publisher = create_publisher(self.node, f"{controller}_controller/joint_trajectory")
        self.spin_until(lambda: publisher.get_subscription_count() > 0)
        publisher.publish(messages.trajectory_message(names, path))

    def close(self):
        if self.sim.state != "finalized":
            self.sim.trigger_shutdown()
        self.server.shutdown()
        self.executor.shutdown()
        self.thread.join(10.0)
        self.sim.destroy_node()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def make_graph():
    graphs = []

    def make(**parameters):
        graphs.append(Graph(**parameters))
        return graphs[-1]

    yield make
    for graph in graphs:
        graph.close()


def path_to(q, seconds=1.0):
    zero = np.zeros((1, len(q)))
    return messages.JointPath(
        start_ns=0, t_s=np.array([seconds]), q=np.asarray(q, float)[None], qd=zero
    )


def test_publishes_what_the_table_says(make_graph):
    graph = make_graph()
    own = [row for row in INTERFACES.values() if row.owner == "sim"]
    published = [row.name for row in own if row.role is Role.PUBLISHES]
    graph.watch(*published)
    graph.activate()
    graph.send("arm", ROBOT.arm_joints, path_to(ROBOT.home_q))
    graph.spin_until(lambda: set(published) <= set(graph.last))
    for row in own:
        if row.frame:
            assert _frames(graph.last[row.name]) == {row.frame}
    color = graph.last["camera/color/image_raw"]
    assert (color.encoding, color.width, color.height) == ("rgb8", 64, 48)
    assert messages.rgb_from_image(color).std() > 5.0
    depth = graph.last["camera/aligned_depth_to_color/image_raw"]
    assert depth.encoding == "16UC1"
    assert 0.3 < np.nanmedian(messages.depth_from_image(depth)) < 3.0
    assert tuple(graph.last["joint_states"].name) == ROBOT.joint_names
    assert messages.seconds_from_stamp(color.header.stamp) >= 1.0
    services = {name for name, _ in graph.node.get_service_names_and_types()}
    assert {"/sim/reset", "/sim/pause"} <= services


def _frames(message):
    """The frames that a message is in: of each transform, or of the whole."""
    parts = message.transforms if isinstance(message, TFMessage) else [message]
    return {part.header.frame_id for part in parts}


def test_transforms_reach_from_world_to_tool_and_camera(make_graph):
    graph = make_graph()
    graph.watch("/tf", "/tf_static", "/clock")
    graph.activate()
    graph.spin_until(lambda: {"/tf", "/tf_static", "/clock"} <= set(graph.last))
    parents = {
        t.child_frame_id: t.header.frame_id
        for name in ("/tf", "/tf_static")
        for t in graph.last[name].transforms
    }
    ends = "camera_color_optical_frame", "wrist_camera_color_optical_frame", "panda_leftfinger"
    for frame in ("tool0", *ends):
        chain = [frame]
        while chain[-1] in parents:
            chain.append(parents[chain[-1]])
        assert chain[-1] == "world", chain
    moving = {t.child_frame_id for t in graph.last["/tf"].transforms}
    assert "panda_link1" in moving and "tool0" not in moving


def test_links_are_left_to_robot_state_publisher_when_asked(make_graph):
    graph = make_graph(publish_robot_tf=False)
    graph.watch("/tf", "/tf_static", "/clock")
    graph.activate()
    graph.spin_until(lambda: graph.counts.get("/clock", 0) > 20 and "/tf_static" in graph.last)
    assert "/tf" not in graph.last
    assert [t.child_frame_id for t in graph.last["/tf_static"].transforms] == [
        "base_link",
        "camera_link",
        "camera_color_optical_frame",
        "wrist_camera_color_optical_frame",
    ]


def test_arm_goes_where_a_trajectory_says_and_stays(make_graph):
    graph = make_graph()
    graph.watch("/clock", "joint_states")
    graph.activate()
    goal = ROBOT.home_q + np.array([0.3, -0.1, 0.0, 0.1, 0.0, 0.1, -0.2])
    order = [3, 1, 0, 2, 6, 5, 4]
    names = [ROBOT.arm_joints[i] for i in order]
    graph.send("arm", names, path_to(goal[order]))
    graph.spin_until(lambda: "/clock" in graph.last)
    end_s = graph.now_s() + 2.5
    graph.spin_until(lambda: graph.now_s() > end_s)
    state = messages.joint_values_from_message(graph.last["joint_states"], ROBOT.arm_joints)
    np.testing.assert_allclose(state.q, goal, atol=0.01)
    np.testing.assert_allclose(state.qd, 0.0, atol=0.02)


def test_refusals_are_reported_and_the_arm_stays(make_graph):
    no_points = messages.JointPath(start_ns=0, t_s=np.zeros(0), q=np.zeros((0, 7)))
    cases = [
        ("arm", ROBOT.arm_joints, path_to(np.full(7, 9.0)), "joint 'panda_joint1': position 9"),
        ("arm", ROBOT.arm_joints[:6], path_to(np.zeros(6)), "lacks joint(s) panda_joint7"),
        ("arm", ROBOT.arm_joints, path_to(np.full(7, np.nan)), "'panda_joint1' at point 0 is nan"),
        ("gripper", ["panda_joint1"], path_to([0.0]), "unknown joint 'panda_joint1'"),
        ("arm", ROBOT.arm_joints, no_points, "expected at least one point"),
    ]
    graph = make_graph()
    graph.watch("joint_states", "/diagnostics")
    graph.activate()
    for controller, names, path, text in cases:
        graph.send(controller, names, path)
        graph.spin_until(lambda text=text: text in _diagnosis(graph))
        assert f"{controller} controller: trajectory refused" in _diagnosis(graph)
    figures = {f.key: f.value for f in graph.last["/diagnostics"].status[0].values}
    assert figures["refused_trajectories"] == str(len(cases))
    state = messages.joint_values_from_message(graph.last["joint_states"], ROBOT.arm_joints)
    np.testing.assert_allclose(state.q, ROBOT.home_q, atol=0.01)


def _diagnosis(graph):
    message = graph.last.get("/diagnostics")
    return message.status[0].message if message and message.status[0].name == "/sim" else ""


def test_reset_starts_another_scene_and_time_goes_on(make_graph):
    graph = make_graph()
    graph.watch("/clock", "/tf_static", "camera/color/image_raw")
    graph.activate()
    graph.spin_until(lambda: {"camera/color/image_raw", "/clock"} <= set(graph.last))
    before_s, static_before = graph.now_s(), graph.counts.get("/tf_static", 0)
    response = graph.call("sim/reset", ResetSimulation.Request(task="lift_named", seed=5))
    assert response.success, response.message
    assert "cube" in response.instruction
    graph.spin_until(lambda: graph.counts.get("/tf_static", 0) > static_before)
    images = graph.counts["camera/color/image_raw"]
    graph.spin_until(lambda: graph.counts["camera/color/image_raw"] > images + 1)
    assert graph.now_s() > before_s
    refused = graph.call("sim/reset", ResetSimulation.Request(task="lft", seed=5))
    assert not refused.success
    assert "did you mean 'lift'" in refused.message


def test_pause_and_deactivation_hold_time(make_graph):
    graph = make_graph()
    graph.watch("/clock")
    graph.activate()
    graph.spin_until(lambda: graph.counts.get("/clock", 0) > 5)
    assert graph.call("sim/pause", SetBool.Request(data=True)).success
    graph.call("sim/reset", ResetSimulation.Request(seed=1))
    count = graph.counts["/clock"]
    graph.call("sim/reset", ResetSimulation.Request(seed=1))
    assert graph.counts["/clock"] == count
    assert graph.call("sim/pause", SetBool.Request(data=False)).success
    graph.spin_until(lambda: graph.counts["/clock"] > count + 5)
    graph.sim.trigger_deactivate()
    assert graph.sim.state == "inactive"
    graph.sim.trigger_cleanup()
    assert graph.sim.state == "unconfigured"
    graph.activate()
    count = graph.counts["/clock"]
    graph.spin_until(lambda: graph.counts["/clock"] > count + 5)


def test_step_lock_waits_for_traces_of_its_picture(make_graph):
    graph = make_graph(step_lock=True, step_lock_timeout_s=60.0)
    graph.watch("/clock", "camera/color/image_raw")
    graph.activate()
    images = "camera/color/image_raw"
    publisher = graph.node.create_publisher(TraceArray, "mu0/traces", 10)
    graph.spin_until(lambda: publisher.get_subscription_count() > 0)
    # The first picture may leave before anybody listens: a reset sends another one.
    graph.call("sim/reset", ResetSimulation.Request(seed=1))
    for stamp_ns in (1_010_000_000, 1_110_000_000, 1_210_000_000):
        graph.spin_until(
            lambda stamp_ns=stamp_ns: (
                images in graph.last
                and messages.ns_from_stamp(graph.last[images].header.stamp) == stamp_ns
            )
        )
        graph.spin_until(lambda stamp_ns=stamp_ns: graph.now_s() == stamp_ns / 1e9)
        answer = TraceArray()
        answer.header = graph.last[images].header
        publisher.publish(answer)


def test_wrong_parameters_are_refused_by_name():
    context = Context()
    rclpy.init(context=context, domain_id=101 + os.getpid() % 100)
    try:
        with pytest.raises(Exception, match="did you mean 'panda'"):
            SimNode(context=context, parameter_overrides=[Parameter("robot", value="pandas")])
    finally:
        rclpy.shutdown(context=context)
