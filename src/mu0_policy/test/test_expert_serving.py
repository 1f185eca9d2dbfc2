"""Serving an action expert without ROS: asking, hand-over, fingers, the end, the checks."""

import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from mu0_core import se3
from mu0_core.embodiment import arm_limits
from mu0_core.errors import ConfigError, ShapeError, StaleInputError
from mu0_policy import chunk as chunks
from mu0_policy.action_expert.actions import ActionSpace
from mu0_policy.action_expert.asking import Asking
from mu0_policy.action_expert.card import ExpertCard, place_fields
from mu0_policy.action_expert.follower import ActingConfig, ExpertFollower
from mu0_policy.action_expert.normaliser import Normaliser
from mu0_policy.action_expert.readiness import (
    Stream,
    Timing,
    check_card,
    check_seen,
    features_fault,
    not_compared,
    picture_fault,
)
from mu0_policy.camera_places import CameraPlace, Mount
from mu0_policy.core import End, Measured, PolicyCore
from mu0_policy.safety import SafetyConfig

HOME = np.array([1.2, -2.0, 0.8])
CARD = ExpertCard(
    robot="planar",
    joints=("j1", "j2", "j3"),
    gripper_joints=("jaw",),
    rate_hz=10.0,
    features="tiny 12ab, grid 4/2",
    cameras=("wrist",),
    picture_sizes=("64x48",),
    front_size="320x240",
    focal_lengths=(1.0, 0.65),
    joints_low=(0.5, -2.1, 0.6),
    joints_high=(1.3, -1.5, 1.2),
    most_known=8,
)
STATISTICS = Normaliser(
    state_mean=(*HOME, 0.3), state_std=(0.1,) * 4, action_mean=(*HOME, 0.3), action_std=(0.1,) * 4
)
DELTAS = replace(STATISTICS, action_mean=(0.02, 0.01, 0.0, 0.3))
TIMING = Timing(turns_hz=10.0, lead_s=0.1, max_picture_age_s=0.25)


class Reaching:
    """Stand in for an expert: along a fixed motion over time, whatever is seen.

    An answer goes on from the commands it is given, as an expert was trained to.
    """

    card = CARD
    chunk_size = 16

    def __init__(self, motion):
        self.motion, self.asked = motion, []

    def warm_up(self):
        pass

    def commands(self, moment, known=None):
        self.asked.append(0 if known is None else len(known))
        times = moment + np.arange(1, 17) / 10.0
        result = np.array([[*self.motion(t)[0], self.motion(t)[1]] for t in times])
        if known is not None:
            result[: len(known)] = known
        return result


def reach(t):
    """Reach for three seconds and close at the second one."""
    share = 0.5 - 0.5 * np.cos(np.pi * np.clip((t - 1.0) / 3.0, 0.0, 1.0))
    return HOME + share * np.array([-0.5, 0.4, 0.3]), float(t > 2.0)


@pytest.fixture
def core(embodiment, model):
    follower = ExpertFollower(ActingConfig(rest_s=1.0))
    core = PolicyCore(embodiment, model, follower, SafetyConfig(engage_s=0.0))
    return core, follower


def measured(t, q):
    return Measured(
        stamp_s=t, q=q, qd=np.zeros(3), gripper_q=np.array([0.04]), gripper_qd=np.zeros(1)
    )


def play(core, follower, policy, latency_s, seconds=6.0, period_s=0.05):
    """Run turns in simulated time, with answers that take a fixed time; return what was sent."""
    asking, sent, overs, closed = Asking(policy), [], [], []
    pending = None
    t, q = 1.0, HOME.copy()
    core.measure(measured(t, q))
    assert core.engage(t) == ""
    while t < seconds and core.ended is None:
        core.measure(measured(t, q))
        answer = None
        if pending is not None and t >= pending:
            while answer is None:
                answer = asking.take(t)
            pending = None
        if pending is None:
            asking.ask(t, t, t, core.lead_s, commander(core, follower))
            pending = t + latency_s
        core.plan(t, answer)
        chunk = core.command(t)
        if chunk is not None:
            overs.append(core.sent(chunk, t))
            sent.append(chunk)
        closed.append((t, core.closed))
        t = round(t + period_s, 6)
        q = core.commanded(np.array([t]))[0]
    asking.close()
    return sent, overs, closed, t


