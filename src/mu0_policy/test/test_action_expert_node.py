"""The action expert's node beside a fake robot: features, wrist pictures, refusals, holds."""

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory

from mu0_core.ros.interfaces import Qos
from mu0_core.ros.messages import (
    features_message,
    image_from_array,
    joint_path_from_message,
    transform_stamped,
)
from mu0_msgs.msg import TraceFeatures
from mu0_policy.action_expert.card import ExpertCard
from mu0_policy.action_expert.policy import ExpertPolicy
from mu0_policy.nodes.action_expert_node import ActionExpertNode

pytestmark = pytest.mark.ros

ARM = ("j1", "j2", "j3")
HOME, GOAL = np.array([1.2, -2.0, 0.8]), np.array([0.8, -1.7, 0.9])
CARD = ExpertCard(
    robot="planar",
    joints=ARM,
    gripper_joints=("jaw",),
    rate_hz=10.0,
    features="tiny 12ab",
    cameras=("wrist",),
    picture_sizes=("32x24",),
    most_known=8,
)


class Reaching:
    """Stand in for an expert: a few hundredths of a radian a step towards a goal, then close."""

    def __init__(self, card):
        self.card, self.moments = card, []

    def warm_up(self):
        pass

    def commands(self, moment, known=None):
        self.moments.append(moment)
        known = np.zeros((0, 4)) if known is None else known
        rows = list(known)
        q = rows[-1][:3] if rows else moment.q
        while len(rows) < 16:
            q = q + np.clip(GOAL - q, -0.03, 0.03)
            near = np.abs(GOAL - q).max() < 0.02
            rows.append(np.array([*q, float(near)]))
        return np.stack(rows)


class FakeRobot(Node):
    """Do what it is told, tell its joints, and publish features and wrist pictures."""

    def __init__(self, context, model, urdf):
        super().__init__("robot", context=context)
        self.model, self.q, self.latest = model, HOME.copy(), None
        self.features, self.wrist, self.size = "tiny 12ab", True, (24, 32)
        self.jaws = []
        description = self.create_publisher(String, "robot_description", Qos.LATCHED.profile)
        description.publish(String(data=urdf))
        self._joints = self.create_publisher(JointState, "joint_states", 10)
        self._tf = self.create_publisher(TFMessage, "/tf", 10)
        self._features = self.create_publisher(TraceFeatures, "mu0/trace_features", 10)
        self._wrist = self.create_publisher(
            Image, "wrist_camera/color/image_raw", Qos.SENSOR.profile
        )
        for part, take in (("arm", self._on_arm), ("gripper", self.jaws.append)):
            topic = f"{part}_controller/joint_trajectory"
            self.create_subscription(JointTrajectory, topic, take, 10)
        self.create_timer(0.02, self._tick)
        self.create_timer(0.1, self._see)

    def _on_arm(self, message):
        self.latest = joint_path_from_message(message, ARM)

    def _tick(self):
        now = self.get_clock().now()
        if self.latest is not None:
            t_s = now.nanoseconds * 1e-9 - self.latest.start_ns * 1e-9
            self.q = np.array([np.interp(t_s, self.latest.t_s, q) for q in self.latest.q.T])
        state = JointState(name=[*ARM, "jaw"], position=[*self.q.tolist(), 0.04])
        state.header.stamp = now.to_msg()
        self._joints.publish(state)
        tool = transform_stamped(
            self.model.forward(self.q, "tool0"),
            parent="base_link",
            child="tool0",
            stamp=now.to_msg(),
        )
        self._tf.publish(TFMessage(transforms=[tool]))

    def _see(self):
        now = self.get_clock().now()
        if self.wrist:
            rgb = np.full((*self.size, 3), 7, np.uint8)
            image = image_from_array(rgb, "rgb8", stamp=now.to_msg(), frame_id="wrist")
            self._wrist.publish(image)
        tensors = {
            name: np.full((2, 4), 0.5, np.float16) for name in ("context", "traces", "language")
        }
        message = features_message(
            tensors, stamp_ns=now.nanoseconds, frame_id="c", instruction="", model=self.features
        )
        self._features.publish(message)


