"""Own what every node of the project has: transitions, diagnostics, parameters and `main`.

A node derives from `Mu0LifecycleNode`, fills these hooks and never overrides a transition:

    setup      build the core object, make publishers          configure
    start      subscribe, start timers                         activate
    stop       take no more work, end what runs                deactivate, shutdown, error
    make_safe  command the robot to rest; publishers still work  after stop, even if stop failed
    teardown   let go of what setup made, works on half of it  cleanup, shutdown, error

Publishers, subscriptions, timers, services and clients that `setup` or `start` made are destroyed
by the base class; action servers and threads are the node's to end.
"""

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.lifecycle import (
    LifecycleNode,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.signals import SignalHandlerOptions

from mu0_core.config import option, validate
from mu0_core.errors import Mu0Error
from mu0_core.ros.executor import WatchedExecutor
from mu0_core.ros.interfaces import interface
from mu0_core.ros.params import Parameters, refuse_unknown
from mu0_core.ros.reporting import Level, Status, Throttle

C = TypeVar("C")
DIAGNOSTICS_PERIOD_S = 1.0
WARNING_PERIOD_S = 5.0
SIGNAL_POLL_S = 0.1
# Threads of a node wait for each other at every turn of the interpreter's lock: at Python's 5 ms a
# control turn, which gives it back hundreds of times, took a second beside one busy thread.
SWITCH_INTERVAL_S = 5e-4
ACKNOWLEDGE_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleConfig:
    """Configure what every node has."""

    autostart: bool = option(
        True,
        description="Configure and activate the node when its process starts",
        read_only=True,
    )

    def __post_init__(self) -> None:
        validate(self)


class Mu0LifecycleNode(LifecycleNode, Generic[C]):
    """Run the hooks of a node in the right order, log what they raise and report how it goes.

    Args:
        name: Default name of the node.
        config: Its configuration class, or an instance with other defaults.
        arguments: For rclpy's node: context, namespace, parameter_overrides...

    Raises:
        ConfigError: The parameters given to the node are unknown or wrong.
    """

    def __init__(self, name: str, config: type[C] | C, **arguments: Any) -> None:
        super().__init__(name, automatically_declare_parameters_from_overrides=True, **arguments)
        self._throttle = Throttle(WARNING_PERIOD_S)
        self._status = Status("unconfigured")
        self._is_set_up = self._is_started = False
        self._made_by_setup: set[Any] = set()
        self._made_by_start: set[Any] = set()
        try:
            self._parameters_of_base: Parameters[LifecycleConfig] = Parameters(
                self, LifecycleConfig
            )
            self._parameters_of_node: Parameters[C] = Parameters(self, config)
            known = (*self._parameters_of_base.names, *self._parameters_of_node.names)
            refuse_unknown(self, known)
        except Mu0Error:
            self.destroy_node()
            raise
        row = interface("/diagnostics")
        self._diagnostics = self.create_publisher(row.message_type, row.name, row.qos.profile)
        # A paused simulation must not silence the node, so this timer ignores simulated time.
        wall_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=wall_clock)

    # What a node fills.

    def setup(self) -> None:
        """Build the core object and make publishers, from `self.config`."""

    def start(self) -> None:
        """Subscribe and start timers; publishers already publish."""

    def stop(self) -> None:
        """Take no more work and end what runs."""

    def make_safe(self) -> None:
        """Leave the robot at rest; publishers still publish."""

    def teardown(self) -> None:
        """Let go of what `setup` made, also if it failed halfway."""

    # What a node uses.

    @property
    def config(self) -> C:
        """The configuration as the parameters say now."""
        return self._parameters_of_node.value

    @property
    def autostart(self) -> bool:
        """Whether `spin` configures and activates the node."""
        return self._parameters_of_base.value.autostart

    @property
    def state(self) -> str:
        """The lifecycle state: unconfigured, inactive, active or finalized."""
        return self._state_machine.current_state[1]

    def report(self, level: Level, message: str, **figures: object) -> None:
        """Set what /diagnostics says from now on.

        Args:
            level: How the node is.
            message: One sentence.
            figures: Values to show, the unit in the name; earlier ones of other names stay.
        """
        self._status = self._status.updated(level, message, figures)

    def warn_throttled(self, key: str, message: str) -> None:
        """Warn now, and of repeats only every 5 s of wall clock with their number.

        Args:
            key: What makes two warnings the same.
            message: The text, which may differ from time to time.
        """
        held = self._throttle.admit(key, time.monotonic())
        if held is not None:
            self.get_logger().warning(f"{message} (and {held} more)" if held else message)

    # Transitions, as rclpy calls them.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `setup`."""
        before = self._entities()
        self._is_set_up = True
        done = self._run(self.setup)
        self._made_by_setup = self._entities() - before
        return self._finish(done, "inactive")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let publishers publish, then run `start`."""
        super().on_activate(state)
        before = self._entities()
        self._is_started = True
        done = self._run(self.start)
        self._made_by_start = self._entities() - before
        return self._finish(done, "active")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `stop` and `make_safe`, then mute the publishers."""
        return self._finish(self._come_to_rest(state), "inactive")

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `teardown`."""
        return self._finish(self._release(state), "unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Come to rest if active, then run `teardown`."""
        return self._finish(self._release(state), "finalized")

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clear up after a hook that failed, so that the node can be configured again."""
        self._release(state)
        return TransitionCallbackReturn.SUCCESS

    # How.

    def _finish(self, done: bool, reached: str) -> TransitionCallbackReturn:
        if not done:
            return TransitionCallbackReturn.ERROR
        self.report(Level.OK, reached)
        self.get_logger().info(reached)
        return TransitionCallbackReturn.SUCCESS

    def _run(self, hook: Callable[[], None]) -> bool:
        """Call a hook and log what it raises, which rclpy would swallow."""
        try:
            hook()
        except Exception as error:
            known = isinstance(error, Mu0Error)
            detail = str(error) if known else traceback.format_exc()
            self.get_logger().error(f"{hook.__name__} failed: {detail}")
            self.report(Level.ERROR, f"{hook.__name__} failed: {error}")
            return False
        return True

    def _come_to_rest(self, state: LifecycleState) -> bool:
        """Stop, make the robot safe even if stopping failed, and only then mute publishers."""
        self._is_started = False
        stopped = self._run(self.stop)
        safe = self._run(self.make_safe)
        for publisher in self.publishers:
            publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_TIMEOUT_S))
        super().on_deactivate(state)
        self._destroy(self._made_by_start)
        return stopped and safe

    def _release(self, state: LifecycleState) -> bool:
        """Undo whatever of `start` and `setup` has run, each once."""
        at_rest = not self._is_started or self._come_to_rest(state)
        if not self._is_set_up:
            return at_rest
        self._is_set_up = False
        released = self._run(self.teardown)
        self._destroy(self._made_by_setup)
        return at_rest and released

    def _entities(self) -> set[Any]:
        return {
            *self.publishers,
            *self.subscriptions,
            *self.timers,
            *self.services,
            *self.clients,
        }

    def _destroy(self, entities: set[Any]) -> None:
        """Destroy entities that the node did not destroy itself."""
        for entity in entities & self._entities():
            if isinstance(entity, LifecyclePublisher):
                self.destroy_lifecycle_publisher(entity)
            else:
                _ = (
                    self.destroy_publisher(entity)
                    or self.destroy_subscription(entity)
                    or self.destroy_timer(entity)
                    or self.destroy_service(entity)
                    or self.destroy_client(entity)
                )
        entities.clear()

    def _publish_diagnostics(self) -> None:
        status = self._status.message(self.get_fully_qualified_name())
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def spin(make_node: Callable[[], Mu0LifecycleNode[Any]], *, threads: int = 1) -> int:
    """Run a node until a signal or the end of its life, and leave the robot at rest.

    SIGINT and SIGTERM shut the lifecycle down, with all its hooks; a second one kills.

    Args:
        make_node: Makes the node, such as its class.
        threads: Number of threads that run callbacks.

    Returns:
        Exit code: 0 after a clean end, 1 after a failure while starting or running, 2 for wrong
        parameters.
    """
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()
        signal.signal(number, signal.SIG_DFL)

    # rclpy's own handlers would end the context before make_safe could publish.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        node = make_node()
    except Mu0Error as error:
        rclpy.logging.get_logger("mu0").fatal(str(error))
        rclpy.shutdown()
        return 2
    executor = WatchedExecutor(threads) if threads > 1 else SingleThreadedExecutor()
    executor.add_node(node)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        return 0 if _live(node, executor, stopping) else 1
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()


def _live(node: Mu0LifecycleNode[Any], executor: Executor, stopping: threading.Event) -> bool:
    """Start the node, run it until it has to end, and shut it down; False after a failure."""
    try:
        success = not node.autostart or _start(node, stopping)
        while success and not stopping.is_set() and node.state != "finalized":
            executor.spin_once(timeout_sec=SIGNAL_POLL_S)
    except Exception:
        node.get_logger().fatal(f"a callback failed: {traceback.format_exc()}")
        success = False
    if node.state != "finalized":
        node.trigger_shutdown()
    return success and node.state == "finalized"


def _start(node: Mu0LifecycleNode[Any], stopping: threading.Event) -> bool:
    """Configure and activate, unless a signal comes in between; False after a failure."""
    for trigger, reached in (
        (node.trigger_configure, "inactive"),
        (node.trigger_activate, "active"),
    ):
        if stopping.is_set():
            break
        trigger()
        if node.state != reached:
            return False
    return True
