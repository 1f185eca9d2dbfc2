"""Substitutions and conditions, evaluated in a bare context."""

import sys
from pathlib import Path

import pytest
from launch import LaunchContext
from launch.conditions import (
    IfCondition,
    LaunchConfigurationEquals,
    LaunchConfigurationNotEquals,
    UnlessCondition,
)
from launch.substitutions import (
    AndSubstitution,
    Command,
    EnvironmentVariable,
    EqualsSubstitution,
    FindExecutable,
    IfElseSubstitution,
    LaunchConfiguration,
    NotEqualsSubstitution,
    NotSubstitution,
    OrSubstitution,
    PathJoinSubstitution,
    PythonExpression,
    TextSubstitution,
    ThisLaunchFileDir,
)
from launch_ros.substitutions import ExecutableInPackage, FindPackagePrefix, FindPackageShare

ROBOT = LaunchConfiguration("robot")


@pytest.fixture(autouse=True)
def log_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))


@pytest.fixture
def context() -> LaunchContext:
    context = LaunchContext()
    context.launch_configurations.update(robot="panda", count="3", sim="true")
    return context


@pytest.mark.parametrize(
    ("substitution", "text"),
    [
        (TextSubstitution(text="a b"), "a b"),
        (ROBOT, "panda"),
        (LaunchConfiguration(["ro", TextSubstitution(text="bot")]), "panda"),
        (LaunchConfiguration("absent", default=["x_", ROBOT]), "x_panda"),
        (LaunchConfiguration("absent", default="5"), "5"),
        (EnvironmentVariable("MU0_ABSENT", default_value="none"), "none"),
        (PathJoinSubstitution(["/opt", ROBOT, "robot.yaml"]), "/opt/panda/robot.yaml"),
        (PythonExpression(["2 * ", LaunchConfiguration("count")]), "6"),
        (PythonExpression(["'", ROBOT, "' == 'panda'"]), "True"),
        (PythonExpression("floor(pi)"), "3"),
        (PythonExpression("os.path.basename('/a/b')", ["os"]), "b"),
        (FindExecutable(name="sh"), None),
        (Command([sys.executable, " -c 'print(42)'"]), "42\n"),
        (EqualsSubstitution(ROBOT, "panda"), "true"),
        (EqualsSubstitution(LaunchConfiguration("count"), 3.0), "true"),
        (EqualsSubstitution(LaunchConfiguration("sim"), True), "true"),
        (NotEqualsSubstitution(ROBOT, "panda"), "false"),
        (NotSubstitution(LaunchConfiguration("sim")), "false"),
        (AndSubstitution(LaunchConfiguration("sim"), "false"), "false"),
        (OrSubstitution(LaunchConfiguration("sim"), "false"), "true"),
        (IfElseSubstitution(LaunchConfiguration("sim"), "a", ROBOT), "a"),
        (IfElseSubstitution(NotSubstitution(LaunchConfiguration("sim")), "a", ROBOT), "panda"),
    ],
)
def test_substitution_has_text(context, substitution, text):
    performed = context.perform_substitution(substitution)
    if text is None:
        assert Path(performed).name == "sh"
    else:
        assert performed == text


@pytest.mark.parametrize(
    ("substitution", "message"),
    [
        (LaunchConfiguration("absent"), "launch configuration 'absent' does not exist"),
        (EnvironmentVariable("MU0_ABSENT"), "environment variable 'MU0_ABSENT' does not exist"),
        (ThisLaunchFileDir(), "ThisLaunchFileDir used outside of a launch file"),
        (FindExecutable(name="mu0-no-such-thing"), "not found on the PATH"),
        (Command("mu0-no-such-thing"), "file not found"),
        (Command("false"), "executed command failed. Command: false"),
        (Command([sys.executable, " -c 'import sys; sys.exit(\"no\")'"]), "no"),
        (NotSubstitution(ROBOT), "panda"),
    ],
)
def test_substitution_without_text_says_why(context, substitution, message):
    with pytest.raises(Exception, match=message):
        context.perform_substitution(substitution)


@pytest.mark.parametrize(
    ("on_stderr", "text"), [("ignore", "out"), ("warn", "out"), ("capture", "errout")]
)
def test_command_may_print_errors(context, on_stderr, text):
    code = (
        'import sys; sys.stderr.write(\\"err\\"); sys.stderr.flush(); print(\\"out\\", end=\\"\\")'
    )
    command = Command([sys.executable, f' -c "{code}"'], on_stderr=on_stderr)
    assert context.perform_substitution(command) == text


@pytest.mark.parametrize(
    ("text", "truth"),
    [("true", True), ("True", True), ("1", True), (" false ", False), ("0", False)],
)
def test_conditions_read_truth(context, text, truth):
    assert IfCondition(text).evaluate(context) is truth
    assert UnlessCondition(text).evaluate(context) is not truth


def test_condition_refuses_other_texts(context):
    with pytest.raises(Exception, match="panda"):
        IfCondition(ROBOT).evaluate(context)


def test_deprecated_conditions_compare_configurations(context):
    with pytest.warns(UserWarning, match="deprecated"):
        assert LaunchConfigurationEquals("robot", "panda").evaluate(context)
    with pytest.warns(UserWarning, match="deprecated"):
        assert LaunchConfigurationNotEquals("robot", "ur5e").evaluate(context)
    with pytest.warns(UserWarning, match="deprecated"):
        assert LaunchConfigurationEquals("absent", None).evaluate(context)


def test_packages_are_found(context, package, ros_env, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", ros_env["AMENT_PREFIX_PATH"])
    share = package("mu0_test_package", {"tool": ""})
    prefix = share.parent.parent
    name = ["mu0_test", "_package"]
    assert context.perform_substitution(FindPackageShare(name)) == str(share)
    assert context.perform_substitution(FindPackagePrefix(name)) == str(prefix)
    tool = ExecutableInPackage(executable="tool", package=name)
    assert context.perform_substitution(tool) == str(prefix / "lib/mu0_test_package/tool")
    with pytest.raises(Exception, match="executable 'absent' not found on the libexec directory"):
        context.perform_substitution(ExecutableInPackage(executable="absent", package=name))
    with pytest.raises(Exception, match="mu0_absent"):
        context.perform_substitution(FindPackageShare("mu0_absent"))
