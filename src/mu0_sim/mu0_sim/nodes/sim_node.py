"""Run a simulated robot behind the topics of a real one."""

import sys
import threading
import traceback
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from std_msgs.msg import Float32
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from mu0_core.config import option, validate
from mu0_core.errors import ConfigError, Mu0Error, TrajectoryError
from mu0_core.ros.interfaces import create_publisher, create_service, create_subscription
from mu0_core.ros.lifecycle import Level, Mu0LifecycleNode, spin
from mu0_core.ros.messages import seconds_from_stamp
from mu0_msgs.msg import TraceArray
from mu0_msgs.srv import ResetSimulation
from mu0_sim.controllers import JointTrajectory as ArmMotion
from mu0_sim.nodes.scene_messages import (
    WRIST_IMAGE,
    WRIST_INFO,
    Messages,
    SceneMessages,
    poses_of,
    trajectory_from_message,
    trajectory_message,
)
from mu0_sim.pacing import Pace, StepLock
from mu0_sim.simulation import CameraFrame, Simulation, SimulationConfig
from mu0_sim.simulation_loop import SimulationLoop

_PUBLISHED = (
    "/clock",
    "/tf",
    "/tf_static",
    "robot_description",
    "joint_states",
    "camera/color/image_raw",
    "camera/color/camera_info",
    "camera/aligned_depth_to_color/image_raw",
    "camera/aligned_depth_to_color/camera_info",
    WRIST_IMAGE,
    WRIST_INFO,
    "sim/success",
    "sim/poses",
    "sim/arm_motion",
    "sim/real_time_factor",
)
_REPLY_TIMEOUT_S = 60.0
_HEALTH_PERIOD_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class SimNodeConfig(SimulationConfig):
    """Configure the simulator: scene and camera, and how time runs."""

    publish_robot_tf: bool = option(
        True, description="Publish the robot's links on /tf; false beside robot_state_publisher"
    )
    step_lock: bool = option(
        False, description="Wait after each picture for traces or an arm command with its stamp"
    )
    step_lock_timeout_s: float = option(
        5.0, description="Longest such wait, of wall clock", unit="s", low=0.0
    )
    max_real_time_factor: float = option(
        1.0, description="Simulated per wall-clock second, at most; 0 = no bound", low=0.0
    )

    def __post_init__(self) -> None:
        SimulationConfig.__post_init__(self)
        validate(self)


