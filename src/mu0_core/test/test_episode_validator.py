"""A good episode has no faults; each way to damage it is found, with its place."""

import json
import shutil

import numpy as np
import pytest

from mu0_core.episode_captions import Caption
from mu0_core.episode_validator import Fault, main, validate_episode
from mu0_core.episode_writer import EpisodeOptions, Recording, write_episode
from mu0_core.se3 import exp

T, N, H, W = 14, 8, 120, 160


def make_episode(path):
    rng = np.random.default_rng(5)
    tracks = np.repeat(rng.uniform([-0.2, -0.15, 0.8], [0.1, 0.1, 1.2], (1, N, 3)), T, axis=0)
    tracks[:, :6] += np.linspace(0, 1, T)[:, None, None] * [0.2, 0.1, 0.1]
    recording = Recording(
        images=rng.integers(0, 255, (T, H, W, 3), dtype=np.uint8),
        depth=rng.uniform(0.5, 2.0, (T, H, W)),
        K=np.array([[160.0, 0.0, 79.5], [0.0, 160.0, 59.5], [0.0, 0.0, 1.0]]),
        T_camera_world=np.array(
            [exp([0.1 * s, 0, 0, 0, 0.2 * s, 0.1 * s]) for s in np.linspace(0, 1, T)]
        ),
        tracks_xyz_world=tracks,
        visible=np.ones((T, N), bool),
        cluster_ids=np.zeros(N, int),
        moving=np.arange(N) < 6,
        stamps=1.0 + 0.1 * np.arange(T),
    )
    chunks = (
        Caption(start=0, end=5, instructions=("reach",)),
        Caption(start=6, end=13, instructions=("lift",)),
        Caption(start=0, end=13, instructions=("pick up",), source_chunk_ids=(0, 1)),
    )
    options = EpisodeOptions(arc_step=0.02, future_len=20, history_len=6, static_share=0.5)
    return write_episode(path, recording, options, captions=chunks)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return make_episode(tmp_path_factory.mktemp("good") / "e")


@pytest.fixture
def episode(good, tmp_path):
    return shutil.copytree(good, tmp_path / "e")


def change(path, name, edit):
    """Edit an array of an episode in place, or replace it by what the edit returns."""
    file = path / f"{name}.npy"
    array = np.load(file)
    edited = edit(array)
    file.unlink()
    np.save(file, array if edited is None else edited)


def change_cameras(path, **edits):
    arrays = dict(np.load(path / "cameras.npz"))
    for name, edit in edits.items():
        edited = edit(arrays[name])
        arrays[name] = arrays[name] if edited is None else edited
    np.savez(path / "cameras.npz", **arrays)


def change_captions(path, **changes):
    file = path / "curated_training_texts.json"
    texts = json.loads(file.read_text())
    texts["chunk_texts"][1] |= changes
    file.write_text(json.dumps(texts))


def put(*place, value):
    """Return an edit that sets one element."""

    def edit(array):
        array[place] = value

    return edit


def test_written_episode_has_no_faults(good):
    assert validate_episode(good) == []


def test_released_episode_that_lacks_our_files_has_no_faults(episode):
    for name in ("samples/point_ids.npy", "samples/step_times.npy", "stamps.npy"):
        (episode / name).unlink()
    (episode / "mu0_episode.json").unlink()
    assert validate_episode(episode) == []


