"""The life of a node: order of the hooks, failures, diagnostics, signals and exit codes."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_msgs.msg import String

from mu0_core.config import option, validate
from mu0_core.errors import CalibrationError, ConfigError
from mu0_core.ros.inbox import Latest
from mu0_core.ros.lifecycle import Level, Mu0LifecycleNode
from mu0_core.ros.reporting import Throttle

pytestmark = pytest.mark.ros
DOMAIN = 10 + os.getpid() % 90
_names = (f"life_{os.getpid()}_{i}" for i in itertools.count())


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    rate_hz: float = option(10.0, description="Rate", unit="Hz", low=1.0)

    def __post_init__(self) -> None:
        validate(self)


class Robot(Mu0LifecycleNode[Config]):
    """Note which hooks ran; `wrong` maps a hook to what it raises."""

    def __init__(self, **arguments) -> None:
        super().__init__(next(_names), Config, **arguments)
        self.ran: list[str] = []
        self.wrong: dict[str, Exception] = {}

    def setup(self) -> None:
        self.command = self.create_lifecycle_publisher(String, "command", 1)
        self._note("setup")

    def start(self) -> None:
        self.create_subscription(String, "input", lambda message: None, 1)
        self.create_timer(10.0, lambda: None)
        self._note("start")

    def stop(self) -> None:
        self._note("stop")

    def make_safe(self) -> None:
        self._note("make_safe publishing" if self.command.is_activated else "make_safe mute")

    def teardown(self) -> None:
        self._note("teardown")

    def _note(self, hook: str) -> None:
        self.ran.append(hook)
        if hook.split()[0] in self.wrong:
            raise self.wrong[hook.split()[0]]


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    yield context
    context.try_shutdown()


@pytest.fixture
def robot(context: Context) -> Iterator[Robot]:
    robot = Robot(context=context)
    yield robot
    robot.destroy_node()


def entities(node: Mu0LifecycleNode) -> list[int]:
    return [len(list(kind)) for kind in (node.publishers, node.subscriptions, node.timers)]


def test_hooks_run_in_order(robot: Robot) -> None:
    assert robot.state == "unconfigured"
    robot.trigger_configure()
    assert robot.state == "inactive"
    robot.trigger_activate()
    assert (robot.state, robot.command.is_activated) == ("active", True)
    robot.trigger_deactivate()
    assert (robot.state, robot.command.is_activated) == ("inactive", False)
    robot.trigger_cleanup()
    assert robot.state == "unconfigured"
    assert robot.ran == ["setup", "start", "stop", "make_safe publishing", "teardown"]


def test_what_hooks_made_is_destroyed(robot: Robot) -> None:
    bare = entities(robot)
    robot.trigger_configure()
    configured = entities(robot)
    assert configured == [bare[0] + 1, *bare[1:]]
    robot.trigger_activate()
    assert entities(robot) == [configured[0], configured[1] + 1, configured[2] + 1]
    robot.trigger_deactivate()
    assert entities(robot) == configured
    robot.trigger_cleanup()
    assert entities(robot) == bare


def test_shutdown_makes_an_active_robot_safe(robot: Robot) -> None:
    robot.trigger_configure()
    robot.trigger_activate()
    robot.trigger_shutdown()
    assert robot.state == "finalized"
    assert robot.ran[2:] == ["stop", "make_safe publishing", "teardown"]


def test_shutdown_of_an_unconfigured_node_runs_no_hook(robot: Robot) -> None:
    robot.trigger_shutdown()
    assert (robot.state, robot.ran) == ("finalized", [])


@pytest.mark.parametrize(
    ("hook", "ran"),
    [
        ("setup", ["setup", "teardown"]),
        ("start", ["setup", "start", "stop", "make_safe publishing", "teardown"]),
        ("stop", ["setup", "start", "stop", "make_safe publishing", "teardown"]),
        ("make_safe", ["setup", "start", "stop", "make_safe publishing", "teardown"]),
    ],
)
def test_after_a_failure_everything_is_undone_once(
    robot: Robot, hook: str, ran: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    bare = entities(robot)
    robot.wrong[hook] = RuntimeError("the cable is out")
    robot.trigger_configure()
    if robot.state == "inactive":
        robot.trigger_activate()
    if robot.state == "active":
        robot.trigger_deactivate()
    assert (robot.state, robot.ran) == ("unconfigured", ran)
    assert entities(robot) == bare
    log = capfd.readouterr().err
    assert f"{hook} failed: Traceback" in log
    assert "RuntimeError: the cable is out" in log
    robot.wrong.clear()
    robot.trigger_configure()
    assert robot.state == "inactive"


def test_what_a_user_can_fix_is_logged_without_traceback(
    robot: Robot, capfd: pytest.CaptureFixture[str]
) -> None:
    robot.wrong["setup"] = CalibrationError("fx: expected above 0 px, got 0 px")
    robot.trigger_configure()
    log = capfd.readouterr().err
    assert "setup failed: fx: expected above 0 px, got 0 px" in log
    assert "Traceback" not in log


def test_parameters_reach_the_configuration(context: Context) -> None:
    robot = Robot(context=context, parameter_overrides=[Parameter("rate_hz", value=20)])
    assert (robot.config, robot.autostart) == (Config(rate_hz=20.0), True)
    robot.set_parameters([Parameter("rate_hz", value=30.0)])
    assert robot.config == Config(rate_hz=30.0)
    robot.destroy_node()


def test_unknown_parameters_stop_the_node(context: Context) -> None:
    with pytest.raises(ConfigError, match=r"unknown parameter 'rate'.*did you mean 'rate_hz'\?"):
        Robot(context=context, parameter_overrides=[Parameter("rate", value=20)])


def spin_until(executor: SingleThreadedExecutor, done: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not done() and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)
    return done()


def test_diagnostics_say_how_it_goes(context: Context, robot: Robot) -> None:
    listener = rclpy.create_node(next(_names), context=context)
    heard: list[DiagnosticArray] = []
    listener.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(robot)
    executor.add_node(listener)

    def status() -> DiagnosticStatus | None:
        mine = (s for message in heard for s in message.status if robot.get_name() in s.name)
        return next(mine, None)

    robot.report(Level.WARN, "pictures are late", delay_s=0.25)
    robot.report(Level.WARN, "pictures are late", dropped=3)
    assert spin_until(executor, lambda: status() is not None, 10.0)
    found = status()
    assert (found.level, found.message) == (DiagnosticStatus.WARN, "pictures are late")
    assert found.name == robot.get_fully_qualified_name()
    assert {item.key: item.value for item in found.values} == {"delay_s": "0.25", "dropped": "3"}
    assert heard[0].header.stamp.sec > 0
    executor.shutdown()
    listener.destroy_node()


def test_repeated_warnings_are_held_back(robot: Robot, capfd: pytest.CaptureFixture[str]) -> None:
    for i in range(5):
        robot.warn_throttled("late", f"picture {i} is late")
    robot.warn_throttled("dark", "the picture is dark")
    log = capfd.readouterr().err
    assert "picture 0 is late" in log
    assert "picture 1 is late" not in log
    assert "the picture is dark" in log


def test_throttle_counts_what_it_holds_back() -> None:
    throttle = Throttle(5.0)
    assert throttle.admit("a", 10.0) == 0
    assert throttle.admit("a", 11.0) is None
    assert throttle.admit("b", 11.0) == 0
    assert throttle.admit("a", 14.9) is None
    assert throttle.admit("a", 15.0) == 2
    assert throttle.admit("a", 20.0) == 0


# The inbox.


def test_the_newest_item_wins() -> None:
    inbox: Latest[int] = Latest()
    assert inbox.take() is None
    for item in (1, 2, 3):
        inbox.put(item)
    assert (inbox.take(), inbox.take(), inbox.dropped) == (3, None, 2)


def test_a_worker_waits_for_an_item() -> None:
    inbox: Latest[str] = Latest()
    threading.Timer(0.05, inbox.put, ["picture"]).start()
    assert inbox.take(timeout_s=10.0) == "picture"
    assert inbox.take(timeout_s=0.01) is None


# `spin`, in a process of its own.

PROGRAM = """
import sys
from dataclasses import dataclass
from mu0_core.config import option, validate
from mu0_core.errors import CalibrationError
from mu0_core.ros.lifecycle import Mu0LifecycleNode, spin
from std_msgs.msg import String

