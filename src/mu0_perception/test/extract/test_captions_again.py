"""Captions that failed are asked for again, and no others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mu0_core.episode import read_episode
from mu0_core.episode_captions import CAPTION_FILE
from mu0_core.episode_writer import EpisodeOptions, Recording, write_episode
from mu0_perception.extract.captions import CaptionError, RecordedWriter
from mu0_perception.extract.captions_again import write_missing_captions
from mu0_perception.extract.events import EventConfig
from mu0_perception.extract.recording import About
from mu0_perception.extract.sidecar import read_sidecar, write_sidecar

T, HEIGHT, WIDTH = 16, 40, 60
EVENTS = EventConfig(min_len=2, max_len=4)
ABOUT = About(name="a", path=Path("a"), source="rosbag2", instructions=("lift the cube",))


class Writer(RecordedWriter):
    """Say the number of a chunk; fail at those it is told to."""

    def __init__(self, failing=()):
        self.failing, self.seen, self.merged = failing, [], 0

    def describe(self, chunk, about):
        if chunk.start in self.failing:
            raise CaptionError("no")
        self.seen.append(chunk)
        return super().describe(chunk, replace(about, instructions=(f"part {chunk.start}",)))

    def merge(self, parts):
        self.merged += 1
        return super().merge(parts)


@pytest.fixture
def episode(tmp_path):
    """One point that moves fast and one that moves slowly, without captions."""
    xyz = np.zeros((T, 2, 3))
    xyz[:, :, 2] = 1.0
    xyz[:, :, 0] = np.arange(T)[:, None] * (0.02, 0.002)
    xyz[:, 1, 1] = 0.3
    recording = Recording(
        images=np.arange(T, dtype=np.uint8)[:, None, None, None]
        * np.ones((1, HEIGHT, WIDTH, 3), np.uint8),
        depth=np.ones((T, HEIGHT, WIDTH), np.float32),
        K=np.array([[50.0, 0.0, 10.0], [0.0, 50.0, 10.0], [0.0, 0.0, 1.0]]),
        T_camera_world=np.eye(4),
        tracks_xyz_world=xyz,
        visible=np.ones((T, 2), np.bool_),
        cluster_ids=np.zeros(2, np.int64),
        moving=np.ones(2, np.bool_),
        stamps=0.1 * np.arange(T),
    )
    return write_episode(
        tmp_path / "a",
        recording,
        EpisodeOptions(arc_step=0.01),
        finish=lambda folder: write_sidecar(folder, {"version": 1}),
    )


def test_what_is_missing_is_asked_for_and_nothing_else(episode):
    first = Writer()
    assert write_missing_captions(episode, ABOUT, EVENTS, first) == ()
    spans = [(chunk.start, chunk.end) for chunk in first.seen]
    assert len(spans) > 3
    whole = read_episode(episode).captions

    partial = Writer(failing={spans[1][0]})
    (episode / CAPTION_FILE).unlink()
    (failure,) = write_missing_captions(episode, ABOUT, EVENTS, partial)
    assert failure.startswith(f"frames {spans[1][0]} to {spans[1][1]}")
    assert read_sidecar(episode)["caption_failures"] == [failure]

    again = Writer()
    assert write_missing_captions(episode, ABOUT, EVENTS, again) == ()
    assert [(chunk.start, chunk.end) for chunk in again.seen] == [spans[1]]
    assert 0 < again.merged < first.merged
    assert read_episode(episode).captions == whole
    assert read_sidecar(episode) == {"version": 1, "caption_failures": []}


def test_a_writer_sees_the_pictures_and_what_moves_most(episode):
    writer = Writer()
    write_missing_captions(episode, ABOUT, EVENTS, writer)
    chunk = writer.seen[1]
    assert [int(p[0, 0, 0]) for p in chunk.pictures] == [chunk.start, chunk.end]
    assert chunk.end_s == pytest.approx(0.1 * chunk.end)
    assert chunk.motion[10, 10 + chunk.start]  # the fast one: 1 px a frame
    assert not chunk.motion[25].any()  # the slow one