# Row 0 is in frame 0; row 12 is in a later one.
DAMAGES = {
    "missing": (
        lambda p: (p / "samples/visibs.npy").unlink(),
        Fault("missing_file", "part of the format, and missing", "samples/visibs.npy"),
    ),
    "truncated": (
        lambda p: (p / "samples/traj.npy").write_bytes(
            (p / "samples/traj.npy").read_bytes()[:-10]
        ),
        Fault("unreadable_file", "not a whole .npy file", "samples/traj.npy"),
    ),
    "camera file": (
        lambda p: (p / "cameras.npz").write_bytes(b"PK"),
        Fault("unreadable_file", "not a whole .npz file", "cameras.npz"),
    ),
    "camera array": (
        lambda p: np.savez(p / "cameras.npz", intrinsics=np.zeros((T, 3, 3))),
        Fault("missing_array", "no 'extrinsics'; it holds intrinsics", "cameras.npz"),
    ),
    "dtype": (
        lambda p: change(p, "samples/traj", lambda a: a.astype(np.float32)),
        Fault("dtype", "expected float16, got float32", "samples/traj.npy"),
    ),
    "rows": (
        lambda p: change(p, "samples/cluster_ids", lambda a: a[1:]),
        Fault("shape", "expected shape (", "samples/cluster_ids.npy"),
    ),
    "columns": (
        lambda p: change(p, "samples/valid_steps", lambda a: a[:, 1:]),
        Fault("shape", "20), got", "samples/valid_steps.npy"),
    ),
    "offsets start": (
        lambda p: change(p, "samples/offsets", put(0, value=1)),
        Fault("offsets", "expected 0, then never falling, got [1,", "samples/offsets.npy"),
    ),
    "offsets length": (
        lambda p: change(p, "samples/offsets", lambda a: a[1:]),
        Fault("offsets", "one more than slots", "samples/offsets.npy"),
    ),
    "empty slot": (
        lambda p: change(p, "samples/offsets", lambda a: put(2, value=a[1])(a)),
        Fault("offsets", "1 slots have no rows", "samples/offsets.npy slot 1 (frame 1)"),
    ),
    "frame order": (
        lambda p: change(p, "samples/frame_indices", put(3, value=2)),
        Fault("frame_indices", "got 2, then 2", "samples/frame_indices.npy slot 2"),
    ),
    "last frame": (
        lambda p: change(p, "samples/frame_indices", put(-1, value=T - 1)),
        Fault("frame_indices", "in [0, 12]", "samples/frame_indices.npy"),
    ),
    "mask gap": (
        lambda p: change(p, "samples/valid_steps", put(0, 1, value=False)),
        Fault("mask_prefix", "(1 of ", "samples/valid_steps.npy row 0 (frame 0) step 1"),
    ),
    "mask start": (
        lambda p: change(p, "samples/raw_valid_steps_history", put(0, 0, value=False)),
        Fault("mask_start", "not valid", "samples/raw_valid_steps_history.npy row 0 (frame 0)"),
    ),
    "padding": (
        lambda p: change(p, "samples/traj", put(0, -1, 2, value=1.5)),
        Fault("padding", "[-inf, -inf, 1.5]", "samples/traj.npy row 0 (frame 0) step 19"),
    ),
    "not finite": (
        lambda p: change(p, "samples/traj", put(0, 1, 0, value=np.nan)),
        Fault("not_finite", "[nan, ", "samples/traj.npy row 0 (frame 0) step 1"),
    ),
    "raw pixel lost before the camera": (
        lambda p: change(p, "samples/raw_traj", put(0, 2, 0, value=np.nan)),
        Fault("not_finite", "[nan, ", "samples/raw_traj.npy row 0 (frame 0) step 2"),
    ),
    "history start": (
        lambda p: change(p, "samples/traj_history", put(0, 0, 0, value=3.0)),
        Fault("current_point", "[3.0, ", "samples/traj_history.npy row 0 (frame 0) step 0"),
    ),
    "keypoint": (
        lambda p: change(p, "samples/keypoints", put(0, 1, value=3.0)),
        Fault("current_point", ", 3.0]", "samples/keypoints.npy row 0 (frame 0)"),
    ),
    "outside": (
        lambda p: change(p, "samples/keypoints", put(0, 0, value=161.0)),
        Fault("outside_image", "160 x 120 px: [161.0, ", "samples/keypoints.npy row 0 (frame 0)"),
    ),
    "raw length": (
        lambda p: change(p, "samples/raw_valid_steps", put(0, slice(None), value=True)),
        Fault("raw_length", "20 steps, the episode has 14", "samples/raw_valid_steps.npy row 0"),
    ),
    "raw history length": (
        lambda p: change(p, "samples/raw_valid_steps_history", put(0, 1, value=True)),
        Fault("raw_length", "2 steps, the episode has 1", "samples/raw_valid_steps_history.npy"),
    ),
    "still slot": (
        lambda p: change(p, "samples/valid_steps", put(slice(0, 8), slice(1, 20), value=False)),
        Fault("still_slot", "no row has 2 valid steps", "samples slot 0 (frame 0)"),
    ),
    "depth frames": (
        lambda p: change(p, "depth", lambda a: a[1:]),
        Fault("frame_count", "13 frames, images.npy has 14", "depth"),
    ),
    "depth size": (
        lambda p: change(p, "depth", lambda a: a[:, 1:]),
        Fault("shape", "expected pictures of 120 x 160", "depth.npy"),
    ),
    "height": (
        lambda p: change_cameras(p, height=lambda a: a * 2),
        Fault("image_size", "240 px, images.npy has 120", "cameras.npz height"),
    ),
    "rotation": (
        lambda p: change_cameras(p, extrinsics=put(4, 0, 0, value=2.0)),
        Fault("extrinsics", "rigid transform, got [[2.0", "cameras.npz extrinsics frame 4"),
    ),
    "mirror": (
        lambda p: change_cameras(p, extrinsics=put(4, 0, slice(0, 3), value=[-1.0, 0.0, 0.0])),
        Fault("extrinsics", "rigid transform", "cameras.npz extrinsics frame 4"),
    ),
    "focal length": (
        lambda p: change_cameras(p, intrinsics=put(2, 1, 1, value=-160.0)),
        Fault("intrinsics", "positive focal lengths, got", "cameras.npz intrinsics frame 2"),
    ),
    "lower triangle": (
        lambda p: change_cameras(p, intrinsics=put(2, 1, 0, value=5.0)),
        Fault("intrinsics", "upper triangular", "cameras.npz intrinsics frame 2"),
    ),
    "camera moved": (
        lambda p: change_cameras(p, extrinsics=put(8, 0, 3, value=0.5)),
        Fault("reprojection", "px in frame 8, the keypoint is at", "(frame 0) step 8"),
    ),
    "stamps": (
        lambda p: change(p, "stamps", put(3, value=1.2)),
        Fault("stamps", "got 1.2, then 1.2", "stamps.npy frame 2"),
    ),
    "caption range": (
        lambda p: change_captions(p, end_idx=14),
        Fault("captions", "frames 6 to 14 are no range inside 0 to 13", "chunk_texts[1]"),
    ),
    "caption overlap": (
        lambda p: change_captions(p, start_idx=5),
        Fault("captions", "begins at frame 5, the chunk before ends at 5", "chunk_texts[1]"),
    ),
    "caption span": (
        lambda p: change_captions(p, end_idx=12),
        Fault("captions", "its chunks [0, 1] span (0, 12)", "merged_texts[0]"),
    ),
    "caption file": (
        lambda p: (p / "curated_training_texts.json").write_text("[]"),
        Fault("captions", "expected a JSON object, got list", "curated_training_texts.json"),
    ),
    "manifest": (
        lambda p: (p / "mu0_episode.json").write_text('{"version": 1}'),
        Fault("manifest", "arc_step above 0, got None", "mu0_episode.json"),
    ),
    "size in the manifest": (
        lambda p: np.save(p / "stamps.npy", np.arange(T + 1.0)),
        Fault("manifest", "the manifest says", "mu0_episode.json"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_with_its_place(episode, damage):
    act, expected = DAMAGES[damage]
    act(episode)
    faults = validate_episode(episode)
    assert any(
        fault.code == expected.code
        and expected.message in fault.message
        and expected.where in fault.where
        for fault in faults
    ), "\n".join(map(str, faults))


def test_one_damage_is_one_fault(episode):
    change(episode, "samples/traj", put(0, 1, 0, value=np.nan))
    assert [fault.code for fault in validate_episode(episode)] == ["not_finite"]


def test_cameras_are_tested_without_point_ids_too(episode):
    (episode / "mu0_episode.json").unlink()
    (episode / "samples/point_ids.npy").unlink()
    change_cameras(episode, extrinsics=put(8, 0, 3, value=0.2))
    faults = validate_episode(episode)
    assert {fault.code for fault in faults} == {"reprojection"}
    assert "of the next slot within" in faults[0].message
    assert "(frame 7) step 1" in faults[0].where


def test_points_behind_the_camera_are_allowed_in_raw_traces(episode):
    change(episode, "samples/raw_traj", put(0, 2, value=[np.nan, np.nan, -0.5]))
    change(episode, "samples/raw_traj", put(0, 3, value=[np.inf, 5.0, 0.001]))
    assert validate_episode(episode) == []


def test_command_prints_faults_and_returns_one(episode, good, tmp_path, capsys):
    assert main([str(good)]) == 0
    assert capsys.readouterr().out == f"{good}: no faults\n"
    (episode / "depth.npy").unlink()
    (episode / "mu0_episode.json").unlink()
    assert main([str(good), str(episode)]) == 1
    expected = f"{episode}: missing_file: depth.npy: part of the format, and missing"
    assert capsys.readouterr().out.splitlines() == [f"{good}: no faults", expected]
    assert main([str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().out


def test_golden_episode_has_the_faults_it_was_made_with(golden_dir):
    """Float32 traces, few files, a gap in validity, unknown valid steps, a point outside."""
    faults = validate_episode(golden_dir / "episode")
    missing = {fault.where for fault in faults if fault.code == "missing_file"}
    assert missing == {
        "acceleration.npz",
        "cameras.npz",
        "samples/keypoints.npy",
        "samples/visibs.npy",
        "samples/raw_traj.npy",
        "samples/raw_traj_history.npy",
        "samples/raw_valid_steps.npy",
        "samples/raw_valid_steps_history.npy",
    }
    rest = {(f.code, f.where) for f in faults if f.code != "missing_file"}
    assert rest == {
        ("dtype", "samples/frame_indices.npy"),
        ("dtype", "samples/traj.npy"),
        ("dtype", "samples/traj_history.npy"),
        ("mask_prefix", "samples/valid_steps.npy row 0 (frame 2) step 8"),
        ("padding", "samples/traj.npy row 0 (frame 2) step 6"),
        ("not_finite", "samples/traj.npy row 2 (frame 2) step 12"),
        ("mask_prefix", "samples/valid_steps_history.npy row 6 (frame 2) step 4"),
        ("padding", "samples/traj_history.npy row 6 (frame 2) step 4"),
        ("not_finite", "samples/traj_history.npy row 4 (frame 2) step 2"),
        ("current_point", "samples/traj_history.npy row 3 (frame 2) step 0"),
    }
