"""Training: order of data, exact resume, split batches, evaluation, what is saved, faults."""

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mu0_core.camera import Camera
from mu0_core.config import to_dict
from mu0_core.errors import CheckpointError, ConfigError, EpisodeError, Mu0Error
from mu0_core.folders import matching_folders
from mu0_world_model import checkpoint, train, trainer
from mu0_world_model.losses import flow_time
from mu0_world_model.predictor import Predictor
from mu0_world_model.presets import PRESETS
from mu0_world_model.text import extend_tokenizer, save_tokenizer, train_tokenizer
from mu0_world_model.training_config import RECIPES, Precision, Trained
from mu0_world_model.training_data import own_part, step_keys, training_batches


def run(config):
    config.output.mkdir(parents=True, exist_ok=True)
    done = trainer.Trainer(config)
    done.run()
    return done


def run_until(config, step):
    """Run, and break off before a step."""
    config.output.mkdir(parents=True, exist_ok=True)
    broken_off = trainer.Trainer(config)
    take = broken_off.train_step

    def stop(items):
        if broken_off.step == step:
            raise KeyboardInterrupt
        return take(items)

    broken_off.train_step = stop
    with pytest.raises(KeyboardInterrupt):
        broken_off.run()


def log_of(config, name):
    lines = (config.output / "log.jsonl").read_text().splitlines()
    return [entry[name] for entry in map(json.loads, lines) if name in entry]


def averaged_weights(done):
    with done.averaged():
        return {name: value.clone() for name, value in done.weights().items()}


def test_a_run_leaves_a_checkpoint_that_predicts(config):
    done = run(config)
    losses = log_of(config, "loss")
    assert len(losses) == 4 and np.isfinite(losses).all()
    predictor = Predictor.from_pretrained(config.output / "latest")
    for name, value in averaged_weights(done).items():
        assert torch.equal(value, predictor.model.state_dict()[name]), name
    assert predictor.processor.text(["open the drawer"])[1].sum() > 3
    card = (config.output / "latest" / "README.md").read_text()
    assert "| Training | 4 steps of 4 samples" in card and "| Arc step | 0.05" in card
    assert "| Learning rate | 0.001, warm-up 1 steps" in card


def test_a_resumed_run_equals_an_uninterrupted_one(config, tmp_path):
    whole = run(config)
    again = replace(config, output=tmp_path / "again", save_every=2)
    run_until(again, 3)  # one step after what was saved
    assert log_of(again, "loss") == log_of(config, "loss")[:3]
    second = run(replace(again, resume=True))
    assert log_of(again, "loss") == log_of(config, "loss")
    for name, value in whole.weights().items():
        assert torch.equal(value, second.weights()[name]), name
    for name, value in averaged_weights(whole).items():
        assert torch.equal(value, averaged_weights(second)[name]), name


def test_a_run_of_an_older_version_goes_on(config, tmp_path):
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    run(config)
    older = replace(config, output=tmp_path / "older")
    run_until(older, 2)
    shutil.rmtree(older.output / "start")
    state = torch.load(older.output / "state" / "run.pt", weights_only=True)
    average = AveragedModel(
        checkpoint.load(older.output / "latest"), multi_avg_fn=get_ema_multi_avg_fn(0.999)
    )
    average.n_averaged += state["average"]["updates"]
    torch.save(state | {"average": average.state_dict()}, older.output / "state" / "run.pt")
    run(replace(older, resume=True))
    assert log_of(older, "loss") == log_of(config, "loss")


def test_the_settings_of_a_run_are_those_it_goes_on_with(config):
    run(replace(config, steps=2))
    output = str(config.output)
    again = train.settings("released", {"output": output, "resume": True})
    assert to_dict(again) == to_dict(replace(config, steps=2, resume=True))
    longer = train.settings("released", {"output": output, "resume": True, "steps": 9})
    assert (longer.steps, longer.preset, longer.lr) == (9, "tiny", 1e-3)


def test_bfloat16_activations_train_float32_weights(config):
    done = run(replace(config, precision=Precision.BFLOAT16, recompute=True, steps=2))
    assert {p.dtype for p in done.model.parameters()} == {torch.float32}
    moments = [s["exp_avg"].dtype for s in done.optimiser.state.values()]
    assert set(moments) == {torch.float32}
    assert np.isfinite(log_of(config, "loss")).all()