def commander(core, follower):
    def commanded(times_s):
        joints = core.commanded(times_s)
        return np.column_stack([joints, follower.goals(times_s)])

    return commanded


@pytest.mark.parametrize("latency_s", [0.0, 0.1, 0.3])
def test_chunks_follow_each_other_without_pause_or_jump(core, latency_s):
    core, follower = core
    sent, overs, closed, _ = play(core, follower, Reaching(reach), latency_s)
    jumps = [over.velocity_jump for over in overs if over is not None]
    assert len(jumps) > 30
    assert max(jumps) < 0.05
    # What was executed: each chunk until the next one.
    times = np.arange(1.6, 3.8, 0.01)
    starts = [chunk.start_s for chunk in sent]
    speeds = np.array(
        [np.abs(sent[np.searchsorted(starts, t, "right") - 1].state(t).qd).max() for t in times]
    )
    assert speeds.min() > 0.02  # it never waits for an answer
    end = core.running.q[-1]
    assert np.abs(end - reach(9.0)[0]).max() < 0.02
    first_closed = next(t for t, shut in closed if shut)
    assert 1.9 < first_closed < 2.0 + latency_s + 0.3


def test_the_longer_it_takes_the_more_is_given(core):
    core, follower = core
    quick, slow = Reaching(reach), Reaching(reach)
    play(core, follower, quick, 0.0, seconds=2.0)
    core.forget()
    play(core, follower, slow, 0.4, seconds=3.5)
    assert max(quick.asked[2:]) < min(slow.asked[3:])
    assert max(slow.asked) <= CARD.most_known


def test_what_will_have_run_goes_on_where_chunks_brake(core):
    core, follower = core
    play(core, follower, Reaching(reach), 0.1, seconds=2.5)
    ahead_s = np.array([2.6, 2.9, 3.2, 3.5])
    wanted = np.stack([reach(t)[0] for t in ahead_s])
    braked = np.stack([core.running.state(t).q for t in ahead_s])
    assert np.abs(core.commanded(ahead_s) - wanted).max() < 0.01
    assert np.abs(braked - wanted).max() > 0.015


def test_done_when_no_more_motion_is_asked_for(core):
    core, follower = core
    _, _, _, t = play(core, follower, Reaching(reach), 0.1, seconds=9.0)
    assert core.ended is End.DONE
    assert 4.5 < t < 6.5
    assert "no motion" in core.policy.reason


def test_without_answers_it_holds_and_says_why(core):
    core, _ = core
    core.measure(measured(1.0, HOME))
    assert core.engage(1.0) == ""
    core.plan(1.05)
    assert core.hold == "no answers of the action expert yet; check the topic mu0/trace_features"


def test_an_answer_that_fails_is_said_and_the_next_is_asked(core):
    class Failing(Reaching):
        def commands(self, moment, known=None):
            raise ShapeError("nothing came of wrist")

    asking = Asking(Failing(reach))
    asking.ask(1.0, 1.0, 1.0, 0.1, lambda times: np.zeros((len(times), 4)))
    with pytest.raises(ShapeError, match="wrist"):
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            asking.take(1.1)
    assert not asking.busy
    asking.close()


def test_warm_up_does_not_count_as_latency():
    class Slow(Reaching):
        def warm_up(self):
            time.sleep(0.05)

    asking = Asking(Slow(reach))
    assert asking.warm_up() >= 0.05
    assert asking.expected_latency_s == pytest.approx(0.1)  # one period, until one is known
    asking.close()


def test_an_expert_is_asked_again_when_enough_of_its_chunk_was_executed():
    asking = Asking(Reaching(reach), executed_share=0.5)  # of 1.6 s
    assert asking.due(1.0, 0.1)  # nothing is being executed
    asking.ask(1.0, 1.0, 1.2, 0.1, lambda times: np.zeros((len(times), 4)))
    answer = None
    while answer is None:
        answer = asking.take(1.5)  # 0.3 s later
    assert not asking.due(1.39, 0.1)
    assert asking.due(1.41, 0.1)  # takes over 0.8 s after the picture
    asking.forget()
    assert asking.due(1.39, 0.1)
    asking.close()


