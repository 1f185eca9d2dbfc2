"""Launch files, run by `ros2 launch <path>`: arguments, scopes, processes, events."""

import sys

import pytest


def test_arguments_have_defaults_and_may_be_given(launch_file, run):
    path = launch_file("""
        DeclareLaunchArgument("robot", default_value="panda", choices=["panda", "ur5e"]),
        DeclareLaunchArgument("hand", default_value=[LaunchConfiguration("robot"), "_hand"]),
        LogInfo(msg=["robot=", LaunchConfiguration("robot")]),
        LogInfo(msg=["hand=", LaunchConfiguration("hand")]),
        LogInfo(msg=["undeclared=", LaunchConfiguration("undeclared", default="no")]),
    """)
    code, output = run("ros2", "launch", path)
    assert code == 0
    assert "[INFO] [launch]: All log files can be found below" in output
    assert "[INFO] [launch.user]: robot=panda\n" in output
    assert "hand=panda_hand\n" in output
    assert "undeclared=no\n" in output
    code, output = run("ros2", "launch", path, "robot:=ur5e", "undeclared:=a:=b", "robot:=ur5e")
    assert code == 0
    assert "hand=ur5e_hand\n" in output
    assert "undeclared=a:=b\n" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["robot:=spot"],
            'Argument "robot" provided value "spot" is not valid. '
            "Valid options are: ['panda', 'ur5e']",
        ),
        ([], "missing required argument 'robot' (description: 'Which. Valid choices are:"),
        (["robot"], "malformed launch argument 'robot', expected format '<name>:=<value>'"),
    ],
)
def test_wrong_arguments_end_the_launch(launch_file, run, arguments, message):
    path = launch_file("""
        DeclareLaunchArgument("robot", choices=["panda", "ur5e"], description="Which"),
        LogInfo(msg="not reached"),
    """)
    code, output = run("ros2", "launch", path, *arguments)
    assert code == 1
    assert message in output
    assert "not reached" not in output


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ('LogInfo(msg=LaunchConfiguration("absent")),', "'absent' does not exist"),
        ("OpaqueFunction(function=lambda context: 1 / 0),", "division by zero"),
        ('IncludeLaunchDescription("/no/such.launch.py"),', "/no/such.launch.py"),
        ('LogInfo(msg="x", condition=IfCondition("maybe")),', "maybe"),
        ('python("", output="nowhere"),', "nowhere is not a valid standard output config"),
        ('DeclareLaunchArgument("a", default_value="c", choices=["b"]),', 'default_value "c"'),
    ],
)
def test_errors_in_launch_files_end_the_launch(launch_file, run, entities, message):
    code, output = run("ros2", "launch", launch_file(entities))
    assert code == 1
    assert "Caught exception in launch (see debug for traceback)" in output
    assert message in output


def test_scopes(launch_file, run):
    path = launch_file("""
        SetLaunchConfiguration("x", "outer"),
        SetEnvironmentVariable("MU0_X", "outer"),
        GroupAction([
            SetLaunchConfiguration("x", "inner"),
            SetEnvironmentVariable("MU0_X", "inner"),
            LogInfo(msg=["in: ", LaunchConfiguration("x"), " ", EnvironmentVariable("MU0_X")]),
        ]),
        LogInfo(msg=["after: ", LaunchConfiguration("x"), " ", EnvironmentVariable("MU0_X")]),
        GroupAction([SetLaunchConfiguration("x", "leaked")], scoped=False),
        LogInfo(msg=["unscoped: ", LaunchConfiguration("x")]),
        GroupAction([LogInfo(msg="skipped")], condition=UnlessCondition("true")),
        UnsetLaunchConfiguration("x"),
        LogInfo(msg=["unset: ", LaunchConfiguration("x", default="gone")]),
    """)
    code, output = run("ros2", "launch", path)
    assert code == 0
    assert "in: inner inner\n" in output
    assert "after: outer outer\n" in output
    assert "unscoped: leaked\n" in output
    assert "skipped" not in output
    assert "unset: gone\n" in output


def test_includes(launch_file, run, tmp_path):
    launch_file(
        """
        DeclareLaunchArgument("robot", default_value="panda"),
        LogInfo(msg=["included: ", LaunchConfiguration("robot"), " ", ThisLaunchFileDir()]),
        """,
        name="inner.launch.py",
        folder=tmp_path / "deeper",
    )
    path = launch_file("""
        LogInfo(msg=["dir: ", ThisLaunchFileDir()]),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(
                PathJoinSubstitution([ThisLaunchFileDir(), "deeper", "inner.launch.py"])),
            launch_arguments={"robot": ["ur", "5e"]}.items(),
        ),
        LogInfo(msg=["leaks: ", LaunchConfiguration("robot")]),
    """)
    code, output = run("ros2", "launch", path)
    assert code == 0
    assert f"dir: {tmp_path}\n" in output
    assert f"included: ur5e {tmp_path / 'deeper'}\n" in output
    assert "leaks: ur5e\n" in output


