from dataclasses import replace

import numpy as np
import pytest

from mu0_policy.trace_follower import Phase, RobotState, TraceFollower
from mu0_policy.trace_reading import FollowerConfig

CLOSING_S = 0.6


@pytest.fixture
def follower():
    return TraceFollower(FollowerConfig(), CLOSING_S)


def robot(prediction, now_s=0.2, *, at=None, share=0.0, still=True, ended=False):
    pose = prediction.T_base_tool.copy()
    if at is not None:
        pose[:3, 3] = at
    return RobotState(
        now_s=now_s,
        T_base_tool=pose,
        T_base_tool_ahead=pose,
        gripper_share=share,
        gripper_at_rest=still,
        path_ended=ended,
    )


def grasped(follower, scene):
    """Bring the follower to the phase in which it carries."""
    prediction, grasp = scene()
    follower.step(robot(prediction), prediction)
    follower.step(robot(prediction, 1.0, at=grasp), None)
    assert follower.phase is Phase.CLOSE
    follower.step(robot(prediction, 2.0, at=grasp, share=0.5), None)
    assert follower.phase is Phase.CARRY
    return prediction, grasp


def test_without_a_prediction_nothing_happens(follower, scene):
    prediction, _ = scene()
    assert follower.step(robot(prediction), None) is None
    assert follower.phase is Phase.WAIT


def test_it_approaches_along_the_tool_and_ends_at_the_grasp(follower, scene):
    prediction, grasp = scene()
    plan = follower.step(robot(prediction), prediction)
    assert plan.phase is Phase.APPROACH and not plan.close
    assert "the object moves from step 20 on" in plan.reason
    np.testing.assert_allclose(plan.poses[-1, :3, 3], grasp, atol=1e-3)
    x = plan.poses[:, 0, 3]
    assert (np.diff(x) > 0).all() and x[0] < prediction.T_base_tool[0, 3] + 0.05
    assert np.ptp(plan.poses[:, 1, 3]) < 2e-3  # the steps of the lift are no part of it


def test_steps_that_the_tool_has_passed_are_left_out(follower, scene):
    prediction, _ = scene()
    halfway = prediction.T_base_tool[:3, 3] + np.array([0.15, 0.0, 0.0])
    plan = follower.step(robot(prediction, at=halfway), prediction)
    assert plan.poses[0, 0, 3] >= halfway[0] - 1e-3


def test_while_no_object_moves_in_the_horizon_it_follows_the_gripper(follower, scene):
    prediction, _ = scene(before=20, after=0, way=0.25)
    plan = follower.step(robot(prediction), prediction)
    assert "no object moves in them yet" in plan.reason
    np.testing.assert_allclose(
        plan.poses[-1, :3, 3], prediction.T_base_tool[:3, 3] + [0.25, 0, 0], atol=5e-3
    )


def test_only_what_is_valid_is_followed(follower, scene):
    prediction, _ = scene(valid=10)
    plan = follower.step(robot(prediction), prediction)
    reached = plan.poses[-1, 0, 3] - prediction.T_base_tool[0, 3]
    assert reached == pytest.approx(0.15, abs=0.01)


def test_one_valid_step_with_a_moved_object_is_enough_for_a_grasp(follower, scene):
    prediction, grasp = scene(before=1, after=2, way=0.02)
    plan = follower.step(robot(prediction), prediction)
    np.testing.assert_allclose(plan.poses[-1, :3, 3], grasp, atol=2e-3)


@pytest.mark.parametrize("noise_m", [0.005, 0.01])
def test_noise_of_points_moves_the_grasp_little(follower, scene, noise_m):
    prediction, grasp = scene(noise_m=noise_m)
    plan = follower.step(robot(prediction), prediction)
    assert np.linalg.norm(plan.poses[-1, :3, 3] - grasp) < noise_m


