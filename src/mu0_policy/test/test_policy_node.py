"""The trace follower's node beside a fake robot: topics, action, services, refusals."""

import os
import threading
import time

import numpy as np
import pytest
import rclpy
from action_msgs.msg import GoalStatus
from control_msgs.action import FollowJointTrajectory, GripperCommand
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient, ActionServer
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory

from mu0_core.ros.executor import WatchedExecutor
from mu0_core.ros.interfaces import Qos
from mu0_core.ros.messages import (
    joint_path_from_message,
    seconds_from_stamp,
    traces_message,
    transform_stamped,
)
from mu0_core.traces import KeypointSource, Traces
from mu0_msgs.action import ExecuteInstruction
from mu0_msgs.msg import TraceArray
from mu0_policy.nodes.trace_follower_node import TraceFollowerNode

pytestmark = pytest.mark.ros

ARM = ("j1", "j2", "j3")
HOME = np.array([1.2, -2.0, 0.8])
INSTRUCTION = "take the cube"


class FakeRobot(Node):
    """Do what the arm's controller is told, and tell where the joints are."""

    def __init__(self, context, model, urdf, *, frame="tool0", controller=True):
        super().__init__("robot", context=context)
        self.model, self.frame = model, frame
        self.q, self.jaw = HOME.copy(), 0.04
        self.received, self.jaws, self.shown, self.predicted_s = [], [], [], []
        self.latest = None
        self.silent = False
        self.instruction = None
        description = self.create_publisher(String, "robot_description", Qos.LATCHED.profile)
        description.publish(String(data=urdf))
        self._joints = self.create_publisher(JointState, "joint_states", 10)
        self._tf = self.create_publisher(TFMessage, "/tf", 10)
        self._traces = self.create_publisher(TraceArray, "mu0/traces", 10)
        if controller:
            self.create_subscription(
                JointTrajectory, "arm_controller/joint_trajectory", self._on_arm, 10
            )
            self.create_subscription(
                JointTrajectory, "gripper_controller/joint_trajectory", self.jaws.append, 10
            )
        self.create_subscription(
            JointTrajectory, "policy/display_trajectory", self.shown.append, 10
        )
        self.create_subscription(
            String, "mu0/instruction", self._on_instruction, Qos.LATCHED.profile
        )
        # In a group of its own: late on a busy machine, it must not keep commands out.
        self.create_timer(0.02, self._tick, callback_group=MutuallyExclusiveCallbackGroup())

    def _on_instruction(self, message):
        self.instruction = message.data

    def _on_arm(self, message):
        arrived_s = self.now_s()
        self.received.append((arrived_s, message))
        self.latest = joint_path_from_message(message, ARM)

    def now_s(self):
        return self.get_clock().now().nanoseconds * 1e-9

    def _tick(self):
        if self.latest is not None:
            t_s = self.now_s() - self.latest.start_ns * 1e-9
            columns = [np.interp(t_s, self.latest.t_s, q) for q in self.latest.q.T]
            self.q = np.array(columns)
        if self.silent:
            return
        stamp = self.get_clock().now().to_msg()
        state = JointState(name=[*ARM, "jaw"], position=[*self.q.tolist(), self.jaw])
        state.header.stamp = stamp
        self._joints.publish(state)
        tool = transform_stamped(
            self.model.forward(self.q, "tool0"), parent="base_link", child=self.frame, stamp=stamp
        )
        camera = transform_stamped(np.eye(4), parent="base_link", child="camera", stamp=stamp)
        self._tf.publish(TFMessage(transforms=[tool, camera]))

    def predict(self, prediction, instruction=INSTRUCTION):
        """Publish a prediction as the world model would, from a camera at the base."""
        n, stamp_ns = len(prediction.xyz), self.get_clock().now().nanoseconds
        self.predicted_s.append(stamp_ns * 1e-9)
        source = np.where(prediction.on_gripper, KeypointSource.ROBOT, KeypointSource.ENTITY)
        message = traces_message(
            Traces(
                stamp_ns=stamp_ns,
                frame_id="camera",
                instruction=instruction,
                model="test",
                arc_step=0.0125,
                ids=np.arange(n, dtype=np.uint32),
                cluster_ids=prediction.cluster_ids,
                source=source.astype(np.uint8),
                current_xyz=prediction.current_xyz.astype(np.float32),
                xyz=prediction.xyz[None].astype(np.float32),
                control_uvz=np.zeros((1, n, 4, 3), np.float32),
                valid_prob=prediction.valid_prob[None].astype(np.float32),
                stage_names=(),
                stage_seconds=np.zeros(0, np.float32),
            )
        )
        self._traces.publish(message)