def test_processes_get_directory_and_environment(launch_file, run, tmp_path):
    path = launch_file(f"""
        SetEnvironmentVariable("MU0_LIST", "b"),
        AppendEnvironmentVariable("MU0_LIST", "c"),
        AppendEnvironmentVariable("MU0_LIST", "a", prepend=True),
        AppendEnvironmentVariable("MU0_NEW", "n", separator=","),
        python("import os; print(os.getcwd(), os.environ['MU0_LIST'], os.environ['MU0_NEW'])",
               cwd="{tmp_path}", output="screen", name="all"),
        python("import os; print(os.environ['MU0_LIST'], os.environ['MU0_MORE'])",
               additional_env={{"MU0_MORE": ["m", EnvironmentVariable("MU0_NEW")]}},
               output="screen", name="more"),
        ExecuteProcess(cmd=["/usr/bin/env"], env={{"MU0_ONLY": "o"}}, output="screen"),
    """)
    code, output = run("ros2", "launch", path)
    assert code == 0
    assert f"[all-1] {tmp_path} a:b:c n\n" in output
    assert "[more-2] a:b:c mn\n" in output
    lines = [line for line in output.splitlines() if line.startswith("[env-3]")]
    assert lines == ["[env-3] MU0_ONLY=o"]


def test_outputs(launch_file, run, tmp_path):
    code = "import sys; print('out'); print('err', file=sys.stderr); print('no newline', end='')"
    path = launch_file(f'''
        python("""{code}""", name="default"),
        python("""{code}""", name="screen", output="screen"),
        python("""{code}""", name="both", output="both"),
        python("""{code}""", name="split", output={{"stdout": "screen", "stderr": "log"}}),
    ''')
    _, output = run("ros2", "launch", path)
    logs = [p for p in (tmp_path / "log").glob("*/launch.log") if not p.parent.is_symlink()]
    (log,) = logs
    logged = log.read_text()
    where = {
        f"{name} {text}": (f"[{process}] {text}\n" in output, f"[{process}] {text}\n" in logged)
        for process in ("default-1", "screen-2", "both-3", "split-4")
        for name, _, _ in [process.partition("-")]
        for text in ("out", "err")
    }
    assert where == {
        "default out": (False, True),
        "default err": (True, True),
        "screen out": (True, False),
        "screen err": (True, False),
        "both out": (True, True),
        "both err": (True, True),
        "split out": (True, False),
        "split err": (False, True),
    }
    assert "[screen-2] no newline\n" in output
    assert "[INFO] [both-3]: process started with pid [" in logged
    _, output = run("ros2", "launch", "-a", path)
    assert "[default-1] out\n" in output


def test_emulated_terminal(launch_file, run):
    code = "import sys; print('tty', sys.stdout.isatty(), sys.stderr.isatty())"
    path = launch_file(f"""
        python("{code}", name="pipe", output="screen"),
        python("{code}", name="terminal", output="screen", emulate_tty=True),
    """)
    _, output = run("ros2", "launch", path)
    assert "[pipe-1] tty False False\n" in output
    assert "[terminal-2] tty True True\n" in output


def test_ends_of_processes_are_logged(launch_file, run):
    path = launch_file("""
        python("", name="good"),
        python("import sys; sys.exit(3)", name="bad"),
        ExecuteProcess(cmd=["mu0-no-such-command", "a"], name="absent", respawn=True),
    """)
    code, output = run("ros2", "launch", path)
    assert code == 0
    assert "[INFO] [good-1]: process has finished cleanly [pid " in output
    assert "[ERROR] [bad-2]: process has died [pid " in output
    assert ", exit code 3, cmd '" in output
    assert "[ERROR] [absent-3]: exception occurred while executing process:" in output
    assert "mu0-no-such-command" in output


def test_prefix_goes_before_the_command(launch_file, run):
    path = launch_file("""
        ExecuteProcess(cmd=["echo", "one"], prefix="env A=1", output="screen"),
        ExecuteProcess(cmd=["echo", "two"], output="screen", name="two"),
    """)
    _, output = run("ros2", "launch", "--launch-prefix", "echo launch", path)
    assert "[env-1] one\n" in output
    assert "[two-2] launch echo two\n" in output


