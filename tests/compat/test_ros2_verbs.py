import argparse
import os
import signal
import threading

import pytest
from rclpy.executors import ExternalShutdownException

verbs = pytest.importorskip("ros2cli.verbs", reason="of the stand-in, not of the real command")


def end_of_the_context(_):
    raise ExternalShutdownException


def test_a_verb_whose_context_ends_was_terminated():
    assert verbs.main(argparse.Namespace(run=end_of_the_context)) == signal.SIGTERM


def test_ctrl_c_counts_also_if_the_context_has_ended_before_it_is_raised():
    late = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    late.start()
    with pytest.raises(KeyboardInterrupt):
        verbs.main(argparse.Namespace(run=end_of_the_context))
    late.join()
