"""Checkpoint folders: the released table of names, strict loading, saving and every fault."""

import contextlib
import json
import shutil

import pytest
import torch
from huggingface_hub.errors import HTTPError
from safetensors.torch import load_file, save_file

from mu0_core.errors import CheckpointError, ConfigError
from mu0_world_model import checkpoint
from mu0_world_model.config import config_from_released, config_to_released, read_config
from mu0_world_model.model import Mu0
from mu0_world_model.presets import RELEASED

V, E, A, F, W = 2048, 1024, 2048, 2816, 1152


def released_table() -> dict[str, tuple[int, ...]]:
    """Write down the key table of the released 2.6 B checkpoint, from its description."""
    ve, vlm = "model.vlm_with_expert.", "model.vlm_with_expert.vlm."
    tower = f"{vlm}model.vision_model.base_model.model."
    text, expert = f"{vlm}model.text_model.", f"{ve}lm_expert."
    t: dict[str, tuple[int, ...]] = {
        f"{tower}embeddings.patch_embedding.weight": (W, 3, 14, 14),
        f"{tower}embeddings.patch_embedding.bias": (W,),
        f"{tower}embeddings.position_embedding.weight": (729, W),
        f"{vlm}model.connector.modality_projection.proj.weight": (V, 10368),
        f"{text}embed_tokens.weight": (49280, V),
        f"{text}norm.weight": (V,),
        f"{vlm}lm_head.weight": (49280, V),
        f"{expert}norm.weight": (E,),
        f"{ve}_depth_patch_embedding.weight": (W, 3, 14, 14),
        f"{ve}_depth_patch_embedding.bias": (W,),
        "model.trace_time_embedding.weight": (40, E),
        "model.trace_seg_embedding.weight": (2, E),
        "model.dino.embeddings.cls_token": (1, 1, 768),
        "model.dino.embeddings.mask_token": (1, 768),
        "model.dino.embeddings.position_embeddings": (1, 1370, 768),
        "model.dino.embeddings.patch_embeddings.projection.weight": (768, 3, 14, 14),
        "model.dino.embeddings.patch_embeddings.projection.bias": (768,),
    }
    linears = {
        "trace_uv_pos_mlp.0": (E, 32),
        "trace_uv_pos_mlp.2": (E, E),
        "trace_in_proj_history": (E, 24),
        "trace_in_proj_future": (E, 30),
        "trace_out_proj_future": (30, E),
        "trace_done_proj_bsp": (32, E),
        "trace_timestep_embedder.mlp.0": (E, 256),
        "trace_timestep_embedder.mlp.2": (E, E),
        "trace_dino_fuse_in": (E, E + 768),
        "trace_dino_fuse_out": (E, E),
        "action_time_mlp_in": (E, 2 * E),
        "action_time_mlp_out": (E, E),
    } | {f"trace_adaln_modulation.{i}.1": (6 * E, E) for i in range(20)}
    for name, shape in linears.items():
        t[f"model.{name}.weight"], t[f"model.{name}.bias"] = shape, shape[:1]
    for i in range(27):
        layer = f"{tower}encoder.layers.{i}."
        shapes = {f"self_attn.{p}_proj": (W, W) for p in ("q", "k", "v", "out")}
        for name, (rows, columns) in (
            shapes | {"mlp.fc1": (4304, W), "mlp.fc2": (W, 4304)}
        ).items():
            t[f"{layer}{name}.base_layer.weight"] = (rows, columns)
            t[f"{layer}{name}.base_layer.bias"] = (rows,)
            t[f"{layer}{name}.lora_A.default.weight"] = (8, columns)
            t[f"{layer}{name}.lora_B.default.weight"] = (rows, 8)
        for norm in ("layer_norm1", "layer_norm2"):
            t[f"{layer}{norm}.weight"] = t[f"{layer}{norm}.bias"] = (W,)
    t[f"{tower}post_layernorm.weight"] = t[f"{tower}post_layernorm.bias"] = (W,)
    for i in range(20):
        for stack, width, mlp in ((text, V, 8192), (expert, E, F)):
            layer = f"{stack}layers.{i}."
            into = V if stack == text or i % 2 else E
            t[f"{layer}self_attn.q_proj.weight"] = (A, width)
            t[f"{layer}self_attn.k_proj.weight"] = t[f"{layer}self_attn.v_proj.weight"] = (A, into)
            t[f"{layer}self_attn.o_proj.weight"] = (width, A)
            t[f"{layer}mlp.gate_proj.weight"] = t[f"{layer}mlp.up_proj.weight"] = (mlp, width)
            t[f"{layer}mlp.down_proj.weight"] = (width, mlp)
            for norm in ("input_layernorm", "post_attention_layernorm"):
                t[f"{layer}{norm}.weight"] = (width,)
    for i in range(12):
        layer = f"model.dino.encoder.layer.{i}."
        linear = {f"attention.attention.{p}": (768, 768) for p in ("query", "key", "value")}
        linear |= {
            "attention.output.dense": (768, 768),
            "mlp.fc1": (3072, 768),
            "mlp.fc2": (768, 3072),
        }
        for name, shape in linear.items():
            t[f"{layer}{name}.weight"], t[f"{layer}{name}.bias"] = shape, shape[:1]
        for norm in ("norm1", "norm2"):
            t[f"{layer}{norm}.weight"] = t[f"{layer}{norm}.bias"] = (768,)
        t[f"{layer}layer_scale1.lambda1"] = t[f"{layer}layer_scale2.lambda1"] = (768,)
    t["model.dino.layernorm.weight"] = t["model.dino.layernorm.bias"] = (768,)
    return t


