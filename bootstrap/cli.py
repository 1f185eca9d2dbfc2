"""The command line of `./mu0`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bootstrap import system
from bootstrap.environment import environment_steps, test_tools_step
from bootstrap.layout import Layout, detect
from bootstrap.report import SetupError, say
from bootstrap.steps import exclusive, run_steps
from bootstrap.workspace import build_steps, replace_process

ROOT = Path(__file__).resolve().parents[1]


COMMANDS = {
    "setup": "make the environment and build the workspace",
    "demo": "a simulated arm lifts a cube; arguments go to demo.launch.py",
    "test": "run the tests; arguments go to pytest",
    "run": "run any command in the built environment, e.g. ./mu0 run ros2 topic list",
}


def parse(words: list[str]) -> tuple[str, list[str]]:
    """Split the command line into a command and what goes to it unread."""
    parser = argparse.ArgumentParser(
        prog="./mu0",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="./mu0 COMMAND [ARGUMENT ...]",
        description="Sets up, tests and runs the workspace. Every command first sets up what is "
        "missing,\nwith ROS 2 Jazzy where it is sourced, otherwise with ROS 2 from Python wheels.",
        epilog="commands:\n"
        + "".join(f"  {name:6} {text}\n" for name, text in COMMANDS.items())
        + "\nvariables:\n  MU0_PYTHON    interpreter to use\n  MU0_PIP_ARGS  options for pip",
    )
    parser.add_argument("command", choices=COMMANDS, help=argparse.SUPPRESS)
    command = parser.parse_args(words[:1]).command
    arguments = words[1:]
    if command == "run" and not arguments:
        parser.error("run needs a command, e.g. ./mu0 run ros2 topic list")
    return command, arguments


def set_up(layout: Layout, *, with_tests: bool) -> None:
    """Do what is missing: system packages, environment, build, check of the renderer.

    Raises:
        SetupError: Something the user has to mend.
    """
    with exclusive(layout.root / ".mu0.lock"):
        if not (layout.state / "build").is_file():
            system.check_disk(layout.root)
            system.ensure_packages()
        steps = [
            *environment_steps(layout),
            *build_steps(layout),
            system.renderer_step(layout),
        ]
        if with_tests:
            steps.append(test_tools_step(layout))
        if run_steps(steps, layout.state):
            system.check_shared_memory()
            say("set-up complete")


def main(words: list[str] | None = None) -> int:
    """Run `./mu0` and return its exit status."""
    command, arguments = parse(sys.argv[1:] if words is None else words)
    try:
        layout = detect(ROOT)
        set_up(layout, with_tests=command == "test")
    except SetupError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it stopped")
        return 130
    if command != "setup":
        replace_process(layout, command_line(command, arguments))
    return 0


def command_line(command: str, arguments: list[str]) -> list[str]:
    """The words that a command of `./mu0` stands for."""
    if command == "demo":
        return ["ros2", "launch", "mu0_bringup", "demo.launch.py", *arguments]
    if command == "test":
        named = any(Path(word.split("::")[0]).exists() for word in arguments)
        everything = [] if named else [str(ROOT / "src"), str(ROOT / "tests")]
        return ["python", "-m", "pytest", "-m", "not slow", *arguments, *everything]
    return arguments
