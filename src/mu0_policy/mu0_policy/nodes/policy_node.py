"""Run a policy on a robot: what all policies share.

The arm moves only while a task is active: a goal of the action mu0/execute, or `~/start`. A timer
on the ROS clock turns newest traces and joint states into the next chunk.
"""

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_ros import Buffer

from mu0_core.embodiment import Embodiment, load_embodiment
from mu0_core.errors import Mu0Error
from mu0_core.kinematics import RobotModel
from mu0_core.ros.interfaces import create_publisher, create_service, create_subscription
from mu0_core.ros.lifecycle import Level, Mu0LifecycleNode
from mu0_msgs.action import ExecuteInstruction
from mu0_policy.core import End, Measured, Policy, PolicyCore
from mu0_policy.nodes.execute_server import ExecuteServer
from mu0_policy.nodes.policy_config import PolicyNodeConfig
from mu0_policy.nodes.policy_input import PolicyInput
from mu0_policy.nodes.robot_input import listen, measured_from_message
from mu0_policy.nodes.robot_output import Commander, RobotOutput
from mu0_policy.readiness import check_robot
from mu0_policy.task import Task

C = TypeVar("C", bound=PolicyNodeConfig)


class PolicyNode(Mu0LifecycleNode[C]):
    """Bring traces and joint states to the core, and its chunks to the controllers."""

    def __init__(self, config: type[C], **arguments: Any) -> None:
        super().__init__("policy", config, **arguments)
        self._tf = Buffer(node=self)  # for life: a clock keeps pointing at what hears its jumps
        self._lock = threading.RLock()
        self._measured: deque[Measured] = deque(maxlen=1000)
        self._task: Task | None = None
        self._doubt = ""
        self._server: ExecuteServer | None = None
        self._core: PolicyCore | None = None
        self._output: RobotOutput | None = None

    @abstractmethod
    def make_policy(self, embodiment: Embodiment, model: RobotModel) -> Policy:
        """Make what decides where the tool goes."""

    @abstractmethod
    def make_input(self, core: PolicyCore) -> PolicyInput:
        """Subscribe to what the policy decides from."""

    # Life.

    def setup(self) -> None:
        """Check that everybody means the same robot, and build the core."""
        config = self.config
        self._embodiment = load_embodiment(config.embodiment_file)
        heard = listen(self, self._embodiment, config.ready_timeout_s)
        joints = heard.joints or JointState()
        model = check_robot(
            self._embodiment,
            heard.description,
            joints.name or None,
            joints.position,
            heard.T_base_tool,
        )
        policy = self.make_policy(self._embodiment, model)
        self._core = PolicyCore(self._embodiment, model, policy, config.safety, config.execution)
        self._output = RobotOutput(self, self._embodiment, dry_run=config.dry_run)
        self._commander = Commander(self._core, self._output, dry_run=config.dry_run)
        self._instruction = create_publisher(self, "mu0/instruction")
        # While inactive it refuses goals, and brings the results of those that ended to their end.
        self._server = ExecuteServer(self, self._begin, self._feedback)

    def start(self) -> None:
        """Take traces, joint states and requests."""
        assert self._core is not None
        self._last_s = self._now_s()
        self._seen = self.make_input(self._core)
        create_subscription(self, "joint_states", self._on_joints)
        waiting = MutuallyExclusiveCallbackGroup()  # for the end of a turn
        requests: dict[str, Callable[[], str | None]] = {
            "start": lambda: self._engage("", None),
            "stop": self._core.stop,
            "resume": self._core.resume,
            "clear_fault": self._core.safety.clear,
        }
        for name, action in requests.items():
            create_service(
                self, f"policy/{name}", partial(self._on_request, action), callback_group=waiting
            )
        # A ready timer goes before all else of its group: turns that take longer than their
        # period would keep joint states, traces and requests out for good.
        turning = MutuallyExclusiveCallbackGroup()
        self.create_timer(1.0 / self.config.rate_hz, self._turn, callback_group=turning)

    def stop(self) -> None:
        """End the task."""
        with self._lock:
            if self._task is not None:
                self._task.finish(End.CANCELLED, "the node was deactivated")
            self._let_go()

    def make_safe(self) -> None:
        """Leave the arm braking to rest; the fingers keep what they hold."""
        with self._lock:
            if self._core is not None:
                self._core.disengage()
                self._commander.send(self._now_s, None)

    def teardown(self) -> None:
        """Let go of the core."""
        if self._server is not None:
            self._server.destroy()
            self._server = None
        with self._lock:  # a last turn may still run
            if self._output is not None:
                self._output.destroy()
            self._core = self._output = None

    # Tasks.

    def _begin(self, instruction: str, timeout_s: float) -> Task | str:
        """Begin the task of a goal, or say why not."""
        if not instruction:
            return "the instruction is empty; say what to do, such as 'lift the red cube'"
        with self._lock:
            refusal = self._engage(instruction, timeout_s or self.config.timeout_s)
            if refusal or self._task is None:
                return refusal
            self._instruction.publish(String(data=instruction))
            return self._task

    def _engage(self, instruction: str, timeout_s: float | None) -> str:
        """Let the arm move for a task; returns why not, empty if it may."""
        what = repr(instruction) if instruction else "whatever the traces show"
        now_s = self._now_s()
        if self._core is None or self._output is None or self.state != "active":
            return "the node is not active"
        if self._task is not None:
            return "another task is running; cancel it first"
        self._take_joints(self._core)
        refusal = self._output.missing() or self._core.engage(now_s)
        if refusal:
            self.get_logger().warning(f"refuses {what}: {refusal}")
            return refusal
        self._seen.forget()
        self._commander.begin()
        deadline_s = None if timeout_s is None else now_s + timeout_s
        self._task = Task(instruction, now_s, deadline_s)
        self.get_logger().info(f"begins {what}")
        return ""

    def _let_go(self) -> None:
        """Disengage after a task that has ended."""
        task = self._task
        if self._core is None or task is None or task.end is None:
            return
        self._core.disengage()
        self._task = None
        self.get_logger().info(f"ends, {task.end.name.lower()}: {task.message}")

    def _feedback(self, task: Task) -> ExecuteInstruction.Feedback:
        policy = None if self._core is None else self._core.policy
        return ExecuteInstruction.Feedback(
            phase="" if policy is None else policy.phase.value,
            elapsed_s=self._now_s() - task.started_s,
            valid_prob=0.0 if policy is None else policy.valid_prob,
        )

    # Callbacks.

    def _on_joints(self, message: JointState) -> None:
        try:
            measured = measured_from_message(message, self._embodiment)
        except Mu0Error as error:
            self.warn_throttled("joints", f"joint_states: {error}")
            return
        if measured is not None:
            self._measured.append(measured)

    def _take_joints(self, core: PolicyCore) -> None:
        while self._measured:
            core.measure(self._measured.popleft())

    def _turn(self) -> None:
        """Take what is new, let the policy decide, send what is due."""
        with self._lock:
            core, output, task, now_s = self._core, self._output, self._task, self._now_s()
            if core is None or output is None:
                return
            if now_s < self._last_s:
                self._forget(self._last_s - now_s)
            self._last_s = now_s
            self._take_joints(core)
            prediction, fault = self._seen.take(task.instruction if task else "", now_s)
            if fault:
                self.warn_throttled("traces", fault)
            if fault or prediction is not None or task is None:
                self._doubt = fault  # until something better comes
            core.plan(now_s, prediction, hold=output.missing())
            self._commander.send(self._now_s, prediction.stamp_s if prediction else None)
            if task is not None:
                task.judge(core, now_s)
            self._let_go()
            self._show(core)

    def _forget(self, jump_s: float) -> None:
        """Forget what has a time: the clock has jumped back."""
        message = f"the clock jumped back by {jump_s:.2f} s"
        self.get_logger().warning(message)
        if self._task is not None:
            self._task.finish(End.SAFETY, message)
        self._let_go()
        self._seen.forget()
        if self._core is not None:
            self._core.forget()

    def _show(self, core: PolicyCore) -> None:
        """Tell how it goes, in the log (throttled) and in /diagnostics."""
        fault = core.safety.latched
        told = (core.hold or core.warning, self._doubt) if core.engaged else ()
        trouble = fault or "; ".join(filter(None, told))
        if trouble:
            self.warn_throttled(trouble[:12], trouble)
        level = Level.ERROR if fault else Level.WARN if trouble else Level.OK
        text = trouble or (core.policy.reason if core.engaged else "no task")
        self.report(level, text, phase=core.policy.phase.value, **self._commander.figures.shown())

    def _on_request(
        self,
        action: Callable[[], str | None],
        request: Trigger.Request,
        response: Trigger.Response,
    ) -> Trigger.Response:
        with self._lock:
            refusal = action()
        response.success, response.message = not refusal, refusal or "done"
        return response

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9