@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    fail: str = option("", description="What fails")
    def __post_init__(self) -> None:
        validate(self)

class Robot(Mu0LifecycleNode[Config]):
    def __init__(self):
        super().__init__("robot", Config)
    def setup(self):
        if self.config.fail == "setup":
            raise CalibrationError("no calibration")
        self.command = self.create_lifecycle_publisher(String, "command", 1)
    def start(self):
        self.create_timer(0.05, self.tick)
        print("started", flush=True)
    def tick(self):
        if self.config.fail == "tick":
            raise RuntimeError("boom")
    def make_safe(self):
        print("safe", self.command.is_activated, self.context.ok(), flush=True)

sys.exit(spin(Robot, threads=THREADS))
"""


def run_program(tmp_path: Path, *parameters: str, threads: int = 1) -> subprocess.Popen:
    path = tmp_path / "robot.py"
    path.write_text(PROGRAM.replace("THREADS", str(threads)))
    arguments = [word for parameter in parameters for word in ("-p", parameter)]
    return subprocess.Popen(
        [sys.executable, str(path), "--ros-args", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_signal_leaves_the_robot_safe(tmp_path: Path, number: int, threads: int) -> None:
    process = run_program(tmp_path, threads=threads)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(number)
    output, log = process.communicate(timeout=20)
    assert output == "safe True True\n"
    assert (process.returncode, "Traceback" in log) == (0, False)


@pytest.mark.parametrize(
    ("parameter", "code", "output", "text"),
    [
        ("fail:=setup", 1, "", "setup failed: no calibration"),
        ("fail:=tick", 1, "started\nsafe True True\n", "RuntimeError: boom"),
        ("fial:=tick", 2, "", "unknown parameter 'fial'"),
        ("autostart:=3", 2, "", "autostart: expected true or false, got 3"),
    ],
)
def test_failures_have_an_exit_code(
    tmp_path: Path, parameter: str, code: int, output: str, text: str
) -> None:
    process = run_program(tmp_path, parameter)
    found, log = process.communicate(timeout=20)
    assert (process.returncode, found) == (code, output)
    assert text in log


def test_without_autostart_the_node_waits(tmp_path: Path, context: Context) -> None:
    from lifecycle_msgs.srv import ChangeState, GetState

    process = run_program(tmp_path, "autostart:=false")
    caller = rclpy.create_node(next(_names), context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(caller)

    def answer(kind: type, name: str, request: object):
        client = caller.create_client(kind, f"/robot/{name}")
        assert spin_until(executor, client.service_is_ready, 20.0)
        future = client.call_async(request)
        assert spin_until(executor, future.done, 20.0)
        return future.result()

    try:
        state = answer(GetState, "get_state", GetState.Request()).current_state
        assert state.label == "unconfigured"
        request = ChangeState.Request()
        request.transition.label = "shutdown"
        assert answer(ChangeState, "change_state", request).success
        assert process.communicate(timeout=20)[0] == ""
        assert process.returncode == 0
    finally:
        process.kill()
        executor.shutdown()
        caller.destroy_node()