def test_micro_batches_give_the_same_losses(config, tmp_path):
    run(config)
    split = replace(config, output=tmp_path / "split", micro_batch_size=1)
    run(split)
    np.testing.assert_allclose(log_of(split, "loss"), log_of(config, "loss"), rtol=1e-4)


def test_training_lowers_the_loss(config):
    longer = replace(config, steps=35, lr=3e-3, save_every=100, evaluate_every=100)
    run(longer)
    values = log_of(longer, "loss")
    assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10])


def test_held_out_episodes_are_measured_and_shown(config, golden):
    episodes = config.output.parent / "episodes"
    shutil.copytree(golden / "episode", episodes / "a")
    shutil.copytree(golden / "episode", episodes / "b")
    (episodes / "b").chmod(0o755)
    frames, height, width = np.load(episodes / "b" / "images.npy", mmap_mode="r").shape[:3]
    K = Camera.from_fovy(1.0, width, height).K
    np.savez(
        episodes / "b" / "cameras.npz",
        intrinsics=np.tile(K, (frames, 1, 1)),
        extrinsics=np.tile(np.eye(4), (frames, 1, 1)),
    )
    watched = replace(config, episodes=(str(episodes / "*"),), held_out=(str(episodes / "b"),))
    done = run(watched)
    names = ("loss", "flow", "ade_uvz", "minADE_2_uvz", "ade_m", "minADE_2_m", "moving_fde_m")
    values = {name: log_of(watched, f"eval_{name}") for name in names}
    assert {len(v) for v in values.values()} == {2} and np.isfinite(list(values.values())).all()
    assert values["minADE_2_m"][1] < values["ade_m"][1]
    assert values["ade_m"][0] != values["ade_m"][1]
    before = done._measured
    done._evaluate(done.held_out)
    assert done._measured == before  # the same samples and noise each time
    curves = EventAccumulator(str(watched.output / "tensorboard"))
    curves.Reload()
    assert {"training/loss", "training/lr", "held_out/minADE_2_m"} <= set(curves.Tags()["scalars"])
    assert [image.step for image in curves.Images("traces/0")][:2] == [2, 4]
    assert (watched.output / "best" / "model.safetensors").is_file()
    assert "| eval_minADE_2_m |" in (watched.output / "latest" / "README.md").read_text()


def test_episodes_that_cannot_be_used_are_named_and_counted(config, golden, caplog):
    episodes = config.output.parent / "episodes"
    shutil.copytree(golden / "episode", episodes / "a")
    (episodes / "b").mkdir()
    config.output.mkdir()
    trainer.Trainer(replace(config, episodes=(str(episodes / "*"),), held_out_share=0.0))
    assert f"skipped episode {episodes / 'b'}: " in caplog.text
    assert "skipped 1 of 2 episodes" in caplog.text


def test_steps_that_are_not_finite_are_left_out_and_then_stop_the_run(config, monkeypatch):
    config.output.mkdir()
    done = trainer.Trainer(config)
    before = {n: v.clone() for n, v in done.weights().items()}
    with torch.no_grad():
        done.model.heads.velocity.bias.fill_(float("nan"))
        before["heads.velocity.bias"].fill_(float("nan"))
    batches = done._batches(done.data, 0)
    done.train_step(next(batches))
    for name, value in done.weights().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True, msg=name)
    monkeypatch.setattr(trainer, "_MAX_BAD_STEPS", 2)
    with pytest.raises(Mu0Error, match="2 steps in a row were not finite"):
        done.train_step(next(batches))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_leaves_what_was_saved_and_training_goes_on(
    config, tmp_path, caplog, largest_file
):
    whole = run(replace(config, steps=6, output=tmp_path / "whole"))
    run_until(replace(config, steps=6), 2)
    with ExitStack() as disk:
        disk.enter_context(largest_file(100))
        done = trainer.Trainer(replace(config, steps=6, resume=True))
        take, save = done.train_step, done._save

        def with_room_at_the_end(items):
            if done.step == 5:
                disk.close()
            return take(items)

        def save_and_look():
            save()
            if done.step == 6:
                return
            for name in ("latest", "state"):
                assert f"{config.output / name}: cannot be written" in caplog.text
            assert json.loads((config.output / "latest" / "meta.json").read_text()) == {"step": 2}
            checkpoint.load(config.output / "latest")
            assert torch.load(config.output / "state" / "run.pt", weights_only=True)["step"] == 2
            assert not list(config.output.glob(".*"))

        done.train_step, done._save = with_room_at_the_end, save_and_look
        done.run()
    assert "training goes on" in caplog.text
    losses = log_of(replace(config, output=tmp_path / "whole"), "loss")
    assert log_of(config, "loss") == [*losses[:2], losses[5]]
    for name, value in whole.weights().items():
        assert torch.equal(value, done.weights()[name]), name
    with largest_file(10_000), pytest.raises(CheckpointError, match="cannot be written"):
        save()  # the last step: nothing is left to go on with


