"""Captions, learned features, bodies, stored pictures, and what is remembered."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mu0_core.errors import ConfigError, Mu0Error
from mu0_perception.entities import EntityConfig
from mu0_perception.extract.captions import (
    CaptionConfig,
    CaptionError,
    CaptionFrom,
    Chunk,
    RecordedWriter,
    Words,
    write_captions,
)
from mu0_perception.extract.entities import FeatureFinder, merged_patches
from mu0_perception.extract.learned import WeightsError
from mu0_perception.extract.recording import About, KnownEvent
from mu0_perception.extract.rest import _chosen
from mu0_perception.extract.rigid import RigidConfig, split_entities
from mu0_perception.extract.robot_frames import RobotFrameConfig, astray, within_budget
from mu0_perception.extract.sidecar import spans
from mu0_perception.extract.state import OutFolder
from mu0_perception.extract.store import PictureFile
from mu0_perception.extract.tracks import Tracks
from mu0_perception.extract.vision_writers import EndpointWriter, make_writer, parsed

PICTURE = np.full((8, 8, 3), 120, np.uint8)
ABOUT = About(name="a", path=Path("a"), source="rosbag2", instructions=("lift the cube",))


def chunk(i):
    return Chunk(
        start=10 * i,
        end=10 * i + 9,
        start_s=float(i),
        end_s=i + 0.9,
        pictures=(PICTURE, PICTURE),
        motion=np.ones((8, 8), np.bool_),
    )


def test_pairs_triples_and_the_whole_are_merged():
    told = write_captions([chunk(i) for i in range(4)], ABOUT, RecordedWriter())
    merged = [c.source_chunk_ids for c in told.captions if c.source_chunk_ids]
    assert merged == [(0, 1), (1, 2), (2, 3), (0, 1, 2), (1, 2, 3), (0, 1, 2, 3)]
    assert told.captions[-1].instructions == ("lift the cube",)


def test_known_events_are_told_in_their_order():
    events = (
        KnownEvent(start_s=0.0, end_s=1.0, text="reach", skills=("reach",)),
        KnownEvent(start_s=1.0, end_s=2.0, text="lift", skills=("lift",)),
    )
    about = About(name="a", path=Path("a"), source="episode", events=events)
    told = write_captions([chunk(0), chunk(1)], about, RecordedWriter())
    assert told.captions[-1].instructions[0] == "reach, then lift"
    assert told.captions[-1].skill_labels == ("reach", "lift")


class _Moody(RecordedWriter):
    def describe(self, chunk, about):
        if chunk.start == 10:
            raise CaptionError("no")
        return super().describe(chunk, about)


def test_a_failure_leaves_no_caption_and_is_noted():
    told = write_captions([chunk(i) for i in range(4)], ABOUT, _Moody())
    assert [c.start for c in told.captions if not c.source_chunk_ids] == [0, 20, 30]
    assert [c.source_chunk_ids for c in told.captions if c.source_chunk_ids] == [(0,), (1, 2)]
    assert told.failures == ("frames 10 to 19: no",)


@pytest.fixture
def service():
    """An OpenAI-compatible service that gives the answers it is told to."""
    answers, requests = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            requests.append(json.loads(self.rfile.read(length)))
            status, text = answers.pop(0)
            body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = CaptionConfig(endpoint=f"http://127.0.0.1:{server.server_port}/v1", tries=2)
    yield EndpointWriter(config), answers, requests
    server.shutdown()


GOOD = '{"instruction_1": "A gripper lifts a cube.", "skill_labels": ["lift", "dance"]}'


def test_an_endpoint_is_asked_again_after_nonsense(service):
    writer, answers, requests = service
    answers += [(200, "sure!"), (200, GOOD)]
    words = writer.describe(chunk(0), ABOUT)
    assert words.instructions == ("A gripper lifts a cube.",) and words.skills == ("lift",)
    pictures = [c for c in requests[0]["messages"][0]["content"] if c["type"] == "image_url"]
    assert len(pictures) == 3  # first, last, and what moves


def test_a_refused_request_is_not_repeated(service):
    writer, answers, requests = service
    answers += [(400, "")]
    with pytest.raises(CaptionError, match="HTTP 400"):
        writer.describe(chunk(0), ABOUT)
    assert len(requests) == 1


def test_answers_are_checked():
    with pytest.raises(CaptionError, match="JSON"):
        parsed("no braces")
    with pytest.raises(CaptionError, match="instruction_1"):
        parsed('{"skill_labels": ["lift"]}')
    assert parsed('x {"instruction_2": " go "} y').instructions == ("go",)
    assert parsed('{"instruction_1": "a", "embodiment_type": "tail"}').embodiment == "unknown"


def test_a_model_whose_weights_are_absent_is_refused():
    with pytest.raises(WeightsError, match="not on this machine"):
        make_writer(CaptionConfig(model="none/such"))


def test_a_writer_without_its_settings_is_refused():
    with pytest.raises(ConfigError, match="endpoint"):
        CaptionConfig(writer=CaptionFrom.ENDPOINT)


def _tracks(xyz, cluster):
    T, n = xyz.shape[:2]
    return Tracks(
        xyz_world=xyz,
        visible=np.ones((T, n), np.bool_),
        cluster=np.asarray(cluster, np.int32),
        born=np.zeros(n, np.int64),
        colour=np.zeros((n, 3), np.float32),
        group=np.full(n, -1, np.int32),
    )


def test_an_entity_of_two_bodies_is_split_and_numbered_throughout():
    rng = np.random.default_rng(0)
    still = np.repeat(rng.normal(size=(1, 12, 3)), 10, axis=0)
    still[:, 6:10] += 0.05 * np.arange(10)[:, None, None]
    fixed = np.full(12, -1, np.int32)
    fixed[10:] = 0
    tracks, robot = split_entities(_tracks(still, [5] * 12), fixed, ("hand",), RigidConfig())
    cluster = tracks.cluster
    assert robot == {0: "hand"} and (cluster[10:] == 0).all()
    assert len(set(cluster[:6])) == 1 and len(set(cluster[6:10])) == 1
    assert cluster[0] != cluster[6]


def test_a_track_ends_where_it_was_last_seen():
    tracks = _tracks(np.zeros((5, 2, 3)), [0, 0])
    tracks.visible[:, 0] = [False, True, False, True, False]
    trimmed = tracks.trimmed(np.array([True, True]))
    known = np.isfinite(trimmed.xyz_world[:, 0, 0])
    assert known.tolist() == [False, True, True, True, False]
    assert np.isfinite(trimmed.xyz_world[:, 1]).all()


class _Halves:
    name = "halves"

    def features(self, rgb):
        grid = np.zeros((16, 16, 4), np.float32)
        grid[:, :8, 0], grid[:, 8:, 1] = 1.0, 1.0
        return grid


def test_learned_features_cut_where_another_thing_begins(scene):
    parts = merged_patches(_Halves().features(None))
    assert len({parts[0, 0], parts[15, 7]}) == 1 and parts[0, 0] != parts[0, 15]
    entities = FeatureFinder(_Halves(), EntityConfig()).find(scene.frame(10**9))
    columns = [np.nonzero(entities.labels == i)[1].mean() for i in range(1, entities.n + 1)]
    assert entities.n == 2 and min(columns) < 160 < max(columns)


def test_pictures_come_back_from_disk(tmp_path):
    file = PictureFile(tmp_path / "p", (2, 3), np.float32)
    rows = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    for row in rows:
        file.append(row)
    assert file.shape == (4, 2, 3) and np.array_equal(np.stack(list(file)), rows)
    with pytest.raises(IndexError):
        file[4]
    with pytest.raises(ValueError, match="expected shape"):
        file.append(rows)
    file.close()


def test_a_recording_is_worked_on_once_at_a_time(tmp_path):
    folder = OutFolder(tmp_path)
    again = OutFolder(tmp_path).locked("a")
    with folder.locked("a"), pytest.raises(Mu0Error, match="another process"), again:
        pass


def moved(visible, travel_m=None):
    """Tracks that are seen in some pictures and move along x at their own speeds."""
    steps, n = visible.shape
    xyz = np.zeros((steps, n, 3))
    xyz[..., 0] = np.linspace(0.0, 1.0, steps)[:, None] * (
        np.zeros(n) if travel_m is None else travel_m
    )
    return Tracks(
        xyz_world=xyz,
        visible=visible,
        cluster=np.zeros(n, np.int32),
        born=np.zeros(n, np.int64),
        colour=np.zeros((n, 3), np.float32),
        group=np.full(n, -1, np.int32),
    )


@given(
    arrays(np.bool_, (6, 12)),
    arrays(np.int32, 12, elements=st.integers(-1, 3)),
    st.integers(0, 12),
)
def test_points_on_the_robot_are_limited_and_frames_alike(visible, fixed, n):
    kept = within_budget(moved(visible), fixed, np.zeros(12, np.bool_), RobotFrameConfig(points=n))
    assert kept[fixed < 0].all()
    counts = np.array([kept[fixed == f].sum() for f in range(4)])
    have = np.array([(fixed == f).sum() for f in range(4)])
    assert counts.sum() == min(n, have.sum())
    fewer = counts < have  # a frame with points left has at most one less than any other
    assert not fewer.any() or counts.max() <= counts[fewer].min() + 1


def test_links_away_from_what_is_handled_have_a_share_of_the_robots_points():
    fixed = np.array([0] * 8 + [1] * 8 + [2] * 8 + [-1], np.int32)
    tracks = moved(np.ones((5, 25), np.bool_))
    place = np.where(np.isin(fixed, [0, 1]), 0.5, np.where(fixed == 2, 0.1, 0.0))
    tracks = replace(tracks, xyz_world=np.tile(place[:, None] * [1.0, 0.0, 0.0], (5, 1, 1)))

    def counts(**options):
        config = RobotFrameConfig(points=8, **options)
        kept = within_budget(tracks, fixed, np.zeros(25, np.bool_), config)
        assert kept[-1]
        return [int(kept[fixed == f].sum()) for f in range(3)]

    assert counts() == [1, 1, 6]
    assert counts(arm_share=0.5) == [2, 2, 4]
    assert counts(hand_m=0.6) == [3, 3, 2]  # all are hands
    assert counts(hand_m=0.05) == [3, 3, 2]  # none is
    tracks.xyz_world[:, 16] = 3.0  # a point that is not on the frame it is fixed to
    assert counts() == [1, 1, 6]


def test_a_frame_whose_surface_has_points_needs_no_tracks():
    fixed = np.array([0, 0, 0, 1, 1, -1], np.int32)
    on_surface = np.array([False, True, True, False, False, False])
    visible = np.ones((5, 6), np.bool_)
    kept = within_budget(moved(visible), fixed, on_surface, RobotFrameConfig(points=8))
    assert np.flatnonzero(kept).tolist() == [1, 2, 3, 4, 5]


def test_points_on_the_robot_that_follow_no_frame_are_astray():
    cluster = np.array([4, 4, 4, 4, 7, 7, 7], np.int32)
    fixed = np.array([0, 0, 2, -1, -1, -1, 1], np.int32)  # 4 is the robot; 7 a thing it touches
    assert np.flatnonzero(astray(cluster, fixed)).tolist() == [3]


def test_what_is_kept_of_a_robot_frame_shows_it_in_every_picture():
    first, second = np.arange(10) < 6, np.arange(10) >= 6
    visible = np.column_stack([first, first, first, second])
    none = np.zeros(4, np.bool_)
    kept = within_budget(moved(visible), np.zeros(4, np.int32), none, RobotFrameConfig(points=2))
    assert visible[:, kept].any(axis=1).all()


def test_spans_of_sight():
    assert spans(np.array([True, False, True, True])) == [[0, 0], [2, 3]]
    assert spans(np.zeros(3, np.bool_)) == []


def test_words_have_at_most_three_texts():
    words = Words(instructions=("a", "b", "c"))
    assert RecordedWriter().merge([words, words]).instructions == ("a", "b", "c")


def test_points_at_rest_are_those_near_what_moves():
    xyz = np.concatenate(
        [np.random.default_rng(0).uniform(-0.3, 0.3, (40, 3)), np.full((9, 3), 4.0)]
    )
    candidates = moved(np.ones((3, 49), np.bool_))
    candidates = replace(candidates, xyz_world=np.broadcast_to(xyz, (3, 49, 3)).copy())
    moving = moved(np.ones((3, 2), np.bool_), np.array([0.1, 0.2]))
    moving.xyz_world[1, 1] = np.nan
    chosen = _chosen(candidates, moving, 8)
    assert chosen.n == 8
    assert np.linalg.norm(chosen.xyz_world[0], axis=-1).max() < 1.0
    apart = np.linalg.norm(chosen.xyz_world[0][:, None] - chosen.xyz_world[0], axis=-1)
    assert (apart + np.eye(8)).min() > 0.1
    assert _chosen(candidates, moving, 0).n == 0
