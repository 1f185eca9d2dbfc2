import numpy as np
import pytest

from mu0_core.errors import StaleInputError
from mu0_policy.chunk import violations
from mu0_policy.core import End, Measured, PolicyCore
from mu0_policy.safety import SafetyConfig
from mu0_policy.trace_follower import Phase, TraceFollower
from mu0_policy.trace_reading import FollowerConfig

HOME = np.array([1.2, -2.0, 0.8])


class Bench:
    """Run a core against an arm that does exactly what it is told."""

    def __init__(self, embodiment, model, safety=None):
        follower = TraceFollower(FollowerConfig(), embodiment.gripper.closing_s)
        self.core = PolicyCore(embodiment, model, follower, safety)
        self.now_s, self.q, self.opening = 100.0, HOME.copy(), 0.04
        self.chunks, self.jumps = [], []
        self.measure()

    def measure(self, **changes):
        values = {
            "stamp_s": self.now_s,
            "q": self.q,
            "qd": np.zeros(3),
            "gripper_q": np.array([self.opening]),
            "gripper_qd": np.zeros(1),
        }
        self.core.measure(Measured(**(values | changes)))

    def turn(self, prediction=None, measure=True):
        self.now_s += 0.1
        if self.core.running is not None:
            self.q = self.core.running.state(self.now_s).q
        if measure:
            self.measure()
        self.core.plan(self.now_s, prediction)
        chunk = self.core.command(self.now_s)
        if chunk is not None:
            made = self.core.sent(chunk, self.now_s + 0.01)
            if made is not None:
                self.chunks.append(chunk)
                self.jumps.append(made.velocity_jump)
        return chunk


@pytest.fixture
def bench(embodiment, model):
    return Bench(embodiment, model)


def test_nothing_moves_before_it_is_engaged(bench, scene):
    prediction, _ = scene(stamp_s=100.0)
    for _ in range(3):
        assert bench.turn(prediction) is None
    assert bench.core.running is None


def test_it_goes_to_the_grasp_without_jumps_or_violations(bench, scene, model):
    assert bench.core.engage(bench.now_s) == ""
    grasp = None
    for turn in range(60):
        prediction = None
        if (turn % 5 == 0 and grasp is None) or turn % 5 == 0:
            way = 0.3 if grasp is None else float(grasp[0] - model.forward(bench.q, "tool0")[0, 3])
            if way > 0.02:
                prediction, goal = scene(bench.q, stamp_s=bench.now_s, way=way)
                grasp = goal if grasp is None else grasp
        bench.turn(prediction)
        if bench.core.policy.phase is Phase.CLOSE:
            break
    assert bench.core.closed is True
    assert np.linalg.norm(model.forward(bench.q, "tool0")[:3, 3] - grasp) < 0.009
    assert max(bench.jumps) < 1e-6
    assert all(violations(chunk, bench.core.limits) == [] for chunk in bench.chunks)


def test_stale_traces_hold_the_arm_and_fresh_ones_let_it_go_on(bench, scene):
    bench.core.engage(bench.now_s)
    prediction, _ = scene(bench.q, stamp_s=bench.now_s)
    bench.turn(prediction)
    for _ in range(9):
        bench.turn()
    assert bench.core.hold == ""
    assert np.abs(bench.core.running.qd).max() > 0.05
    for _ in range(12):
        bench.turn()
    assert bench.core.hold.startswith("traces are 2.20 s old, limit 1 s")
    rest = bench.q.copy()
    bench.turn()
    np.testing.assert_allclose(bench.q, rest, atol=1e-4)
    prediction, _ = scene(bench.q, stamp_s=bench.now_s)
    for _ in range(5):
        bench.turn(prediction)
    assert bench.core.hold == "" and np.abs(bench.q - rest).max() > 0.005


def test_stale_joint_states_hold(bench, scene):
    bench.core.engage(bench.now_s)
    prediction, _ = scene(bench.q, stamp_s=bench.now_s)
    bench.turn(prediction)
    for _ in range(4):
        bench.turn(measure=False)
    assert bench.core.hold.startswith("joint states are 0.40 s old, limit 0.2 s")


def test_stop_holds_and_resume_goes_on_with_the_next_traces(bench, scene):
    bench.core.engage(bench.now_s)
    prediction, _ = scene(bench.q, stamp_s=bench.now_s)
    for _ in range(5):
        bench.turn(prediction)
        prediction = None
    bench.core.stop()
    for _ in range(8):
        bench.turn()
    assert bench.core.hold == "stopped on request"
    assert bench.turn() is None  # one brake is enough
    rest = bench.q.copy()
    bench.core.resume()
    prediction, _ = scene(bench.q, stamp_s=bench.now_s)
    for _ in range(5):
        bench.turn(prediction)
        prediction = None
    assert np.abs(bench.q - rest).max() > 0.005
    assert max(bench.jumps) < 1e-6


