"""What a run starts from: which episodes it trains on, which it holds out, which it leaves out."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mu0_core.errors import ConfigError, EpisodeError
from mu0_core.folders import matching_folders
from mu0_world_model import trainer
from mu0_world_model.training_distributed import make_accelerator
from mu0_world_model.training_setup import read_start
from mu0_world_model.training_store import begin_run


@pytest.fixture
def episodes(golden, tmp_path):
    """Copy the golden episode into a folder for each name; one with "broken" in it is empty."""

    def make(*names):
        for name in names:
            if "broken" in name:
                (tmp_path / "episodes" / name).mkdir(parents=True)
            else:
                shutil.copytree(golden / "episode", tmp_path / "episodes" / name)
                (tmp_path / "episodes" / name).chmod(0o755)
        return tmp_path / "episodes"

    return make


def names(index):
    return sorted(path.name for path in index.episodes)


def begun(config):
    begin_run(config)
    return read_start(config)


def test_what_is_held_out_is_drawn_among_the_usable_episodes(config, episodes):
    number = np.random.default_rng(config.seed).permutation(3)[0]
    three = [f"{i}-broken" if i == number else f"{i}" for i in range(3)]
    folder = episodes(*three)
    start = begun(replace(config, episodes=(str(folder / "*"),)))
    assert sorted(names(start.samples) + names(start.held_out)) == [
        name for name in three if "broken" not in name
    ]
    assert len(start.samples) == len(start.held_out) == 4
    for index in (start.samples, start.held_out):
        assert set(index.episode_numbers) == {0}
    assert [path.name for path in start.samples.skipped] == [f"{number}-broken"]
    assert not start.held_out.skipped


def test_the_last_usable_episode_is_trained_on(config, episodes, caplog):
    start = begun(replace(config, episodes=(str(episodes("a", "broken") / "*"),)))
    assert names(start.samples) == ["a"] and start.held_out is None
    assert "nothing is held out" in caplog.text


def test_a_share_of_the_episodes_keeps_their_samples(config, episodes):
    folder = episodes("a", "b", "c")
    start = begun(replace(config, episodes=(str(folder / "*"),), held_out_share=0.0))
    part = start.samples.part(np.array([True, False, True]))
    assert names(part) == ["a", "c"]
    assert part.episode_numbers.tolist() == [0] * 4 + [1] * 4
    assert part.slots.tolist() == start.samples.slots[[*range(4), *range(8, 12)]].tolist()


def test_episodes_of_another_arc_step_than_most_are_left_out(config, episodes, caplog):
    folder = episodes("a", "b", "c")
    (folder / "a" / "mu0_episode.json").write_text(json.dumps({"version": 1, "arc_step": 0.01}))
    start = begun(replace(config, episodes=(str(folder / "*"),), held_out_share=0.0))
    assert start.processor.statistics.arc_step == 0.05
    assert names(start.samples) == ["b", "c"]
    assert "arc step 0.01" in start.samples.skipped[folder / "a"]
    assert "that of 2 of 3 episodes is taken, 0.05" in caplog.text


def test_held_out_episodes_are_left_out_whatever_they_are_called(config, episodes, monkeypatch):
    folder = episodes("a", "b", "c")
    (folder.parent / "other").symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    settings = replace(config, episodes=(str(folder / "*"), "episodes/*"))
    for called in ("episodes/a", "other/a", "episodes/../other/a"):
        start = begun(replace(settings, held_out=(called,)))
        assert names(start.samples) == ["b", "c"] and names(start.held_out) == ["a"]
    with pytest.raises(EpisodeError, match="held_out: names all 3 episodes"):
        begun(replace(settings, held_out=("other/*",)))


def test_held_out_episodes_without_a_sample_are_named(config, episodes):
    folder = episodes("a", "broken")
    settings = replace(config, episodes=(str(folder / "a"),), held_out=(str(folder / "broken"),))
    with pytest.raises(EpisodeError, match=r"held_out: none of 1 episodes.*\n.*broken"):
        begun(settings)


def test_too_few_samples_for_the_processes_are_told_before_training(config, episodes, monkeypatch):
    def five_processes(config):
        accelerator = make_accelerator(config)
        accelerator.state.num_processes = 5
        return accelerator

    monkeypatch.setattr(trainer, "make_accelerator", five_processes)
    folder = episodes("a", "b", "c")
    ten = replace(config, batch_size=10, episodes=(str(folder / "*"),), held_out=())
    for settings, fault in (
        (replace(ten, held_out_share=0.0, batch_size=4), "episodes: batch_size: expected a mult"),
        (replace(ten, held_out_share=0.1), "held_out: expected at least a sample for each of 5"),
        (replace(ten, held_out_share=0.5), "episodes: expected at least a sample for each of 5"),
    ):
        with pytest.raises(ConfigError, match=fault):
            trainer.Trainer(settings)


def test_globs_give_a_folder_once_whatever_it_is_called(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert matching_folders(["a", str(tmp_path / "*")]) == [matching_folders(["a"])[0]]