class Graph:
    """The node with a stand-in for the expert, beside a fake robot."""

    def __init__(self, embodiment_file, model, urdf, monkeypatch, card=CARD):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=10 + os.getpid() % 80)
        self.expert = Reaching(card)
        monkeypatch.setattr(ExpertPolicy, "from_pretrained", lambda *a, **k: self.expert)
        values = {
            "embodiment_file": str(embodiment_file),
            "checkpoint": "expert/",
            "ready_timeout_s": 20.0,
            "safety.max_joints_age_s": 3.0,  # busy machines stall
            "safety.max_traces_age_s": 5.0,
            "max_picture_age_s": 1.0,
        }
        self.policy = ActionExpertNode(
            context=self.context,
            parameter_overrides=[Parameter(n, value=v) for n, v in values.items()],
        )
        self.robot = FakeRobot(self.context, model, urdf)
        self.user = rclpy.create_node("user", context=self.context)
        self.said = ""
        self.user.create_subscription(DiagnosticArray, "/diagnostics", self._on_status, 10)
        self.executors = [MultiThreadedExecutor(n, context=self.context) for n in (2, 4)]
        self.executors[0].add_node(self.robot)
        self.executors[0].add_node(self.user)
        self.executors[1].add_node(self.policy)
        self.threads = [threading.Thread(target=e.spin, daemon=True) for e in self.executors]
        self.threads[0].start()

    def _on_status(self, message):
        for status in message.status:
            if status.name.endswith("policy"):
                self.said = status.message

    def start(self):
        self.policy.trigger_configure()
        assert self.policy.state == "inactive"
        self.policy.trigger_activate()
        self.threads[1].start()
        self.until(lambda: self.policy._core._history or self.policy._measured)
        client = self.user.create_client(Trigger, "policy/start")
        assert client.wait_for_service(10.0)
        answer = client.call_async(Trigger.Request())
        self.until(answer.done)
        assert answer.result().success, answer.result().message

    def until(self, predicate, deadline_s=60.0):
        end = time.monotonic() + deadline_s
        while not predicate():
            assert time.monotonic() < end, f"not in time; the node says {self.said!r}"
            time.sleep(0.02)

    def close(self):
        self.policy.trigger_shutdown()
        for executor in self.executors:
            executor.shutdown()
        for node in (self.policy, self.robot, self.user):
            node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def graph(embodiment_file, model, urdf, monkeypatch):
    made = []

    def make(**options):
        made.append(Graph(embodiment_file, model, urdf, monkeypatch, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_it_reaches_and_closes(graph):
    made = graph()
    made.start()
    made.until(lambda: np.abs(made.robot.q - GOAL).max() < 0.05)
    goals = lambda: [m.points[-1].positions[0] for m in made.robot.jaws]  # noqa: E731
    made.until(lambda: goals() and goals()[-1] == 0.0)
    assert goals() == [0.04, 0.0]  # open from the start, closed once
    moment = made.expert.moments[-1]
    assert moment.pictures["wrist"].shape == (24, 32, 3)
    assert moment.features["traces"].dtype == np.float16
    assert moment.gripper == pytest.approx(0.0)


def test_it_holds_when_a_camera_stops_or_features_are_anothers(graph):
    made = graph()
    made.robot.features = "tiny 34cd"
    made.start()
    asked = len(made.expert.moments)
    made.until(lambda: made.said)
    time.sleep(1.0)
    assert len(made.expert.moments) == asked == 0
    assert np.abs(made.robot.q - HOME).max() < 1e-3
    made.robot.features = "tiny 12ab"
    made.until(lambda: len(made.expert.moments) > 3)
    made.robot.wrist = False
    time.sleep(3.0)
    asked = len(made.expert.moments)
    time.sleep(1.0)
    assert len(made.expert.moments) <= asked + 1


def test_an_expert_of_another_robot_is_refused(graph, capfd):
    made = graph(card=replace(CARD, joints=("j2", "j1", "j3")))
    made.policy.trigger_configure()
    assert made.policy.state == "unconfigured"
    assert "another order" in capfd.readouterr().err