def test_an_arm_that_does_not_follow_ends_in_a_latched_fault(bench, scene):
    bench.core.engage(bench.now_s)
    prediction, _ = scene(bench.q, stamp_s=bench.now_s)
    for _ in range(24):
        bench.turn(prediction, measure=False)
        bench.measure(q=HOME)  # it hangs
        prediction, _ = scene(HOME, stamp_s=bench.now_s)
    for _ in range(8):
        bench.turn(measure=False)
        bench.measure(q=HOME)
    assert "does not follow" in bench.core.hold
    assert bench.core.ended is End.SAFETY
    bench.core.disengage()
    assert bench.core.engage(bench.now_s).startswith("fault: j")
    bench.core.safety.clear()
    assert bench.core.engage(bench.now_s) == ""
    np.testing.assert_allclose(bench.core.running.q[-1], HOME)  # from where the arm really is


def test_late_joint_states_are_compared_with_what_was_commanded_then(bench, scene):
    bench.core.engage(bench.now_s)
    passed = [(bench.now_s, bench.q)]
    for i in range(20):
        prediction, _ = scene(bench.q, stamp_s=bench.now_s) if i % 5 == 0 else (None, None)
        bench.turn(prediction, measure=False)
        passed.append((bench.now_s, bench.q))
        stamp_s, q = passed[-2]  # 0.1 s old: older than the running chunk
        bench.measure(stamp_s=stamp_s, q=q)
        newest = bench.core.running
        assert newest.start_s > stamp_s + 0.04 or i < 2
        apart = bench.core._chunk_at(stamp_s).state(stamp_s).q - q
        assert np.abs(apart).max() < 1e-6
    assert bench.core.safety.latched == ""


def test_disengaging_brakes(bench, scene):
    bench.core.engage(bench.now_s)
    for i in range(10):
        prediction, _ = scene(bench.q, stamp_s=bench.now_s) if i % 5 == 0 else (None, None)
        bench.turn(prediction)
    speed = np.abs(bench.core.running.state(bench.now_s).qd).max()
    assert speed > 0.1
    bench.core.disengage()
    for _ in range(5):
        bench.turn()
    assert np.abs(bench.core.running.state(bench.now_s).qd).max() < 0.05 * speed
    assert max(bench.jumps) < 1e-6


@pytest.mark.parametrize(
    ("measured", "refusal"),
    [
        ({"q": np.array([0.5, -2.8, 0.5])}, "outside the limits: j2: position -2.8000 rad"),
        ({"qd": np.array([0.0, 0.0, 0.4])}, "j3 moves at 0.40 rad/s without a command"),
        ({"q": np.array([0.5, np.nan, 0.5])}, "j2: measured position nan is no number"),
        ({"stamp_s": 200.0}, ""),
    ],
)
def test_engaging_is_refused_with_a_reason(embodiment, model, measured, refusal):
    bench = Bench(embodiment, model)
    bench.now_s = 200.0
    bench.measure(**measured)
    assert bench.core.engage(200.0).startswith(refusal)
    assert bench.core.engaged is (refusal == "")


def test_engaging_needs_fresh_joint_states_and_no_stop(bench):
    assert "joint states are 5.00 s old" in bench.core.engage(bench.now_s + 5.0)
    bench.core.stop()
    assert bench.core.engage(bench.now_s) == "stopped; call resume first"


def test_a_chunk_that_is_too_late_is_not_sent_and_the_next_gets_more_time(bench, scene):
    bench.core.engage(bench.now_s)
    prediction, _ = scene(bench.q, stamp_s=bench.now_s)
    bench.core.plan(bench.now_s, prediction)
    chunk = bench.core.command(bench.now_s)
    running = bench.core.running
    assert bench.core.sent(chunk, bench.now_s + 0.2) is None
    assert bench.core.running is running
    assert bench.core.lead_s == pytest.approx(0.25)


def test_the_tool_pose_of_an_image_is_interpolated(bench, model):
    bench.now_s, bench.q = 100.1, HOME + 0.1
    bench.measure()
    expected = model.forward(HOME + 0.05, "tool0")
    np.testing.assert_allclose(bench.core.tool_pose_at(100.05), expected, atol=1e-9)
    with pytest.raises(StaleInputError, match=r"no joint states at 98.000 s; known are 100.000"):
        bench.core.tool_pose_at(98.0)


def test_joint_states_are_kept_for_as_long_as_traces_count(embodiment, model):
    bench = Bench(embodiment, model, SafetyConfig(max_traces_age_s=8.0))
    for now_s in np.arange(100.0, 130.0, 0.1):
        bench.now_s = now_s
        bench.measure()
    bench.core.tool_pose_at(bench.now_s - 8.0)
    with pytest.raises(StaleInputError, match="no joint states at"):
        bench.core.tool_pose_at(bench.now_s - 12.0)


def test_a_path_out_of_the_workspace_stays_inside_and_says_so(bench, scene, model):
    bench.core.engage(bench.now_s)
    for i in range(40):
        prediction, _ = scene(bench.q, stamp_s=bench.now_s, way=0.5) if i % 5 == 0 else (None, 0)
        bench.turn(prediction)
    assert "the path leaves the workspace: x = " in bench.core.warning or "cannot reach" in (
        bench.core.warning
    )
    assert model.forward(bench.q, "tool0")[0, 3] <= 0.983


def test_after_a_jump_back_of_the_clock_everything_is_forgotten(bench, scene):
    bench.core.engage(bench.now_s)
    bench.core.forget()
    assert not bench.core.engaged and bench.core.running is None
    bench.now_s = 1.0
    bench.measure()
    assert bench.core.engage(1.0) == ""
