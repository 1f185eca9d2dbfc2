"""Run processes of a graph of one's own, and end them cleanly."""

import os
import signal
import subprocess
import sys
from types import TracebackType
from typing import Self

from mu0_sim.rollout_processes import Process

_END_TIMEOUT_S = 15.0
_STDERR = 2
# The kernel ends them if we are killed (it watches the thread that starts them). They hear this
# signal also in the background, where Ctrl-C is ignored.
_END_WITH_US = ("setpriv", "--pdeathsig", "TERM")


class Child:
    """Run a process until the end of a `with` block, in a ROS domain of its own if given."""

    def __init__(self, process: Process, domain_id: int | None = None) -> None:
        self.name = process.name
        environment = dict(os.environ)
        if domain_id is not None:
            environment["ROS_DOMAIN_ID"] = str(domain_id)
        self._popen = subprocess.Popen(
            [*_END_WITH_US, *((sys.executable,) if process.python else ()), *process.words],
            env=environment,
            stdout=_STDERR,  # what it complains of is for the log; our own output stays clean
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._popen.poll() is not None:
            return
        self._popen.send_signal(signal.SIGINT)
        try:
            self._popen.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()

    def failure(self) -> str | None:
        """Say that the process has failed, None while it runs and after a clean end."""
        code = self._popen.poll()
        return None if not code else f"{self.name} ended with exit code {code}"

    def ended(self) -> bool:
        """Tell whether the process has ended, however."""
        return self._popen.poll() is not None
