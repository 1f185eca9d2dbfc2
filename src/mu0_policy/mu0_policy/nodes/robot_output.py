"""Send chunks to the arm's controller, and to the gripper's what that takes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from control_msgs.action import FollowJointTrajectory, GripperCommand
from rclpy.action import ActionClient
from rclpy.lifecycle import LifecycleNode
from trajectory_msgs.msg import JointTrajectory

from mu0_core.embodiment import Embodiment, GripperInterface
from mu0_core.ros.interfaces import Qos, create_publisher
from mu0_core.ros.messages import JointPath, trajectory_message
from mu0_policy.chunk import KNOT_S, Chunk
from mu0_policy.core import PolicyCore
from mu0_policy.figures import Figures

_KNOT_NS = round(KNOT_S * 1e9)
_ACTIONS = {
    GripperInterface.FOLLOW_JOINT_TRAJECTORY: FollowJointTrajectory,
    GripperInterface.GRIPPER_COMMAND: GripperCommand,
}


def chunk_message(joint_names: tuple[str, ...], chunk: Chunk) -> JointTrajectory:
    """Make the message of a chunk: positions and velocities, stamped with its first knot."""
    path = JointPath(
        start_ns=chunk.first_knot * _KNOT_NS,
        t_s=np.arange(len(chunk.q), dtype=np.float64) * KNOT_S,
        q=chunk.q,
        qd=chunk.qd,
    )
    return trajectory_message(joint_names, path)


class RobotOutput:
    """Own the ends that lead to the controllers; in a dry run only the display is there."""

    def __init__(self, node: LifecycleNode, embodiment: Embodiment, *, dry_run: bool) -> None:
        self._embodiment = embodiment
        self._display = create_publisher(node, "policy/display_trajectory")
        self._arm = self._fingers = self._action = None
        if dry_run:
            return
        gripper = embodiment.gripper
        self._arm = self._trajectories(node, embodiment.arm.controller)
        if gripper.interface is GripperInterface.JOINT_TRAJECTORY:
            self._fingers = self._trajectories(node, gripper.controller)
        else:
            self._action = ActionClient(node, _ACTIONS[gripper.interface], gripper.controller)

    @staticmethod
    def _trajectories(node: LifecycleNode, topic: str) -> Any:
        return node.create_lifecycle_publisher(JointTrajectory, topic, Qos.RELIABLE.profile)

    def missing(self) -> str:
        """Say which controller nobody serves; empty if all are there."""
        arm, gripper = self._embodiment.arm, self._embodiment.gripper
        if self._arm is not None and not self._arm.get_subscription_count():
            return f"nobody listens on {arm.controller}: is the arm's controller active?"
        if self._fingers is not None and not self._fingers.get_subscription_count():
            return f"nobody listens on {gripper.controller}: is the gripper's controller active?"
        if self._action is not None and not self._action.server_is_ready():
            return f"no action server {gripper.controller}: is the gripper's controller active?"
        return ""

    def show(self, chunk: Chunk) -> None:
        """Publish a chunk for display only."""
        self._display.publish(chunk_message(self._embodiment.arm.joints, chunk))

    def move_arm(self, chunk: Chunk) -> None:
        """Send a chunk to the arm's controller; nothing in a dry run."""
        if self._arm is not None:
            self._arm.publish(chunk_message(self._embodiment.arm.joints, chunk))

    def move_fingers(self, closed: bool) -> None:
        """Close or open the gripper; nothing in a dry run."""
        gripper = self._embodiment.gripper
        goal = np.array(gripper.closed if closed else gripper.open)
        path = JointPath(
            start_ns=0,
            t_s=np.array([gripper.closing_s]),
            q=goal[None],
            qd=np.zeros((1, len(goal))),
        )
        if self._fingers is not None:
            self._fingers.publish(trajectory_message(gripper.joints, path))
        elif self._action is not None and gripper.interface is GripperInterface.GRIPPER_COMMAND:
            request = GripperCommand.Goal()
            request.command.position = float(goal[0])
            request.command.max_effort = gripper.max_effort
            self._action.send_goal_async(request)
        elif self._action is not None:
            message = trajectory_message(gripper.joints, path)
            self._action.send_goal_async(FollowJointTrajectory.Goal(trajectory=message))

    def destroy(self) -> None:
        """Let go of the action client; publishers are the node's to destroy."""
        if self._action is not None:
            self._action.destroy()


class Commander:
    """Send what a core has to say, when it is due, and measure how that goes.

    In a dry run chunks are shown but not sent, so each begins where the arm is.
    """

    def __init__(self, core: PolicyCore, output: RobotOutput, *, dry_run: bool) -> None:
        self._core, self._output, self._dry_run = core, output, dry_run
        self._closed: bool | None = None
        self.figures = Figures()

    def begin(self) -> None:
        """Begin a task: the first wish for the fingers is sent whatever it is."""
        self._closed = None

    def send(self, clock: Callable[[], float], image_s: float | None) -> None:
        """Send the chunk that is due and a change of the fingers.

        Args:
            clock: Gives the time, s on the ROS clock.
            image_s: Stamp of the image behind a prediction that came into this turn.
        """
        core = self._core
        chunk = core.command(clock())
        if chunk is not None:
            self._output.show(chunk)
            self._execute(chunk, clock())
            if image_s is not None and core.engaged:
                self.figures.add_latency(clock() - image_s)
        if core.engaged and core.closed is not None and core.closed != self._closed:
            self._closed = core.closed
            self._output.move_fingers(core.closed)

    def _execute(self, chunk: Chunk, now_s: float) -> None:
        if self._dry_run:
            self._core.stay_here(now_s)
            return
        made = self._core.sent(chunk, now_s)
        if made is not None:
            self._output.move_arm(chunk)
        self.figures.add_command(made, self._core.safety.command_faults(chunk))
