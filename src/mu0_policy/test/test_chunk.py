import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu0_core.embodiment import JointLimits
from mu0_core.errors import ShapeError, TrajectoryError
from mu0_policy.chunk import (
    HORIZON_S,
    KNOT_S,
    Chunk,
    braked,
    branch_knot,
    follow,
    hand_over,
    knot_times,
    resting,
    violations,
)

LIMITS = JointLimits(
    joint_names=("a", "b"),
    position_lower=np.array([-2.0, -0.5]),
    position_upper=np.array([2.0, 0.5]),
    velocity=np.array([2.0, 1.0]),
    acceleration=np.array([5.0, 4.0]),
    jerk=np.array([60.0, 40.0]),
)
LEAD_S = 0.1


def towards(running, target, now_s, **options):
    wanted = np.tile(target, (len(knot_times(now_s, LEAD_S)), 1))
    return follow(running, wanted, LIMITS, now_s, lead_s=LEAD_S, **options)


def sampled(chunks_and_ends, rate_hz=500.0):
    """Sample what a controller executes that takes each chunk when it comes, by cubics."""
    rows = []
    for chunk, start_s, end_s in chunks_and_ends:
        rows.append(chunk.sample(np.arange(start_s, end_s, 1.0 / rate_hz)))
    return tuple(np.concatenate(column) for column in zip(*rows, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    targets=st.lists(
        st.tuples(
            st.floats(-6.0, 6.0), st.floats(-6.0, 6.0), st.floats(0.01, 0.7), st.floats(0.0, 0.1)
        ),
        min_size=1,
        max_size=8,
    ),
    start_s=st.floats(0.0, 2e9),
)
def test_random_targets_at_random_times_break_no_limit_at_500_hz(targets, start_s):
    now_s = start_s
    running = resting([0.3, -0.2], now_s)
    executed, entered_s = [], now_s
    for a, b, later_s, delay_s in targets:
        now_s += later_s
        chunk = towards(running, (a, b), now_s)
        arrival_s = now_s + delay_s
        made = hand_over(running, chunk, LIMITS, branch_knot(now_s, LEAD_S), arrival_s)
        assert made.velocity_jump < 1e-5 and made.position_jump < 1e-6
        executed.append((running, entered_s, arrival_s))
        running, entered_s, now_s = chunk, arrival_s, arrival_s
    assert running.end_s <= now_s + HORIZON_S + 1e-6
    executed.append((running, entered_s, running.end_s + 0.1))
    for chunk, _, _ in executed:
        assert violations(chunk, LIMITS) == []
    q, qd, qdd = sampled(executed)
    assert (q <= LIMITS.position_upper + 1e-5).all() and (q >= LIMITS.position_lower - 1e-5).all()
    assert (np.abs(qd) <= LIMITS.velocity * (1 + 1e-5)).all()
    assert (np.abs(qdd) <= LIMITS.acceleration * (1 + 1e-5)).all()


def test_a_joint_that_creeps_to_its_limit_can_go_on():
    end_s = 10.0
    running = towards(resting([1.9, 0.0], end_s), (2.5, 0.0), end_s)  # wants beyond the limit
    assert 1.999 < running.q[-1, 0] < LIMITS.position_upper[0] - 1e-5
    state = np.array([[running.q[-1, 0], 0.0]])
    creeping = np.repeat(state, 20, axis=0) + np.arange(-3, 17)[:, None] * [KNOT_S * 4e-5, 0.0]
    speed = np.tile([4e-5, 0.0], (20, 1))
    running = Chunk(first_knot=200, q=creeping, qd=speed, qdd=0.0 * speed)
    chunk = towards(running, (1.0, 0.0), end_s)
    assert violations(chunk, LIMITS) == []


def test_positions_and_velocities_alone_give_back_the_motion():
    chunk = towards(resting([0.0, 0.0], 10.0), (1.0, 0.4), 10.0)
    h = KNOT_S
    for k in range(len(chunk.q) - 1):  # the cubic through both ends of each piece
        slope = (chunk.q[k + 1] - chunk.q[k]) / h
        start_qdd = (6 * slope - 4 * chunk.qd[k] - 2 * chunk.qd[k + 1]) / h
        end_qdd = (2 * chunk.qd[k] + 4 * chunk.qd[k + 1] - 6 * slope) / h
        np.testing.assert_allclose(start_qdd, chunk.qdd[k], atol=2e-3)
        np.testing.assert_allclose(end_qdd, chunk.qdd[k + 1], atol=2e-3)


def test_a_chunk_covers_now_and_ends_at_rest_within_the_horizon():
    now_s = 1234.567
    chunk = towards(resting([0.0, 0.0], now_s), (2.0, 0.4), now_s)
    assert chunk.start_s <= now_s < chunk.start_s + KNOT_S
    assert now_s + 0.9 < chunk.end_s <= now_s + HORIZON_S
    assert (chunk.qd[-1] == 0.0).all() and (chunk.qdd[-1] == 0.0).all()
    after = chunk.state(chunk.end_s + 5.0)
    assert (after.q == chunk.q[-1]).all() and (after.qd == 0.0).all()


def test_a_target_within_reach_is_reached_and_one_beyond_a_limit_is_not():
    now_s, running = 0.0, resting([0.0, 0.0], 0.0)
    for _ in range(30):
        running = towards(running, (1.0, 3.0), now_s)
        now_s += 0.1
    np.testing.assert_allclose(running.q[-1], [1.0, 0.5], atol=2e-3)


def test_the_speed_share_binds():
    now_s, running = 0.0, resting([0.0, 0.0], 0.0)
    fastest = []
    for _ in range(10):
        running = towards(running, (2.0, 0.0), now_s, speed_share=0.1)
        fastest.append(np.abs(running.qd[:, 0]).max())
        now_s += 0.1
    assert 0.15 < max(fastest) <= 0.2


def test_what_was_sent_before_the_branch_is_repeated_exactly():
    first = towards(resting([0.0, 0.0], 0.0), (2.0, 0.4), 0.0)
    second = towards(first, (-2.0, -0.4), 0.32)
    branch = branch_knot(0.32, LEAD_S)
    for number in range(second.first_knot, branch + 1):
        assert (second.knot(number).q == first.knot(number).q).all()
        assert (second.knot(number).qd == first.knot(number).qd).all()
    assert np.abs(second.knot(branch + 4).q - first.knot(branch + 4).q).max() > 1e-3


def test_a_late_chunk_is_measured_as_late():
    first = towards(resting([0.0, 0.0], 0.0), (2.0, 0.4), 0.0)
    second = towards(first, (-2.0, -0.4), 0.3)
    late = hand_over(first, second, LIMITS, branch_knot(0.3, LEAD_S), 0.6)
    assert late.late_s == pytest.approx(0.2)
    assert late.consumed_s == pytest.approx(0.3)
    assert late.velocity_jump > 0.1


def test_braking_comes_to_rest_sooner_than_the_chunk_would():
    now_s, running = 0.0, resting([0.0, 0.0], 0.0)
    for _ in range(6):
        running = towards(running, (2.0, 0.0), now_s)
        now_s += 0.1
    stop = braked(running, LIMITS, now_s, lead_s=LEAD_S)
    speed = np.abs(stop.qd[:, 0])
    assert speed[0] > 0.8
    assert speed[round(0.6 / KNOT_S) :].max() < 0.05
    assert (stop.qd[:, 0] > -0.02).all()  # it does not swing back
    assert violations(stop, LIMITS) == []


def test_a_start_that_cannot_come_to_rest_is_refused_by_name():
    running = Chunk(
        first_knot=0,
        q=np.array([[1.9, 0.0], [2.0, 0.0], [2.1, 0.0]]),
        qd=np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]),
        qdd=np.zeros((3, 2)),
    )
    with pytest.raises(TrajectoryError, match=r"a: no motion from position 2\.\d+ rad, velocity"):
        follow(running, np.zeros((19, 2)), LIMITS, 0.0, lead_s=0.05)


@pytest.mark.parametrize("wrong", [np.zeros((3, 2)), np.full((18, 2), np.nan)])
def test_wanted_positions_are_checked(wrong):
    with pytest.raises(ShapeError, match=r"wanted positions: expected finite \(18, 2\)"):
        follow(resting([0.0, 0.0], 0.0), wrong, LIMITS, 0.0, lead_s=LEAD_S)


def test_violations_are_named():
    chunk = Chunk(
        first_knot=0,
        q=np.array([[1.9, 0.0], [2.1, 0.0]]),
        qd=np.array([[0.0, 0.0], [0.0, 0.0]]),
        qdd=np.array([[0.0, 0.0], [9.0, 0.0]]),
    )
    text = "; ".join(violations(chunk, LIMITS))
    assert "a: position 2.1" in text
    assert "a: acceleration 9.0000 rad/s^2, limit 5.0000" in text
    assert "a: jerk 180.0000 rad/s^3, limit 60.0000" in text


def test_a_chunk_owns_its_arrays():
    q = np.zeros((2, 2))
    chunk = Chunk(first_knot=0, q=q, qd=q, qdd=q)
    q[0, 0] = 5.0
    assert chunk.q[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        chunk.q[0, 0] = 1.0
