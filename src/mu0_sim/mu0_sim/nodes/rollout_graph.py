"""Watch and reset a simulator from outside, and ask a policy to do its task."""

import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, Float32
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory

from mu0_core.errors import Mu0Error
from mu0_core.ros.interfaces import create_client, create_subscription, interface
from mu0_core.ros.messages import seconds_from_stamp
from mu0_msgs.action import ExecuteInstruction
from mu0_msgs.srv import ResetSimulation
from mu0_sim.command_log import CommandLog
from mu0_sim.nodes.child import Child
from mu0_sim.nodes.scene_messages import trajectory_from_message, transforms_from_message
from mu0_sim.robots import TOOL_FRAME
from mu0_sim.tasks import lifted_cubes

_START_TIMEOUT_S = 120.0
_SILENCE_TIMEOUT_S = 60.0
_GOAL_TIMEOUT_S = 30.0
_CANCEL_TIMEOUT_S = 10.0
_REST_S = 1.0  # in which whatever was commanded ends
_SETTLE_S = 0.5  # of simulated time
_SPIN_S = 0.05
_ENDS = {
    getattr(ExecuteInstruction.Result, name): name.lower()
    for name in ("DONE", "TIMEOUT", "SAFETY", "CANCELLED", "REFUSED")
}
_NOT_READY = ("joint states", "not active")  # refusals that pass by themselves