def test_it_closes_within_8_mm_and_not_before(follower, scene):
    prediction, grasp = scene()
    follower.step(robot(prediction), prediction)
    assert follower.step(robot(prediction, at=grasp - np.array([0.010, 0, 0])), None) is None
    plan = follower.step(robot(prediction, at=grasp - np.array([0.006, 0, 0])), None)
    assert plan.phase is Phase.CLOSE and plan.close
    assert np.allclose(plan.poses[:, :3, 3], grasp, atol=1e-3)
    assert plan.reason == "closes 6 mm from the grasp"


def test_it_waits_for_the_fingers_then_carries(follower, scene):
    prediction, grasp = scene()
    follower.step(robot(prediction), prediction)
    follower.step(robot(prediction, 1.0, at=grasp), None)
    assert follower.step(robot(prediction, 1.2, share=0.2), None) is None
    assert follower.step(robot(prediction, 1.5, share=0.4, still=False), None) is None
    plan = follower.step(robot(prediction, 1.6, share=0.5), None)
    assert plan.phase is Phase.CARRY and plan.close and len(plan.poses) == 0


def test_a_prediction_from_before_the_grasp_is_not_used_after_it(follower, scene):
    prediction, grasp = grasped(follower, scene)
    assert follower.step(robot(prediction, 2.1, at=grasp, share=0.5), prediction) is None
    later, _ = scene(held=True, before=0, stamp_s=2.2)
    plan = follower.step(robot(later, 2.4, share=0.5), later)
    assert plan.reason == "follows gripper and object as one" and plan.close
    np.testing.assert_allclose(
        plan.poses[-1, :3, 3], later.T_base_tool[:3, 3] + [0, 0.125, 0], atol=8e-3
    )


def test_fully_shut_fingers_open_and_begin_anew(follower, scene):
    prediction, grasp = scene()
    follower.step(robot(prediction), prediction)
    follower.step(robot(prediction, 1.0, at=grasp), None)
    plan = follower.step(robot(prediction, 1.6, share=1.0), None)
    assert plan.phase is Phase.APPROACH and not plan.close
    assert "closed on nothing" in plan.reason
    at, back = prediction.T_base_tool, plan.poses[-1]
    np.testing.assert_allclose(at[:3, 3] - back[:3, 3], 0.08 * at[:3, 2], atol=1e-9)
    too_early, _ = scene(stamp_s=1.7)
    assert follower.step(robot(prediction, 1.9, share=0.7), too_early) is None
    opened, _ = scene(stamp_s=2.3)
    assert follower.step(robot(prediction, 2.5), opened).phase is Phase.APPROACH


def test_a_lost_load_begins_anew(follower, scene):
    prediction, _ = grasped(follower, scene)
    plan = follower.step(robot(prediction, 2.5, share=0.99), None)
    assert plan.phase is Phase.APPROACH and "is lost" in plan.reason


def test_it_lets_go_where_the_object_stays_behind(follower, scene):
    grasped(follower, scene)
    later, _ = scene(held=True, before=0, after=20, stamp_s=2.2, leaves=8)
    plan = follower.step(robot(later, 2.4, share=0.5), later)
    assert "stays behind" in plan.reason and plan.close
    assert plan.poses[-1, 1, 3] - later.T_base_tool[1, 3] == pytest.approx(0.1125, abs=0.035)
    plan = follower.step(robot(later, 4.0, share=0.5, ended=True), None)
    assert plan.phase is Phase.OPEN and not plan.close
    plan = follower.step(robot(later, 4.7, share=0.0), None)
    assert plan.phase is Phase.RETREAT


def test_done_needs_the_end_of_the_path_and_several_predictions(follower, scene):
    grasped(follower, scene)
    for i in range(3):
        over, _ = scene(held=True, before=0, valid=0, stamp_s=2.2 + i)
        state = robot(over, 2.4 + i, share=0.5)
        assert follower.step(state, over) is None
    assert follower.phase is Phase.CARRY and follower.valid_prob == 0.0
    plan = follower.step(replace(state, path_ended=True), None)
    assert plan.phase is Phase.DONE and plan.close
    assert plan.reason == "the path is finished and no motion goes on"


