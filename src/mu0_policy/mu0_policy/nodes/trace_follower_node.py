"""Run the trace follower on a robot."""

import sys
from dataclasses import dataclass
from typing import Any

from mu0_core.config import option, validate
from mu0_core.embodiment import Embodiment
from mu0_core.kinematics import RobotModel
from mu0_core.ros.lifecycle import spin
from mu0_policy.core import PolicyCore
from mu0_policy.nodes.policy_config import PolicyNodeConfig
from mu0_policy.nodes.policy_node import PolicyNode
from mu0_policy.nodes.trace_input import TraceInput
from mu0_policy.readiness import TracesConfig
from mu0_policy.trace_follower import TraceFollower
from mu0_policy.trace_reading import FollowerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFollowerConfig(PolicyNodeConfig):
    """Configure the policy and how it reads traces."""

    traces: TracesConfig = option(
        TracesConfig(), description="What the checkpoint's card says of them", read_only=True
    )
    follower: FollowerConfig = option(
        FollowerConfig(), description="How traces are read", read_only=True
    )

    def __post_init__(self) -> None:
        validate(self)


class TraceFollowerNode(PolicyNode[TraceFollowerConfig]):
    """Follow the traces of gripper and object."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(TraceFollowerConfig, **arguments)

    def make_policy(self, embodiment: Embodiment, model: RobotModel) -> TraceFollower:
        """Make the trace follower."""
        if doubt := self.config.traces.doubt(embodiment.name):
            self.get_logger().warning(doubt)
        return TraceFollower(self.config.follower, embodiment.gripper.closing_s)

    def make_input(self, core: PolicyCore) -> TraceInput:
        """Subscribe to traces."""
        return TraceInput(self, self._tf, core, self._embodiment.base_frame, self.config.traces)


def main() -> int:
    """Run the node."""
    return spin(TraceFollowerNode, threads=4)  # goal, turn, request that waits for it, the rest


if __name__ == "__main__":
    sys.exit(main())
