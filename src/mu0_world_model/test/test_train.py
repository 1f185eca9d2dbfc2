"""Training: order of data, exact resume, split batches, faults."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from mu0_core.errors import CheckpointError, ConfigError, EpisodeError
from mu0_world_model import train
from mu0_world_model.losses import flow_time
from mu0_world_model.predictor import Predictor
from mu0_world_model.presets import PRESETS, TINY
from mu0_world_model.text import save_tokenizer, train_tokenizer
from mu0_world_model.training_config import RECIPES, Precision, TrainingConfig
from mu0_world_model.training_data import own_part, step_keys
from mu0_world_model.training_setup import expand

SMALL = replace(
    TINY,
    vlm=replace(
        TINY.vlm,
        vision_width=16,
        vision_heads=2,
        vision_mlp=16,
        vision_layers=1,
        text_width=16,
        text_heads=2,
        text_kv_heads=2,
        text_head_dim=8,
        text_mlp=16,
    ),
    num_vlm_layers=2,
    num_expert_layers=2,
    resize_imgs_with_padding=(32, 32),
)


@pytest.fixture
def config(golden, tmp_path, monkeypatch):
    """A run of three steps on the golden episode with a very small model."""
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    AcceleratorState._reset_state(reset_partial_state=True)  # a process may change its precision
    return TrainingConfig(
        episodes=(str(golden / "episode"),),
        held_out=(),
        output=tmp_path / "run",
        steps=4,
        batch_size=4,
        log_every=1,
        evaluate_every=2,
        evaluate_batches=1,
        save_every=2,
        warmup_steps=1,
    )


def run(config):
    config.output.mkdir(parents=True, exist_ok=True)
    trainer = train.Trainer(config)
    trainer.run()
    return trainer


def losses_of(config):
    lines = (config.output / "log.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def test_a_run_leaves_a_checkpoint_that_predicts(config):
    trainer = run(config)
    assert len(losses_of(config)) == 4 and np.isfinite(losses_of(config)).all()
    predictor = Predictor.from_pretrained(config.output / "latest")
    for name, value in trainer.averaged_model().state_dict().items():
        assert torch.equal(value, predictor.model.state_dict()[name]), name
    assert predictor.processor.text(["open the drawer"])[1].sum() > 3
    card = (config.output / "latest" / "README.md").read_text()
    assert "| Training | 4 steps of 4 samples" in card and "| Arc step | 0.05" in card


def test_a_resumed_run_equals_an_uninterrupted_one(config, tmp_path):
    whole = run(config)
    again = replace(config, output=tmp_path / "again")
    again.output.mkdir()
    first = train.Trainer(again)
    stopped = first._train_step

    def stop(items):
        if first.step == 2:
            raise KeyboardInterrupt
        return stopped(items)

    first._train_step = stop
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = run(replace(again, resume=True))
    assert losses_of(again) == losses_of(config)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    for name, value in whole.averaged_model().state_dict().items():
        assert torch.equal(value, second.averaged_model().state_dict()[name]), name


def test_bfloat16_activations_train_float32_weights(config):
    trainer = run(replace(config, precision=Precision.BFLOAT16, recompute=True, steps=2))
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert np.isfinite(losses_of(config)).all()


def test_micro_batches_give_the_same_losses(config, tmp_path):
    run(config)
    split = replace(config, output=tmp_path / "split", micro_batch_size=1)
    run(split)
    np.testing.assert_allclose(losses_of(split), losses_of(config), rtol=1e-4)


@pytest.mark.slow
def test_two_processes_equal_one(golden, tmp_path):
    episodes = ["--episodes", str(golden / "episode")]
    sizes = ["--steps", "3", "--batch_size", "4", "--log_every", "1", "--flow_samples", "1"]
    distributed = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    launchers = {"one": [sys.executable], "two": [sys.executable, *distributed]}
    found = {}
    for name, launcher in launchers.items():
        output = tmp_path / name
        command = [*launcher, "-m", "mu0_world_model.train", *episodes, *sizes]
        subprocess.run([*command, "--output", str(output)], check=True)
        lines = (output / "log.jsonl").read_text().splitlines()
        found[name] = [json.loads(line)["loss"] for line in lines]
    assert len(found["one"]) == 3
    np.testing.assert_allclose(found["two"], found["one"], rtol=1e-5)


def test_training_lowers_the_loss(config):
    longer = replace(config, steps=35, lr=3e-3, save_every=100, evaluate_every=100)
    run(longer)
    values = losses_of(longer)
    assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10])


def test_steps_that_are_not_finite_are_left_out_and_then_stop_the_run(config, monkeypatch):
    trainer_class = train.Trainer
    config.output.mkdir()
    trainer = trainer_class(config)
    before = {n: v.clone() for n, v in trainer.model.state_dict().items()}
    with torch.no_grad():
        trainer.model.heads.velocity.bias.fill_(float("nan"))
        before["heads.velocity.bias"].fill_(float("nan"))
    batches = trainer._batches(trainer.data, 0)
    trainer._train_step(next(batches))
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True, msg=name)
    monkeypatch.setattr(train, "_MAX_BAD_STEPS", 2)
    with pytest.raises(train.Mu0Error, match="2 steps in a row were not finite"):
        trainer._train_step(next(batches))


def test_every_step_has_its_keys_whatever_the_start():
    keys = list(islice(step_keys(10, batch_size=4, seed=1), 6))
    assert list(islice(step_keys(10, batch_size=4, seed=1, start=3), 3)) == keys[3:]
    assert len({key for step in keys[:2] for key in step}) == 8
    with pytest.raises(ConfigError, match="batch_size: expected at most the 3 samples, got 4"):
        next(step_keys(3, batch_size=4, seed=0))


def test_processes_and_micro_batches_share_a_step():
    keys = [(0, i) for i in range(8)]
    parts = [own_part(keys, rank=rank, world=2, micro=3) for rank in (0, 1)]
    assert [len(part) for part in parts[0]] == [3, 1]
    assert sorted(key for rank in parts for part in rank for key in part) == keys


def test_flow_time_has_its_distribution():
    time = flow_time(np.linspace(0, 1, 100_001, dtype=np.float32)[:-1])
    assert time.min() >= 0.001 and time.max() <= 1.0
    assert time.mean() == pytest.approx(0.999 * 0.6 + 0.001, abs=1e-3)  # Beta(1.5, 1) has 0.6
    assert ((time - time.mean()) ** 2).mean() == pytest.approx(1.5 / (2.5**2 * 3.5), abs=1e-3)


def test_a_small_tokenizer_reads_any_text(tmp_path):
    tokenizer = train_tokenizer(["Task: lift the red cube\n", "Task: lift the blue cube\n"], 300)
    files = save_tokenizer(tokenizer, tmp_path)
    assert {path.name for path in files} == {"tokenizer.json", "tokenizer_config.json"}
    ids = tokenizer("Task: lift the grün cube\n")["input_ids"]
    assert tokenizer.decode(ids) == "Task: lift the grün cube\n"
    assert len(tokenizer) <= 300 and tokenizer.pad_token_id == 0


def test_command_line_recipes_and_faults(golden, tmp_path, capsys):
    assert RECIPES["released"]["lr"] == 1e-4
    episode = ["--episodes", str(golden / "episode")]
    with pytest.raises(SystemExit) as stop:
        train.main(["--episodes", str(tmp_path / "none*"), "--output", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert "no folder matches" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train.main([*episode, "--output", str(tmp_path), "--rules", "x"])
    assert "rules: expected one of all, released, got 'x'" in capsys.readouterr().err
    (tmp_path / "run" / "state").mkdir()
    with pytest.raises(SystemExit):
        train.main([*episode, "--output", str(tmp_path / "run")])
    assert "holds a run; add --resume" in capsys.readouterr().err


def test_nothing_to_resume(config):
    with pytest.raises(CheckpointError, match="nothing to resume there"):
        run(replace(config, resume=True))


def test_globs_are_sorted_and_must_match(golden):
    assert expand([str(golden / "epi*"), str(golden / "episode")]) == [golden / "episode"]
    with pytest.raises(EpisodeError, match="no folder matches"):
        expand([str(golden / "nothing*")])