class SimNode(Mu0LifecycleNode[SimNodeConfig]):
    """Publish what the simulation measures, and hand it what is commanded.

    Physics, rendering and publishing of measurements happen on the loop's thread; callbacks only
    leave their input with the loop.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__("sim", SimNodeConfig, **arguments)
        self._loop: SimulationLoop | None = None
        self._thread: threading.Thread | None = None
        self._failure: str | None = None
        self._refused = 0
        self._success = False

    def setup(self) -> None:
        """Build the scene and the thread that runs it."""
        config = self.config
        simulation = Simulation(config)
        self._scene = SceneMessages(
            simulation.robot_description(), link_tf=config.publish_robot_tf
        )
        self._out = {name: create_publisher(self, name) for name in _PUBLISHED}
        pace = Pace(config.max_real_time_factor)
        lock = StepLock(enabled=config.step_lock, timeout_s=config.step_lock_timeout_s)
        self._loop = SimulationLoop(simulation, self, pace, lock)
        self._thread = threading.Thread(
            target=self._run_loop, args=(self._loop,), name="simulation"
        )
        self._thread.start()

    def start(self) -> None:
        """Take commands and requests, and let simulated time run."""
        assert self._loop is not None
        for controller in ("arm", "gripper"):
            create_subscription(
                self,
                f"{controller}_controller/joint_trajectory",
                partial(self._on_trajectory, controller),
            )
        if self.config.step_lock:
            create_subscription(self, "mu0/traces", self._on_traces)
        # A reset takes a while; it must not keep other callbacks waiting.
        group = MutuallyExclusiveCallbackGroup()
        create_service(self, "sim/reset", self._on_reset_request, callback_group=group)
        create_service(self, "sim/pause", self._on_pause_request)
        wall_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_HEALTH_PERIOD_S, self._check_health, clock=wall_clock)
        self._loop.go_on()

    def stop(self) -> None:
        """Let simulated time stand still."""
        if self._loop is not None and self._failure is None:
            self._loop.stand_still().result(_REPLY_TIMEOUT_S)

    def teardown(self) -> None:
        """End the thread, which frees the scene."""
        if self._loop is not None and self._thread is not None:
            self._loop.close()
            self._thread.join(_REPLY_TIMEOUT_S)
        self._loop = self._thread = None

    # What the loop puts out, on its thread.

    def on_reset(self, simulation: Simulation) -> None:
        """Publish what holds for the episode."""
        self._publish(self._scene.of_episode(simulation))
        self.get_logger().info(
            f"episode: task {simulation.task}, seed {simulation.seed}: {simulation.instruction}"
        )

    def on_joints(self, simulation: Simulation) -> None:
        """Publish clock, joints and links."""
        self._publish(self._scene.of_joints(simulation))

    def on_camera(self, frame: CameraFrame, simulation: Simulation) -> None:
        """Publish a picture and the score."""
        if self._out[WRIST_IMAGE].get_subscription_count():  # it costs a second picture
            self._publish(self._scene.of_wrist(simulation.render_wrist(), frame.time_s))
        success = simulation.success()
        self._publish(self._scene.of_camera(frame, success=success))
        self._publish(poses_of(simulation))
        if success != self._success:
            self._success = success
            verdict = "done" if success else "no longer done"
            self.get_logger().info(f"{verdict}: {simulation.instruction}")

    def on_real_time_factor(self, factor: float) -> None:
        """Publish how fast simulated time runs."""
        self._publish({"sim/real_time_factor": Float32(data=factor)})

    def on_command(self, controller: str, refusal: str | None) -> None:
        """Report a trajectory that was refused."""
        if refusal is None:
            text = f"{controller} controller: trajectory accepted"
            self.report(Level.OK, text, refused_trajectories=self._refused)
            return
        self._refused += 1
        text = f"{controller} controller: trajectory refused: {refusal}"
        self.get_logger().error(text)
        self.report(Level.WARN, text, refused_trajectories=self._refused)

    def on_arm_motion(self, motion: ArmMotion) -> None:
        """Publish what the arm's controller follows."""
        self._publish({"sim/arm_motion": trajectory_message(motion)})

    # Callbacks.

    def _on_trajectory(self, controller: str, message: JointTrajectory) -> None:
        assert self._loop is not None
        try:
            trajectory = trajectory_from_message(message)
        except TrajectoryError as error:
            self.on_command(controller, str(error))
            return
        self._loop.command(controller, trajectory)

    def _on_traces(self, message: TraceArray) -> None:
        assert self._loop is not None
        self._loop.answer(seconds_from_stamp(message.header.stamp))

    def _on_reset_request(
        self, request: ResetSimulation.Request, response: ResetSimulation.Response
    ) -> ResetSimulation.Response:
        assert self._loop is not None
        future = self._loop.reset(request.task or None, request.seed)
        try:
            response.instruction = future.result(_REPLY_TIMEOUT_S)
            response.success = True
        except ConfigError as error:
            response.message = str(error)
        except TimeoutError:
            response.message = f"no reply within {_REPLY_TIMEOUT_S} s: see the simulator's log"
        return response

    def _on_pause_request(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        assert self._loop is not None
        self._loop.pause(request.data)
        response.success = True
        response.message = "paused" if request.data else "running"
        return response

    def _publish(self, found: Messages) -> None:
        for name, message in found.items():
            self._out[name].publish(message)

    def _run_loop(self, loop: SimulationLoop) -> None:
        try:
            loop.run()
        except Mu0Error as error:
            self._failure = str(error)
        except Exception:
            self._failure = traceback.format_exc()

    def _check_health(self) -> None:
        """Bring a failure of the loop's thread to the thread that can end the process."""
        if self._failure is not None:
            raise Mu0Error(f"the simulation stopped: {self._failure}")


def main() -> int:
    """Run the node."""
    return spin(SimNode, threads=2)


if __name__ == "__main__":
    sys.exit(main())
