"""Transforms of a recording."""

import tracemalloc

import numpy as np
import pytest

from mu0_core.errors import Mu0Error
from mu0_perception.extract import transforms
from mu0_perception.extract.transforms import TransformTree, find_fixed_frame

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


def test_late_and_repeated_transforms_take_their_place_in_time(tree):
    assert np.isnan(tree.lookup("world", "base", np.array([1.2]))).all()
    for stamp, x in ((1.4, 1.4), (1.0, 1.0), (1.0, 9.0)):
        tree.add("world", "base", stamp, (x, 0.0, 0.0), NO_TURN, fixed=False)
    assert tree.lookup("world", "base", np.array([1.2]))[0, 0, 3] == pytest.approx(1.2)


@pytest.mark.parametrize("broken", [((0, 0, 0), (0, 0, 0, 0)), ((np.nan, 0, 0), NO_TURN)])
def test_a_transform_without_meaning_is_left_out(tree, broken):
    for fixed in (False, True):
        tree.add("elsewhere", "base", 0.2, *broken, fixed=fixed)
    T = tree.lookup("world", "base", np.array([0.2]))[0]
    assert T[:3, 3] == pytest.approx([0.2, 0.0, 0.0])


def test_transforms_of_a_long_recording_are_small_in_memory():
    tree, n = TransformTree(1.0), 20_000
    tracemalloc.start()
    try:
        for i in range(n):
            tree.add("base", "hand", 0.01 * i, (0.1 * i, 0.2, 0.3), NO_TURN, fixed=False)
        collected = tracemalloc.get_traced_memory()[0] / n
        tree.lookup("base", "hand", np.array([1.0]))
        sorted_ = tracemalloc.get_traced_memory()[0] / n
    finally:
        tracemalloc.stop()
    assert collected < 80 and sorted_ < 80


def test_a_query_makes_matrices_of_its_neighbours_only(monkeypatch):
    tree, made = TransformTree(1.0), []
    for i in range(20_000):
        tree.add("base", "hand", 0.01 * i, (0.01 * i, 0.0, 0.0), NO_TURN, fixed=False)

    def make(t, quat):
        made.append(len(t))
        return original(t, quat)

    original = transforms.transform_from_quat_xyzw
    monkeypatch.setattr(transforms, "transform_from_quat_xyzw", make)
    stamps = np.linspace(3.0, 4.0, 50) + 0.005
    T = tree.lookup("base", "hand", stamps)
    assert T[:, 0, 3] == pytest.approx(stamps)
    assert sum(made) == 2 * len(stamps)


def family(*rows):
    """Make a tree of (parent, child, how far it moves)."""
    tree = TransformTree(1.0)
    for parent, child, far in rows:
        for i in range(3):
            tree.add(parent, child, 0.1 * i, (far * i, 0.0, 1.0), QUARTER, fixed=False)
    return tree


CAMERA = ("camera_link", "camera_optical", 0.0)
ON_BASE = ("base_link", "camera_link", 0.0)
ARM = ("base_link", "hand", 0.1)


@pytest.mark.parametrize(
    ("rows", "frame", "why"),
    [
        # In a hand, or on a base that drives: nobody knows where the camera was.
        ([CAMERA], None, "may be in a hand"),
        ([CAMERA, ON_BASE], None, "may be in a hand"),
        ([CAMERA, ARM], None, "may be in a hand"),  # an arm that the camera is not tied to
        ([CAMERA, ON_BASE, ("base_link", "left_wheel", 0.1), ARM], None, "may drive"),
        ([CAMERA, ON_BASE, ("base_footprint", "base_link", 0.0), ARM], None, "may drive"),
        # On a robot that stands.
        ([CAMERA, ON_BASE, ARM], "base_link", "the root"),
        ([CAMERA, ("hand", "camera_link", 0.0), ARM], "base_link", "the root"),
        # Named.
        ([CAMERA, ("world", "camera_link", 0.0)], "world", "name"),
        ([CAMERA, ("map", "odom", 0.1), ("odom", "camera_link", 0.1)], "odom", "name"),
        ([CAMERA, ON_BASE, ("r1/odom", "base_link", 0.1)], "r1/odom", "name"),
        ([CAMERA, ON_BASE, ("base_link", "odom", 0.1)], "odom", "name"),
    ],
)
def test_the_fixed_frame_of_a_camera_stands_on_the_ground(rows, frame, why):
    found, reason = find_fixed_frame(family(*rows), "camera_optical")
    assert found == frame and why in reason
