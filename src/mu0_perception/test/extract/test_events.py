"""Where episodes are cut into chunks."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mu0_core.errors import ConfigError
from mu0_perception.extract.events import EventConfig, find_chunks

PEAKS = ((40, 1.0, 6), (110, 0.8, 8), (180, 0.9, 6), (255, 0.7, 7))


def test_the_known_signal_is_cut_in_the_known_places():
    t = np.arange(300)
    signal = sum(h * np.exp(-0.5 * ((t - c) / w) ** 2) for c, h, w in PEAKS)
    assert find_chunks(signal, EventConfig()) == [(0, 68), (69, 150), (151, 208), (209, 299)]


def test_rest_is_cut_evenly():
    assert find_chunks(np.zeros(300), EventConfig()) == [(0, 99), (100, 199), (200, 299)]


def test_a_short_episode_is_one_chunk():
    assert find_chunks(np.random.default_rng(0).random(20), EventConfig()) == [(0, 19)]


def test_as_many_chunks_come_out_as_are_allowed():
    t = np.arange(600)
    signal = sum(np.exp(-0.5 * ((t - c) / 5.0) ** 2) for c in range(50, 600, 100))
    assert len(find_chunks(signal, EventConfig(max_chunks=6))) == 6
    assert len(find_chunks(signal, EventConfig(max_chunks=3, max_len=500))) == 3


def test_lengths_that_cannot_both_hold_are_refused():
    with pytest.raises(ConfigError, match="max_len"):
        EventConfig(min_len=50, max_len=60)


@settings(deadline=None)
@given(arrays(np.float32, st.integers(1, 500), elements=st.floats(0, 10, width=32)))
def test_chunks_tile_the_episode(signal):
    config = EventConfig()
    chunks = find_chunks(signal, config)
    assert chunks[0][0] == 0 and chunks[-1][1] == len(signal) - 1
    assert all(b[0] == a[1] + 1 for a, b in pairwise(chunks))
    lengths = [end - start + 1 for start, end in chunks]
    assert max(lengths) <= config.max_len
    assert len(chunks) == 1 or min(lengths) >= config.min_len
