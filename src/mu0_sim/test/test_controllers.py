import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu0_core.errors import ShapeError, TrajectoryError
from mu0_sim.controllers import JointLimits, JointTrajectory, TrajectoryController

NAMES = ("shoulder", "elbow")


def make_controller(q=(0.0, 0.0)):
    limits = JointLimits(
        joint_names=NAMES,
        position_lower=[-2.0, -1.0],
        position_upper=[2.0, 1.0],
        velocity=[1.0, 2.0],
    )
    return TrajectoryController(limits, np.array(q))


def make_trajectory(times_s, q, qd=None, qdd=None, *, start_s=0.0, names=NAMES):
    return JointTrajectory(
        joint_names=names, times_s=times_s, q=q, qd=qd, qdd=qdd, start_s=start_s
    )


def test_holds_its_position_before_the_first_trajectory():
    q, qd = make_controller((0.5, -0.25)).sample(3.0)
    assert q.tolist() == [0.5, -0.25]
    assert qd.tolist() == [0.0, 0.0]


def test_positions_alone_are_joined_by_lines_from_the_held_position():
    controller = make_controller()
    controller.accept(make_trajectory([1.0, 2.0], [[0.4, 0.2], [0.4, -0.8]]), 10.0)
    q, qd = controller.sample(10.5)
    np.testing.assert_allclose(q, [0.2, 0.1])
    np.testing.assert_allclose(qd, [0.4, 0.2])
    np.testing.assert_allclose(controller.sample(11.5)[0], [0.4, -0.3])


def test_positions_and_velocities_are_joined_by_cubics():
    controller = make_controller()
    controller.accept(make_trajectory([1.0], [[0.6, 0.0]], [[0.0, 0.0]]), 5.0)
    q, qd = controller.sample(5.25)
    s = 0.25
    np.testing.assert_allclose(q, [0.6 * (3 * s**2 - 2 * s**3), 0.0])
    np.testing.assert_allclose(qd, [0.6 * (6 * s - 6 * s**2), 0.0])


def test_accelerations_make_quintics():
    controller = make_controller()
    zero = [[0.0, 0.0]]
    controller.accept(make_trajectory([1.0], [[0.5, 0.0]], zero, zero), 5.0)
    s = 0.25
    expected = 0.5 * (10 * s**3 - 15 * s**4 + 6 * s**5)
    np.testing.assert_allclose(controller.sample(5.25)[0], [expected, 0.0])


def test_holds_the_last_point_after_the_end():
    controller = make_controller()
    controller.accept(make_trajectory([1.0], [[0.5, 0.1]]), 0.5)
    q, qd = controller.sample(99.0)
    assert q.tolist() == [0.5, 0.1]
    assert qd.tolist() == [0.0, 0.0]
    assert controller.end_s == 1.5


def test_new_trajectory_replaces_the_old_one_from_the_desired_state():
    controller = make_controller()
    controller.accept(make_trajectory([2.0], [[1.0, 0.0]], [[0.0, 0.0]]), 0.0)
    before = controller.sample(1.0)
    controller.accept(make_trajectory([2.0], [[0.0, 0.0]], [[0.0, 0.0]]), 1.0)
    after = controller.sample(1.0)
    np.testing.assert_allclose(after[0], before[0])
    np.testing.assert_allclose(after[1], before[1])
    np.testing.assert_allclose(controller.sample(3.0)[0], [0.0, 0.0], atol=1e-12)


def test_start_in_the_future_moves_towards_the_first_point_at_once():
    controller = make_controller()
    controller.accept(make_trajectory([0.0, 1.0], [[0.4, 0.0], [0.5, 0.0]], start_s=3.0), 1.0)
    np.testing.assert_allclose(controller.sample(2.0)[0], [0.2, 0.0])
    np.testing.assert_allclose(controller.sample(3.5)[0], [0.45, 0.0])


