"""The action expert's node beside a fake robot: features, wrist pictures, refusals, holds."""

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory

from mu0_core import se3
from mu0_core.ros.executor import WatchedExecutor
from mu0_core.ros.interfaces import Qos
from mu0_core.ros.messages import (
    features_message,
    image_from_array,
    joint_path_from_message,
    transform_stamped,
)
from mu0_msgs.msg import TraceFeatures
from mu0_policy.action_expert.actions import ActionSpace
from mu0_policy.action_expert.card import ExpertCard, place_fields
from mu0_policy.action_expert.checkpoint import Checkpoint
from mu0_policy.action_expert.config import ActionExpertConfig, DecoderConfig
from mu0_policy.action_expert.model import ActionExpert
from mu0_policy.action_expert.normaliser import Normaliser
from mu0_policy.action_expert.policy import ExpertPolicy
from mu0_policy.camera_places import CameraPlace, Mount
from mu0_policy.nodes import action_expert_node
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


STATISTICS = Normaliser(
    state_mean=(*HOME, 0.0),
    state_std=(0.5,) * 4,
    action_mean=(0.0,) * 4,
    action_std=(0.002,) * 4,
)


class Drifting(ExpertPolicy):
    """Go on from the commands that are given, as in training; its weights add what they will."""

    def commands(self, moment, known=None):
        found = super().commands(moment, known)
        d = 0 if known is None else len(known)
        last = known[-1, :3] if d else moment.q
        way = np.arange(1, len(found) - d + 1)[:, None] * [-0.01, 0.008, 0.006]
        found[d:, :3] += last - moment.q + way
        return found


def random_expert():
    """Return an expert of a few thousand random weights."""
    sizes = DecoderConfig(width=16, layers=2, mlp=24, heads=2, kv_heads=1, head_dim=8)
    config = ActionExpertConfig(
        context_width=4,
        trace_width=4,
        mixer_heads=2,
        cameras=("wrist",),
        state_dim=4,
        action_dim=4,
        chunk_size=32,
        decoder=sizes,
    )
    torch.manual_seed(0)
    torch.set_num_threads(1)
    card = replace(CARD, space=ActionSpace.JOINT_DELTAS, most_known=24)  # busy machines stall
    return Drifting(Checkpoint(expert=ActionExpert(config), normaliser=STATISTICS, card=card))


class Reaching:
    """Stand in for an expert: a few hundredths of a radian a step towards a goal, then close."""

    normaliser = replace(STATISTICS, action_mean=(*HOME, 0.0))
    chunk_size = 16

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
        self.jaws, self.paths, self.age_s, self.mount_m = [], [], 0.0, 0.2
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
        self.paths.append(self.latest)

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
        wrist = transform_stamped(
            se3.make_transform(np.eye(3), [self.mount_m, 0.0, 0.0]),
            parent="tool0",
            child="wrist",
            stamp=now.to_msg(),
        )
        self._tf.publish(TFMessage(transforms=[tool, wrist]))

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
            tensors,
            stamp_ns=now.nanoseconds - round(1e9 * self.age_s),
            frame_id="c",
            instruction="",
            model=self.features,
        )
        self._features.publish(message)