def test_respawn(launch_file, run, tmp_path):
    path = launch_file(f"""
        python("open('{tmp_path}/runs', 'a').write('x')", name="again",
               respawn=True, respawn_delay=0.05, respawn_max_retries=2),
    """)
    code, output = run("ros2", "launch", path)
    assert code == 0
    assert (tmp_path / "runs").read_text() == "xxx"
    assert output.count("[again-1]: process started with pid") == 3


def test_respawning_process_ends_with_the_launch(launch_file, run):
    path = launch_file("""
        python("", name="again", respawn=True, respawn_delay=60.0),
        TimerAction(period=0.5, actions=[Shutdown(reason="enough")]),
    """)
    code, _ = run("ros2", "launch", path)
    assert code == 0


def test_on_exit_shutdown_ends_the_others(launch_file, run):
    path = launch_file("""
        python("import time; time.sleep(60)", name="other"),
        TimerAction(period=0.5, actions=[
            python("import sys; sys.exit(2)", name="required", on_exit=Shutdown())]),
        TimerAction(period=60.0, actions=[LogInfo(msg="too late")]),
    """)
    code, output = run("ros2", "launch", path)
    assert code == 0
    assert "[INFO] [launch]: process[required-2] was required: shutting down" in output
    assert "[other-1]: sending signal 'SIGINT' to process[other-1]" in output
    assert "too late" not in output


def test_event_handlers(launch_file, run):
    path = launch_file("""
        OpaqueFunction(function=lambda context: [
            first := python("import time; time.sleep(0.2)", name="first"),
            second := python("print('second runs')", name="second", output="screen"),
            RegisterEventHandler(OnProcessStart(
                target_action=first, on_start=[LogInfo(msg="first started")])),
            RegisterEventHandler(OnProcessExit(
                target_action=first,
                on_exit=lambda event, context: LogInfo(
                    msg=f"{event.process_name} exited with {event.returncode}"))),
            RegisterEventHandler(OnProcessExit(
                target_action=second, on_exit=[EmitEvent(event=__import__(
                    "launch").events.Shutdown(reason="second is done"))])),
            RegisterEventHandler(OnShutdown(
                on_shutdown=lambda event, context: LogInfo(msg=f"end: {event.reason}"))),
            TimerAction(period=60.0, actions=[LogInfo(msg="too late")]),
        ]),
    """)
    code, output = run("ros2", "launch", path)
    assert code == 0
    assert "first started" in output
    assert "[second-2] second runs" in output
    assert "end: second is done" in output
    assert "too late" not in output


def test_processes_in_sequence(launch_file, run):
    path = launch_file("""
        first := python("", name="first"),
        RegisterEventHandler(OnProcessExit(target_action=first, on_exit=[
            python("print('after first')", name="second", output="screen")])),
    """)
    code, output = run("ros2", "launch", path)
    assert code == 0
    assert "[second-2] after first\n" in output


def test_conditions_and_functions_choose_actions(launch_file, run):
    path = launch_file("""
        DeclareLaunchArgument("sim", default_value="true"),
        LogInfo(msg="simulated", condition=IfCondition(LaunchConfiguration("sim"))),
        LogInfo(msg="real", condition=UnlessCondition(LaunchConfiguration("sim"))),
        OpaqueFunction(
            function=lambda context, text, end: [
                LogInfo(msg=text + context.launch_configurations["sim"] + end)],
            args=["sim is "], kwargs={"end": "!"}),
    """)
    _, output = run("ros2", "launch", path)
    assert "[launch.user]: simulated" in output
    assert "[launch.user]: real" not in output
    assert "sim is true!" in output
    _, output = run("ros2", "launch", path, "sim:=false")
    assert "[launch.user]: simulated" not in output
    assert "[launch.user]: real" in output


SCRIPT = """
import sys, threading
from launch import LaunchDescription, LaunchService
from launch.actions import ExecuteProcess, OpaqueFunction
sleep = ExecuteProcess(cmd=["sleep", "60"], name="sleeper")
service = LaunchService()
timer = threading.Timer(1.0, service.shutdown)
service.include_launch_description(LaunchDescription([
    sleep, OpaqueFunction(function=lambda context: timer.start())]))
code = service.run()
print("service returned", code)
"""


def test_a_script_runs_a_launch_and_ends_it(run):
    code, output = run(sys.executable, "-c", SCRIPT)
    assert code == 0
    assert "[sleeper-1]: sending signal 'SIGINT' to process[sleeper-1]" in output
    assert "service returned 0" in output
