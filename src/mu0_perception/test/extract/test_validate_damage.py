"""All faults of all episodes are told, whatever is damaged in them."""

import json
import shutil

import numpy as np
import pytest

from mu0_core.episode_writer import EpisodeOptions, Recording, write_episode
from mu0_perception.extract import validate
from mu0_perception.extract.sidecar import SIDECAR_FILE, SIDECAR_VERSION, write_sidecar

T, N = 6, 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An episode of three points that move, with its sidecar."""
    xyz = np.zeros((T, N, 3))
    xyz[..., 0] = 0.03 * np.arange(T)[:, None] + 0.05 * np.arange(N)
    xyz[..., 2] = 1.0
    recording = Recording(
        images=np.zeros((T, 16, 24, 3), np.uint8),
        depth=np.ones((T, 16, 24), np.float32),
        K=np.array([[20.0, 0.0, 12.0], [0.0, 20.0, 8.0], [0.0, 0.0, 1.0]]),
        T_camera_world=np.eye(4),
        tracks_xyz_world=xyz,
        visible=np.ones((T, N), np.bool_),
        cluster_ids=np.zeros(N, np.int64),
        moving=np.ones(N, np.bool_),
        stamps=0.1 * np.arange(T),
    )
    content = {
        "version": SIDECAR_VERSION,
        "stamps_s": recording.stamps.tolist(),
        "points": [{"seen": [[0, T - 1]]} for _ in range(N)],
    }
    path = tmp_path_factory.mktemp("whole") / "a"
    return write_episode(
        path,
        recording,
        EpisodeOptions(arc_step=0.01),
        finish=lambda folder: write_sidecar(folder, content),
    )


def _cut_short(file):
    file.write_bytes(file.read_bytes()[:-5])


def _emptied(file):
    file.write_bytes(b"")


FILES = ("stamps", "samples/point_ids", "samples/offsets", "samples/visibs")


@pytest.mark.parametrize("damage", [_cut_short, _emptied])
@pytest.mark.parametrize("file", [f"{name}.npy" for name in FILES] + [SIDECAR_FILE])
def test_a_damaged_file_hides_no_other_fault(whole, tmp_path, capsys, file, damage):
    for name in ("a", "b"):
        shutil.copytree(whole, tmp_path / name)
        damage(tmp_path / name / file)
    assert validate.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == {"episodes": 2, "faulty": 2}
    for name in ("a", "b"):
        assert any(f"/{name}: sidecar" in line for line in lines)


@pytest.mark.parametrize(
    "change",
    [
        {"points": None},
        {"points": [{}] * N},
        {"points": [{"seen": 3}] * N},
        {"points": []},
        {"stamps_s": [0.0]},
        {"stamps_s": None},
    ],
)
def test_a_sidecar_of_another_form_is_a_fault(whole, tmp_path, change):
    shutil.copytree(whole, tmp_path / "a")
    content = json.loads((whole / SIDECAR_FILE).read_text()) | change
    (tmp_path / "a" / SIDECAR_FILE).write_text(json.dumps(content))
    assert [fault.code for fault in validate.faults_of(tmp_path / "a")] == ["sidecar"]


def test_a_whole_episode_has_no_faults(whole):
    assert validate.faults_of(whole) == []
