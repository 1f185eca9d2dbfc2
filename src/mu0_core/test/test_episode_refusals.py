"""Recordings that cannot be written and folders that cannot be read are refused, by name."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from mu0_core.episode import MANIFEST_FILE, read_episode
from mu0_core.episode_captions import Caption
from mu0_core.episode_writer import EpisodeOptions, write_episode
from mu0_core.errors import CalibrationError, ConfigError, EpisodeError

T, N, H, W = 14, 8, 30, 40
OPTIONS = EpisodeOptions(arc_step=0.02, future_len=20, history_len=6)


def test_path_that_is_taken_is_refused_or_replaced(tmp_path, recording):
    path = write_episode(tmp_path / "e", recording, OPTIONS)
    with pytest.raises(EpisodeError, match="exists already; pass overwrite=True"):
        write_episode(path, recording, OPTIONS)
    finer = dataclasses.replace(OPTIONS, arc_step=0.03)
    write_episode(path, recording, finer, overwrite=True)
    assert read_episode(path).arc_step == 0.03
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(EpisodeError, match=r"no images.npy, so it is no episode; not replaced"):
        write_episode(tmp_path / "home", recording, OPTIONS, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e", "home"]


def test_failure_leaves_nothing_behind_and_the_old_episode_in_place(tmp_path, recording):
    path = write_episode(tmp_path / "e", recording, OPTIONS)
    with pytest.raises(TypeError, match="JSON"):
        write_episode(path, recording, OPTIONS, meta={"x": object()}, overwrite=True)
    with pytest.raises(TypeError, match="JSON"):
        write_episode(tmp_path / "f", recording, OPTIONS, provenance={"x": object()})
    assert [p.name for p in tmp_path.iterdir()] == ["e"]
    assert read_episode(path).n_frames == T


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"images": np.zeros((T, H, W), np.uint8)}, r"images: expected uint8 \(T, H, W, 3\)"),
        (
            {"depth": np.zeros((T, H, W + 1))},
            r"depth: expected float \(14, 30, 40\), got",
        ),
        ({"visible": np.ones((T, N))}, "visible: expected bool .*float64"),
        ({"moving": np.ones(N + 1, bool)}, r"moving: expected bool \(8,\) or \(14, 8\)"),
        ({"tracks_xyz_world": np.zeros((T, N, 2))}, r"tracks_xyz_world: expected \(14, n, 3\)"),
        ({"tracks_xyz_world": np.full((T, N, 3), np.inf)}, "point 0 is infinite in frame 0"),
        ({"stamps": np.zeros(T)}, "stamps: expected finite, increasing seconds"),
        ({"cluster_ids": np.zeros(N), "K": np.eye(4)}, "(?s)K: expected.*cluster_ids: expected"),
    ],
)
def test_recording_faults_name_the_field(changes, text, make_recording):
    with pytest.raises(EpisodeError, match=text):
        make_recording(**changes)


def test_gaps_and_impossible_cameras_are_refused(tmp_path, make_recording):
    tracks = make_recording().tracks_xyz_world.copy()
    tracks[5:7, 3] = np.nan
    with pytest.raises(EpisodeError, match="1 points have gaps, the first is 3; fill them"):
        make_recording(tracks_xyz_world=tracks)
    with pytest.raises(CalibrationError, match="T_camera_world"):
        make_recording(T_camera_world=np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(CalibrationError):
        write_episode(tmp_path / "e", make_recording(K=np.zeros((3, 3))), OPTIONS)
    with pytest.raises(ConfigError, match=r"arc_step.*-1"):
        EpisodeOptions(arc_step=-1.0)


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ({"start": 3, "end": 14}, "frames 3 to 14 leave the episode of 14 frames"),
        ({"start": 5, "end": 9}, "chunks 0 and 1 overlap at frame 5"),
        ({"start": 0, "end": 5, "source_chunk_ids": (0, 7)}, r"chunks \[7\], but there are 1"),
        ({"start": 0, "end": 9, "source_chunk_ids": (0,)}, "frames 0 to 9, its chunks 0 to 5"),
        ({"start": 5, "end": 4}, "0 <= start <= end, got 5 to 4"),
        ({"start": 6, "end": 7, "instructions": ("a",) * 4}, "at most 3 instructions"),
    ],
)
def test_captions_that_do_not_fit_are_refused(tmp_path, recording, caption, text, captions):
    with pytest.raises(EpisodeError, match=text):
        second = Caption(**({"instructions": ("x",)} | caption))
        write_episode(tmp_path / "e", recording, OPTIONS, captions=(captions[0], second))
    assert not (tmp_path / "e").exists()


def without_manifest(path):
    (path / MANIFEST_FILE).unlink()
    return path


def resave(path, name, change):
    file = path / f"{name}.npy"
    array = change(np.load(file).copy())
    file.unlink()
    np.save(file, array)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda p: (p / "images.npy").unlink(), r"images.npy: missing, and needed"),
        (lambda p: (p / "samples/traj.npy").unlink(), r"traj.npy: missing, and needed"),
        (lambda p: shutil.rmtree(p / "samples"), "samples: missing, and needed"),
        (
            lambda p: (p / "depth.npy").write_bytes((p / "depth.npy").read_bytes()[:-100]),
            r"depth.npy: not a whole .npy file .*truncated",
        ),
        (lambda p: (p / "samples/traj.npy").write_bytes(b""), r"traj.npy: not a whole .npy"),
        (lambda p: (p / "cameras.npz").write_bytes(b"PK12"), r"cameras.npz: not a whole .npz"),
        (
            lambda p: resave(p, "samples/traj", lambda a: a[:-1]),
            r"traj.npy: expected shape \(\d+, any, 3\), got",
        ),
        (
            lambda p: resave(p, "samples/raw_traj", lambda a: a[:, 1:]),
            r"raw_traj.npy: expected shape \(\d+, 20, 3\), got \(\d+, 19, 3\)",
        ),
        (
            lambda p: resave(p, "samples/valid_steps", lambda a: a * 1),
            "expected booleans, got int",
        ),
        (
            lambda p: resave(p, "depth", lambda a: a[1:]),
            r"depth.npy: expected shape \(14, 30, 40\), got \(13, 30, 40\)",
        ),
        (
            lambda p: resave(p, "samples/offsets", lambda a: a[::-1]),
            "start at 0 and never",
        ),
        (lambda p: resave(p, "samples/offsets", lambda a: a[1:]), r"offsets.npy: expected shape"),
        (
            lambda p: np.savez(p / "cameras.npz", intrinsics=np.zeros((3, 3, 3))),
            r"intrinsics: expected shape \(14, 3, 3\)",
        ),
        (
            lambda p: np.savez(p / "cameras.npz", intrinsics=np.zeros((T, 3, 3))),
            "no array 'extrinsics'; it holds intrinsics",
        ),
        (lambda p: (p / "meta.json").write_text("{"), r"meta.json: not readable as JSON"),
        (
            lambda p: (p / "curated_training_texts.json").write_text('{"chunk_texts": [{}]}'),
            r"chunk_texts\[0\]: 'start_idx' is missing",
        ),
    ],
)
def test_damaged_episode_is_refused_by_file_and_shape(copy, damage, text):
    damage(without_manifest(copy))
    with pytest.raises(EpisodeError, match=text):
        read_episode(copy)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 9}, "format version 9, expected 1"),
        ({"arc_step": 0}, "arc_step above 0, got 0"),
        ({"files": {"depth.npy": 7}}, r"depth.npy: has \d+ bytes, the manifest says 7"),
        ({"files": {"mask.npy": 7}}, r"mask.npy: is missing, the manifest says 7"),
    ],
)
def test_manifest_that_does_not_fit_is_refused(copy, change, text):
    manifest = json.loads((copy / MANIFEST_FILE).read_text())
    (copy / MANIFEST_FILE).write_text(json.dumps(manifest | change))
    with pytest.raises(EpisodeError, match=text):
        read_episode(copy)


def test_folders_that_are_no_episode_are_named(tmp_path, make_recording):
    with pytest.raises(EpisodeError, match="no such folder"):
        read_episode(tmp_path / "none")
    (tmp_path / "old/images").mkdir(parents=True)
    with pytest.raises(EpisodeError, match="an episode in the old layout"):
        read_episode(tmp_path / "old")
    with pytest.raises(IndexError, match="slot 3 of"):
        golden_like = make_recording(moving=np.zeros(N, bool))
        read_episode(write_episode(tmp_path / "e", golden_like, OPTIONS)).slot(3)
