"""Fixtures of these tests: packages and launch files made on the fly, commands that run.

The tests say what the real packages do, so that they pass with these and with the stand-ins.
"""

import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DEADLINE_S = 30.0

PREAMBLE = """\
import sys
from launch import LaunchDescription
from launch.actions import (
    AppendEnvironmentVariable, DeclareLaunchArgument, EmitEvent, ExecuteProcess, GroupAction,
    IncludeLaunchDescription, LogInfo, OpaqueFunction, RegisterEventHandler,
    SetEnvironmentVariable, SetLaunchConfiguration, Shutdown, TimerAction,
    UnsetLaunchConfiguration)
from launch.conditions import IfCondition, UnlessCondition
from launch.event_handlers import OnProcessExit, OnProcessStart, OnShutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import (
    EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir)


def python(code, **kwargs):
    return ExecuteProcess(cmd=[sys.executable, "-u", "-c", code], **kwargs)


def generate_launch_description():
    return LaunchDescription([
"""


class Running:
    """A command that runs, with its output in a file."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=env,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until the output has the text."""
        deadline = time.monotonic() + DEADLINE_S
        while self.output.count(text) < count:
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.output}"
            assert self.process.poll() is None, f"ended without {text!r}:\n{self.output}"
            time.sleep(0.05)

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(DEADLINE_S)


@pytest.fixture
def ros_env(tmp_path: Path) -> dict[str, str]:
    """Return an environment with a prefix of our own and log files in the test's folder."""
    before = os.environ.get("AMENT_PREFIX_PATH", "")
    return os.environ | {
        "AMENT_PREFIX_PATH": f"{tmp_path / 'prefix'}:{before}",
        "ROS_LOG_DIR": str(tmp_path / "log"),
    }


@pytest.fixture
def start(tmp_path: Path, ros_env: dict[str, str]) -> Iterator[Callable[..., Running]]:
    """Start commands; what still runs at the end of the test is killed."""
    started: list[Running] = []

    def start_command(*command: object) -> Running:
        log = tmp_path / f"output{len(started)}.txt"
        started.append(Running([str(part) for part in command], log, ros_env))
        return started[-1]

    yield start_command
    for running in started:
        running.kill()


@pytest.fixture
def run(start: Callable[..., Running]) -> Callable[..., tuple[int, str]]:
    """Run a command to its end; return exit code and output."""

    def run_command(*command: object) -> tuple[int, str]:
        running = start(*command)
        return running.wait(), running.output

    return run_command


@pytest.fixture
def launch_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a launch file from the text of its list of entities."""

    def write(entities: str, name: str = "test.launch.py", folder: Path = tmp_path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        body = textwrap.indent(textwrap.dedent(entities).strip() + "\n", " " * 8)
        path.write_text(f"{PREAMBLE}{body}    ])\n")
        return path

    return write


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., Path]:
    """Install a package with executables (name -> Python code); return its share folder."""

    def install(name: str, executables: dict[str, str]) -> Path:
        prefix = tmp_path / "prefix"
        share = prefix / "share" / name
        index = prefix / "share/ament_index/resource_index/packages"
        for folder in (share, prefix / "lib" / name, index):
            folder.mkdir(parents=True, exist_ok=True)
        (index / name).touch()
        for executable, code in executables.items():
            path = prefix / "lib" / name / executable
            path.write_text(f"#!{sys.executable} -u\n{textwrap.dedent(code)}")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return share

    return install