def test_full_size_model_has_the_released_table():
    table = checkpoint.released_shapes(RELEASED)
    assert table == released_table()
    count = sum(torch.Size(shape).numel() for shape in table.values())
    assert round(count / 1e9, 2) == 2.59


def test_names_without_depth_path_and_dino(random_model):
    model = random_model(use_depth=False, use_dino=False, dino=None, trace_done_head=False)
    names = {checkpoint.released_name(n, adapted=False) for n in model.state_dict()}
    tower = "model.vlm_with_expert.vlm.model.vision_model."
    assert f"{tower}encoder.layers.0.self_attn.q_proj.weight" in names
    absent = ("base_model", "base_layer", "lora_", "_depth_", "dino", "done_proj")
    assert not [n for n in names if any(part in n for part in absent)]


def test_save_and_load_give_the_same_model(random_model, tmp_path):
    model = random_model()
    checkpoint.save(model, tmp_path / "a", step=5, extras={"README.md": "card"})
    loaded = checkpoint.load(tmp_path / "a")
    assert loaded.config == model.config
    assert not loaded.training
    for (name, a), (_, b) in zip(
        model.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert a.dtype == b.dtype and torch.equal(a, b), name
    assert json.loads((tmp_path / "a" / "meta.json").read_text()) == {"step": 5}
    assert (tmp_path / "a" / "README.md").read_text() == "card"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_number_format_is_explicit(random_model, tmp_path):
    model = random_model()
    checkpoint.save(model, tmp_path / "a", step=0, dtype=torch.bfloat16)
    assert checkpoint.load(tmp_path / "a").heads.velocity.weight.dtype == torch.bfloat16
    loaded = checkpoint.load(tmp_path / "a", dtype=torch.float32)
    assert {v.dtype for v in loaded.state_dict().values()} == {torch.float32}
    formats = {True: torch.float16, False: torch.float32}
    loaded = checkpoint.load(tmp_path / "a", dtype=lambda name: formats["vlm" in name])
    for name, value in loaded.state_dict().items():
        assert value.dtype == formats[name.startswith("vlm.")], name


def test_failed_save_keeps_the_last_checkpoint(random_model, tmp_path, monkeypatch):
    model = random_model()
    checkpoint.save(model, tmp_path / "a", step=1)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match=r"cannot be written: .*No space left"):
        checkpoint.save(model, tmp_path / "a", step=2)
    assert json.loads((tmp_path / "a" / "meta.json").read_text()) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_place_that_cannot_be_written_is_told(random_model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"file/a: cannot be written"):
        checkpoint.save(random_model(), tmp_path / "file" / "a", step=0)


@pytest.fixture
def saved(random_model, tmp_path):
    checkpoint.save(random_model(), tmp_path / "a", step=0)
    return tmp_path / "a"


def test_missing_unexpected_and_reshaped_weights_are_all_listed(saved):
    weights = load_file(saved / "model.safetensors")
    del weights["model.trace_in_proj_future.bias"]
    weights["model.trace_in_proj_future.weight"] = torch.zeros(3, 3)
    weights["model.surprise"] = torch.zeros(1)
    weights["model.trace_done_proj_flat.weight"] = torch.zeros(1)
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(saved)
    text = str(error.value)
    assert "4 faults" in text
    assert "missing: model.trace_in_proj_future.bias" in text
    assert "unexpected: model.surprise" in text
    assert "of an older architecture: model.trace_done_proj_flat.weight" in text
    assert "shape: model.trace_in_proj_future.weight: expected (24, 6)".replace("24", "12") in text


def test_unused_released_weights_are_accepted_and_checked(saved):
    config = read_config(saved)
    weights = load_file(saved / "model.safetensors")
    weights |= {name: torch.zeros(s) for name, s in checkpoint.unused_shapes(config).items()}
    save_file(weights, saved / "model.safetensors")
    checkpoint.load(saved)
    weights["model.vlm_with_expert.vlm.lm_head.weight"] = torch.zeros(2, 2)
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"shape: .*lm_head.weight: expected \(40, 24\)"):
        checkpoint.load(saved)


def test_truncated_missing_and_foreign_files(saved, tmp_path):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is no complete safetensors file"):
        checkpoint.load(saved)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is no complete safetensors file"):
        checkpoint.load(saved)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5600000000\n")
    with pytest.raises(CheckpointError, match="is a Git LFS pointer.*run git lfs pull"):
        checkpoint.load(saved)
    path.unlink()
    with pytest.raises(CheckpointError, match="there is no such file"):
        checkpoint.load(saved)
    path.mkdir()
    with pytest.raises(CheckpointError, match=r"model.safetensors: cannot be read"):
        checkpoint.load(saved)
    with pytest.raises(CheckpointError, match="expected a checkpoint folder, there is none"):
        checkpoint.load(tmp_path / "nowhere")