class Graph:
    """The node with a stand-in for the expert, beside a fake robot."""

    def __init__(
        self, embodiment_file, model, urdf, monkeypatch, card=CARD, expert=None, **parameters
    ):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=10 + os.getpid() % 80)
        self.expert = expert or Reaching(card)
        monkeypatch.setattr(action_expert_node, "load", lambda folder: self.expert)
        monkeypatch.setattr(action_expert_node, "ExpertPolicy", lambda *a, **k: self.expert)
        values = {
            "embodiment_file": str(embodiment_file),
            "checkpoint": "expert/",
            "ready_timeout_s": 20.0,
            "safety.max_joints_age_s": 3.0,  # busy machines stall
            "safety.max_traces_age_s": 5.0,
            "max_features_age_s": 5.0,
            "max_picture_age_s": 1.0,
            **parameters,
        }
        self.policy = ActionExpertNode(
            context=self.context,
            parameter_overrides=[Parameter(n, value=v) for n, v in values.items()],
        )
        self.robot = FakeRobot(self.context, model, urdf)
        self.user = rclpy.create_node("user", context=self.context)
        self.said = ""
        self.user.create_subscription(DiagnosticArray, "/diagnostics", self._on_status, 10)
        self.executors = [WatchedExecutor(n, context=self.context) for n in (2, 4)]
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
    made.until(lambda: "'tiny 34cd', the expert was trained with those of 'tiny" in made.said)
    assert "no answers of the action expert yet" in made.said
    assert made.expert.moments == []
    assert np.abs(made.robot.q - HOME).max() < 1e-3
    made.robot.features, made.robot.age_s = "tiny 12ab", 6.0
    made.until(lambda: "features of an image 6." in made.said)
    assert made.expert.moments == []
    made.robot.age_s = 0.0
    made.until(lambda: len(made.expert.moments) > 3)
    made.robot.wrist = False
    made.until(lambda: "wrist camera: its picture is" in made.said)
    asked = len(made.expert.moments)
    made.until(lambda: "answers of the action expert are" in made.said)
    assert len(made.expert.moments) == asked


def test_an_expert_of_another_robot_is_refused(graph, capfd):
    made = graph(card=replace(CARD, joints=("j2", "j1", "j3")))
    made.policy.trigger_configure()
    assert made.policy.state == "unconfigured"
    assert "another order" in capfd.readouterr().err


def test_an_expert_that_sees_something_else_is_refused(graph, capfd):
    made = graph(ready_timeout_s=3.0)
    made.robot.size = (24, 48)
    made.policy.trigger_configure()
    assert made.policy.state == "unconfigured"
    assert "pictures of 48x24 px, trained with 32x24" in capfd.readouterr().err
    made.robot.wrist = False
    made.policy.trigger_configure()
    assert made.policy.state == "unconfigured"
    said = capfd.readouterr().err
    assert "wrist camera: nothing came; check the topic /wrist_camera/color/image_raw" in said


def test_a_camera_that_was_moved_is_refused(graph, capfd):
    T_tool_wrist = se3.make_transform(np.eye(3), [0.1, 0.0, 0.0])
    told = CameraPlace(mount=Mount.TOOL, T_mount_camera=T_tool_wrist)
    made = graph(card=replace(CARD, **place_fields((None, told))), ready_timeout_s=10.0)
    made.policy.trigger_configure()
    assert made.policy.state == "unconfigured"
    assert "wrist camera: TF puts it at [0.2, 0.0, 0.0] m from the tool" in capfd.readouterr().err
    made.robot.mount_m = 0.1
    made.policy.trigger_configure()
    assert made.policy.state == "inactive"


def test_slow_answers_make_neither_pause_nor_jump(graph):
    made = graph(expert=random_expert(), added_delay_s=0.3)
    made.start()
    made.until(lambda: len(made.policy._asking._latencies) > 2)
    begun_s = made.policy._now_s()
    made.until(lambda: np.abs(made.robot.q - HOME).max() > 0.4)
    ended_s = made.policy._now_s()
    assert made.policy._asking.expected_latency_s > 0.3
    assert made.policy._commander.figures.velocity_jump < 0.05
    paths = list(made.robot.paths)
    starts_s = [path.start_ns * 1e-9 for path in paths]
    assert len(paths) > 5
    speeds = []
    for t in np.arange(begun_s, ended_s, 0.01):
        newest = paths[np.searchsorted(starts_s, t, "right") - 1]
        times_s = newest.start_ns * 1e-9 + newest.t_s
        places = [[np.interp(x, times_s, q) for q in newest.q.T] for x in (t, t + 0.01)]
        speeds.append(np.abs(np.subtract(*places)).max() / 0.01)
    assert 0.05 < min(speeds) <= max(speeds) < 0.2  # the expert asks for 0.1 rad/s
