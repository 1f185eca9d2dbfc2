"""Fixtures of the world model's tests: one thread, the golden data, a small random model."""

import resource
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mu0_world_model.config import DinoConfig, Mu0Config, VlmConfig
from mu0_world_model.model import Mu0

GOLDEN = Path(__file__).resolve().parents[3].parent / "shared" / "golden" / "mu0_tiny"


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the recorded numbers of the published implementation."""
    if not GOLDEN.is_dir():
        pytest.skip("golden data missing: expected shared/golden/mu0_tiny beside the repository")
    return GOLDEN


@pytest.fixture(scope="session")
def golden_arrays(golden):
    """Read a golden npz as tensors (strings and scalars stay NumPy)."""

    def read(name: str) -> Mapping[str, torch.Tensor]:
        with np.load(golden / f"{name}.npz") as file:
            return {
                key: value if value.dtype.kind == "U" else torch.from_numpy(np.asarray(value))
                for key, value in file.items()
            }

    return read


def small_config(**changes) -> Mu0Config:
    """Describe a model of a few thousand weights with every feature on."""
    values = {
        "vlm": VlmConfig(
            vision_width=16,
            vision_layers=2,
            vision_heads=2,
            vision_mlp=24,
            vision_image_size=24,
            patch_size=8,
            pixel_shuffle=2,
            text_width=24,
            text_heads=2,
            text_kv_heads=1,
            text_head_dim=8,
            text_mlp=32,
            vocab_size=40,
        ),
        "dino": DinoConfig(width=12, layers=1, heads=2, mlp_ratio=2, patch_size=7, image_size=14),
        "num_vlm_layers": 4,
        "history_len": 4,
        "future_len": 8,
        "trace_group_horizon": 2,
        "trace_bspline_n_ctrl": 4,
        "trace_bspline_ctrl_per_token": 2,
        "resize_imgs_with_padding": (32, 32),
        "tokenizer_max_length": 6,
        "use_depth": True,
        "depth_lora_rank": 2,
        "use_dino": True,
        "dino_input_size": 28,
    }
    return Mu0Config(**(values | changes))


@pytest.fixture(scope="session")
def readable_config():
    """Describe small models whose vocabulary has room for a tokenizer of their own."""

    def describe(**changes) -> Mu0Config:
        config = small_config(**changes)
        return replace(config, vlm=replace(config.vlm, vocab_size=300))

    return describe


@pytest.fixture
def random_model():
    """Build small models in float64 whose every weight is random and not zero."""

    def build(**changes) -> Mu0:
        torch.manual_seed(0)
        model = Mu0(small_config(**changes)).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.2)
        return model

    return build


def trainable_config() -> Mu0Config:
    """Describe a model of the shipped shape that trains in an instant."""
    from mu0_world_model.presets import TINY

    sizes = {
        "vision_width": 16,
        "vision_heads": 2,
        "vision_mlp": 16,
        "vision_layers": 1,
        "text_width": 16,
        "text_heads": 2,
        "text_kv_heads": 2,
        "text_head_dim": 8,
        "text_mlp": 16,
    }
    return replace(
        TINY,
        vlm=replace(TINY.vlm, **sizes),
        num_vlm_layers=2,
        num_expert_layers=2,
        resize_imgs_with_padding=(32, 32),
    )


@pytest.fixture
def largest_file():
    """Let no file grow past a size for a while, as on a full disk."""

    @contextmanager
    def limit(size):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limit


@pytest.fixture
def fresh_accelerate(monkeypatch):
    """Forget what an earlier run set up, since a process may then not change it."""
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")  # accelerate sets it where it is asked to
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def config(golden, tmp_path, monkeypatch, fresh_accelerate):
    """A run of four steps on the golden episode with a very small model."""
    from mu0_core.config import from_dict
    from mu0_world_model.presets import PRESETS
    from mu0_world_model.training_config import RECIPES, TrainingConfig

    monkeypatch.setitem(PRESETS, "tiny", trainable_config())
    return from_dict(
        TrainingConfig,
        RECIPES["ours"]
        | {
            "episodes": [str(golden / "episode")],
            "output": str(tmp_path / "run"),
            "steps": 4,
            "batch_size": 4,
            "log_every": 1,
            "evaluate_every": 2,
            "evaluate_batches": 1,
            "evaluate_scenes": 2,
            "evaluate_samples": 2,
            "shown_scenes": 1,
            "save_every": 2,
            "warmup_steps": 1,
        },
    )


@pytest.fixture
def small_checkpoint(golden, tmp_path):
    """A checkpoint of the released form and a very small size, with units and a tokenizer."""
    from mu0_world_model import checkpoint
    from mu0_world_model.statistics import STATISTICS, measure
    from mu0_world_model.text import save_tokenizer, train_tokenizer

    sizes = trainable_config()
    measured = measure(
        [golden / "episode"], history_len=sizes.history_len, future_len=sizes.future_len
    )
    torch.manual_seed(0)
    model = Mu0(replace(sizes, delta_scale=measured.delta_scale))
    tokenizer = train_tokenizer(["Task: open the drawer\n"], sizes.vlm.vocab_size)
    files = save_tokenizer(tokenizer, tmp_path / "tokenizer")
    folder = tmp_path / "checkpoint"
    checkpoint.save(model, folder, step=0, extras={STATISTICS: measured.to_json()}, copy=files)
    return folder
