"""Building the workspace with colcon, and the environment in which its commands run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bootstrap.layout import Layout
from bootstrap.report import SetupError
from bootstrap.steps import Step

# Files whose content a build depends on; other files are linked, only their names matter.
_BUILD_FILES = {".xml", ".cfg", ".msg", ".srv", ".action", ".cmake"}
_BUILD_NAMES = {"setup.py", "CMakeLists.txt"}


def build_steps(layout: Layout) -> list[Step]:
    """The steps that build the stand-ins (where needed) and the workspace."""
    steps = []
    if not layout.ros_installed:
        packages = sorted(path.parent for path in layout.compat.glob("*/package.xml"))
        steps.append(
            Step(
                name="build-compat",
                title="building the stand-ins' interfaces with colcon",
                inputs=source_fingerprint(packages),
                run=lambda: build(layout, packages, layout.compat_install.parent),
            )
        )
    sources = [layout.root / "src", layout.root / "launch"]
    steps.append(
        Step(
            name="build",
            title="building the workspace with colcon",
            inputs=source_fingerprint([*sources, layout.root / "models"]),
            run=lambda: build(layout, sources, layout.root),
        )
    )
    return steps


def source_fingerprint(folders: list[Path]) -> str:
    """Everything a build of these folders depends on, as text."""
    lines = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if "__pycache__" in path.parts or "test" in path.parts or path.is_dir():
                continue
            content = path.suffix in _BUILD_FILES or path.name in _BUILD_NAMES
            lines.append(f"{path} {path.read_text() if content else ''}")
    return "\n".join(lines)


def build(layout: Layout, sources: list[Path], base: Path) -> None:
    """Build packages with colcon into base/build and base/install; Python files are linked.

    Raises:
        SetupError: A package failed; its output is above.
    """
    command = ["python", "-m", "colcon", "--log-base", str(base / "log"), "build"]
    command += ["--base-paths", *map(str, sources)]
    command += ["--build-base", str(base / "build"), "--install-base", str(base / "install")]
    command += ["--symlink-install", "--event-handlers", "console_stderr-"]
    command += ["--cmake-args", f"-DPython3_EXECUTABLE={layout.python}", "-DBUILD_TESTING=OFF"]
    words = sourced(layout, command)
    if subprocess.run(words, env=environment(layout), stdout=2, check=False).returncode:
        raise SetupError(
            f"the build failed (see above). After a build with other options, remove "
            f"{base}/build and {base}/install, then again"
        )


def environment(layout: Layout) -> dict[str, str]:
    """Variables for commands of the workspace, before the packages' own are sourced."""
    result = dict(os.environ)
    result["VIRTUAL_ENV"] = str(layout.venv)
    _prepend(result, "PATH", layout.venv / "bin")
    result.setdefault("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    result.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(layout.fastdds_profile))
    if layout.renderer_file.is_file():
        result.setdefault("MUJOCO_GL", layout.renderer_file.read_text())
    if not layout.ros_installed:
        result["ROS_DISTRO"] = "jazzy"
        for variable in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
            _prepend(result, variable, layout.venv)
        _prepend(result, "LD_LIBRARY_PATH", layout.venv / "lib")
        _prepend(result, "PYTHONPATH", layout.compat / "python")
        _prepend(result, "PATH", layout.compat / "bin")
    return result


def replace_process(layout: Layout, command: list[str]) -> None:
    """Become the command, in the built environment; does not return."""
    words = sourced(layout, command)
    os.execvpe(words[0], words, environment(layout))


def sourced(layout: Layout, command: list[str]) -> list[str]:
    """Wrap a command so that the packages' set-up files are sourced before it."""
    files = [folder / "local_setup.bash" for folder in (layout.compat_install, layout.install)]
    script = "".join(f'[ -f "{file}" ] && source "{file}"\n' for file in files)
    return ["bash", "-c", f'{script}exec "$@"', "mu0", *command]


def _prepend(variables: dict[str, str], name: str, path: Path) -> None:
    variables[name] = os.pathsep.join(filter(None, [str(path), variables.get(name, "")]))
