"""Episodes: written and read back; one small recording with a moving camera."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu0_core.arclength import retarget
from mu0_core.camera import Camera
from mu0_core.episode import (
    EXTRA_ROW_FILES,
    MANIFEST_FILE,
    RELEASED_ARC_STEP,
    ROW_FILES,
    read_episode,
)
from mu0_core.episode_writer import EpisodeOptions, write_episode
from mu0_core.errors import EpisodeError
from mu0_core.se3 import exp, transform_points

T, N, H, W = 14, 8, 30, 40
K = np.array([[40.0, 0.0, 19.5], [0.0, 40.0, 14.5], [0.0, 0.0, 1.0]])
OPTIONS = EpisodeOptions(arc_step=0.02, future_len=20, history_len=6)


def in_camera(recording, frame):
    """Return all tracks (n, T, 3) in the camera of one frame, px, px, m."""
    xyz = transform_points(recording.T_camera_world[frame], recording.tracks_xyz_world)
    return np.swapaxes(Camera(K, W, H).project(xyz), 0, 1)


def test_files_types_and_shapes_are_those_of_the_format(written):
    arrays = {p.stem: np.load(p) for p in written.rglob("*.npy")}
    R, S = len(arrays["is_moving"]), len(arrays["frame_indices"])
    sizes = {"F": 20, "B": 6}
    assert arrays["images"].dtype == np.uint8
    assert arrays["images"].shape == (T, H, W, 3)
    assert arrays["depth"].dtype == np.float16
    assert arrays["frame_indices"].dtype == np.int32
    assert arrays["offsets"].dtype == np.int64
    assert arrays["offsets"][-1] == R
    assert arrays["step_times"].shape == (S, 20)
    for name, file in (ROW_FILES | EXTRA_ROW_FILES).items():
        columns = tuple(sizes.get(axis, axis) for axis in file.columns)
        assert arrays[name].shape == (R, *columns), name
        assert arrays[name].dtype == file.dtype, name
        assert arrays[name].flags.c_contiguous
    cameras = np.load(written / "cameras.npz")
    assert set(cameras) == {"intrinsics", "extrinsics", "height", "width"}
    assert {cameras[k].dtype for k in ("intrinsics", "extrinsics")} == {np.dtype(np.float32)}
    assert (int(cameras["height"]), int(cameras["width"])) == (H, W)
    assert np.load(written / "acceleration.npz")["acceleration"].dtype == np.float32
    assert (written / "description.txt").read_text() == "pick up the cup\n"
    assert "Bär" in (written / "meta.json").read_text("utf-8")


def test_frames_cameras_and_texts_come_back(written, recording, captions):
    episode = read_episode(written)
    np.testing.assert_array_equal(episode.images, recording.images)
    np.testing.assert_array_equal(episode.depth, recording.depth.astype(np.float16))
    np.testing.assert_array_equal(episode.K, recording.K.astype(np.float32))
    np.testing.assert_allclose(episode.T_camera_world, recording.T_camera_world, atol=1e-7)
    np.testing.assert_array_equal(episode.stamps, recording.stamps)
    assert episode.captions == captions
    assert [c.start for c in episode.captions_at(6)] == [6, 0]
    assert episode.captions_at(14) == ()
    assert (episode.n_frames, episode.height, episode.width) == (T, H, W)
    assert episode.meta == {"robot": "Bär"}
    assert episode.arc_step == 0.02
    assert episode.manifest["provenance"] == {"program": "test", "seed": 3}
    assert episode.manifest["frame_rate_hz"] == pytest.approx(10.0)
    np.testing.assert_array_equal(episode.camera(2).K, K)
    assert isinstance(episode.images, np.memmap)


def test_rows_are_the_tracks_in_the_camera_of_their_frame(written, recording):
    episode = read_episode(written)
    assert episode.n_slots == len(list(episode.slots())) > 5
    for slot in episode.slots():
        uvz = in_camera(recording, slot.frame)[slot.rows.point_ids]
        n_future = T - slot.frame
        raw = slot.rows.raw_future_uvz
        np.testing.assert_array_equal(raw[:, :n_future], uvz[:, slot.frame :].astype(np.float16))
        assert (raw[:, n_future:] == -np.inf).all()
        np.testing.assert_array_equal(slot.rows.raw_future_valid.sum(axis=1), n_future)
        n_history = min(6, slot.frame + 1)
        back = uvz[:, slot.frame :: -1][:, :n_history]
        np.testing.assert_array_equal(
            slot.rows.raw_history_uvz[:, :n_history], back.astype(np.float16)
        )
        np.testing.assert_array_equal(slot.rows.raw_history_valid.sum(axis=1), n_history)
        np.testing.assert_array_equal(slot.rows.uv, uvz[:, slot.frame, :2].astype(np.float16))
        ids = slot.rows.point_ids
        np.testing.assert_array_equal(slot.rows.cluster_ids, recording.cluster_ids[ids])
        np.testing.assert_array_equal(slot.rows.visible, recording.visible[slot.frame, ids])
        assert slot.rows.is_moving.all()


def test_traces_follow_the_arc_length_rule_on_the_clock_of_all_points(written, recording):
    episode = read_episode(written)
    slot = episode.slot(3)
    uvz = in_camera(recording, slot.frame)
    for path, steps, valid, times, sign in (
        (uvz[:, slot.frame :], "future_uvz", "future_valid", episode.step_times, 1),
        (uvz[:, slot.frame :: -1], "history_uvz", "history_valid", episode.step_times_history, -1),
    ):
        stored, mask = getattr(slot.rows, steps), getattr(slot.rows, valid)
        expected = retarget(path, width=W, height=H, arc_step=0.02, n_samples=stored.shape[1])
        count = expected.valid.sum()
        assert count > 2
        np.testing.assert_array_equal(mask.sum(axis=1), count)
        np.testing.assert_array_equal(
            stored[:, :count], expected.uvz[slot.rows.point_ids, :count].astype(np.float16)
        )
        assert (stored[:, count:] == -np.inf).all()
        frames = slot.frame + sign * expected.source_index
        np.testing.assert_array_equal(times[slot.index], frames.astype(np.float32))


def test_still_tail_and_last_frame_have_no_slot(tmp_path, make_recording):
    tracks = make_recording().tracks_xyz_world.copy()
    tracks[8:] = tracks[8]
    still_camera = make_recording(tracks_xyz_world=tracks, T_camera_world=np.eye(4))
    episode = read_episode(write_episode(tmp_path / "e", still_camera, OPTIONS))
    np.testing.assert_array_equal(episode.frame_indices, np.arange(8))


def test_static_points_are_kept_by_share_and_marked(tmp_path, recording):
    counts = {}
    for share in (0.0, 0.5, 1.0):
        options = dataclasses.replace(OPTIONS, static_share=share)
        episode = read_episode(write_episode(tmp_path / str(share), recording, options))
        rows = episode.rows
        np.testing.assert_array_equal(rows.is_moving, rows.point_ids < 5)
        counts[share] = len(np.unique(rows.point_ids[~rows.is_moving]))
    assert counts[0.0] == 0
    assert 0 < counts[0.5] < counts[1.0] == 3


def test_moving_may_change_from_frame_to_frame(tmp_path, make_recording):
    moving = np.zeros((T, N), bool)
    moving[3:6, 2] = True
    episode = read_episode(write_episode(tmp_path / "e", make_recording(moving=moving), OPTIONS))
    np.testing.assert_array_equal(episode.frame_indices, [3, 4, 5])
    np.testing.assert_array_equal(episode.rows.point_ids, [2, 2, 2])


def test_points_that_begin_and_end_have_rows_only_while_they_exist(tmp_path, make_recording):
    tracks = make_recording().tracks_xyz_world.copy()
    tracks[:4, 0] = np.nan
    tracks[9:, 0] = np.nan
    changed = make_recording(tracks_xyz_world=tracks)
    episode = read_episode(write_episode(tmp_path / "e", changed, OPTIONS))
    mine = [(s.frame, s.rows.part(s.rows.point_ids == 0)) for s in episode.slots()]
    present = {frame: rows for frame, rows in mine if len(rows)}
    assert list(present) == [4, 5, 6, 7, 8]
    for frame, rows in present.items():
        assert rows.raw_future_valid.sum() == 9 - frame
        assert rows.raw_history_valid.sum() == frame - 3
        assert rows.future_valid.sum() < episode.rows.future_valid[0].sum()
        n_steps = rows.future_valid.sum()
        assert np.nanmax(episode.step_times[0]) > 8
        slot = list(present).index(frame) + 4
        assert (episode.step_times[slot, :n_steps] <= 8 + 1e-4).all()


def test_points_behind_the_camera_keep_depth_and_lose_their_trace(tmp_path, make_recording):
    tracks = make_recording().tracks_xyz_world.copy()
    tracks[:, 0] = [[0.0, 0.0, 0.55 - 0.1 * t] for t in range(T)]
    changed = make_recording(tracks_xyz_world=tracks, T_camera_world=np.eye(4))
    episode = read_episode(write_episode(tmp_path / "e", changed, OPTIONS))
    rows = episode.slot(0).rows.part(episode.slot(0).rows.point_ids == 0)
    assert rows.raw_future_valid.sum() == T
    np.testing.assert_allclose(rows.raw_future_uvz[0, 5:8, 2], [0.05, -0.05, -0.15], atol=1e-3)
    assert np.isnan(rows.raw_future_uvz[0, 6, :2]).all()
    n_valid = rows.future_valid.sum()
    assert n_valid > 0
    assert (rows.future_uvz[0, :n_valid, 2] > 0).all()


def test_an_episode_without_motion_is_written_and_read(tmp_path, make_recording):
    still = make_recording(moving=np.zeros(N, bool))
    path = write_episode(tmp_path / "e", still, OPTIONS)
    assert list((path / "samples").iterdir()) == []
    episode = read_episode(path)
    assert (episode.n_slots, len(episode.rows), episode.n_frames) == (0, 0, T)
    assert episode.manifest["n_rows"] == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.005, 0.2), st.booleans())
def test_any_recording_gives_a_faultless_episode(
    tmp_path_factory, make_recording, seed, arc_step, still_camera
):
    from mu0_core.episode_validator import validate_episode

    rng = np.random.default_rng(seed)
    tracks = rng.uniform([-0.4, -0.3, 0.3], [0.4, 0.3, 1.5], (1, N, 3))
    tracks = tracks + np.cumsum(rng.normal(0, 0.03, (T, N, 3)), axis=0)
    changes = {"tracks_xyz_world": tracks, "moving": rng.random((T, N)) < 0.5}
    if still_camera:
        changes["T_camera_world"] = exp(rng.uniform(-0.1, 0.1, 6))
    options = dataclasses.replace(OPTIONS, arc_step=arc_step, static_share=0.5)
    folder = tmp_path_factory.mktemp("any") / "e"
    path = write_episode(folder, make_recording(**changes), options)
    assert [str(fault) for fault in validate_episode(path)] == []


def test_same_input_gives_the_same_files(tmp_path, written, recording):
    again = write_episode(tmp_path / "again", recording, OPTIONS)
    for file in written.rglob("*.npy"):
        assert file.read_bytes() == (again / file.relative_to(written)).read_bytes()


def test_nothing_is_written_into_the_recording(make_recording):
    moving = np.arange(N) < 5
    recording = make_recording(moving=moving, T_camera_world=np.eye(4))
    assert recording.T_camera_world.shape == (T, 4, 4)
    assert moving.shape == (N,)
    assert not recording.moving.flags.writeable


def test_caption_file_has_the_fields_of_the_format(written):
    texts = json.loads((written / "curated_training_texts.json").read_text())
    assert (texts["video_id"], texts["n_frames"]) == ("cup", T)
    first, second = texts["chunk_texts"]
    assert (first["instruction_2"], first["instruction_3"]) == ("go to the cup", "")
    assert (second["chunk_id"], second["start_idx"], second["end_idx"]) == (1, 6, 13)
    merged = texts["merged_texts"][0]
    assert merged["merge_type"] == "pair"
    assert [event["event"] for event in merged["timeline"]] == ["reach the cup", "lift the cup"]


def test_missing_optional_files_are_tolerated(copy):
    optional = [name for name, file in ROW_FILES.items() if not file.required]
    for name in [*optional, "point_ids", "step_times", "step_times_history"]:
        (copy / f"samples/{name}.npy").unlink()
    for name in ("depth.npy", "stamps.npy", "cameras.npz", MANIFEST_FILE, "meta.json"):
        (copy / name).unlink()
    (copy / "curated_training_texts.json").unlink()
    episode = read_episode(copy)
    assert episode.arc_step == RELEASED_ARC_STEP == 0.05
    assert episode.depth is episode.K is episode.rows.uv is episode.slot(0).rows.point_ids is None
    assert episode.captions == ()
    assert len(episode.slot(0).rows.future_uvz) > 0
    with pytest.raises(EpisodeError, match=r"no cameras\.npz"):
        episode.camera(0)


def test_released_episode_is_read(golden_dir):
    episode = read_episode(golden_dir / "episode")
    assert (episode.n_frames, episode.height, episode.width) == (12, 48, 80)
    assert [(slot.frame, len(slot.rows)) for slot in episode.slots()] == [
        (2, 7),
        (5, 5),
        (8, 4),
        (9, 3),
    ]
    assert episode.rows.future_uvz.shape == (19, 40, 3)
    assert episode.captions_at(3)[0].instructions == (
        "pick up the red cup and place it on the plate",
    )
    assert episode.captions_at(7)[0].instructions == (
        "open the drawer",
        "push the blue block to the left",
    )
    assert episode.captions_at(5) == ()
    assert episode.arc_step == 0.05
