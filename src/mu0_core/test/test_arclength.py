import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu0_core.arclength import retarget
from mu0_core.errors import ShapeError

# Three tracks in five frames of a 100 x 50 image, px, px, m.
A = [[10, 10, 1], [20, 10, 1], [20, 10, 1], [20, 20, 1.1], [32, 20, 1.1]]
B = [[50, 25, 2], [50, 25, 2], [51, 25, 2], [51, 26, 2], [52, 26, 2]]
C = [[90, 40, 0.5], [88, 40, 0.5], [88, 41, 0.5], [88, 41, 0.5], [88, 41, 0.5]]
TRACKS = np.array([A, B, C])
IMAGE = {"width": 100, "height": 50}


def random_tracks(n: int = 4, n_frames: int = 12, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(scale=(2.0, 1.0, 0.02), size=(n, n_frames, 3))
    return np.array([50.0, 25.0, 1.0]) + np.cumsum(steps, axis=1)


def test_worked_example():
    found = retarget(TRACKS, **IMAGE, arc_step=0.05, n_samples=128)
    assert found.uvz.shape == (3, 128, 3)
    np.testing.assert_array_equal(found.valid, np.arange(128) < 10)
    expected = {
        (0, 3): (20, 11.3416, 1.0134),
        (0, 7): (20.6393, 20, 1.1),
        (0, 9): (30.6393, 20, 1.1),
        (1, 9): (51.8866, 26, 2),
        (2, 1): (89, 40, 0.5),
    }
    for sample, point in expected.items():
        np.testing.assert_allclose(found.uvz[sample], point, atol=5e-5)


def test_source_index_tells_the_frame_of_each_sample():
    """The clock steps by 0.1, 0.02, 0.223607 and 0.12."""
    found = retarget(TRACKS, **IMAGE, arc_step=0.05, n_samples=12)
    third = 2 + (0.15 - 0.12) / np.hypot(0.2, 0.1)
    last = 3 + (0.45 - 0.12 - np.hypot(0.2, 0.1)) / 0.12
    np.testing.assert_allclose(found.source_index[[0, 1, 3, 9]], [0, 0.5, third, last])
    assert np.isnan(found.source_index[10:]).all()
    assert np.isnan(found.uvz[:, 10:]).all()


@given(st.integers(0, 1000), st.floats(0.005, 0.2))
def test_samples_lie_on_the_tracks_where_the_index_says(seed, arc_step):
    tracks = random_tracks(seed=seed)
    found = retarget(tracks, **IMAGE, arc_step=arc_step, n_samples=40)
    index = found.source_index[found.valid]
    assert (np.diff(index) > 0).all() and index[0] == 0
    for track, samples in zip(tracks, found.uvz, strict=True):
        for axis in range(3):
            expected = np.interp(index, np.arange(12), track[:, axis])
            np.testing.assert_allclose(samples[found.valid, axis], expected, atol=1e-9)


def test_a_single_straight_track_is_sampled_evenly():
    """Whatever its speed, the samples are one step apart and what is left over is dropped."""
    u = np.cumsum([0.0, 3.0, 0.0, 10.0, 1.0, 9.0])
    tracks = np.stack([u, np.zeros(6), np.ones(6)], axis=-1)[None]
    found = retarget(tracks, **IMAGE, arc_step=0.04, n_samples=20)
    np.testing.assert_allclose(found.uvz[0, :6, 0], 4.0 * np.arange(6), atol=1e-9)
    assert found.valid.sum() == 6


@given(st.integers(0, 1000), st.floats(0.005, 0.05))
def test_retargeting_straight_motion_again_changes_nothing(seed, arc_step):
    """Whatever its speed; a path that bends inside a step is shorter the second time."""
    rng = np.random.default_rng(seed)
    way = np.cumsum(rng.uniform(0.0, 0.03, 12))
    directions = rng.normal(scale=(100.0, 50.0, 1.0), size=(4, 1, 3))
    tracks = np.array([50.0, 25.0, 1.0]) + way[:, None] * directions
    once = retarget(tracks, **IMAGE, arc_step=arc_step, n_samples=40)
    again = retarget(once.uvz[:, once.valid], **IMAGE, arc_step=arc_step, n_samples=40)
    n = int(again.valid.sum())
    assert once.valid.sum() - n in (0, 1)  # the last step is whole but for rounding
    np.testing.assert_allclose(again.uvz[:, :n], once.uvz[:, :n], atol=1e-6)


@pytest.mark.parametrize(("n", "n_fastest"), [(1, 1), (50, 1), (51, 2), (100, 2), (101, 3)])
def test_the_fastest_two_percent_drive_the_clock(n, n_fastest):
    """Track k moves k px a frame, so the clock steps by the mean of the last ones."""
    u = np.arange(1, n + 1)[:, None] * np.arange(3.0)
    tracks = np.stack([u, np.zeros_like(u), np.ones_like(u)], axis=-1)
    clock = np.arange(1, n + 1)[-n_fastest:].mean() / 100
    found = retarget(tracks, **IMAGE, arc_step=clock / 4, n_samples=4)
    np.testing.assert_allclose(found.source_index, [0, 0.25, 0.5, 0.75])


def test_room_limits_the_samples():
    found = retarget(TRACKS, **IMAGE, arc_step=0.05, n_samples=3)
    full = retarget(TRACKS, **IMAGE, arc_step=0.05, n_samples=10)
    assert found.valid.all()
    np.testing.assert_array_equal(found.uvz, full.uvz[:, :3])


@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_what_does_not_move_has_only_the_current_sample(n_frames):
    tracks = np.tile([[[10.0, 20.0, 1.0]]], (3, n_frames, 1))
    found = retarget(tracks, **IMAGE, arc_step=0.05, n_samples=4)
    np.testing.assert_array_equal(found.valid, [True, False, False, False])
    np.testing.assert_array_equal(found.uvz[:, 0], tracks[:, 0])
    assert found.source_index[0] == 0


def test_an_unknown_track_neither_drives_nor_disturbs_the_clock():
    """B is never the fastest, so losing it changes only its own samples."""
    lost = TRACKS.copy()
    lost[1, 3:] = np.nan
    found = retarget(lost, **IMAGE, arc_step=0.05, n_samples=10)
    full = retarget(TRACKS, **IMAGE, arc_step=0.05, n_samples=10)
    np.testing.assert_array_equal(found.source_index, full.source_index)
    np.testing.assert_array_equal(found.uvz[[0, 2]], full.uvz[[0, 2]])
    np.testing.assert_array_equal(found.uvz[1, :3], full.uvz[1, :3])
    assert np.isnan(found.uvz[1, 3:]).all()


def test_a_still_start_keeps_the_current_frame_and_its_time():
    """A track lost while everything still stands keeps its current point."""
    tracks = np.concatenate([TRACKS[:, :1], TRACKS[:, :1], TRACKS], axis=1)
    tracks[1, 1:] = np.nan
    found = retarget(tracks, **IMAGE, arc_step=0.05, n_samples=10)
    assert found.source_index[0] == 0
    np.testing.assert_allclose(found.source_index[1], 2.5)
    np.testing.assert_array_equal(found.uvz[:, 0], TRACKS[:, 0])


def test_input_stays_and_is_not_aliased():
    tracks = TRACKS[:, :1].copy()
    found = retarget(tracks, **IMAGE, arc_step=0.05, n_samples=1)
    found.uvz[:] = 0.0
    np.testing.assert_array_equal(tracks, TRACKS[:, :1])


@pytest.mark.parametrize("shape", [(5, 3), (0, 5, 3), (3, 0, 3), (3, 5, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ShapeError, match=r"expected tracks \(n, T, 3\) with n and T above 0"):
        retarget(np.zeros(shape), **IMAGE, arc_step=0.05, n_samples=4)


def test_infinite_points_are_refused():
    tracks = TRACKS.copy()
    tracks[1, 2:4, 0] = -np.inf
    with pytest.raises(ShapeError, match="2 points are infinite; write NaN"):
        retarget(tracks, **IMAGE, arc_step=0.05, n_samples=4)


@pytest.mark.parametrize("name", ["width", "height", "arc_step", "n_samples"])
def test_sizes_of_zero_are_refused(name):
    sizes = {**IMAGE, "arc_step": 0.05, "n_samples": 4, name: 0}
    with pytest.raises(ValueError, match="expected width, height, arc_step and n_samples above 0"):
        retarget(TRACKS, **sizes)