def test_what_moves_away_from_the_gripper_is_not_grasped(follower, scene):
    prediction, _ = scene()
    far = prediction.current_xyz.copy()
    xyz = prediction.xyz.copy()
    things = ~prediction.on_gripper
    far[things] += [0.0, 0.3, 0.0]
    xyz[things] += [0.0, 0.3, 0.0]
    plan = follower.step(robot(prediction), replace(prediction, current_xyz=far, xyz=xyz))
    assert "no object moves in them yet" in plan.reason


def test_reset_forgets_the_task(follower, scene):
    grasped(follower, scene)
    follower.reset()
    assert follower.phase is Phase.WAIT
    prediction, _ = scene()
    assert follower.step(robot(prediction), prediction).phase is Phase.APPROACH


def stays(follower, scene, seconds, *, at=None, share=0.0, **options):
    """Feed predictions twice a second while the tool stays; return the plans."""
    plans = []
    for i in range(round(2 * seconds)):
        now_s = 10.0 + 0.5 * i
        prediction, _ = scene(stamp_s=now_s - 0.1, **options)
        plans.append(follower.step(robot(prediction, now_s, at=at, share=share), prediction))
    return [plan for plan in plans if plan is not None]


def test_an_approach_that_does_not_get_on_steps_back(follower, scene):
    plans = stays(follower, scene, 3.0)
    assert all("does not get on" not in plan.reason for plan in plans)
    plans = stays(follower, scene, 6.0)
    again = next(plan for plan in plans if "does not get on" in plan.reason)
    assert again.phase is Phase.APPROACH and not again.close and len(again.poses) == 1


def test_it_steps_back_once_and_not_out_of_the_picture(follower, scene):
    plans = stays(follower, scene, 6.0)
    back = next(plan for plan in plans if "does not get on" in plan.reason).poses[0, :3, 3]
    plans = stays(follower, scene, 12.0, at=back)
    assert all("does not get on" not in plan.reason for plan in plans)


def test_an_approach_that_runs_into_something_goes_back_once(follower, scene):
    prediction, _ = scene()
    plan = follower.step(robot(prediction), prediction)
    assert plan.careful
    pushing = replace(robot(prediction, 0.3), lag_rad=0.1)
    back = follower.step(pushing, prediction)
    assert "runs into something" in back.reason and back.phase is Phase.APPROACH
    tool = prediction.T_base_tool
    assert (back.poses[0, :3, 3] - tool[:3, 3]) @ tool[:3, 2] == pytest.approx(-0.08)
    later, _ = scene(stamp_s=1.5)
    assert "runs into" not in follower.step(replace(pushing, now_s=1.6), later).reason
    follower.step(robot(prediction, 1.8), None)
    assert "runs into" in follower.step(replace(pushing, now_s=1.9), None).reason


def test_a_grasp_that_does_not_come_off_the_ground_is_given_up(follower, scene):
    _, grasp = grasped(follower, scene)
    plans = stays(follower, scene, 6.0, at=grasp, share=0.5, held=True, before=0)
    assert any("does not get on" in plan.reason and not plan.close for plan in plans)


def test_what_is_carried_is_never_let_go_for_standing_still(follower, scene):
    _, grasp = grasped(follower, scene)
    away = np.add(grasp, [0.0, 0.0, 0.1])
    plans = stays(follower, scene, 12.0, at=away, share=0.5, held=True, before=0)
    assert all(plan.close for plan in plans)
    assert follower.phase is Phase.CARRY


def test_a_pause_is_no_lack_of_progress(follower, scene):
    stays(follower, scene, 2.0)
    prediction, _ = scene(stamp_s=99.9)
    plan = follower.step(robot(prediction, 100.0), prediction)
    assert "does not get on" not in plan.reason
