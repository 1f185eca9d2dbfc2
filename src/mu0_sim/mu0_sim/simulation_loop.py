"""Run a simulation for others to watch and command: schedule, pace, step-lock, requests.

`SimulationLoop.run` owns one thread, on which all physics, rendering and outputs happen. Any other
thread may leave requests in its inbox; they are served between two moments of simulated time.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from mu0_core.errors import Mu0Error, TrajectoryError
from mu0_sim.controllers import JointTrajectory
from mu0_sim.pacing import Pace, StepLock
from mu0_sim.robot_control import JOINT_STATE_RATE_HZ, Observer, RobotControl, Tick, run
from mu0_sim.simulation import Simulation

T = TypeVar("T")


class Outputs(Observer, Protocol):
    """Take what the loop produces, on the loop's thread."""

    def on_real_time_factor(self, factor: float) -> None:
        """Tell how fast simulated time ran lately."""

    def on_command(self, controller: str, refusal: str | None) -> None:
        """Tell that a trajectory came, and why it was refused if it was."""

    def on_arm_motion(self, motion: JointTrajectory) -> None:
        """Tell what the arm's controller follows from now on."""


class SimulationLoop:
    """Step one simulation in a thread of its own; simulated time stands still until `go_on`."""

    def __init__(
        self, simulation: Simulation, outputs: Outputs, pace: Pace, step_lock: StepLock
    ) -> None:
        self._simulation = simulation
        self._outputs = outputs
        self._pace = pace
        self._step_lock = step_lock
        self._control = RobotControl(simulation.robot, simulation.home_command())
        self._controllers = {"arm": self._control.arm, "gripper": self._control.gripper}
        self._ticks = run(simulation, self._control)
        self._inbox: deque[Callable[[], None]] = deque()
        self._arrival = threading.Condition()
        self._active = False
        self._paused = False
        self._closed = False

    # For other threads.

    def go_on(self) -> None:
        """Let simulated time run, unless it is paused."""
        self._post(self._begin)

    def stand_still(self) -> Future[None]:
        """Hold simulated time until `go_on`; nothing is output once the future is done."""
        return self._request(lambda: setattr(self, "_active", False))

    def pause(self, paused: bool) -> None:
        """Hold simulated time, or let it go on."""
        self._post(lambda: setattr(self, "_paused", paused))

    def close(self) -> None:
        """Make `run` free the simulation and return."""
        self._post(lambda: setattr(self, "_closed", True))

    def reset(self, task: str | None, seed: int | None) -> Future[str]:
        """Start a new episode; the future holds its instruction, or why there is none."""
        return self._request(lambda: self._restart(task, seed))

    def command(self, controller: str, trajectory: JointTrajectory) -> None:
        """Send a trajectory to the controller named "arm" or "gripper"."""
        self._post(lambda: self._command(controller, trajectory))

    def answer(self, stamp_s: float) -> None:
        """Tell that traces of the picture of that simulated time have come."""
        self._post(lambda: self._step_lock.answer(stamp_s, traces=True))

    # For the thread of the simulation.

    def run(self) -> None:
        """Run until `close`; call it from the thread that shall render."""
        try:
            while not self._closed:
                if self._holds():
                    self._serve(None)
                    self._pace.restart()
                else:
                    self._tick(next(self._ticks))
                    self._serve(0.0)
        finally:
            self._simulation.close()

    def _holds(self) -> bool:
        return self._closed or self._paused or not self._active

    def _tick(self, tick: Tick) -> None:
        ticks = self._ticks
        if tick.joints:
            self._outputs.on_joints(self._simulation)
        if tick.camera:
            self._outputs.on_camera(self._simulation.render(), self._simulation)
            self._step_lock.ask(tick.time_s)
        while self._ticks is ticks and not self._holds():
            wait_s = max(self._step_lock.left_s(), self._pace.ahead_s(tick.time_s))
            if wait_s <= 0.0:
                break
            self._serve(wait_s)
        if (factor := self._pace.new_factor(tick.time_s)) is not None:
            self._outputs.on_real_time_factor(factor)

    def _begin(self) -> None:
        self._active = True
        self._outputs.on_reset(self._simulation)

    def _restart(self, task: str | None, seed: int | None) -> str:
        instruction = self._simulation.reset(task, seed)
        self._control.hold(self._simulation.home_command())
        # So that no two pictures have the same stamp.
        self._simulation.advance(1.0 / JOINT_STATE_RATE_HZ, self._control.command_at)
        self._ticks = run(self._simulation, self._control)
        self._step_lock.release()
        self._pace.restart()
        self._outputs.on_reset(self._simulation)
        return instruction

    def _command(self, controller: str, trajectory: JointTrajectory) -> None:
        try:
            self._controllers[controller].accept(trajectory, self._simulation.time_s)
        except TrajectoryError as error:
            self._outputs.on_command(controller, str(error))
            return
        self._outputs.on_command(controller, None)
        if controller == "arm":
            self._outputs.on_arm_motion(self._control.arm.followed(self._simulation.time_s))
            self._step_lock.answer(trajectory.start_s, traces=False)

    def _post(self, action: Callable[[], None]) -> None:
        with self._arrival:
            self._inbox.append(action)
            self._arrival.notify()

    def _request(self, action: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def answer() -> None:
            try:
                future.set_result(action())
            except Mu0Error as error:
                future.set_exception(error)

        self._post(answer)
        return future

    def _serve(self, timeout_s: float | None) -> None:
        """Serve the requests that are there; wait for the first one at most this long."""
        with self._arrival:
            if not self._inbox and timeout_s != 0.0:
                self._arrival.wait(timeout_s)
        while self._inbox:
            self._inbox.popleft()()