def test_fingers_that_somebody_opened_do_not_count_as_closed():
    follower = ExpertFollower(ActingConfig())
    follower.closed = True
    follower.reset()
    follower.notice(0.4)  # on something
    assert follower.goals(np.zeros(2)).tolist() == [1.0, 1.0]
    follower.notice(0.0)
    assert follower.goals(np.zeros(2)).tolist() == [0.0, 0.0]


def test_joints_of_a_moment_are_never_later(core):
    core, _ = core
    for t in (1.0, 1.1, 1.2):
        core.measure(measured(t, HOME + t))
    assert core.measured_at(1.19).stamp_s == 1.1
    assert core.measured_at(1.2).stamp_s == 1.2
    with pytest.raises(StaleInputError, match="none before"):
        core.measured_at(0.9)
    with pytest.raises(StaleInputError, match=r"1\.200 s"):
        core.measured_at(1.6)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"robot": "ur5e"}, "trained for 'ur5e', this is 'planar'"),
        ({"joints": ("j2", "j1", "j3")}, "another order"),
        ({"joints": ("a", "b", "c")}, "trained with a, b, c"),
        ({"gripper_joints": ("finger",)}, "gripper joints: trained with finger"),
        ({"tool_frame": "flange"}, "motions of 'flange', here the tool is 'tool0'"),
        (
            {"joints_high": (68.8, -1.5, 1.2)},
            r"j1: between 0.50 and 68.80 in .*, its limits are \[-3.00, 3.00\] rad",
        ),
        (
            {"space": ActionSpace.JOINT_DELTAS},
            "card says joint_deltas, but those of j2 are about -2.00 rad where 0.00 rad",
        ),
        ({"space": ActionSpace.TOOL_DELTAS}, "4 numbers each, tool_deltas of 3 joints have 7"),
    ],
)
def test_an_expert_for_another_robot_is_refused(embodiment, model, changes, what):
    limits = arm_limits(embodiment, model)
    check_card(CARD, embodiment, limits, STATISTICS)
    with pytest.raises(ConfigError, match=what):
        check_card(replace(CARD, **changes), embodiment, limits, STATISTICS)


def test_relative_actions_are_told_from_absolute_ones(embodiment, model):
    limits = arm_limits(embodiment, model)
    relative = replace(CARD, space=ActionSpace.JOINT_DELTAS)
    check_card(relative, embodiment, limits, DELTAS)
    with pytest.raises(ConfigError, match="card says joints, but those of j2 are about 0.01 rad"):
        check_card(CARD, embodiment, limits, DELTAS)


def seen(**changes):
    """All that a robot shows when everything is as in training, with changes."""
    stamps = [0.1 * i for i in range(5)]
    streams = {
        "joints": Stream("/joint_states", [0.02 * i for i in range(5)]),
        "front": Stream("/camera/color/camera_info", stamps, (640, 480), 1.02),
        "wrist": Stream("/wrist_camera/color/image_raw", stamps, (128, 96), 0.65),
    }
    streams |= {name: replace(streams[name], **change) for name, change in changes.items()}
    return streams.pop("joints"), streams


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"wrist": {"size": None}}, "wrist camera: nothing came; check the topic /wrist_camera/"),
        ({"wrist": {"size": (128, 72)}}, "pictures of 128x72 px, trained with 64x48"),
        (
            {"front": {"size": (640, 360)}},
            "front camera: pictures of 640x360 px, trained with 320",
        ),
        (
            {"wrist": {"focal_length": 0.9}},
            "wrist camera: focal length 0.900 .* trained with 0.65",
        ),
        (
            {"wrist": {"stamps_s": [0.0, 0.5, 1.0]}},
            r"wrist camera: 2.0 pictures a second on /wrist_camera/.*: expected at least 3.2",
        ),
        (
            {"joints": {"stamps_s": [0.0, 0.2, 0.4]}},
            "/joint_states: 5.0 a second, the expert was trained on 10 moments a second",
        ),
    ],
)
def test_what_is_seen_must_be_what_was_trained_on(changes, what):
    check_seen(CARD, *seen(), TIMING)
    with pytest.raises(ConfigError, match=what):
        check_seen(CARD, *seen(**changes), TIMING)


