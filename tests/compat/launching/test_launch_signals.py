"""How a launch ends: Ctrl-C, escalation, nothing left behind."""

import os
import pty
import signal
import time

import launch
import pytest

STAND_IN = "compat" in launch.__file__
only_stand_in = pytest.mark.skipif(
    not STAND_IN, reason="the real launch leaves or ignores this; compat/README.md lists it"
)

CLEAN = """
import signal, sys, time
def stop(number, frame):
    print('got', signal.Signals(number).name)
    time.sleep(0.3)
    print('cleaned up')
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
print('ready')
time.sleep(60)
"""

STUBBORN = """
import os, signal, sys, time
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
print('ready', os.getpid(), '.')
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10.0
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.05)


def pids(output: str) -> list[int]:
    return [int(part.split()[0]) for part in output.split("ready ")[1:]]


@pytest.fixture
def stubborn_file(tmp_path, launch_file):
    """Write a launch file of one process that ignores the given signals."""

    def write(*names: str, term_s: float, kill_s: float):
        (tmp_path / "stubborn.py").write_text(STUBBORN)
        return launch_file(f"""
            ExecuteProcess(
                cmd=[sys.executable, "-u", "{tmp_path}/stubborn.py", *{list(names)}],
                name="mule", output="screen",
                sigterm_timeout="{term_s}", sigkill_timeout="{kill_s}"),
        """)

    return write


def test_ctrl_c_lets_processes_clean_up(launch_file, start):
    path = launch_file(f"""
        python({CLEAN!r}, name="a", output="screen"),
        python({CLEAN!r}, name="b", output="screen"),
    """)
    running = start("ros2", "launch", path)
    running.wait_for("ready", count=2)
    running.process.send_signal(signal.SIGINT)
    assert running.wait() == 0
    output = running.output
    assert "[WARNING] [launch]: user interrupted with ctrl-c (SIGINT)" in output
    assert output.count("sending signal 'SIGINT' to process[") == 2
    for name in ("a-1", "b-2"):
        assert output.count(f"[{name}] got SIGINT\n") == 1
        assert f"[{name}] cleaned up\n" in output
        assert f"[INFO] [{name}]: process has finished cleanly" in output


def test_ctrl_c_in_a_terminal(launch_file, ros_env, tmp_path):
    path = launch_file(f'python({CLEAN!r}, name="a", output="screen"),')
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("ros2", ["ros2", "launch", str(path)], ros_env)
    output = b""
    interrupted = False
    while True:
        try:
            output += os.read(terminal, 4096)
        except OSError:  # the terminal has no user any more
            break
        if b"ready" in output and not interrupted:
            os.write(terminal, b"\x03")
            interrupted = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert output.count(b"[a-1] got SIGINT") == 1
    assert b"[a-1] cleaned up" in output


@pytest.mark.parametrize(
    ("ignored", "code"), [(["SIGINT"], -signal.SIGTERM), (["SIGINT", "SIGTERM"], -signal.SIGKILL)]
)
def test_stubborn_processes_are_ended(stubborn_file, start, ignored, code):
    running = start("ros2", "launch", stubborn_file(*ignored, term_s=0.3, kill_s=0.3))
    running.wait_for("ready")
    running.process.send_signal(signal.SIGINT)
    running.wait()
    output = running.output
    assert (
        "[ERROR] [mule-1]: process[mule-1] failed to terminate '0.3' seconds after receiving "
        "'SIGINT', escalating to 'SIGTERM'" in output
    )
    assert ("escalating to 'SIGKILL'" in output) == ("SIGTERM" in ignored)
    assert f"exit code {code}, cmd '" in output
    (pid,) = pids(output)
    wait_until_gone(pid)


def test_an_error_while_running_ends_processes(launch_file, run):
    path = launch_file(f"""
        python({CLEAN!r}, name="a", output="screen"),
        TimerAction(period=1.0, actions=[LogInfo(msg=LaunchConfiguration("absent"))]),
    """)
    code, output = run("ros2", "launch", path)
    assert code == 1
    assert "Caught exception in launch" in output
    assert "[a-1] cleaned up" in output


@only_stand_in
def test_second_ctrl_c_kills(stubborn_file, start):
    running = start("ros2", "launch", stubborn_file("SIGINT", "SIGTERM", term_s=60, kill_s=60))
    running.wait_for("ready")
    running.process.send_signal(signal.SIGINT)
    running.wait_for("sending signal 'SIGINT'")
    running.process.send_signal(signal.SIGINT)
    assert running.wait() == 0
    assert f"exit code {-signal.SIGKILL}, cmd '" in running.output


@only_stand_in
def test_sigterm_ends_processes_too(launch_file, start):
    running = start("ros2", "launch", launch_file(f'python({CLEAN!r}, output="screen"),'))
    running.wait_for("ready")
    running.process.send_signal(signal.SIGTERM)
    assert running.wait() == 1
    assert "cleaned up" in running.output


@only_stand_in
def test_children_of_processes_end_too(stubborn_file, launch_file, start, tmp_path):
    stubborn_file(term_s=1, kill_s=1)  # for the program
    path = launch_file(f"""
        ExecuteProcess(
            cmd=["sh", "-c", sys.executable + " -u {tmp_path}/stubborn.py SIGINT & wait"],
            output="screen", sigterm_timeout="0.3", sigkill_timeout="0.3"),
    """)
    running = start("ros2", "launch", path)
    running.wait_for("ready")
    running.process.send_signal(signal.SIGINT)
    running.wait()
    (pid,) = pids(running.output)
    wait_until_gone(pid)


@only_stand_in
def test_processes_do_not_survive_a_killed_launch(stubborn_file, start):
    running = start("ros2", "launch", stubborn_file("SIGINT", term_s=60, kill_s=60))
    running.wait_for("ready")
    (pid,) = pids(running.output)
    running.process.kill()
    running.wait()
    wait_until_gone(pid)
