"""Which pictures are used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu0_core.errors import ConfigError
from mu0_perception.extract.frames import FrameConfig, select_frames

SHORT = FrameConfig(min_frames=3)


def test_a_faster_recording_is_thinned_to_an_even_grid():
    stamps = 5.0 + np.arange(90) / 30.0
    (part,) = select_frames(stamps, SHORT).parts
    assert len(part) == 31
    assert np.allclose(np.diff(stamps[part][:-1]), 0.1)  # the last one is the nearest there is


def test_a_variable_rate_keeps_to_the_grid_within_half_a_source_period():
    rng = np.random.default_rng(0)
    stamps = np.cumsum(rng.uniform(0.01, 0.05, 300))
    (part,) = select_frames(stamps, SHORT).parts
    off = (stamps[part] - stamps[0]) / 0.1
    assert np.abs(off - np.rint(off)).max() * 0.1 < 0.026


def test_a_slower_recording_is_taken_whole():
    stamps = np.arange(20) / 4.0
    (part,) = select_frames(stamps, SHORT).parts
    assert len(part) == 20


def test_a_gap_cuts_and_costs_only_itself():
    stamps = np.concatenate([np.arange(20), np.arange(60, 80)]) * 0.1
    selection = select_frames(stamps, SHORT)
    assert [len(p) for p in selection.parts] == [20, 20]
    assert selection.gaps_s == pytest.approx((4.1,))


def test_doubled_and_backward_stamps_are_dropped():
    stamps = np.array([0.0, 0.1, 0.1, 0.2, 0.15, 0.3, np.nan, 0.4])
    selection = select_frames(stamps, SHORT)
    assert np.concatenate(selection.parts).tolist() == [0, 1, 3, 5, 7]
    assert selection.dropped == 3


@pytest.mark.parametrize("wrong", [1e9, -1e9, 100.0])
@pytest.mark.parametrize("at", [1, 10, 19])
def test_a_wrong_stamp_costs_its_picture_only(wrong, at):
    stamps = 5.0 + 0.1 * np.arange(20)
    stamps[at] = wrong
    (part,) = select_frames(stamps, SHORT).parts
    assert part.tolist() == [i for i in range(20) if i != at]


def test_of_a_clock_that_was_set_back_the_longer_side_stays():
    stamps = np.concatenate([50.0 + 0.1 * np.arange(10), 0.1 * np.arange(30)])
    selection = select_frames(stamps, SHORT)
    assert selection.parts[0].tolist() == list(range(10, 40))
    assert selection.dropped == 10


def test_a_long_recording_becomes_parts_of_nearly_equal_length():
    selection = select_frames(np.arange(1000) * 0.1, FrameConfig(max_frames=400))
    assert [len(p) for p in selection.parts] == [334, 333, 333]


def test_start_and_end_are_left_out():
    stamps = 100.0 + np.arange(50) * 0.1
    (part,) = select_frames(stamps, FrameConfig(start_s=1.0, end_s=3.0)).parts
    assert (part[0], part[-1]) == (10, 30)


def test_an_end_before_the_start_is_refused():
    with pytest.raises(ConfigError, match="end_s"):
        FrameConfig(start_s=2.0, end_s=1.0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), max_size=60), st.floats(0.5, 30))
def test_whatever_the_stamps_parts_rise_and_have_no_gaps(stamps, rate):
    stamps = np.array(stamps, np.float64)
    config = FrameConfig(rate_hz=rate, min_frames=3, max_frames=20)
    selection = select_frames(stamps, config)
    for part in selection.parts:
        assert 3 <= len(part) <= 20 or len(part) <= config.max_frames
        assert (np.diff(stamps[part]) > 0).all()
