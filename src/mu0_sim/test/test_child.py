import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mu0_sim.nodes.child import Child
from mu0_sim.rollout_processes import Process

PARENT = """
import time
from mu0_sim.nodes.child import Child
from mu0_sim.rollout_processes import Process
with Child(Process(name="child", words=("-c", {program!r}), python=True)):
    time.sleep(60)
"""


def waiting(mark: Path) -> str:
    """Return a program that writes its process id, and waits."""
    return f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"


def process_id(mark: Path) -> int:
    deadline = time.monotonic() + 20.0
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return int(mark.read_text())


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_child_ends_with_its_block(tmp_path):
    mark = tmp_path / "pid"
    with Child(Process(name="child", words=("-c", waiting(mark)), python=True)) as child:
        pid = process_id(mark)
        assert alive(pid)
        assert not child.ended()
    assert not alive(pid)


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path):
    mark = tmp_path / "pid"
    words = [sys.executable, "-c", PARENT.format(program=waiting(mark))]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as parent:
        pid = process_id(mark)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10.0
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)
