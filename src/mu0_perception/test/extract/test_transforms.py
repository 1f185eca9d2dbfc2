"""Transforms of a recording."""

import numpy as np
import pytest

from mu0_core.errors import Mu0Error
from mu0_perception.extract.transforms import TransformTree

NO_TURN = (0.0, 0.0, 0.0, 1.0)
QUARTER = (0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5))


@pytest.fixture
def tree():
    tree = TransformTree(max_gap_s=0.5)
    for stamp in (0.0, 0.4, 2.0):
        tree.add("world", "base", stamp, (stamp, 0.0, 0.0), NO_TURN, fixed=False)
    tree.add("base", "camera", 0.0, (0.0, 0.0, 1.0), QUARTER, fixed=True)
    tree.add("/world", "/table", 0.0, (0.0, 2.0, 0.0), NO_TURN, fixed=True)
    return tree


def test_a_chain_is_followed_and_interpolated(tree):
    T = tree.lookup("world", "camera", np.array([0.1]))[0]
    assert T[:3, 3] == pytest.approx([0.1, 0.0, 1.0])
    assert T[:3, 0] == pytest.approx([0.0, 1.0, 0.0])


def test_a_gap_is_not_bridged(tree):
    known = np.isfinite(tree.lookup("world", "camera", np.array([0.2, 1.0, 2.0]))).all((1, 2))
    assert known.tolist() == [True, False, True]


def test_the_ends_hold_for_half_a_gap_only(tree):
    T = tree.lookup("world", "base", np.array([-0.2, -0.3, 2.2, 2.3]))
    assert np.isfinite(T[:, 0, 3]).tolist() == [True, False, True, False]


def test_frames_beside_each_other_meet_at_the_root(tree):
    T = tree.lookup("table", "camera", np.array([0.0]))[0]
    assert T[:3, 3] == pytest.approx([0.0, -2.0, 1.0])


def test_frames_of_two_trees_are_refused_and_named(tree):
    tree.add("odom", "other", 0.0, (0, 0, 0), NO_TURN, fixed=True)
    with pytest.raises(Mu0Error, match="not connected.*odom"):
        tree.lookup("world", "other", np.zeros(1))


def test_what_hangs_on_a_moving_frame_moves(tree):
    assert tree.moves("camera") and not tree.moves("table")


def test_a_ring_is_refused():
    tree = TransformTree(1.0)
    tree.add("a", "b", 0.0, (0, 0, 0), NO_TURN, fixed=True)
    tree.add("b", "a", 0.0, (0, 0, 0), NO_TURN, fixed=True)
    with pytest.raises(Mu0Error, match="ring"):
        tree.ancestors("a")
