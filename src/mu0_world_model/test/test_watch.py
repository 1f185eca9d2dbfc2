"""Showing runs: what TensorBoard is told."""

import pytest

from mu0_world_model import watch


def test_the_folder_is_shown_on_this_machine_alone_unless_asked(tmp_path):
    config = watch.WatchConfig(runs=tmp_path, port=6007)
    words = ["tensorboard", "--logdir", str(tmp_path), "--port", "6007"]
    assert watch.tensorboard_words(config) == words
    everywhere = watch.WatchConfig(runs=tmp_path, port=6007, everywhere=True)
    assert watch.tensorboard_words(everywhere) == [*words, "--bind_all"]


def test_faults(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        watch.main(["--runs", str(tmp_path / "none")])
    assert stop.value.code == 2
    assert "runs: expected a folder, there is no" in capsys.readouterr().err
