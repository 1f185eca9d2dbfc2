"""Run an action expert on a robot."""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from mu0_core.config import option, validate
from mu0_core.embodiment import Embodiment, arm_limits
from mu0_core.kinematics import DifferentialIK, RobotModel
from mu0_core.ros.lifecycle import spin
from mu0_policy.action_expert.asking import EXECUTED_SHARE, Asking
from mu0_policy.action_expert.checkpoint import load
from mu0_policy.action_expert.follower import ActingConfig, ExpertFollower
from mu0_policy.action_expert.policy import ExpertPolicy
from mu0_policy.action_expert.readiness import Timing, check_card, check_seen, not_compared
from mu0_policy.core import PolicyCore
from mu0_policy.nodes.expert_input import ExpertInput
from mu0_policy.nodes.expert_look import look
from mu0_policy.nodes.policy_config import PolicyNodeConfig
from mu0_policy.nodes.policy_node import PolicyNode
from mu0_policy.safety import SafetyConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionExpertConfig(PolicyNodeConfig):
    """Configure the expert and where its pictures come from."""

    checkpoint: str = option(description="Folder of the action expert", read_only=True)
    device: str = option("cpu", description="Where it runs: cpu, cuda ...", read_only=True)
    camera_topics: tuple[str, ...] = option(
        (),
        description="Of its cameras, NAME=TOPIC; others are NAME_camera/color/image_raw",
        read_only=True,
    )
    max_picture_age_s: float = option(
        0.25, description="How much older than the features a picture may be", unit="s", low=0.01
    )
    max_features_age_s: float = option(
        1.0, description="How old features may be when the expert is asked", unit="s", low=0.05
    )
    # An answer is good for as long as its chunk, and executed for most of it.
    safety: SafetyConfig = option(
        SafetyConfig(max_traces_age_s=2.0), description="The filter", read_only=True
    )
    seed: int = option(
        0, description="Of the noise: the same each time; -1: another", low=-1, read_only=True
    )
    executed_share: float = option(
        EXECUTED_SHARE,
        description="Share of a chunk that is executed before the next one takes over, at least",
        low=0.0,
        high=0.9,
        read_only=True,
    )
    added_delay_s: float = option(
        0.0,
        description="Artificial delay of every answer, to try what it does",
        unit="s",
        low=0.0,
        high=5.0,
        read_only=True,
    )
    acting: ActingConfig = option(
        ActingConfig(), description="When a task counts as done", read_only=True
    )

    def __post_init__(self) -> None:
        wrong = [name for name in self.camera_topics if "=" not in name]
        validate(
            self,
            None
            if self.checkpoint
            else "checkpoint: expected an action expert's folder; expert:= of the launch file",
            f"camera_topics: expected NAME=TOPIC, got {wrong[0]!r}" if wrong else None,
        )


class ActionExpertNode(PolicyNode[ActionExpertConfig]):
    """Ask the expert about the newest moment, and follow its answers."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(ActionExpertConfig, **arguments)
        self._asking: Asking | None = None

    def make_policy(self, embodiment: Embodiment, model: RobotModel) -> ExpertFollower:
        """Load the expert, compare it with the robot, and try it once."""
        config = self.config
        ik = DifferentialIK(
            model, embodiment.tool_frame, q_nominal=np.array(embodiment.arm.home_q)
        )
        loaded = load(config.checkpoint)
        self._card = card = loaded.card
        check_card(card, embodiment, arm_limits(embodiment, model), loaded.normaliser)
        self._topics = self._camera_topics()
        states, cameras = look(self, self._topics, card, embodiment, config.ready_timeout_s)
        timing = Timing(
            turns_hz=config.rate_hz,
            lead_s=config.execution.lead_s,
            max_picture_age_s=config.max_picture_age_s,
        )
        check_seen(card, states, cameras, timing)
        if unknown := not_compared(card, cameras):
            self.get_logger().warning(f"not compared with the training: {'; '.join(unknown)}")
        policy = ExpertPolicy(
            loaded,
            ik=ik,
            workspace=embodiment.workspace,
            device=config.device,
            seed=None if config.seed < 0 else config.seed,
        )
        self._asking = Asking(
            policy, executed_share=config.executed_share, delay_s=config.added_delay_s
        )
        seconds = self._asking.warm_up()
        self.get_logger().info(
            f"action expert {config.checkpoint} of {card.features}; a first answer took "
            f"{seconds:.2f} s"
        )
        self._follower = ExpertFollower(config.acting)
        return self._follower

    def make_input(self, core: PolicyCore) -> ExpertInput:
        """Subscribe to features and the expert's cameras."""
        assert self._asking is not None
        return ExpertInput(
            self,
            core,
            self._asking,
            self._follower,
            self._card,
            self._topics,
            self.config.max_features_age_s,
            self.config.max_picture_age_s,
            self._tf,
            self._embodiment.base_frame,
        )

    def _camera_topics(self) -> dict[str, str]:
        """Return the image topics of the expert's own cameras, by name."""
        given = dict(name.split("=", 1) for name in self.config.camera_topics)
        return {
            camera: given.get(camera, f"{camera}_camera/color/image_raw")
            for camera in self._card.cameras
        }

    def teardown(self) -> None:
        """Let go of the core and the expert."""
        super().teardown()
        if self._asking is not None:
            self._asking.close()
            self._asking = None


def main() -> int:
    """Run the node."""
    return spin(ActionExpertNode, threads=4)  # goal, turn, request that waits for it, the rest


if __name__ == "__main__":
    sys.exit(main())
