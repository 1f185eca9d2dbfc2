"""What the stand-ins lack says so by its name."""

import importlib

import launch
import pytest

pytestmark = pytest.mark.skipif(
    "compat" not in launch.__file__, reason="the real package has what the stand-in lacks"
)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("launch", "LaunchIntrospector"),
        ("launch.actions", "OpaqueCoroutine"),
        ("launch.substitutions", "AnonName"),
        ("launch.event_handlers", "OnProcessIO"),
        ("launch.events", "TimerEvent"),
        ("launch_ros.actions", "LifecycleNode"),
        ("launch_ros.actions", "SetUseSimTime"),
        ("launch_ros.descriptions", "ComposableNode"),
    ],
)
def test_missing_names_are_named(module, name):
    with pytest.raises(ImportError, match=rf"{module}\.{name} is not part of this stand-in"):
        getattr(importlib.import_module(module), name)


def test_missing_keywords_are_named():
    from launch.actions import ExecuteProcess, GroupAction
    from launch_ros.actions import Node
    from launch_ros.parameter_descriptions import ParameterFile

    with pytest.raises(TypeError, match="'shell'"):
        ExecuteProcess(cmd=["ls"], shell=True)
    with pytest.raises(TypeError, match="'cached_output'"):
        Node(executable="x", cached_output=True)
    with pytest.raises(TypeError, match="'forwarding'"):
        GroupAction([], forwarding=False)
    with pytest.raises(NotImplementedError, match=r"ParameterFile\(allow_substs=True\)"):
        ParameterFile("a.yaml", allow_substs=True)


def test_other_launch_files_and_commands_are_named(tmp_path, run):
    (tmp_path / "a.launch.xml").write_text("<launch/>")
    code, output = run("ros2", "launch", tmp_path / "a.launch.xml")
    assert code == 1
    assert "a.launch.xml" in output
    assert "is not part of this stand-in" in output
    code, output = run("ros2", "doctor")
    assert code == 2
    assert "'doctor' is not a command of this stand-in" in output
