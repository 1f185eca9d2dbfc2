"""Parts of training: average of weights, adapters, backbones, recomputed activations."""

import json
from dataclasses import replace

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mu0_core.config import from_dict
from mu0_core.errors import CheckpointError
from mu0_world_model import checkpoint, trainer
from mu0_world_model.adapters import choose_weights, merged
from mu0_world_model.backbones import load_backbones
from mu0_world_model.config import config_from_released
from mu0_world_model.losses import flow_losses
from mu0_world_model.model import Mu0, Scene
from mu0_world_model.predictor import Predictor
from mu0_world_model.processor import load_tokenizer
from mu0_world_model.shipped import shipped_checkpoints
from mu0_world_model.statistics import read_statistics
from mu0_world_model.training_average import MovingAverage
from mu0_world_model.training_config import RECIPES, Trained, TrainingConfig


def test_the_average_is_that_of_torch_and_leaves_fixed_weights_alone():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    ours = MovingAverage(model, 0.1)  # as much as the first updates keep, or less
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.1))
    for _ in range(3):
        with torch.no_grad():
            model[1].weight += torch.rand(2, 2)
        ours.update()
        theirs.update_parameters(model)
    own = model[1].weight.clone()
    with ours.applied():
        assert torch.equal(model[1].weight, theirs.module[1].weight)
    assert torch.equal(model[1].weight, own)
    assert set(ours.state_dict()["weights"]) == {"1.weight", "1.bias"}
    for state in (ours.state_dict(), theirs.state_dict()):
        again = MovingAverage(model, 0.1)
        again.load_state_dict(state)
        again.update()
        expected = theirs.module[1].weight.lerp(own, 0.9)
        torch.testing.assert_close(again.state_dict()["weights"]["1.weight"], expected)


def test_an_average_soon_forgets_how_a_run_began():
    model = torch.nn.Linear(1, 1)
    average = MovingAverage(model, 0.999)
    for value in (0.0, *(1.0 for _ in range(9))):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
    assert 0.999 < float(average.state_dict()["weights"]["weight"]) < 1.0


def scene_of(config):
    return Scene(
        image=torch.rand(2, 3, 32, 32),
        tokens=torch.ones(2, config.tokenizer_max_length, dtype=torch.int64),
        token_valid=torch.ones(2, config.tokenizer_max_length, dtype=torch.bool),
        depth=torch.rand(2, 3, 32, 32),
    )


def test_adapters_are_trained_alone_and_add_up_with_the_weights(random_model):
    model = random_model().float()
    scene = scene_of(model.config)
    before = model.encode(scene).memory.keys
    choose_weights(model, Trained.EXPERT, lora_rank=2, lora_alpha=8.0)
    taught = {n for n, p in model.vlm.named_parameters() if p.requires_grad}
    assert taught and all(".lora_" in name for name in taught)
    assert all(p.requires_grad for p in model.expert.parameters())
    for ours, theirs in zip(model.encode(scene).memory.keys, before, strict=True):
        torch.testing.assert_close(ours, theirs)  # an adapter starts at 0
    with torch.no_grad():
        for name, weight in model.vlm.named_parameters():
            if ".lora_" in name:
                weight.copy_(0.1 * torch.randn(weight.shape))
    plain = Mu0(model.config)
    plain.load_state_dict(merged(model.state_dict(), lora_rank=2, lora_alpha=8.0), strict=True)
    keys = [m.encode(scene).memory.keys[-1] for m in (model, plain)]
    torch.testing.assert_close(*keys, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(keys[0], before[-1], atol=1e-2)


def test_the_expert_alone_needs_no_gradients_before_it(random_model):
    model = random_model().float()
    assert model.encode(scene_of(model.config)).embeddings.requires_grad  # of the depth path
    choose_weights(model, Trained.EXPERT, lora_rank=0, lora_alpha=1.0)
    assert not model.encode(scene_of(model.config)).embeddings.requires_grad


def test_fine_tuning_with_adapters_leaves_a_checkpoint_like_any_other(config, small_checkpoint):
    config.output.mkdir()
    tuned = replace(
        config, start_from=str(small_checkpoint), trained=Trained.EXPERT, lora_rank=2, lr=0.01
    )
    run = trainer.Trainer(tuned)
    run.run()
    start, end = (checkpoint.load(f) for f in (small_checkpoint, config.output / "latest"))
    changed = {
        name
        for name, value in end.state_dict().items()
        if not torch.equal(value, start.state_dict()[name])
    }
    assert any(name.startswith("vlm.layers.0") for name in changed)
    assert any(name.startswith("expert.") for name in changed)
    assert not any(name.startswith(("vlm.tower", "vlm.depth", "vlm.embed")) for name in changed)
    assert read_statistics(config.output / "latest") == read_statistics(small_checkpoint)
    card = (config.output / "latest" / "README.md").read_text()
    assert "| Adapters | rank 2 on the language model" in card
    assert f"| Started from | {small_checkpoint}" in card
    again = trainer.Trainer(replace(tuned, steps=5, resume=True))
    for name, value in run.weights().items():
        assert torch.equal(value, again.weights()[name]), name


def test_units_can_be_measured_anew(config, small_checkpoint):
    path = small_checkpoint / "normalizer_stats.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"arc_step": 0.01}))
    config.output.mkdir()
    start = replace(config, start_from=str(small_checkpoint))
    with pytest.raises(trainer.Mu0Error, match=r"arc step 0.05, the model's is 0.01"):
        trainer.Trainer(start)
    run = trainer.Trainer(replace(start, new_statistics=True))
    assert run.start.processor.statistics.arc_step == 0.05


def test_a_run_starts_from_a_shipped_checkpoint_by_name(config):
    config.output.mkdir()
    run = trainer.Trainer(replace(config, start_from="mu0-tiny", new_statistics=True))
    shipped = checkpoint.load(shipped_checkpoints()["mu0-tiny"]).state_dict()
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, shipped[name]), name
    with pytest.raises(trainer.Mu0Error, match="unknown shipped checkpoint 'mu0-tyni'"):
        trainer.Trainer(replace(config, start_from="mu0-tyni"))