def test_too_little_room_is_told_before_anything_is_written(config, monkeypatch, caplog):
    run(replace(config, steps=2))
    done = trainer.Trainer(replace(config, resume=True))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    done._save()
    assert "state: cannot be written: no space: 2 MB are needed, 0 MB are free" in caplog.text
    assert torch.load(config.output / "state" / "run.pt", weights_only=True)["step"] == 2


def test_a_save_that_was_killed_is_cleaned_up(config):
    run(replace(config, steps=2))
    output = config.output
    (output / "state").rename(output / ".state.old")  # killed between the two renames
    (output / ".state.partial").mkdir()
    (output / ".latest.x1").mkdir()
    second = run(replace(config, resume=True))
    assert second.step == 4
    assert not list(output.glob(".*"))


def test_every_step_has_its_keys_whatever_the_start():
    keys = list(islice(step_keys(10, batch_size=4, seed=1), 6))
    assert list(islice(step_keys(10, batch_size=4, seed=1, start=3), 3)) == keys[3:]
    assert len({key for step in keys[:2] for key in step}) == 8


def test_processes_and_micro_batches_share_a_step():
    keys = [(0, i) for i in range(8)]
    parts = [own_part(keys, rank=rank, world=2, micro=3) for rank in (0, 1)]
    assert [len(part) for part in parts[0]] == [3, 1]
    assert sorted(key for rank in parts for part in rank for key in part) == keys


def test_batches_are_the_same_whoever_reads_them(config):
    config.output.mkdir()
    data = trainer.Trainer(config).data

    def steps(**changes):
        settings = {"batch_size": 4, "micro": 0, "rank": 0, "world": 1, "start": 0, "workers": 0}
        return islice(training_batches(data, **(settings | changes)), 2)

    for alone, read in zip(steps(), steps(workers=2), strict=True):
        assert torch.equal(alone[0].batch.scene.image, read[0].batch.scene.image)
        assert torch.equal(alone[0].noise, read[0].noise)
    halves = [list(steps(rank=rank, world=2)) for rank in (0, 1)]
    for step, alone in enumerate(steps()):
        together = torch.cat([half[step][0].time for half in halves])
        assert sorted(together.flatten().tolist()) == sorted(alone[0].time.flatten().tolist())
    assert next(steps(batch_size=400))[0].time.shape[0] == 4  # as many as there are
    with pytest.raises(ConfigError, match="batch_size: expected a multiple of the 3 processes"):
        next(steps(world=3))
    with pytest.raises(ConfigError, match="a sample for each of 5 processes, got 4"):
        next(steps(world=5, batch_size=5))


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


def test_a_tokenizer_learns_new_words_and_keeps_the_old():
    old = train_tokenizer(["Task: lift the red cube\n"], 300)
    text = "Task: put the green bowl onto the plate\n"
    new = extend_tokenizer(old, [text, text], 512)
    assert old.get_vocab().items() <= new.get_vocab().items()
    before, after = (t("Task: lift the red cube\n")["input_ids"] for t in (old, new))
    assert before == after
    assert len(new(text)["input_ids"]) == 10  # "Task", ":", seven words, line feed
    assert new.decode(new(text)["input_ids"]) == text and new.pad_token_id == 0
    assert len(extend_tokenizer(old, [text], len(old) + 3)) == len(old) + 3
    assert len(extend_tokenizer(old, ["lift the cube"], 512)) == len(old)
    old.add_special_tokens({"eos_token": "<end>"})  # beside the pairs, and numbered after them
    added = extend_tokenizer(old, [text], 512)
    assert added.eos_token_id == old.eos_token_id == len(old) - 1
    assert len(set(added.get_vocab().values())) == len(added)
    assert added.decode(added(text)["input_ids"]) == text


