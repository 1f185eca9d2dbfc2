"""Folders are replaced whole, also if that is stopped half-way."""

import os

import pytest

from mu0_core.folders import recover_folder, replace_folder


@pytest.fixture
def folders(tmp_path):
    for name in ("new", "latest"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "text").write_text(name)
    return tmp_path / "new", tmp_path / "latest"


def test_a_folder_takes_the_place_of_another(folders):
    new, latest = folders
    replace_folder(new, latest)
    assert (latest / "sub" / "text").read_text() == "new"
    assert [path.name for path in latest.parent.iterdir()] == ["latest"]


def test_a_replacement_that_was_stopped_is_taken_back(folders, monkeypatch):
    new, latest = folders
    rename = os.rename

    def stopped(source, target):
        if source == new:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(new, latest)
    monkeypatch.undo()
    assert not latest.exists()
    (latest.parent / ".latest.partial").mkdir()
    recover_folder(latest)
    assert (latest / "sub" / "text").read_text() == "latest"
    assert sorted(path.name for path in latest.parent.iterdir()) == ["latest", "new"]