def test_new_words_become_tokens(config, small_checkpoint):
    config.output.mkdir()
    with pytest.raises(trainer.Mu0Error, match="new_words: expected start_from"):
        replace(config, new_words=True)
    tuned = replace(config, start_from=str(small_checkpoint), new_words=True)
    sizes = trainer.Trainer(tuned).start.processor.config
    old, new = (load_tokenizer(p, sizes) for p in (small_checkpoint, config.output / "start"))
    assert old.get_vocab().items() < new.get_vocab().items()
    assert len(new) <= sizes.vlm.vocab_size


def gradients(model, batch, kept):
    """Return the gradients of a loss, and the bytes that are kept for the backward pass."""
    sizes = []

    def count(tensor):
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = flow_losses(model, **batch).total(model.config)
    loss.backward()
    kept.append(sum(sizes))
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_recomputed_activations_give_the_same_gradients_and_keep_less(config):
    config.output.mkdir()
    run = trainer.Trainer(config)
    item = next(run._batches(run.data, 0))[0]
    batch = {
        "scene": item.batch.scene,
        "points": item.batch.points,
        "targets": item.batch.targets,
        "noise": item.noise,
        "time": item.time,
    }
    kept = []
    plain = gradients(run.model, batch, kept)
    run.model.checkpoint_activations()
    recomputed = gradients(run.model, batch, kept)
    assert set(plain) == set(recomputed)
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    assert kept[1] < 0.5 * kept[0]


def test_a_model_of_the_released_shape_starts_from_its_backbones(golden, tmp_path):
    from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

    torch.manual_seed(1)
    raw = json.loads((golden / "checkpoint" / "config.json").read_text())
    folders = {"vlm": tmp_path / "vlm", "dino": tmp_path / "dino"}
    sources = {"vlm": "tiny_smolvlm", "dino": "tiny_dinov2"}
    kinds = {"vlm": AutoModelForImageTextToText, "dino": AutoModel}
    published = {}
    for kind, folder in folders.items():
        sizes = AutoConfig.from_pretrained(golden / sources[kind])
        published[kind] = kinds[kind].from_config(sizes)
        published[kind].save_pretrained(folder)
    config = config_from_released(raw, search=[golden])
    config = replace(
        config,
        vlm_model_name=str(folders["vlm"]),
        dino_model_name=str(folders["dino"]),
    )
    model = Mu0(config)
    load_backbones(model)
    theirs = published["vlm"].state_dict()
    layers = "model.text_model.layers.1.mlp.up_proj.weight"
    assert torch.equal(model.vlm.layers[1].mlp.up_proj.weight, theirs[layers])
    patches = theirs["model.vision_model.embeddings.patch_embedding.weight"]
    assert torch.equal(model.vlm.tower.embeddings.patch_embedding.weight, patches)
    assert torch.equal(model.vlm.depth.stem.weight, patches)
    first = next(iter(published["dino"].state_dict()))
    assert torch.equal(model.dino.model.state_dict()[first], published["dino"].state_dict()[first])
    wrong = replace(config, vlm=replace(config.vlm, text_mlp=config.vlm.text_mlp + 8))
    with pytest.raises(CheckpointError, match=r"not those of the configuration.*\n.*gate_proj"):
        load_backbones(Mu0(wrong))
    with pytest.raises(CheckpointError, match="expected a checkpoint folder, there is none"):
        load_backbones(Mu0(replace(config, vlm_model_name=str(tmp_path / "none"))))


def test_a_released_checkpoint_is_fine_tuned(golden, tmp_path, fresh_accelerate):
    released = tmp_path / "released"
    released.symlink_to(golden / "checkpoint")
    for name in ("tiny_smolvlm", "tiny_dinov2", "normalizer_stats.json"):
        (tmp_path / name).symlink_to(golden / name)
    settings = {
        "start_from": str(released),
        "episodes": [str(golden / "episode")],
        "output": str(tmp_path / "run"),
        "steps": 2,
        "batch_size": 2,
        "lora_rank": 2,
        "lr": 0.01,
        "warmup_steps": 0,
    }
    config = from_dict(TrainingConfig, RECIPES["finetune"] | settings)
    config.output.mkdir()
    trainer.Trainer(config).run()
    tuned = Predictor.from_pretrained(config.output / "latest")  # with its tokenizer and units
    start = checkpoint.load(released)
    assert tuned.processor.statistics == read_statistics(golden)
    changed = {
        name.split(".")[0]
        for name, value in tuned.model.state_dict().items()
        if not torch.equal(value, start.state_dict()[name].to(value.dtype))
    }
    assert changed == {"expert", "suffix", "conditioning", "heads", "vlm"}
    for name in ("tower", "connector", "depth"):
        ours, theirs = (getattr(m.vlm, name).state_dict() for m in (tuned.model, start))
        assert all(torch.equal(ours[key], value.float()) for key, value in theirs.items()), name