class Graph:
    """A policy node and a fake robot, spun in the background."""

    def __init__(self, embodiment_file, **parameters):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=10 + os.getpid() % 80)
        values = {
            "embodiment_file": str(embodiment_file),
            "ready_timeout_s": 5.0,
            "safety.max_joints_age_s": 1.0,  # busy machines stall
            "safety.max_traces_age_s": 3.0,
        } | parameters
        self.policy = TraceFollowerNode(
            context=self.context,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        self.user = rclpy.create_node("user", context=self.context)
        self.status = None
        self.user.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._robot_executor = WatchedExecutor(2, context=self.context)
        self._executor = WatchedExecutor(4, context=self.context)
        self._executor.add_node(self.policy)
        self.robot = None
        self._threads, self._closing = [], threading.Event()

    def _on_diagnostics(self, message):
        for status in message.status:
            if status.name.endswith("policy"):
                self.status = status

    def add_robot(self, model, urdf, **options):
        self.robot = FakeRobot(self.context, model, urdf, **options)
        self._robot_executor.add_node(self.robot)
        self._robot_executor.add_node(self.user)
        self._spin(self._robot_executor)

    def _spin(self, executor):
        def spin():
            while not self._closing.is_set():
                executor.spin_once(timeout_sec=0.1)

        thread = threading.Thread(target=spin, daemon=True)
        thread.start()
        self._threads.append(thread)

    def configure(self):
        self.policy.trigger_configure()
        return self.policy.state

    def activate(self):
        assert self.configure() == "inactive"
        self.policy.trigger_activate()
        self._spin(self._executor)
        assert self.policy.state == "active"
        # A goal before the first joint state is refused: that race is not what is tested here.
        self.until(lambda: self.policy._core._history)

    def until(self, predicate, deadline_s=30.0):
        end = time.monotonic() + deadline_s
        while not predicate():
            assert time.monotonic() < end, "not in time"
            time.sleep(0.02)

    def call(self, name):
        client = self.user.create_client(Trigger, f"policy/{name}")
        assert client.wait_for_service(5.0)
        future = client.call_async(Trigger.Request())
        self.until(future.done)
        return future.result()

    def send(self, instruction=INSTRUCTION, timeout_s=0.0):
        self._client = ActionClient(self.user, ExecuteInstruction, "mu0/execute")
        assert self._client.wait_for_server(5.0)
        self.feedback = []
        goal = ExecuteInstruction.Goal(instruction=instruction, timeout_s=timeout_s)
        future = self._client.send_goal_async(
            goal, feedback_callback=lambda message: self.feedback.append(message.feedback)
        )
        self.until(future.done)
        return future.result()

    def result(self, handle):
        future = handle.get_result_async()
        self.until(future.done)
        return future.result()

    def feed(self, scene, until, *, instruction=INSTRUCTION, deadline_s=60.0):
        """Predict again and again from where the arm is, until something is so."""
        end = time.monotonic() + deadline_s
        while not until():
            assert time.monotonic() < end, "not in time"
            self.robot.predict(scene(self.robot.q, way=0.25)[0], instruction)
            time.sleep(0.15)

    def moved(self, start=HOME):
        return np.abs(self.robot.q - start).max() > 0.01

    def told(self):
        return "" if self.status is None else self.status.message

    def figures(self):
        return {} if self.status is None else {v.key: v.value for v in self.status.values}

    def close(self):
        self._closing.set()  # nobody may wait for what is destroyed
        for thread in self._threads:
            thread.join(30.0)
        self.policy.trigger_shutdown()
        for executor in (self._executor, self._robot_executor):
            executor.shutdown()
        for node in filter(None, (self.policy, self.user, self.robot)):
            node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def graph(embodiment_file):
    made = []

    def make(**parameters):
        made.append(Graph(embodiment_file, **parameters))
        return made[-1]

    yield make
    for graph in made:
        graph.close()


@pytest.fixture
def running(graph, model, urdf):
    made = graph()
    made.add_robot(model, urdf)
    made.activate()
    return made


def errors_of(graph, capfd):
    assert graph.configure() == "unconfigured"
    return capfd.readouterr().err


def test_configure_is_refused_without_a_robot(graph, capfd):
    text = errors_of(graph(ready_timeout_s=0.3), capfd)
    assert "takes its description from the topic robot_description, but none came" in text


def test_configure_is_refused_when_tf_and_joints_disagree(graph, model, urdf, capfd):
    made = graph()
    made.add_robot(model, urdf)
    made.robot.model = type("Shifted", (), {"forward": lambda self, q, f: np.eye(4)})()
    text = errors_of(made, capfd)
    assert "TF puts 'tool0' at [0.0, 0.0, 0.0] m in 'base_link'" in text
    assert "they come from different robots" in text


def test_configure_is_refused_when_tf_lacks_the_tool(graph, model, urdf, capfd):
    made = graph(ready_timeout_s=1.0)
    made.add_robot(model, urdf, frame="gripper")
    text = errors_of(made, capfd)
    assert "TF: no transform from 'tool0' to 'base_link' came" in text


def test_configure_is_refused_for_another_robots_description(graph, model, urdf, capfd):
    made = graph()
    made.add_robot(model, urdf.replace('"j2"', '"elbow"'))
    text = errors_of(made, capfd)
    assert "arm.joints: unknown joint 'j2': known are elbow, j1, j3, jaw" in text


def test_a_goal_moves_the_arm_and_feedback_tells_the_phase(running, scene):
    robot = running.robot
    handle = running.send()
    running.until(lambda: robot.instruction == INSTRUCTION)
    running.feed(scene, lambda: running.moved() and len(robot.received) >= 5)
    for arrived_s, message in robot.received:
        start_s = seconds_from_stamp(message.header.stamp)
        path = joint_path_from_message(message, ARM)
        assert start_s <= arrived_s  # it covers now
        assert start_s + path.t_s[-1] <= arrived_s + 1.0
        assert path.qd is not None and (path.qd[-1] == 0.0).all()
    running.until(lambda: any(f.phase == "approach" for f in running.feedback))
    running.feed(scene, lambda: "command_latency_p50_ms" in running.figures())
    figures = running.figures()
    assert float(figures["handover_velocity_jump"]) < 1e-6
    assert figures["limit_violations"] == "0"
    assert robot.jaws and robot.jaws[0].points[0].positions[0] == 0.04  # opens first
    handle.cancel_goal_async()
    outcome = running.result(handle)
    assert outcome.status == GoalStatus.STATUS_CANCELED
    assert outcome.result.end_reason == ExecuteInstruction.Result.CANCELLED
    assert outcome.result.message == "cancelled on request"


def test_turns_longer_than_their_period_keep_nothing_out(running, scene):
    core, robot, behind = running.policy._core, running.robot, []
    plan = core.plan

    def slowly(now_s, prediction=None, **rest):
        if prediction is not None:
            behind.append(sum(stamp_s > prediction.stamp_s for stamp_s in robot.predicted_s))
        plan(now_s, prediction, **rest)
        time.sleep(0.3)  # three periods, and two predictions

    core.plan = slowly
    running.send()
    running.feed(scene, lambda: len(behind) >= 6 and running.moved())
    assert np.median(behind) <= 2  # not those at the end of a queue
    assert running.call("stop").success
    running.until(lambda: core.hold == "stopped on request")


def test_an_instruction_on_the_topic_alone_moves_nothing(running, scene):
    publisher = running.user.create_publisher(String, "mu0/instruction", Qos.LATCHED.profile)
    publisher.publish(String(data=INSTRUCTION))
    predictions = iter(range(6))
    running.feed(scene, lambda: next(predictions) == 5)
    assert running.robot.received == [] and not running.moved()


@pytest.mark.parametrize("instruction", ["", "   "])
def test_an_empty_instruction_is_refused(running, instruction):
    outcome = running.result(running.send(instruction))
    assert outcome.result.end_reason == ExecuteInstruction.Result.REFUSED
    assert outcome.result.message.startswith("the instruction is empty")


def test_without_a_controller_goals_are_refused(graph, model, urdf):
    made = graph()
    made.add_robot(model, urdf, controller=False)
    made.activate()
    outcome = made.result(made.send())
    assert outcome.result.end_reason == ExecuteInstruction.Result.REFUSED
    assert outcome.result.message == (
        "nobody listens on arm_controller/joint_trajectory: is the arm's controller active?"
    )


def test_a_goal_times_out_and_says_what_it_waited_for(running):
    outcome = running.result(running.send(timeout_s=0.5))
    assert outcome.result.end_reason == ExecuteInstruction.Result.TIMEOUT
    assert "no traces yet" in outcome.result.message
    assert running.robot.received == []


def test_traces_for_another_instruction_are_not_followed(running, scene):
    handle = running.send(timeout_s=1.0)
    predictions = iter(range(9))
    running.feed(scene, lambda: next(predictions) == 8, instruction="open the door")
    assert running.robot.received == []
    assert running.result(handle).result.end_reason == ExecuteInstruction.Result.TIMEOUT


def test_silent_joint_states_hold_and_work_goes_on_when_they_return(running, scene):
    robot = running.robot
    running.send()
    running.feed(scene, running.moved)
    robot.silent = True
    running.until(lambda: "joint states are" in running.told())
    assert "limit 1 s" in running.told()
    robot.silent = False
    n, rest = len(robot.received), robot.q.copy()
    running.feed(scene, lambda: len(robot.received) > n and running.moved(rest))


def test_start_stop_and_resume(running, scene):
    robot = running.robot
    running.until(lambda: running.call("start").success)
    assert "another task is running" in running.call("start").message
    running.feed(scene, running.moved, instruction="anything")
    assert running.call("stop").success
    running.until(lambda: running.robot.now_s() > robot.received[-1][0] + 1.0)
    rest = robot.q.copy()
    predictions = iter(range(5))
    running.feed(scene, lambda: next(predictions) == 4)
    assert not running.moved(rest)
    assert running.call("resume").success
    running.feed(scene, lambda: running.moved(rest))


def test_a_dry_run_only_shows(graph, model, urdf, scene):
    made = graph(dry_run=True)
    made.add_robot(model, urdf)
    made.activate()
    made.send()

    def shown():
        return (
            made.robot.shown
            and np.ptp([point.positions for point in made.robot.shown[-1].points], axis=0).max()
            > 0.02
        )

    made.feed(scene, shown)
    assert made.robot.received == [] and made.robot.jaws == []


@pytest.mark.parametrize(
    ("interface", "action"),
    [("gripper_command", GripperCommand), ("follow_joint_trajectory", FollowJointTrajectory)],
)
def test_grippers_behind_an_action(graph, embodiment_file, model, urdf, scene, interface, action):
    text = embodiment_file.read_text().replace(
        "controller: gripper_controller/joint_trajectory",
        f"controller: hand/move\n  interface: {interface}\n  max_effort: 20.0",
    )
    embodiment_file.write_text(text)
    made = graph()
    made.add_robot(model, urdf)
    made.activate()
    assert "no action server hand/move" in made.result(made.send()).result.message
    goals = []

    def execute(goal):
        goals.append(goal.request)
        goal.succeed()
        return action.Result()

    server = ActionServer(made.robot, action, "hand/move", execute)
    made.until(lambda: made.send().accepted and made.policy._task is not None)
    made.feed(scene, lambda: goals)
    if action is GripperCommand:
        assert (goals[0].command.position, goals[0].command.max_effort) == (0.04, 20.0)
    else:
        assert goals[0].trajectory.joint_names == ["jaw"]
        assert goals[0].trajectory.points[0].positions[0] == 0.04
    server.destroy()


def test_deactivation_leaves_the_arm_at_rest(running, scene):
    robot = running.robot
    handle = running.send()
    running.feed(scene, lambda: robot.latest is not None and np.abs(robot.latest.qd).max() > 0.05)
    result = handle.get_result_async()
    running.policy.trigger_deactivate()
    assert running.policy.state == "inactive"
    running.until(result.done)
    assert result.result().result.message == "the node was deactivated"
    assert (robot.latest.qd[-1] == 0.0).all()
    running.until(lambda: robot.now_s() > robot.received[-1][0] + 1.1)
    n, rest = len(robot.received), robot.q.copy()
    predictions = iter(range(3))
    running.feed(scene, lambda: next(predictions) == 2)
    assert len(robot.received) == n
    np.testing.assert_allclose(robot.q, rest, atol=1e-6)
