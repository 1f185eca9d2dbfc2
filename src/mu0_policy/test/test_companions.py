"""Parts of the robot that the tracker took for things are not what is to be grasped."""

from dataclasses import replace

import numpy as np
import pytest

from mu0_policy.companions import Companions
from mu0_policy.trace_follower import Phase, RobotState, TraceFollower
from mu0_policy.trace_reading import FollowerConfig

FINGER = 9


@pytest.fixture
def with_finger(scene):
    """Return a maker of predictions in which an entity sits on the gripper."""

    def make(**options):
        prediction, grasp = scene(**options)
        near = prediction.T_base_tool[:3, 3] + np.random.default_rng(3).uniform(
            -0.02, 0.02, (5, 3)
        )
        tool_way = np.median(
            prediction.xyz[prediction.on_gripper]
            - prediction.current_xyz[prediction.on_gripper, None],
            axis=0,
        )
        return replace(
            prediction,
            current_xyz=np.concatenate([prediction.current_xyz, near]),
            xyz=np.concatenate([prediction.xyz, near[:, None] + tool_way]),
            valid_prob=np.concatenate([prediction.valid_prob, prediction.valid_prob[:5]]),
            on_gripper=np.concatenate([prediction.on_gripper, np.zeros(5, bool)]),
            cluster_ids=np.concatenate([prediction.cluster_ids, np.full(5, FINGER, np.int32)]),
        ), grasp

    return make


def points_of(prediction, cluster):
    return ~prediction.on_gripper & (prediction.cluster_ids == cluster)


def test_before_the_tool_has_moved_the_prediction_tells(with_finger):
    prediction, _ = with_finger()
    companions = Companions()
    companions.see(prediction)
    assert companions.ride(prediction, points_of(prediction, FINGER), prediction.horizon)
    assert not companions.ride(prediction, points_of(prediction, 7), prediction.horizon)


def test_once_the_tool_has_moved_what_moved_with_it_is_known(with_finger):
    companions = Companions()
    first, _ = with_finger()
    later, _ = with_finger(q=(1.0, -2.0, 1.0))
    moved = np.linalg.norm(later.T_base_tool[:3, 3] - first.T_base_tool[:3, 3])
    assert moved > 0.05
    cube = first.current_xyz[points_of(first, 7)]
    current, xyz = later.current_xyz.copy(), later.xyz.copy()
    rows = points_of(later, 7)
    xyz[rows] += (cube - current[rows])[:, None]
    current[rows] = cube  # it has stayed where it was
    finger = points_of(later, FINGER)
    xyz[finger] = current[finger, None]  # a prediction that is wrong about the finger
    later = replace(later, current_xyz=current, xyz=xyz)
    for prediction in (first, later):
        companions.see(prediction)
    assert companions.ride(later, finger, later.horizon)
    assert not companions.ride(later, rows, later.horizon)
    companions.forget()
    companions.see(later)
    assert not companions.ride(later, finger, later.horizon)


def test_what_appears_later_is_told_by_the_prediction_or_by_its_place(with_finger):
    companions = Companions()
    first, _ = with_finger()
    later, _ = with_finger(q=(1.0, -2.0, 1.0))
    cube = first.current_xyz[points_of(first, 7)]
    current, xyz, ids = later.current_xyz.copy(), later.xyz.copy(), later.cluster_ids.copy()
    rows = points_of(later, 7)
    xyz[rows] += (cube - current[rows])[:, None]
    current[rows] = cube
    same = replace(later, current_xyz=current, xyz=xyz)
    ids[rows], ids[points_of(later, FINGER)] = 70, 90  # lost, and found again under new numbers
    renamed = replace(same, cluster_ids=ids)
    for prediction in (first, same, renamed):
        companions.see(prediction)
    assert companions.ride(renamed, points_of(renamed, 90), renamed.horizon)
    xyz[rows] = renamed.current_xyz[rows, None] + np.median(
        renamed.xyz[renamed.on_gripper] - renamed.current_xyz[renamed.on_gripper, None], axis=0
    )  # at the grasp it is predicted to move as the gripper does
    assert not companions.ride(renamed, points_of(renamed, 70), renamed.horizon)


def test_the_follower_goes_to_the_cube_and_not_to_its_own_finger(with_finger):
    prediction, grasp = with_finger()
    follower = TraceFollower(FollowerConfig(), 0.6)
    state = RobotState(
        now_s=0.2,
        T_base_tool=prediction.T_base_tool,
        T_base_tool_ahead=prediction.T_base_tool,
        gripper_share=0.0,
        gripper_at_rest=True,
        path_ended=False,
    )
    plan = follower.step(state, prediction)
    assert plan.phase is Phase.APPROACH
    np.testing.assert_allclose(plan.poses[-1, :3, 3], grasp, atol=2e-3)
