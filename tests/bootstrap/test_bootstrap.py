"""The set-up: what it checks, what it skips, what it says."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bootstrap import cli, environment, layout, steps, system, workspace  # noqa: E402
from bootstrap.report import SetupError  # noqa: E402


@pytest.fixture
def checkout(tmp_path):
    """Return an empty checkout with the wheels' kind of layout."""
    (tmp_path / "requirements").mkdir()
    for name in ("ros-jazzy", "python", "learning", "dev"):
        (tmp_path / "requirements" / f"{name}.txt").write_text("numpy==2.4.6\nscipy==1.17.1\n")
    (tmp_path / "requirements" / "constraints-ros.txt").write_text("numpy==1.26.4\n")
    for name in ("src", "launch", "compat"):
        (tmp_path / name).mkdir()
    return layout.Layout(root=tmp_path, ros_installed=False)


def test_arguments_of_a_command_are_passed_on_unread():
    assert cli.parse(["run", "ros2", "topic", "hz", "--window", "3"]) == (
        "run",
        ["ros2", "topic", "hz", "--window", "3"],
    )
    assert cli.parse(["test", "-k", "camera", "-x"]) == ("test", ["-k", "camera", "-x"])


@pytest.mark.parametrize("words", [[], ["run"], ["dmeo"]])
def test_a_wrong_command_line_ends_with_usage(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse(words)
    assert stop.value.code == 2
    assert "./mu0 COMMAND" in capsys.readouterr().err


def test_tests_run_everywhere_unless_a_path_is_named(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.command_line("test", ["-x"])[-2:] == [str(ROOT / "src"), str(ROOT / "tests")]
    assert cli.command_line("test", ["tests/bootstrap"])[-1] == "tests/bootstrap"


def test_another_ros_distribution_is_refused():
    with pytest.raises(SetupError, match="'humble' sourced, the workspace needs 'jazzy'"):
        layout.detect(ROOT, {"ROS_DISTRO": "humble"})
    assert layout.detect(ROOT, {"ROS_DISTRO": "jazzy"}).ros_installed
    assert not layout.detect(ROOT, {}).ros_installed
    within = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": f"/x:{ROOT / '.venv'}"}
    assert not layout.detect(ROOT, within).ros_installed


def test_an_installed_ros_gets_neither_wheels_nor_stand_ins(checkout):
    installed = layout.Layout(root=checkout.root, ros_installed=True)
    assert [s.name for s in environment.environment_steps(installed)] == [
        "venv",
        "python",
        "learning",
    ]
    assert [s.name for s in workspace.build_steps(installed)] == ["build"]
    assert str(checkout.compat) not in workspace.environment(installed).get("PYTHONPATH", "")
    wheels = [s.name for s in environment.environment_steps(checkout)]
    assert wheels == ["venv", "ros-jazzy", "cmake", "python", "learning"]


def test_constraints_win_over_pins(checkout, monkeypatch):
    seen = []

    class Pip:
        returncode = 0
        stdout = ()

        def __init__(self, words, **_):
            seen.extend(words)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(environment.subprocess, "Popen", Pip)
    monkeypatch.setenv("MU0_PIP_ARGS", "--index-url https://mirror.example/simple")
    requirements = checkout.root / "requirements"
    environment.pip_install(
        checkout, requirements / "python.txt", requirements / "constraints-ros.txt"
    )
    written = Path(seen[seen.index("-r") + 1])
    assert written.read_text() == "numpy\nscipy==1.17.1\n"
    assert seen[-2:] == ["--index-url", "https://mirror.example/simple"]


def _step(name, inputs, log):
    return steps.Step(name=name, title=name, inputs=inputs, run=lambda: log.append(name))


def test_done_steps_are_skipped_and_a_change_reruns_what_follows(tmp_path):
    log = []
    plan = [_step("a", "1", log), _step("b", "1", log), _step("c", "1", log)]
    assert steps.run_steps(plan, tmp_path) == 3
    assert steps.run_steps(plan, tmp_path) == 0
    plan[1] = _step("b", "2", log)
    assert steps.run_steps(plan, tmp_path) == 2
    assert log == ["a", "b", "c", "b", "c"]


def test_an_interrupted_step_runs_again(tmp_path):
    log = []

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.run_steps([_step("a", "1", log), steps.Step("b", "b", "1", interrupted)], tmp_path)
    steps.run_steps([_step("a", "1", log), _step("b", "1", log)], tmp_path)
    assert log == ["a", "b"]


def test_missing_system_packages_are_named_with_the_command(monkeypatch):
    absent = (
        system.Requirement("libegl1", lambda: False),
        system.Requirement("cmake", lambda: True),
    )
    assert system.missing_packages(absent) == ["libegl1"]
    monkeypatch.setattr(system, "missing_packages", lambda: ["libegl1"])
    monkeypatch.setattr(system.os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match="sudo apt-get install .* libegl1"):
        system.ensure_packages()


def test_small_shared_memory_is_warned_about(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(system, "MIN_SHARED_MEMORY", 1e18)
    system.check_shared_memory(tmp_path)
    assert "--shm-size" in capsys.readouterr().err


def test_a_full_disk_stops_the_set_up(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "MIN_DISK", 1e18)
    with pytest.raises(SetupError, match="are free on the disk"):
        system.check_disk(tmp_path)


def test_a_dark_renderer_is_an_error_with_advice(checkout, monkeypatch):
    checkout.python.parent.mkdir(parents=True)
    checkout.python.symlink_to(sys.executable)
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(SetupError, match="nonsense: .*\n.*apt-get install libegl1"):
        system.find_renderer(checkout)


def test_without_a_network_pip_says_what_to_do(checkout, monkeypatch):
    checkout.python.parent.mkdir(parents=True)
    checkout.python.symlink_to(sys.executable)
    requirements = checkout.root / "requirements" / "dev.txt"
    requirements.write_text("no-such-package-anywhere==1.0\n")
    monkeypatch.setenv("MU0_PIP_ARGS", "--no-index")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(SetupError, match=r"PIP_INDEX_URL[\s\S]*same command again"):
        environment.pip_install(checkout, requirements)


def test_the_wheels_cmake_files_are_repaired_once(checkout):
    checkout.python.parent.mkdir(parents=True)
    checkout.python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    checkout.python.chmod(0o755)
    file = checkout.venv / "share" / "pkg" / "x.cmake"
    file.parent.mkdir(parents=True)
    file.write_text(
        'set(A "/opt/python/cp311-cp311/include/python3.11;'
        '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include")'
    )
    assert environment.repair_cmake_files(checkout) == 1
    assert "/opt/python" not in file.read_text()
    assert environment.repair_cmake_files(checkout) == 0


def test_a_build_depends_on_interfaces_and_names_not_on_code(checkout):
    package = checkout.root / "src" / "pkg"
    package.mkdir()
    (package / "package.xml").write_text("<package/>")
    (package / "code.py").write_text("a = 1")
    before = workspace.source_fingerprint([package])
    (package / "code.py").write_text("a = 2")
    assert workspace.source_fingerprint([package]) == before
    (package / "new.py").touch()
    assert workspace.source_fingerprint([package]) != before
    (package / "new.py").unlink()
    (package / "package.xml").write_text("<package format='3'/>")
    assert workspace.source_fingerprint([package]) != before


def test_an_old_python_is_told_what_is_needed(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2"\nexit 1\n')
    old.chmod(0o755)
    result = subprocess.run(
        [ROOT / "mu0", "setup"],
        env={"PATH": "/usr/bin:/bin", "MU0_PYTHON": str(old)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "needs Python 3.11 or 3.12, found: Python 3.9.2" in result.stderr
