"""Checkpoints that come with the package, found by name wherever it is installed."""

import pytest

from mu0_core.errors import CheckpointError
from mu0_world_model.shipped import checkpoint_folder, shipped_checkpoints


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installation whose share folder holds two checkpoints."""
    share = tmp_path / "share"
    index = share / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "mu0_world_model").touch()
    for name in ("mu0-tiny", "mu0-small"):
        (share / "mu0_world_model" / "models" / name).mkdir(parents=True)
    (share / "mu0_world_model" / "models" / "README.md").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    return share / "mu0_world_model" / "models"


def test_names_are_folders_of_the_installation(installed):
    assert list(shipped_checkpoints()) == ["mu0-small", "mu0-tiny"]
    assert checkpoint_folder("mu0-tiny") == str(installed / "mu0-tiny")


def test_what_has_a_slash_is_a_path_or_a_repository(installed):
    assert checkpoint_folder("./mu0-tiny") == "./mu0-tiny"
    assert checkpoint_folder("owner/name") == "owner/name"


def test_an_unknown_name_lists_what_ships(installed):
    with pytest.raises(CheckpointError, match="known are mu0-small, mu0-tiny; did you mean"):
        checkpoint_folder("mu0-tyni")


def test_without_an_installation_nothing_ships(monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/nowhere")
    assert shipped_checkpoints() == {}
    with pytest.raises(CheckpointError, match="there are none; for one of your own give the path"):
        checkpoint_folder("mu0-tiny")