def test_recipes(golden, tmp_path):
    given = {"episodes": [str(golden / "episode")], "output": str(tmp_path / "run")}
    released = train.settings("released", given)
    assert (released.preset, released.rules, released.batch_size) == ("released", "released", 16)
    assert (released.lr, released.weight_decay, released.grad_clip) == (1e-4, 1e-10, 10.0)
    assert (released.warmup_steps, released.final_lr_share, released.ema_decay) == (0, 1.0, 0.0)
    assert train.settings("ours", given).preset == "tiny"
    assert train.settings("ours", given | {"lr": 0.5}).lr == 0.5
    assert train.settings("finetune", given).start_from == "furonghuang-lab/mu0"
    assert set(RECIPES) == {"released", "finetune", "ours"}


def test_faults_of_the_command_line(golden, tmp_path, capsys, monkeypatch, fresh_accelerate):
    episode = ["--episodes", str(golden / "episode")]

    def error_of(*words):
        with pytest.raises(SystemExit) as stop:
            train.main(words)
        assert stop.value.code == 2
        return capsys.readouterr().err

    run_folder = ["--output", str(tmp_path / "run")]
    missing = error_of("--episodes", str(tmp_path / "none*"), *run_folder)
    assert "no folder matches" in missing
    (tmp_path / "file").touch()
    assert "the run cannot start there" in error_of(*episode, "--output", str(tmp_path / "file"))
    assert "rules: expected one of all, released, got 'x'" in error_of(
        *episode, *run_folder, "--rules", "x"
    )
    assert "nothing to resume there" in error_of(*run_folder, "--resume")
    sizes = replace(PRESETS["released"], vlm_model_name=str(tmp_path / "none"))
    monkeypatch.setitem(PRESETS, "released", sizes)
    assert "name a checkpoint by --start_from" in error_of(*episode, *run_folder)
    assert "fsdp: expected several processes with a GPU each, got 1 on cpu" in error_of(
        *episode, *run_folder, "--fsdp"
    )
    for name in ("state", "latest", "best"):
        (tmp_path / "run" / name).mkdir()
        assert "holds a run; add --resume" in error_of(*episode, *run_folder)
        (tmp_path / "run" / name).rmdir()


def test_what_would_stay_random_is_not_kept_fixed(config):
    for preset, settings in (
        ("tiny", {"trained": Trained.EXPERT}),
        ("tiny", {"lora_rank": 8}),
        ("peer-150m", {}),  # its configuration trains the expert alone
    ):
        settings = {**settings, "preset": preset}
        with pytest.raises(ConfigError, match=r"(trained|lora_rank): expected start_from too"):
            replace(config, **settings)
        replace(config, **settings, start_from="any")
    replace(config, trained=Trained.EXPERT, lora_rank=8, preset="released")


def test_short_memory_is_told_with_what_to_lower():
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ):
        assert "lower --micro_batch_size" in train.advice_for(error)
    killed = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    assert "lower --workers" in train.advice_for(killed)
    assert train.advice_for(RuntimeError("shapes differ")) is None


def test_a_broken_state_is_named(config):
    run(replace(config, steps=2))
    (config.output / "state" / "optimizer.bin").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="state: cannot be read"):
        trainer.Trainer(replace(config, resume=True))


def test_globs_leave_out_what_begins_with_a_dot(tmp_path):
    for name in ("b", "a", ".unfinished"):
        (tmp_path / name).mkdir()
    assert matching_folders([str(tmp_path / "*")]) == [tmp_path / "a", tmp_path / "b"]


def test_globs_are_sorted_and_must_match(golden):
    assert matching_folders([str(golden / "epi*"), str(golden / "episode")]) == [
        golden / "episode"
    ]
    with pytest.raises(EpisodeError, match="no folder matches"):
        matching_folders([str(golden / "nothing*")])
