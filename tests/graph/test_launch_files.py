"""Every launch file builds, documents its arguments and refuses nonsense."""

import subprocess
from pathlib import Path

import pytest

LAUNCH_FILES = sorted(
    path.name for path in (Path(__file__).resolve().parents[2] / "launch/launch").glob("*.py")
)


def _launch(*arguments):
    return subprocess.run(
        ["ros2", "launch", "mu0_bringup", *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_arguments_are_documented(name):
    result = _launch(name, "--show-args")
    assert result.returncode == 0, result.stderr
    assert "No description given" not in result.stdout


@pytest.mark.parametrize("name", ["sim.launch.py", "demo.launch.py", "mu0.launch.py"])
def test_an_unknown_robot_is_refused_before_anything_starts(name):
    result = _launch(name, "robot:=r2d2")
    assert result.returncode == 1
    said = result.stdout + result.stderr
    assert "r2d2" in said and "panda" in said
    assert "process started" not in said
