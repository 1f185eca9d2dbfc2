"""Run a policy of a benchmark as a node: observations come in as topics, actions go out."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from mu0_core.benchmark import PolicySettings, load_policy
from mu0_core.config import option, validate
from mu0_core.ros.interfaces import Qos
from mu0_core.ros.lifecycle import Level, Mu0LifecycleNode, spin
from mu0_core.ros.messages import ns_from_stamp
from mu0_sim.libero.drivers import policy_settings
from mu0_sim.nodes.libero_link import ACCEPTED, INSTRUCTION
from mu0_sim.nodes.libero_messages import ACTION, OBSERVATION, ObservationInbox, action_message


@dataclass(frozen=True, slots=True, kw_only=True)
class LiberoPolicyConfig:
    """Choose the policy."""

    policy: str = option(description="action_expert, or module:factory", read_only=True)
    checkpoint: str = option("", description="Its folder", read_only=True)
    world_model: str = option("", description="That it reads", read_only=True)

    def __post_init__(self) -> None:
        validate(self)

    def settings(self) -> PolicySettings:
        """Return what the policy is made from."""
        checkpoint = Path(self.checkpoint) if self.checkpoint else None
        return policy_settings(checkpoint, self.world_model)


class LiberoPolicyNode(Mu0LifecycleNode[LiberoPolicyConfig]):
    """Answer each observation with one action."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("libero_policy", LiberoPolicyConfig, **arguments)

    def setup(self) -> None:
        """Load the policy."""
        self._policy = load_policy(self.config.policy, self.config.settings())
        reliable = Qos.RELIABLE.profile
        self._accepted = self.create_lifecycle_publisher(String, ACCEPTED, reliable)
        self._actions = self.create_lifecycle_publisher(JointTrajectory, ACTION, reliable)
        self._inbox, self._begun = ObservationInbox(), ""

    def start(self) -> None:
        """Take instructions and observations."""
        reliable = Qos.RELIABLE.profile
        self.create_subscription(String, INSTRUCTION, self._on_instruction, reliable)
        for topic, kind in OBSERVATION.items():
            self.create_subscription(kind, topic, partial(self._on_part, topic), reliable)

    def _on_instruction(self, message: String) -> None:
        """Begin an episode, once, however often it is announced."""
        if message.data != self._begun:
            _, instruction = message.data.split(" ", 1)
            self._policy.reset(instruction)
            self._begun = message.data
        self._accepted.publish(String(data=message.data))

    def _on_part(self, topic: str, message: Any) -> None:
        observation = self._inbox.put(topic, message)
        if observation is None or not self._begun:
            return
        answer = self._policy.act(observation)
        stamp_ns = ns_from_stamp(message.header.stamp)
        self._actions.publish(action_message(answer, self._policy.action_kind, stamp_ns))
        self.report(Level.OK, "acting", time_s=observation.time_s)


def main() -> int:
    """Run the node."""
    return spin(LiberoPolicyNode)


if __name__ == "__main__":
    sys.exit(main())
