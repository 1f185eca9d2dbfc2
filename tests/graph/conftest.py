"""A running simulator and a node that watches it."""

import os
import signal
import subprocess
import tempfile
import time

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter


class Watcher:
    """A node of the test's own context, with waiting that ends."""

    def __init__(self, domain_id):
        self.context = rclpy.Context()
        self.context.init(domain_id=domain_id)
        self.node = rclpy.create_node(
            "watcher",
            context=self.context,
            parameter_overrides=[Parameter("use_sim_time", value=True)],
        )
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def spin_until(self, predicate, timeout_s=60.0):
        """Spin until the predicate is true; fail the test after the time-out."""
        deadline = time.monotonic() + timeout_s
        while not predicate():
            assert time.monotonic() < deadline, "waited in vain"
            self._executor.spin_once(timeout_sec=0.1)

    def knows(self, *nodes, namespace="/"):
        """Say whether nodes are known by name, which comes after their topics."""
        return {(name, namespace) for name in nodes} <= set(
            self.node.get_node_names_and_namespaces()
        )

    def close(self):
        """End the node and its context."""
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.shutdown()


class Launched:
    """A launch file in a process group of its own."""

    def __init__(self, domain_id, *arguments):
        self.domain_id = domain_id
        # A file, not a pipe: nobody reads while the nodes run, and a full pipe would stop them.
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            ["ros2", "launch", "mu0_bringup", *arguments],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain_id)},
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def stop(self):
        """Press Ctrl-C; return what was printed."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        self._said.seek(0)
        return self._said.read()


_domains = iter(range(30 + os.getpid() % 60, 101))


@pytest.fixture(scope="module")
def launch_sim():
    """Return a function that starts sim.launch.py and watches it; all end with the module."""
    started = []

    def launch(*arguments):
        domain_id = next(_domains)
        launched = Launched(domain_id, "sim.launch.py", *arguments)
        watcher = Watcher(domain_id)
        started.append((launched, watcher))
        return launched, watcher

    yield launch
    for launched, watcher in started:
        watcher.close()
        launched.stop()


@pytest.fixture(scope="module")
def launch_beside():
    """Return a function that starts a launch file in a domain; all end with the module."""
    started = []

    def launch(domain_id, *arguments):
        started.append(Launched(domain_id, *arguments))
        return started[-1]

    yield launch
    for launched in started:
        launched.stop()
