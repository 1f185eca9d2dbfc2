"""What moves of a thing moves together; single tracks among points that rest have slipped."""

import numpy as np
import pytest

from mu0_perception.extract.motion import MotionConfig, moves_apart
from mu0_perception.extract.tracks import Tracks

N = 60
PLACES = np.random.default_rng(0).uniform(-0.1, 0.1, (N, 3))


def tracks(moves, *, as_body=False, seen=10):
    """Points of one entity, each of them seen in so many pictures; some of them move."""
    ways = np.random.default_rng(4).normal(0.0, 0.01, (1 if as_body else N, 3))
    steps = np.arange(10)[:, None, None] * ways * moves[:, None]
    return Tracks(
        xyz_world=PLACES + steps,
        visible=np.arange(10)[:, None] < np.broadcast_to(seen, N),
        cluster=np.zeros(N, np.int32),
        born=np.zeros(N, np.int64),
        colour=np.zeros((N, 3), np.float32),
        group=np.full(N, -1, np.int32),
    )


def test_what_moves_as_a_whole_moves_together():
    moves = np.random.default_rng(1).random(N) < 0.9
    assert not moves_apart(tracks(moves), moves, MotionConfig()).any()


def test_a_drawer_moves_though_its_cabinet_rests():
    drawer = PLACES[:, 2] > 0.06
    assert 3 < drawer.sum() < 0.3 * N
    assert not moves_apart(tracks(drawer, as_body=True), drawer, MotionConfig()).any()


def test_the_corner_of_a_cloth_moves_without_the_rest():
    corner = (PLACES[:, :2] > -0.02).all(axis=1)
    flat = tracks(corner)
    flat.xyz_world[..., 2] = 0.0
    assert 0.1 * N < corner.sum() < 0.5 * N
    assert not moves_apart(flat, corner, MotionConfig()).any()


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_tracks_that_slip_among_points_at_rest_move_apart(share):
    moves = np.random.default_rng(2).random(N) < share
    np.testing.assert_array_equal(moves_apart(tracks(moves), moves, MotionConfig()), moves)


def test_points_that_were_hardly_seen_do_not_say_that_a_thing_rests():
    moves = np.random.default_rng(3).random(N) < 0.3
    seen = np.where(moves, 10, MotionConfig().min_seen - 1)
    assert not moves_apart(tracks(moves, seen=seen), moves, MotionConfig()).any()


def test_a_single_point_moves_with_itself():
    one = np.ones(1, np.bool_)
    alone = tracks(np.ones(N, np.bool_)).part(np.arange(1))
    assert not moves_apart(alone, one, MotionConfig()).any()