def test_start_in_the_past_is_entered_at_the_current_time():
    controller = make_controller()
    q = [[0.0, 0.0], [0.1, 0.0], [0.2, 0.0]]
    controller.accept(make_trajectory([0.0, 1.0, 2.0], q, start_s=1.0), 1.25)
    np.testing.assert_allclose(controller.sample(1.25)[0], [0.025, 0.0])
    np.testing.assert_allclose(controller.sample(2.5)[0], [0.15, 0.0])


def test_reordered_joints_are_matched_by_name():
    controller = make_controller()
    controller.accept(make_trajectory([1.0], [[0.1, 0.9]], names=("elbow", "shoulder")), 0.0)
    assert controller.sample(2.0)[0].tolist() == [0.9, 0.1]


@pytest.mark.parametrize("n_orders", [1, 2, 3])
def test_what_is_followed_is_the_rest_of_the_trajectory(n_orders):
    controller, copy = make_controller(), make_controller()
    orders = [[[0.2, 0.1], [0.1, 0.3]], [[0.1, 0.0], [0.0, 0.0]], [[0.0, 0.1], [0.0, 0.0]]]
    controller.accept(make_trajectory([0.5, 1.0], *orders[:n_orders]), 10.0)
    motion = controller.followed(10.3)
    np.testing.assert_allclose(motion.q[0], controller.sample(10.3)[0])
    copy.hold(motion.q[0])
    copy.accept(motion, 10.3)
    for at_s in (10.4, 10.7, 11.2):
        for ours, theirs in zip(copy.sample(at_s), controller.sample(at_s), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert controller.followed(12.0).q.tolist() == [[0.1, 0.3]]


def test_hold_forgets_the_trajectory():
    controller = make_controller()
    controller.accept(make_trajectory([1.0], [[0.5, 0.1]]), 1.0)
    controller.hold([0.3, 0.2])
    assert controller.sample(1.5)[0].tolist() == [0.3, 0.2]


@pytest.mark.parametrize(
    ("trajectory", "text"),
    [
        ([], "no points"),
        (dict(times_s=[1.0], q=[[np.nan, 0.0]]), "position of joint 'shoulder' at point 0 is nan"),
        (
            dict(times_s=[1.0], q=[[0.1, 0.0]], qd=[[0.0, np.inf]]),
            "velocity of joint 'elbow' at point 0 is inf",
        ),
        (
            dict(times_s=[1.0], q=[[0.1, 1.5]]),
            r"joint 'elbow': position 1.5 \(point 0\) is outside its limits \[-1, 1\]",
        ),
        (
            dict(times_s=[1.0, 2.0], q=[[0.1, 0.0], [0.2, 0.0]], qd=[[1.5, 0.0], [0.0, 0.0]]),
            r"joint 'shoulder': velocity 1.5 \(point 0\) exceeds its limit 1",
        ),
        (
            dict(times_s=[0.5], q=[[0.9, 0.0]]),
            "joint 'shoulder': velocity 1.769 .*between points.* exceeds its limit 1",
        ),
        (
            dict(times_s=[1.0, 2.0], q=[[0.0, 0.95], [0.0, 0.95]], qd=[[0.0, 1.5], [0.0, 0.0]]),
            "joint 'elbow': position 1.* is outside its limits",
        ),
        (
            dict(times_s=[1.0], q=[[0.1, 0.0]], qd=[[0.2, 0.0]]),
            "joint 'shoulder' still moves at the last point: velocity 0.2, limit 0",
        ),
        (
            dict(times_s=[1.0, 1.0], q=[[0.1, 0.0], [0.1, 0.0]]),
            "point 0 at 1 s, point 1 at 1 s",
        ),
        (dict(times_s=[-0.1], q=[[0.0, 0.0]]), "time of point 0 is -0.1 s"),
        (dict(times_s=[np.inf], q=[[0.0, 0.0]]), "times of the trajectory are not finite"),
        (
            dict(times_s=[1.0], q=[[0.0, 0.0]], start_s=1.0),
            "its end is 2 s, now is 10 s",
        ),
        (
            dict(times_s=[0.0], q=[[0.5, 0.0]]),
            "joint 'shoulder' would jump by 0.4844 at once, limit 0.05",
        ),
        (dict(times_s=[1.0], q=[[0.0]], names=("elbow",)), r"lacks joint\(s\) shoulder"),
        (
            dict(times_s=[1.0], q=[[0.0, 0.0]], names=("elbow", "sholder")),
            "unknown joint 'sholder'.*did you mean 'shoulder'",
        ),
        (
            dict(times_s=[1.0], q=[[0.0, 0.0, 0.0]], names=("elbow", "shoulder", "elbow")),
            "joint 'elbow' stands twice",
        ),
    ],
)
def test_bad_trajectories_are_refused_and_the_old_one_goes_on(trajectory, text):
    controller = make_controller()
    controller.accept(make_trajectory([2.0], [[0.1, 0.1]], [[0.0, 0.0]]), 9.5)
    before = controller.sample(10.0)
    fields = trajectory or dict(times_s=[], q=np.zeros((0, 2)))
    with pytest.raises(TrajectoryError, match=text):
        controller.accept(make_trajectory(**fields), 10.0)
    for kept, was in zip(controller.sample(10.0), before, strict=True):
        assert kept.tolist() == was.tolist()
    np.testing.assert_allclose(controller.sample(11.5)[0], [0.1, 0.1])


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(TrajectoryError, match="expected 1 points x 2 joints"):
        make_trajectory([1.0], [[0.0, 0.0, 0.0]])
    with pytest.raises(TrajectoryError, match="accelerations but no velocities"):
        make_trajectory([1.0], [[0.0, 0.0]], None, [[0.0, 0.0]])
    with pytest.raises(ShapeError, match="expected 2 values"):
        make_controller().hold([0.0])
    with pytest.raises(ShapeError, match="velocity of joint limits"):
        JointLimits(
            joint_names=NAMES, position_lower=[0, 0], position_upper=[1, 1], velocity=[1.0]
        )


def test_nothing_given_or_returned_is_shared():
    q, points = np.zeros(2), np.array([[0.5, 0.1]])
    controller = make_controller(q)
    q[0] = 9.0
    controller.sample(0.0)[0][0] = 9.0
    assert controller.sample(0.0)[0].tolist() == [0.0, 0.0]
    controller.accept(make_trajectory([1.0], points), 0.0)
    points[0, 0] = 9.0
    assert controller.sample(2.0)[0].tolist() == [0.5, 0.1]


@settings(deadline=None, max_examples=60)
@given(
    q=st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=5),
    start_s=st.floats(1.0, 100.0),
    seed=st.integers(0, 2**16),
)
def test_what_is_accepted_stays_within_limits_and_never_jumps(q, start_s, seed):
    controller = make_controller()
    rng = np.random.default_rng(seed)
    times_s = np.cumsum(rng.uniform(0.2, 3.0, len(q)))
    points = np.stack([q, np.roll(q, 1)], axis=1)
    qd = rng.normal(0.0, 0.3, points.shape)
    qd[-1] = 0.0
    try:
        controller.accept(make_trajectory(times_s, points, qd), start_s)
    except TrajectoryError:
        return
    clock = np.arange(start_s, start_s + times_s[-1] + 0.5, 0.01)
    path = np.array([controller.sample(t) for t in clock])
    assert np.abs(path[:, 0, 1]).max() <= 1.0 + 1e-2
    assert (np.abs(path[:, 1]) <= np.array([1.0, 2.0]) * 1.02).all()
    assert (np.abs(np.diff(path[:, 0], axis=0)) <= np.array([1.0, 2.0]) * 0.01 * 1.05).all()
    np.testing.assert_allclose(path[-1, 0], points[-1])
