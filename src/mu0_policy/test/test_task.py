from types import SimpleNamespace

from mu0_policy.core import End
from mu0_policy.task import Task


def core(ended=None, latched="", hold="", reason="follows"):
    return SimpleNamespace(
        ended=ended,
        hold=hold,
        safety=SimpleNamespace(latched=latched),
        policy=SimpleNamespace(reason=reason),
    )


def test_a_task_runs_until_its_deadline_and_says_what_it_waited_for():
    task = Task("lift", 10.0, 15.0)
    task.judge(core(), 14.0)
    assert task.end is None and not task.ended.is_set()
    task.judge(core(hold="traces are 3 s old"), 15.5)
    assert task.end is End.TIMEOUT and task.ended.is_set()
    assert task.message == "not done after 5.5 s: traces are 3 s old"


def test_a_fault_ends_it_and_the_first_end_counts():
    task = Task("", 0.0, None)
    task.judge(core(End.SAFETY, latched="j1 does not follow"), 1.0)
    task.finish(End.CANCELLED, "later")
    assert task.end is End.SAFETY and task.message == "j1 does not follow"


def test_without_a_deadline_it_goes_on():
    task = Task("", 0.0, None)
    task.judge(core(), 1e6)
    assert task.end is None
    task.judge(core(End.DONE, reason="the path is finished"), 1e6)
    assert task.end is End.DONE and task.message == "the path is finished"