class RolloutGraph:
    """Stand beside a simulator and a policy.

    Args:
        domain_id: Where they are; None: in the domain of the environment.
        commands: Takes what the arm is commanded.

    Attributes:
        node: For further subscriptions.
        now_s: Simulated time; None before the first one of an episode.
        success: Whether the task is done.
        figures: Latest figures of the policy in /diagnostics.
        policy_says: Its latest sentence there.
        factors: Real-time factors heard.
    """

    def __init__(self, domain_id: int | None = None, commands: CommandLog | None = None) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node("rollouts", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._reset = create_client(self.node, "sim/reset")
        self._clear = create_client(self.node, "policy/clear_fault")
        action = interface("mu0/execute")
        self._execute = ActionClient(self.node, action.message_type, action.name)
        self._goal: Any = None
        self._runs = False
        self._commands = commands
        self.now_s: float | None = None
        self.success = False
        self.figures: dict[str, float] = {}
        self.policy_says = ""
        self.factors: list[float] = []
        self._start_s = 0.0
        self._n_refused = self._n_refused_before = 0
        self._start_heights: dict[str, float] = {}
        self._lifted: set[str] = set()
        self._heard_s = time.monotonic()
        create_subscription(self.node, "/clock", self._on_clock)
        create_subscription(self.node, "sim/success", self._on_success)
        create_subscription(self.node, "sim/poses", self._on_poses)
        create_subscription(self.node, "sim/real_time_factor", self._on_factor)
        create_subscription(self.node, "/diagnostics", self._on_diagnostics)
        create_subscription(self.node, "sim/arm_motion", self._on_arm_motion)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._execute.destroy()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def lifted(self) -> tuple[str, ...]:
        """Name the cubes that have been lifted in this episode."""
        return tuple(sorted(self._lifted))

    def refused(self) -> int:
        """Return how many commands the simulated controllers have refused in this episode."""
        return self._n_refused - self._n_refused_before

    def reset(self, task: str, seed: int, simulator: Child | None = None) -> str:
        """Start an episode and return its instruction.

        Raises:
            Mu0Error: The simulator refused, or did not answer.
        """
        self._wait(self._reset.service_is_ready, simulator)
        future = self._reset.call_async(ResetSimulation.Request(task=task, seed=seed))
        self._wait(future.done, simulator)
        response = future.result()
        if not response.success:
            raise Mu0Error(f"the simulator refused seed {seed}: {response.message}")
        self.now_s, self.success = None, False
        self._start_heights, self._lifted = {}, set()
        self._n_refused_before = self._n_refused
        if self._commands is not None:
            self._commands.begin()
        self._wait(lambda: self.now_s is not None, simulator)
        self._start_s = self.now_s or 0.0
        return response.instruction

    def begin(self, instruction: str, time_limit_s: float, child: Child | None = None) -> None:
        """Have the policy accept a goal.

        Raises:
            Mu0Error: It refused, or did not answer; the message has its reason.
        """
        self._wait(self._execute.server_is_ready, child)
        self._wait(self._clear.service_is_ready, child)
        self._wait(self._clear.call_async(Trigger.Request()).done, child)
        # The policy must have seen where the reset has put the arm.
        self._wait(lambda: (self.now_s or 0.0) > self._start_s + _SETTLE_S, child)
        request = ExecuteInstruction.Goal(instruction=instruction, timeout_s=time_limit_s)
        deadline_s = time.monotonic() + _GOAL_TIMEOUT_S
        while True:
            self._runs = False
            sent = self._execute.send_goal_async(request, feedback_callback=self._on_feedback)
            self._wait(sent.done, child)
            self._goal = sent.result().get_result_async()
            self._handle = sent.result()
            self._wait(lambda: self._runs or self._goal.done(), child)
            result = self._goal.result().result if self._goal.done() else None
            if result is None or result.end_reason != ExecuteInstruction.Result.REFUSED:
                return
            refusal = result.message
            if time.monotonic() > deadline_s or not any(word in refusal for word in _NOT_READY):
                raise Mu0Error(f"the policy refused: {refusal}")

    def outcome(self) -> str:
        """Return how the policy's task ended, empty while it goes on."""
        if self._goal is None or not self._goal.done():
            return ""
        result = self._goal.result().result
        return f"{_ENDS.get(result.end_reason, result.end_reason)}: {result.message}"

    def end(self) -> None:
        """Cancel the goal if it goes on, and wait until it has ended and the arm rests."""
        if self._goal is None:
            return
        if not self._goal.done():
            self._handle.cancel_goal_async()
        deadline_s = time.monotonic() + _CANCEL_TIMEOUT_S
        rest_s = (self.now_s or 0.0) + _REST_S
        while time.monotonic() < deadline_s and not (
            self._goal.done() and (self.now_s or 0.0) > rest_s
        ):
            self.spin()
        self._goal = None

    def spin(self) -> None:
        """Take what has arrived.

        Raises:
            Mu0Error: The simulator has been silent for too long.
        """
        self._executor.spin_once(timeout_sec=_SPIN_S)
        if time.monotonic() - self._heard_s > _SILENCE_TIMEOUT_S:
            raise Mu0Error(f"no clock from the simulator for {_SILENCE_TIMEOUT_S:.0f} s")

    def _wait(self, done: Callable[[], bool], child: Child | None) -> None:
        """Spin until something is so; gives up when the process it depends on has ended."""
        name = "the graph" if child is None else child.name
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not done():
            if time.monotonic() > deadline_s or (child is not None and child.ended()):
                failure = None if child is None else child.failure()
                why = failure or f"no answer within {_START_TIMEOUT_S:.0f} s"
                raise Mu0Error(f"{name} does not run: {why}; see its log above")
            self._executor.spin_once(timeout_sec=_SPIN_S)
        self._heard_s = time.monotonic()

    def _on_clock(self, message: Clock) -> None:
        self.now_s = seconds_from_stamp(message.clock)
        self._heard_s = time.monotonic()

    def _on_success(self, message: Bool) -> None:
        self.success = message.data

    def _on_poses(self, message: TFMessage) -> None:
        stamp_s = seconds_from_stamp(message.transforms[0].header.stamp)
        if self.now_s is None or stamp_s < self._start_s:
            return  # of the episode before
        poses = transforms_from_message(message)
        heights = {name: float(T[2, 3]) for name, T in poses.items() if name != TOOL_FRAME}
        self._start_heights = self._start_heights or heights
        self._lifted |= set(lifted_cubes(self._start_heights, heights))

    def _on_factor(self, message: Float32) -> None:
        self.factors.append(message.data)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            figures = {v.key: float(v.value) for v in status.values if _number(v.value)}
            if status.name.endswith("policy"):
                self.policy_says = status.message
                self.figures |= figures  # it shows none while it shuts down
            elif "refused_trajectories" in figures:
                self._n_refused = int(figures["refused_trajectories"])

    def _on_feedback(self, message: Any) -> None:
        self._runs = True

    def _on_arm_motion(self, message: JointTrajectory) -> None:
        motion = trajectory_from_message(message)
        if (
            self._commands is not None
            and self.now_s is not None
            and motion.start_s > self._start_s
        ):
            self._commands.add(motion)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
