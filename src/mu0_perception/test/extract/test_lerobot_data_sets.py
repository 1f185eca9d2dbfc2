"""Data sets beside each other: broken ones, what is read again, and what counts as changed."""

import json
import os
from pathlib import Path

import pytest

from mu0_perception.extract.config import ExtractConfig
from mu0_perception.extract.pipeline import extract_recording
from mu0_perception.extract.recording import SourceError
from mu0_perception.extract.sources import (
    SourceConfig,
    find_recordings,
    lerobot,
    open_recording,
    recording_stamp,
)

KEY = "observation.images.front"


@pytest.fixture
def data_set(tmp_path):
    """Make a data set of version 2.1 with two episodes, whose videos are empty."""
    root = tmp_path / "sets/data"
    (root / "meta").mkdir(parents=True)
    info = {
        "codebase_version": "v2.1",
        "fps": 10,
        "video_path": "videos/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {KEY: {"dtype": "video"}},
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    rows = [{"episode_index": i, "tasks": ["lift"], "length": 5} for i in range(2)]
    (root / "meta/episodes.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (root / f"videos/{KEY}").mkdir(parents=True)
    for i in range(2):
        (root / f"videos/{KEY}/episode_{i:06d}.mp4").write_bytes(b"0")
    return root


@pytest.mark.parametrize("info", ["{", "[]", '{"codebase_version": "v9"}'])
def test_a_broken_data_set_fails_by_itself(data_set, tmp_path, info):
    broken = tmp_path / "sets/broken"
    (broken / "meta").mkdir(parents=True)
    (broken / "meta/info.json").write_text(info)
    bad, *good = find_recordings(data_set.parent, SourceConfig())
    assert [f.name for f in good] == ["data_episode_000000", "data_episode_000001"]
    result = extract_recording(bad, tmp_path / "out", ExtractConfig())
    assert (result.name, result.status) == ("broken", "failed")
    assert str(broken) in result.reason
    with pytest.raises(SourceError, match="broken"):
        open_recording(bad, SourceConfig())


def test_links_that_lead_nowhere_stop_nothing(data_set, tmp_path):
    for name in ("gone", "gone.mcap"):
        (data_set.parent / name).symlink_to(tmp_path / "nowhere")
    found = {f.name: f for f in find_recordings(data_set.parent, SourceConfig())}
    assert set(found) == {"data_episode_000000", "data_episode_000001", "gone.mcap"}
    result = extract_recording(found["gone.mcap"], tmp_path / "out", ExtractConfig())
    assert result.status == "failed" and "gone.mcap" in result.reason


def test_a_folder_that_cannot_be_looked_into_is_named(data_set, monkeypatch):
    (data_set.parent / "locked").mkdir()
    iterdir = Path.iterdir

    def guarded(path):
        if path.name == "locked":
            raise PermissionError("not yours")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", guarded)
    with pytest.raises(SourceError, match="locked: cannot be looked into"):
        find_recordings(data_set.parent, SourceConfig())


def test_metadata_are_read_once_until_they_change(data_set, monkeypatch):
    read = []
    rows = lerobot._episode_rows
    monkeypatch.setattr(lerobot, "_episode_rows", lambda *given: read.append(1) or rows(*given))
    config = SourceConfig()
    for found in find_recordings(data_set, config):
        recording_stamp(found, config)
    assert len(read) == 1
    with (data_set / "meta/episodes.jsonl").open("a") as file:
        file.write('\n{"episode_index": 2, "tasks": [], "length": 5}')
    assert len(find_recordings(data_set, config)) == 3


def test_an_episode_changes_with_its_own_video_and_task_only(data_set):
    config = SourceConfig()
    first, second = find_recordings(data_set, config)
    before = recording_stamp(first, config), recording_stamp(second, config)
    os.utime(data_set / f"videos/{KEY}/episode_000001.mp4", ns=(1, 1))
    assert recording_stamp(first, config) == before[0]
    assert recording_stamp(second, config) != before[1]
    file = data_set / "meta/episodes.jsonl"
    file.write_text(file.read_text().replace("lift", "push", 1))
    assert recording_stamp(first, config) != before[0]
    (data_set / f"videos/{KEY}/episode_000000.mp4").unlink()
    with pytest.raises(SourceError, match="episode_000000"):
        recording_stamp(first, config)
