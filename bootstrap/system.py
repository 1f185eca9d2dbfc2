"""Checks of the machine: system packages, shared memory, disk, off-screen rendering."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bootstrap.layout import Layout
from bootstrap.report import SetupError, megabytes, say, timed
from bootstrap.steps import Step

MIN_SHARED_MEMORY = 512e6
MIN_DISK = 8e9
RENDERERS = ("egl", "osmesa")


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _has_python_headers() -> bool:
    return Path(sysconfig.get_path("include"), "Python.h").is_file()


@dataclass(frozen=True)
class Requirement:
    """A Debian or Ubuntu package and how to see that what it brings is there."""

    package: str
    present: Callable[[], bool]


REQUIREMENTS = (
    Requirement("python3-venv", lambda: importlib.util.find_spec("ensurepip") is not None),
    Requirement("python3-dev", _has_python_headers),
    Requirement("cmake", lambda: shutil.which("cmake") is not None),
    Requirement("make", lambda: shutil.which("make") is not None),
    Requirement("g++", lambda: shutil.which("g++") is not None),
    Requirement("libegl1", lambda: _has_library("libEGL.so.1")),
    Requirement("libgl1", lambda: _has_library("libGL.so.1")),
    Requirement("libgl1-mesa-dri", lambda: _has_library("libEGL_mesa.so.0")),
    Requirement("libglib2.0-0", lambda: _has_library("libglib-2.0.so.0")),
)


def missing_packages(requirements: tuple[Requirement, ...] = REQUIREMENTS) -> list[str]:
    """Names of the system packages that are not there."""
    return [requirement.package for requirement in requirements if not requirement.present()]


def ensure_packages() -> None:
    """Install missing system packages as root; otherwise say which they are.

    Raises:
        SetupError: Packages are missing and cannot be installed from here.
    """
    missing = missing_packages()
    if not missing:
        return
    command = f"apt-get install -y --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError(f"system packages are missing. Run this once, then again: sudo {command}")
    with timed(f"installing system packages: {' '.join(missing)}"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for line in ("apt-get update -q", command):
            if subprocess.run(line.split(), env=environment, stdout=2, check=False).returncode:
                raise SetupError(f"`{line}` failed (see above): install them by hand, then again")
    if still := missing_packages():
        raise SetupError(
            f"installed, yet not usable from this Python: {' '.join(still)}. A Python from "
            f"elsewhere brings its own headers: take the system's with MU0_PYTHON=/usr/bin/python3"
        )


def check_disk(root: Path) -> None:
    """Stop early where a set-up cannot fit.

    Raises:
        SetupError: Less than MIN_DISK bytes are free.
    """
    free = shutil.disk_usage(root).free
    if free < MIN_DISK:
        raise SetupError(
            f"{megabytes(free)} are free on the disk of {root}, the set-up needs "
            f"{megabytes(MIN_DISK)}"
        )


def check_shared_memory(path: Path = Path("/dev/shm")) -> None:
    """Warn where camera images would get lost between processes."""
    total = shutil.disk_usage(path).total if path.is_dir() else 0
    if total < MIN_SHARED_MEMORY:
        say(
            f"warning: {path} has {megabytes(total)}, the nodes want "
            f"{megabytes(MIN_SHARED_MEMORY)}: images between processes will be lost. "
            f"In a container: docker run --shm-size=1g; else: "
            f"sudo mount -o remount,size=1g {path}"
        )


def renderer_step(layout: Layout) -> Step:
    """The step that finds out how to draw off-screen and keeps the answer."""
    return Step(
        name="renderer-checked",
        title="trying off-screen rendering",
        inputs=os.environ.get("MUJOCO_GL", ""),
        run=lambda: layout.renderer_file.write_text(find_renderer(layout)),
    )


def find_renderer(layout: Layout) -> str:
    """Return the OpenGL back end with which MuJoCo draws off-screen here.

    Raises:
        SetupError: None works; the text holds what each one said.
    """
    wanted = os.environ.get("MUJOCO_GL")
    program = "import mujoco; mujoco.GLContext(64, 64).make_current()"
    complaints = []
    for renderer in (wanted,) if wanted else RENDERERS:
        environment = {**os.environ, "MUJOCO_GL": renderer}
        result = subprocess.run(
            [layout.python, "-c", program], env=environment, capture_output=True, text=True
        )
        if result.returncode == 0:
            return renderer
        complaints.append(
            f"  {renderer}: {(result.stderr.strip() or 'no message').splitlines()[-1]}"
        )
    raise SetupError(
        "off-screen rendering does not work, so simulated cameras would stay dark:\n"
        + "\n".join(complaints)
        + "\n  try: apt-get install libegl1 libgl1-mesa-dri, or libosmesa6"
    )