def placed(x_m, turn_rad=0.0):
    """A camera's pose, turned about its optical axis."""
    return se3.exp([x_m, 0.0, 0.5, 0.0, 0.0, 0.0]) @ se3.exp([0.0, 0.0, 0.0, 0.0, 0.0, turn_rad])


@pytest.mark.parametrize(
    ("here", "says"),
    [
        ((0.9, 0.0), ""),
        ((0.98, 0.05), ""),  # the demonstrations' own spread, and the tolerance
        ((0.9, 0.3), "0.00 m and 0.30 rad apart, limits 0.09 m and 0.10 rad"),
        (
            (1.0, 0.0),
            r"front camera: TF puts it at \[1.0, 0.0, 0.5\] m from the base, in training it was "
            r"at \[0.9, 0.0, 0.5\] m: 0.10 m",
        ),
    ],
)
def test_cameras_must_be_where_they_were(here, says):
    places = (
        CameraPlace(mount=Mount.BASE, T_mount_camera=placed(0.9), spread_m=0.04),
        CameraPlace(mount=Mount.TOOL, T_mount_camera=placed(0.1)),
    )
    card = replace(CARD, **place_fields(places))
    change = {"front": {"T_mount_camera": placed(*here), "frame": "optical"}}
    states, cameras = seen(**change, wrist={"frame": "hand_camera"})
    assert not_compared(card, cameras) == ["wrist camera: TF does not know where 'hand_camera' is"]
    with pytest.raises(ConfigError, match=says) if says else nullcontext():
        check_seen(card, states, cameras, TIMING)


def test_a_place_that_nobody_told_is_not_compared():
    told = CameraPlace(mount=Mount.TOOL, T_mount_camera=placed(0.1))
    partly = replace(CARD, **place_fields((None, told)))
    assert (CARD.place("wrist"), partly.place("front")) == (None, None)
    states, cameras = seen(front={"T_mount_camera": placed(5.0)})
    for card in (CARD, partly):
        check_seen(card, states, cameras, TIMING)
        assert "front camera: its place in the demonstrations is not known" in not_compared(
            card, cameras
        )
    with pytest.raises(ConfigError, match="camera_mounts: expected base or tool, got 'hand'"):
        replace(partly, camera_mounts=("", "hand"))
    with pytest.raises(ConfigError, match="camera_poses: expected 14, got 7"):
        replace(partly, camera_poses=partly.camera_poses[:7])


def test_what_is_not_known_is_not_judged():
    unknown = replace(CARD, focal_lengths=(), front_size="")
    changes = {"focal_length": 0.0, "stamps_s": [0.0]}
    check_seen(unknown, *seen(wrist=changes, joints={"stamps_s": []}), TIMING)
    check_seen(CARD, *seen(wrist=changes), TIMING)


def test_turns_must_be_as_quick_as_known_commands_bridge():
    card = replace(CARD, most_known=2)
    check_seen(card, *seen(), TIMING)
    with pytest.raises(ConfigError, match="raise rate_hz"):
        check_seen(card, *seen(), replace(TIMING, turns_hz=3.0))


def test_all_that_differs_is_said_at_once(embodiment, model):
    wrong = replace(CARD, robot="ur5e", gripper_joints=("finger",))
    with pytest.raises(ConfigError) as error:
        check_card(wrong, embodiment, arm_limits(embodiment, model), DELTAS)
    assert len(str(error.value).splitlines()) == 4


def test_other_features_and_pictures_are_named():
    names = dict.fromkeys(("context", "traces", "language"))
    assert features_fault(CARD, CARD.features, names) == ""
    fault = features_fault(CARD, "tiny 34cd, grid 4/2", names)
    assert "34cd" in fault
    assert "12ab" in fault
    assert "no traces" in features_fault(CARD, CARD.features, {"context": 0, "language": 0})
    assert picture_fault(CARD, "wrist", 640, 480) == ""
    assert "64x48" in picture_fault(CARD, "wrist", 640, 360)


def test_chunk_and_expert_times_agree():
    assert pytest.approx(1.0 / CARD.rate_hz) == chunks.KNOT_S * 2
