"""The commands `ros2 launch` and `ros2 run`."""

import os
import signal

import pytest

WAITER = """
import signal, sys, time
def stop(number, frame):
    print("stopped by", signal.Signals(number).name)
    sys.exit(7)
signal.signal(signal.SIGINT, stop)
print("ready")
time.sleep(60)
"""


def test_launch_finds_files_of_packages(package, launch_file, run):
    share = package("mu0_test_package", {})
    text = 'DeclareLaunchArgument("a"), LogInfo(msg=["a is ", LaunchConfiguration("a")]),'
    launch_file(text, folder=share / "launch" / "deeper")
    code, output = run("ros2", "launch", "mu0_test_package", "test.launch.py", "a:=1")
    assert code == 0
    assert "a is 1" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mu0_absent", "a.launch.py"], "Package 'mu0_absent' not found"),
        (
            ["mu0_test_package", "absent.launch.py"],
            "file 'absent.launch.py' was not found in the share directory of package "
            "'mu0_test_package' which is at '",
        ),
        (["mu0_test_package", "twice.launch.py"], "was found more than once in the share"),
    ],
)
def test_launch_says_what_it_does_not_find(package, launch_file, run, arguments, message):
    share = package("mu0_test_package", {})
    launch_file("", name="twice.launch.py", folder=share / "a")
    launch_file("", name="twice.launch.py", folder=share / "b")
    code, output = run("ros2", "launch", *arguments)
    assert code == 1
    assert message in output


def test_launch_shows_arguments(launch_file, run, tmp_path):
    launch_file('DeclareLaunchArgument("deep", description="Inside"),', name="inner.launch.py")
    path = launch_file(f"""
        DeclareLaunchArgument("robot", default_value="panda", choices=["panda", "ur5e"],
                              description="Which robot."),
        DeclareLaunchArgument("required"),
        DeclareLaunchArgument("joined", default_value=["a", LaunchConfiguration("robot")]),
        DeclareLaunchArgument("sometimes", default_value="", description="Rare",
                              condition=IfCondition("false")),
        IncludeLaunchDescription(PythonLaunchDescriptionSource("{tmp_path}/inner.launch.py")),
        LogInfo(msg="not run"),
    """)
    code, output = run("ros2", "launch", path, "--show-args")
    assert code == 0
    assert output == (
        "Arguments (pass arguments as '<name>:=<value>'):\n"
        "\n    'robot':\n        Which robot. Valid choices are: ['panda', 'ur5e']\n"
        "        (default: 'panda')\n"
        "\n    'required':\n        no description given\n"
        "\n    'joined':\n        no description given\n"
        "        (default: 'a' + LaunchConfig('robot'))\n"
        "\n    'sometimes':*\n        Rare\n        (default: '')\n"
        "\n    'deep':\n        Inside\n"
        "\n* argument(s) which are only used if specific conditions occur\n"
    )
    code, output = run("ros2", "launch", "-s", launch_file("", name="empty.launch.py"))
    assert code == 0
    assert output.endswith("\n  No arguments.\n")


def test_run_passes_arguments_and_exit_code(package, run):
    package("mu0_test_package", {"tool": "import sys\nprint(sys.argv[1:])\nsys.exit(5)\n"})
    tool = ["ros2", "run", "mu0_test_package", "tool"]
    code, output = run(*tool, "--flag", "x", "--ros-args", "-p", "a:=1", "-h")
    assert code == 5
    assert "['--flag', 'x', '--ros-args', '-p', 'a:=1', '-h']\n" in output
    code, output = run(*tool[:2], "--prefix", "echo 'two words'", *tool[2:], "end")
    assert code == 0
    assert output.startswith("two words /")
    assert output.endswith("/lib/mu0_test_package/tool end\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mu0_absent", "tool"], "Package 'mu0_absent' not found"),
        (["mu0_test_package", "absent"], "No executable found"),
        (["mu0_test_package"], "executable_name"),
    ],
)
def test_run_says_what_it_does_not_find(package, run, arguments, message):
    package("mu0_test_package", {"tool": ""})
    code, output = run("ros2", "run", *arguments)
    assert code in (1, 2)
    assert message in output


def test_ctrl_c_reaches_what_runs(package, start):
    package("mu0_test_package", {"waiter": WAITER})
    running = start("ros2", "run", "mu0_test_package", "waiter")
    running.wait_for("ready")
    # as a terminal does it: to the whole group
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.wait() == 7
    assert running.output.count("stopped by SIGINT") == 1


def test_ros2_lists_its_commands(run):
    code, output = run("ros2", "--help")
    assert code == 0
    assert "Run a launch file" in output
    assert "Run a package specific executable" in output or "Run an executable" in output
    code, output = run("ros2", "no_such_command")
    assert code == 2
    assert "no_such_command" in output
