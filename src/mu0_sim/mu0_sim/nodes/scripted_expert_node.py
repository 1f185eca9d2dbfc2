"""Play the scripted expert over the controller topics, as a policy would.

No truth travels on topics: the node builds the same seeded scene for itself, without pictures, to
know its plan. It ends when the trajectory has ended.
"""

import sys
from dataclasses import dataclass
from typing import Any

from rclpy.clock import Clock, ClockType
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import JointState

from mu0_core.config import option, validate
from mu0_core.ros.interfaces import create_publisher, create_subscription
from mu0_core.ros.lifecycle import Mu0LifecycleNode, spin
from mu0_core.ros.messages import seconds_from_stamp
from mu0_sim.nodes.scene_messages import trajectory_message
from mu0_sim.scripted_expert import plan_lift
from mu0_sim.simulation import Simulation, SimulationConfig

_ARM_TOPIC = "arm_controller/joint_trajectory"
_GRIPPER_TOPIC = "gripper_controller/joint_trajectory"
_LEAD_S = 0.5
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedExpertConfig:
    """Name the scene that the simulator was reset to."""

    robot: str = option("panda", description="panda, ur5e or iiwa", read_only=True)
    task: str = option("lift", description="lift or lift_named", read_only=True)
    seed: int = option(0, description="Seed of the scene", low=0, read_only=True)

    def __post_init__(self) -> None:
        validate(self)
        self.scene()

    def scene(self) -> SimulationConfig:
        """Return the scene to build; raises a ConfigError where there is none like it."""
        return SimulationConfig(robot=self.robot, task=self.task, seed=self.seed)


class ScriptedExpertNode(Mu0LifecycleNode[ScriptedExpertConfig]):
    """Send one planned lift to the arm and the gripper once the simulator listens and runs."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("scripted_expert", ScriptedExpertConfig, **arguments)

    def setup(self) -> None:
        """Plan, and make the publishers."""
        self._plan = plan_lift(Simulation(self.config.scene()), seed=self.config.seed)
        self._arm = create_publisher(self, _ARM_TOPIC)
        self._gripper = create_publisher(self, _GRIPPER_TOPIC)
        self._now_s: float | None = None
        self._end_s: float | None = None
        self._joints_seen = False

    def start(self) -> None:
        """Watch clock and joints; act from a timer of the wall clock."""
        create_subscription(self, "/clock", self._on_clock)
        create_subscription(self, "joint_states", self._on_joint_states)
        wall_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_POLL_S, self._act, clock=wall_clock)

    def _on_clock(self, message: ClockMessage) -> None:
        self._now_s = seconds_from_stamp(message.clock)

    def _on_joint_states(self, message: JointState) -> None:
        self._joints_seen = True

    def _act(self) -> None:
        """Send the plan when everything is there; end when simulated time has passed its end."""
        if self._now_s is None or not self._joints_seen:
            return
        if self._end_s is None:
            if self._arm.get_subscription_count() and self._gripper.get_subscription_count():
                self._send(self._now_s + _LEAD_S)
        elif self._now_s > self._end_s:
            self.get_logger().info("the trajectory has ended")
            self.trigger_shutdown()

    def _send(self, start_s: float) -> None:
        plan = self._plan.starting_at(start_s)
        self._arm.publish(trajectory_message(plan.arm))
        self._gripper.publish(trajectory_message(plan.gripper))
        self._end_s = start_s + plan.arm.duration_s
        self.get_logger().info(
            f"sent a lift of {plan.arm.duration_s:.1f} s, grasping after {plan.grasp_s:.1f} s"
        )


def main() -> int:
    """Run the node until its trajectory has ended."""
    return spin(ScriptedExpertNode)


if __name__ == "__main__":
    sys.exit(main())
