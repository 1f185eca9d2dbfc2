import numpy as np
import pytest

from mu0_core.embodiment import Speeds, arm_limits
from mu0_core.kinematics import DifferentialIK
from mu0_policy.joint_path import plan_joint_path, staying

HOME = np.array([1.2, -2.0, 0.8])
SPEEDS = Speeds(linear=0.2, angular=1.0, acceleration=0.6, jerk=4.0)


@pytest.fixture
def plan(embodiment, model):
    ik = DifferentialIK(model, "tool0", q_nominal=HOME)
    limits = arm_limits(embodiment, model)

    def make(places, qd=(0.0, 0.0, 0.0), start_s=10.0, careful=False):
        poses = np.tile(model.forward(HOME, "tool0"), (len(places), 1, 1))
        poses[:, :3, 3] += places
        return plan_joint_path(
            ik,
            poses,
            limits,
            SPEEDS,
            q=HOME,
            qd=np.array(qd),
            start_s=start_s,
            careful=careful,
        )

    return make


def places(model, path, times_s):
    return np.stack([model.forward(q, "tool0")[:3, 3] for q in path.positions(times_s)])


def test_the_tool_goes_to_the_last_pose_at_its_speed_and_stops(plan, model):
    path = plan([[0.1, 0.0, 0.0], [0.1, 0.1, 0.0]])
    times = np.arange(10.0, 10.0 + path.duration_s + 1.0, 0.01)
    xyz = places(model, path, times)
    home = model.forward(HOME, "tool0")[:3, 3]
    np.testing.assert_allclose(xyz[0], home, atol=1e-6)
    np.testing.assert_allclose(xyz[-1], home + np.array([0.1, 0.1, 0.0]), atol=1e-3)
    speed = np.linalg.norm(np.diff(xyz, axis=0), axis=1) / 0.01
    assert 0.15 < speed.max() < 0.27 and speed[-50:].max() < 1e-6
    assert path.shortfall == ""


@pytest.mark.parametrize(("way_m", "most"), [(0.15, 0.22), (0.06, 0.09), (0.03, 0.09)])
def test_before_a_contact_the_tool_is_slow(plan, model, way_m, most):
    path = plan([[way_m, 0.0, 0.0]], qd=(-0.2, 0.4, -0.2), careful=True)
    times = np.arange(10.0, 10.0 + path.duration_s + 0.3, 0.01)
    xyz = places(model, path, times)
    speed = np.linalg.norm(np.diff(xyz, axis=0), axis=1) / 0.01
    left_m = np.linalg.norm(xyz[-1] - xyz[:-1], axis=1)
    assert speed[left_m < 0.045].max() < 1.1 * SPEEDS.contact
    assert speed.max() < most
    assert np.abs(np.diff(speed)).max() < 0.02  # no jerk where the parts of the way meet
    assert (np.diff(left_m) < 1e-4).all()


def test_it_goes_on_at_the_speed_that_the_joints_have(plan):
    slow, fast = plan([[0.1, 0.0, 0.0]]), plan([[0.1, 0.0, 0.0]], qd=(-0.2, 0.4, -0.2))
    assert fast.duration_s < slow.duration_s - 0.05
    step = fast.positions(np.array([10.0, 10.01]))
    assert np.abs(np.diff(step, axis=0) / 0.01).max() > 0.2


def test_a_pose_out_of_reach_ends_the_path_before_it(plan, model):
    path = plan([[0.05, 0.0, 0.0], [0.8, 0.0, 0.0]])
    assert path.shortfall.startswith("tool0 cannot reach [")
    assert "m in base_link: it stays" in path.shortfall
    end = places(model, path, np.array([99.0]))[0]
    assert end[0] < 1.0


def test_no_poses_mean_stay(plan):
    path = plan(np.empty((0, 3)))
    assert path.duration_s == 0.0
    np.testing.assert_array_equal(path.positions(np.array([10.0, 11.0])), [HOME, HOME])
    np.testing.assert_array_equal(staying(HOME, 0.0).positions(np.array([1.0])), [HOME])
    assert plan([[0.0, 0.0, 0.0]]).duration_s == 0.0