def test_a_hub_repository_without_a_network_is_told(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="cannot be had from the hub"):
        Mu0.from_pretrained("nobody/nothing")


@pytest.mark.parametrize("kind", [HTTPError, ConnectionError, RuntimeError])
def test_a_broken_connection_is_told(monkeypatch, kind):
    def broken(*args, **kwargs):
        raise kind("peer closed connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    with pytest.raises(CheckpointError, match="if the connection broke, run it again"):
        checkpoint.find("nobody/nothing")


def test_the_released_repository_has_its_checkpoint_one_level_down(saved, tmp_path, monkeypatch):
    copy = tmp_path / "snapshot"
    copy.mkdir()
    saved.rename(copy / "final_ckpt")
    (copy / "normalizer_stats.json").touch()
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **k: asked.append((name, k)) or str(copy)
    )
    assert Mu0.from_pretrained("furonghuang-lab/mu0").config == read_config(copy / "final_ckpt")
    wanted = ["*.json", "*.safetensors", "*recordings.yaml"]
    assert asked == [("furonghuang-lab/mu0", {"allow_patterns": wanted})]
    assert checkpoint.find(copy) == copy / "final_ckpt"
    shutil.copytree(copy / "final_ckpt", copy / "other")
    with pytest.raises(CheckpointError, match="expected one checkpoint, there are final_ckpt, ot"):
        checkpoint.find(copy)


def test_config_round_trip_and_its_faults(saved):
    config = read_config(saved)
    assert config_from_released(config_to_released(config)) == config
    raw = config_to_released(config)
    assert raw["done_threshold"] == 0.5 and "causal_attention" not in raw
    with pytest.raises(ConfigError) as error:
        config_from_released(raw | {"attention_mode": "self_attn", "causal_attention": False})
    assert "attention_mode: expected 'cross_attn', the only value implemented" in str(error.value)
    assert "causal_attention: expected True" in str(error.value)
    with pytest.raises(ConfigError, match=r"done_threshold: expected 0.5, the only value"):
        config_from_released(raw | {"done_threshold": 0.7})
    with pytest.raises(
        ConfigError, match="trace_group_horizon: expected a divisor of history_len"
    ):
        config_from_released(raw | {"trace_group_horizon": 3})
    with pytest.raises(ConfigError, match=r"input_features: expected the images"):
        config_from_released(raw | {"use_depth": False})


JUNK = (None, "x", -1, 0, 1.5, True, [], {}, [1], {"a": 1}, float("nan"))


def test_any_value_of_a_field_is_taken_or_refused(readable_config):
    """Whatever stands in config.json, there is a configuration or a ConfigError."""
    raw = config_to_released(readable_config())
    refused = 0
    for field in [*raw, "vlm_model_name"]:
        for junk in JUNK:
            try:
                config_from_released(raw | {field: junk})
            except ConfigError as error:
                refused += 1
                assert str(error)
    assert refused > 5 * len(raw)
    for backbone in ("vlm_config", "dino_config"):
        for field in raw[backbone]:
            for junk in JUNK:
                with contextlib.suppress(ConfigError):
                    config_from_released(raw | {backbone: raw[backbone] | {field: junk}})


def test_a_broken_configuration_of_a_backbone_is_told(golden, tmp_path):
    raw = json.loads((golden / "checkpoint" / "config.json").read_text())
    (tmp_path / "tiny_smolvlm").mkdir()
    for text, reason in (("{", "JSONDecodeError"), ('{"vision_config": {}}', "KeyError")):
        (tmp_path / "tiny_smolvlm" / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=f"is no configuration of such a model: {reason}"):
            config_from_released(raw, search=[tmp_path])


def test_released_config_names_its_backbones(golden, caplog):
    config = read_config(golden / "checkpoint")
    assert (config.vlm.text_kv_heads, config.vlm.vocab_size, config.dino.width) == (2, 385, 24)
    raw = json.loads((golden / "checkpoint" / "config.json").read_text())
    raw |= {"vlm_model_name": "HuggingFaceTB/SmolVLM2-2.2B-Instruct", "novelty": 1}
    with pytest.raises(ConfigError, match="pixel_shuffle"):  # 64 px are no whole tokens for it
        config_from_released(raw, search=[golden])
    assert "novelty" in caplog.text
    raw["vlm_model_name"] = "HuggingFaceTB/SmolVLM3"
    with pytest.raises(ConfigError, match="did you mean 'HuggingFaceTB/SmolVLM2-2.2B-Instruct'"):
        config_from_released(raw, search=[golden])


def test_broken_config_files(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: is not valid JSON"):
        checkpoint.load(saved)
    shutil.copy(saved / "meta.json", saved / "config.json")
    with pytest.raises(ConfigError, match="vlm_model_name: unknown backbone ''"):
        checkpoint.load(saved)
    (saved / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json: cannot be read"):
        checkpoint.load(saved)
