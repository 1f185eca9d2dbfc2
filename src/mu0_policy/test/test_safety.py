import numpy as np
import pytest

from mu0_core.embodiment import arm_limits
from mu0_policy.chunk import JointMotion, follow, knot_times, resting
from mu0_policy.safety import SafetyConfig, SafetyFilter

HOME = np.array([1.2, -2.0, 0.8])


@pytest.fixture
def safety(embodiment, model):
    return SafetyFilter(
        SafetyConfig(),
        arm_limits(embodiment, model),
        embodiment.workspace,
        lambda q: model.forward(q, "tool0")[:3, 3],
    )


def commanded(q):
    return JointMotion(q=np.asarray(q), qd=np.zeros(3), qdd=np.zeros(3))


def test_fresh_input_has_no_fault(safety):
    assert safety.joints_fault(9.9, HOME, 10.0) == ""
    assert safety.traces_fault(9.1, 10.0) == ""


def test_old_missing_and_non_finite_input_is_named(safety):
    assert safety.joints_fault(9.7, HOME, 10.0) == "joint states are 0.30 s old, limit 0.2 s"
    assert safety.traces_fault(8.5, 10.0) == "traces are 1.50 s old, limit 1 s"
    assert safety.joints_fault(None, None, 10.0).startswith("no joint states yet")
    assert safety.traces_fault(None, 10.0).startswith("no traces yet")
    wrong = np.array([0.0, np.nan, 0.0])
    assert safety.joints_fault(10.0, wrong, 10.0) == "j2: measured position nan is no number"


def test_an_arm_that_does_not_follow_latches_a_fault_until_it_is_cleared(safety):
    away = HOME + np.array([0.0, 0.2, 0.0])
    assert safety.watch(commanded(HOME), away, 1.0) == ""
    assert safety.watch(commanded(HOME), away, 1.2) == ""
    fault = safety.watch(commanded(HOME), away, 1.35)
    assert fault.startswith(
        "j2 does not follow: 0.200 rad from its command for 0.35 s, limit 0.15 rad"
    )
    assert safety.watch(commanded(HOME), HOME, 2.0) == fault
    safety.clear()
    assert safety.watch(commanded(HOME), HOME, 2.1) == ""


def test_a_short_deviation_is_no_fault(safety):
    away = HOME + np.array([0.3, 0.0, 0.0])
    safety.watch(commanded(HOME), away, 1.0)
    safety.watch(commanded(HOME), HOME, 1.2)
    assert safety.watch(commanded(HOME), away, 1.4) == ""


def test_engaging_is_gradual(safety):
    share = safety.speed_share(np.array([5.0, 5.5, 6.0, 9.0]), 5.0)
    np.testing.assert_allclose(share, [0.2, 0.6, 1.0, 1.0])


def test_a_command_out_of_the_workspace_names_axis_value_and_limit(safety):
    running = resting(HOME, 0.0)
    wanted = np.tile([0.0, 0.0, 0.0], (len(knot_times(0.0, 0.1)), 1))  # stretched: x = 1 m
    now_s = 0.0
    faults = []
    for _ in range(20):
        chunk = follow(running, wanted, safety.limits, now_s, lead_s=0.1)
        faults = safety.command_faults(chunk)
        if faults:
            break
        running, now_s = chunk, now_s + 0.1
    assert len(faults) == 1
    assert faults[0].startswith("tool: x = ")
    assert faults[0].endswith("is outside the workspace [0.300, 0.980]")
    assert safety.command_faults(running) == []


def test_a_tool_outside_may_come_back(safety, model):
    outside = np.array([0.05, -0.1, 0.05])
    assert model.forward(outside, "tool0")[0, 3] > 0.985
    running = resting(outside, 0.0)
    back = np.tile(HOME, (len(knot_times(0.0, 0.1)), 1))
    assert safety.command_faults(follow(running, back, safety.limits, 0.0, lead_s=0.1)) == []


def test_poses_are_brought_into_the_workspace(safety):
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, :3, 3] = [[0.5, 0.0, 0.0], [0.6, 0.0, -0.7]]
    inside, text = safety.into_workspace(poses)
    assert inside[1, 2, 3] == -0.5 and (inside[0] == poses[0]).all()
    assert poses[1, 2, 3] == -0.7
    assert text == (
        "the path leaves the workspace: z = -0.700 m, limits [-0.500, 0.500]; kept inside"
    )
    assert safety.into_workspace(poses[:1])[1] == ""
