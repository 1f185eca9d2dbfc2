"""What the tests of the stand-ins share: the `ros2` command and a graph of their own.

The tests describe behaviour through public commands and calls, so that they also pass where the
real packages are installed.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

_PATIENCE_S = 30.0


def wait_until(predicate: Callable[[], bool], seconds: float = _PATIENCE_S) -> bool:
    """Return whether `predicate` came true in time."""
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _hear_ctrl_c() -> None:
    """Undo what shells do to programs in the background: these ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Ros2:
    """Runs `ros2` commands in one domain."""

    def __init__(self, domain_id: int) -> None:
        self._environment = os.environ | {"ROS_DOMAIN_ID": str(domain_id), "TZ": "UTC"}
        self._running: list[subprocess.Popen[str]] = []
        self.wait_until = wait_until

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command; whatever is left of it ends with the test module."""
        process = subprocess.Popen(
            ["ros2", *arguments],
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_hear_ctrl_c,
        )
        self._running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """Wait for a command's end and return its exit code and output."""
        out, err = process.communicate(timeout=_PATIENCE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def interrupt(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """Press Ctrl-C and wait for the end."""
        process.send_signal(signal.SIGINT)
        return self.finish(process)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return self.finish(self.start(*arguments))

    def run_together(self, *commands: str) -> list[subprocess.CompletedProcess[str]]:
        """Run commands at the same time; each is one string, split at spaces."""
        processes = [self.start(*command.split()) for command in commands]
        return [self.finish(process) for process in processes]

    def know(self, node: str) -> None:
        """Wait until the daemon knows a node, where there is one: its first answers are empty."""
        if self.run("daemon", "status").returncode == 0:
            assert wait_until(lambda: node in self.run("node", "list").stdout.split())

    def kill_all(self) -> None:
        """End what still runs."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture(scope="module")
def domain_id() -> int:
    """A domain for one test module."""
    return random.randint(1, 101)


@pytest.fixture(scope="module")
def ros2(domain_id: int) -> Iterator[Ros2]:
    """The `ros2` command in the module's domain."""
    if shutil.which("ros2") is None:
        pytest.skip("no ros2 command: neither ROS 2 nor compat/bin is on PATH")
    command = Ros2(domain_id)
    yield command
    command.kill_all()


@pytest.fixture(scope="module")
def ros_context(domain_id: int) -> Iterator[Context]:
    """An rclpy context in the module's domain."""
    context = Context()
    rclpy.init(args=[], context=context, domain_id=domain_id)
    yield context
    context.try_shutdown()


@pytest.fixture(scope="module")
def make_node(ros_context: Context) -> Iterator[Callable[..., Node]]:
    """Make nodes that are spun in the background: make_node(name, cls=Node, **keywords)."""
    executor = MultiThreadedExecutor(num_threads=2, context=ros_context)

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()

    def make(name: str, cls: Callable[..., Node] = Node, **keywords: object) -> Node:
        node = cls(name, context=ros_context, **keywords)
        executor.add_node(node)
        return node

    yield make
    executor.shutdown()
    ros_context.try_shutdown()
    thread.join(timeout=5.0)
