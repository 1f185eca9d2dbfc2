"""Let a policy in another process act, over topics.

The benchmark's side publishes the number of an episode and its instruction until the policy's side
repeats them: then the episode has begun. After that each observation, seven messages of one
stamp, gets one action of that stamp.
"""

import json
import time
from collections.abc import Callable

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from mu0_core.benchmark import PolicySettings
from mu0_core.errors import Mu0Error
from mu0_core.ros.interfaces import Qos
from mu0_core.ros.messages import ns_from_stamp
from mu0_sim.libero.drivers import ToolCommands
from mu0_sim.libero.environment import LiberoEnvironment
from mu0_sim.nodes.child import Child
from mu0_sim.nodes.libero_messages import (
    ACTION,
    OBSERVATION,
    action_from_message,
    observation_messages,
)
from mu0_sim.rollout_processes import Process

INSTRUCTION, ACCEPTED = "libero/instruction", "libero/accepted"
"""Topics that begin an episode."""

_START_TIMEOUT_S = 300.0  # a policy may have a large checkpoint to load
_ANSWER_TIMEOUT_S = 120.0
_REPEAT_S = 0.5
_SPIN_S = 0.02


def policy_process(policy: str, settings: PolicySettings) -> Process:
    """Describe the process that runs a policy as a node."""
    values = {
        "policy": policy,
        "checkpoint": str(settings.checkpoint or ""),
        "world_model": settings.world_model,
    }
    words = [w for name, value in values.items() for w in ("-p", f"{name}:={json.dumps(value)}")]
    module = "mu0_sim.nodes.libero_policy_node"
    return Process(name=module, words=("-m", module, "--ros-args", *words), python=True)


class RosDriver:
    """Let a policy in another process act, over topics; a `mu0_sim.libero.drivers.Driver`.

    Args:
        policy: Name of the policy.
        settings: What it is made from.
        domain_id: ROS domain of both processes.
    """

    def __init__(self, policy: str, settings: PolicySettings, *, domain_id: int) -> None:
        self._arm = ToolCommands()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node("libero", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        reliable = Qos.RELIABLE.profile
        self._publishers = {
            topic: self._node.create_publisher(kind, topic, reliable)
            for topic, kind in OBSERVATION.items()
        }
        self._instructions = self._node.create_publisher(String, INSTRUCTION, reliable)
        self._episode, self._accepted, self._answer = 0, "", JointTrajectory()
        self._node.create_subscription(String, ACCEPTED, self._on_accepted, reliable)
        self._node.create_subscription(JointTrajectory, ACTION, self._on_action, reliable)
        self._child = Child(policy_process(policy, settings), domain_id)

    def begin(self, environment: LiberoEnvironment, seed: int) -> None:
        """Send the instruction until the policy has repeated it.

        Raises:
            Mu0Error: It does not, or its process has ended.
        """
        self._episode += 1
        begin = f"{self._episode} {environment.task.instruction}"
        self._answer = JointTrajectory()

        def is_there() -> bool:
            return self._accepted == begin

        def ask() -> None:
            self._instructions.publish(String(data=begin))

        self._wait(is_there, _START_TIMEOUT_S, "did not take the instruction", ask)

    def action(self, environment: LiberoEnvironment) -> NDArray[np.float64]:
        """Publish what is seen now and wait for the answer to it.

        Raises:
            Mu0Error: None comes.
        """
        seen, stamp_ns = environment.observe(), environment.stamp_ns
        for topic, message in observation_messages(seen, environment.finger_m, stamp_ns).items():
            self._publishers[topic].publish(message)

        def is_there() -> bool:
            answer = self._answer
            return bool(answer.points) and ns_from_stamp(answer.header.stamp) == stamp_ns

        self._wait(is_there, _ANSWER_TIMEOUT_S, "did not answer an observation")
        answer, kind = action_from_message(self._answer)
        self._answer = JointTrajectory()
        return self._arm.libero_action(answer, kind, seen.q)

    def note(self) -> str:
        """Return nothing."""
        return ""

    def close(self) -> None:
        """End the policy's process and leave the graph."""
        self._child.__exit__(None, None, None)
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _wait(
        self,
        is_there: Callable[[], bool],
        timeout_s: float,
        failure: str,
        again: Callable[[], None] | None = None,
    ) -> None:
        started_s, asked_s = time.monotonic(), float("-inf")
        while not is_there():
            now_s = time.monotonic()
            if again is not None and now_s - asked_s > _REPEAT_S:
                again()
                asked_s = now_s
            self._executor.spin_once(_SPIN_S)
            if self._child.ended():
                raise Mu0Error("the policy's process has ended; its messages above say why")
            if now_s - started_s > timeout_s:
                raise Mu0Error(f"the policy's process {failure} for {timeout_s:g} s")

    def _on_accepted(self, message: String) -> None:
        self._accepted = message.data

    def _on_action(self, message: JointTrajectory) -> None:
        self._answer = message
