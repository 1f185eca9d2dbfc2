"""Own the settings of a training run, and its recipes."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mu0_core.config import option, validate
from mu0_world_model.presets import PRESETS
from mu0_world_model.samples import RULES


class Precision(StrEnum):
    """Choose the number format of activations; weights and optimiser stay float32."""

    FLOAT32 = "no"
    BFLOAT16 = "bf16"


class Trained(StrEnum):
    """Choose the weights that are trained."""

    CONFIGURED = "configured"
    EXPERT = "expert"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Describe a training run; the defaults are those of the published one."""

    episodes: tuple[str, ...] = option(description="Folders of episodes, as globs")
    output: Path = option(description="Folder of the run; of all machines, if there are several")
    held_out: tuple[str, ...] = option((), description="Folders of episodes to evaluate on, globs")
    held_out_share: float = option(
        0.05, description="Share of episodes held out where none are named", low=0.0, high=0.5
    )
    start_from: str | None = option(
        None, description="Checkpoint to start from: a folder, a shipped one or a hub repository"
    )
    new_statistics: bool = option(
        False, description="Measure units and arc step anew, not keep those of the checkpoint"
    )
    new_words: bool = option(
        False,
        description="Learn tokens for new words of the episodes, as far as the embedding has room",
    )
    preset: str = option("released", description="Model to start without a checkpoint")
    rules: str = option("released", description="Sample rules")
    frame_stride: int = option(
        1, description="Train on every so many-th frame; the next ones show nearly the same", low=1
    )
    trained: Trained = option(
        Trained.CONFIGURED,
        description="As config.json says (released: expert and depth path), or the expert alone",
    )
    lora_rank: int = option(
        0, description="Rank of adapters on the language model, 0: none", low=0
    )
    lora_alpha: float = option(16.0, description="Their scale is alpha / rank", low=0.0)
    steps: int = option(200_000, description="Optimiser steps", low=1)
    batch_size: int = option(16, description="Samples of a step over all processes", low=1)
    micro_batch_size: int = option(
        0, description="Samples at once in a process; 0: all of its share", low=0
    )
    flow_samples: int = option(1, description="Noise draws for each encoded scene", low=1)
    lr: float = option(1e-4, description="Learning rate", low=0.0)
    warmup_steps: int = option(0, description="Steps of linear warm-up", low=0)
    final_lr_share: float = option(
        1.0,
        description="Learning rate at the end over the highest, cosine between; 1: constant",
        low=0.0,
    )
    betas: tuple[float, float] = option((0.9, 0.95), description="AdamW betas", low=0.0, high=1.0)
    eps: float = option(1e-8, description="AdamW epsilon", low=0.0)
    weight_decay: float = option(1e-10, description="AdamW weight decay", low=0.0)
    grad_clip: float = option(10.0, description="Largest gradient norm", low=0.0)
    ema_decay: float = option(
        0.0, description="Moving average of weights, 0: none", low=0.0, high=1.0
    )
    precision: Precision = option(Precision.BFLOAT16, description="Number format of activations")
    recompute: bool = option(False, description="Recompute activations to save memory")
    fsdp: bool = option(False, description="Split weights and optimiser over the GPUs (FSDP)")
    seed: int = option(0, description="Seed of everything", low=0)
    workers: int = option(0, description="Processes that read data", low=0)
    log_every: int = option(50, description="Steps between log lines", low=1)
    evaluate_every: int = option(1000, description="Steps between evaluations", low=1)
    evaluate_batches: int = option(20, description="Batches whose loss is evaluated", low=1)
    evaluate_scenes: int = option(
        40, description="Held-out pictures whose traces are measured, 0: none", low=0
    )
    evaluate_samples: int = option(10, description="Futures of each of their traces", low=1)
    shown_scenes: int = option(4, description="Of these, drawn in TensorBoard", low=0)
    save_every: int = option(1000, description="Steps between checkpoints", low=1)
    resume: bool = option(
        False, description="Go on where the run in `output` stopped, with its settings"
    )

    def __post_init__(self) -> None:
        faults = [
            f"{name}: expected one of {', '.join(sorted(known))}, got {value!r}"
            for name, value, known in (
                ("preset", self.preset, PRESETS),
                ("rules", self.rules, RULES),
            )
            if value not in known
        ]
        if self.new_words and self.start_from is None:
            faults.append("new_words: expected start_from too; a new model learns all words")
        sizes = PRESETS.get(self.preset)
        if self.start_from is None and sizes is not None and not sizes.vlm_model_name:
            faults += [
                f"{name}: expected start_from too; a new model of preset {self.preset} would keep "
                "weights as they were drawn at random"
                for name, fixes in (
                    ("trained", self.trained is Trained.EXPERT or sizes.train_expert_only),
                    ("lora_rank", self.lora_rank > 0),
                )
                if fixes
            ]
        validate(self, *faults)


# Settings that differ from the defaults above.
RECIPES: dict[str, dict[str, Any]] = {
    # The published run: constant rate, no average of weights, one draw for each scene.
    "released": {},
    # The published weights on one's own episodes: the expert alone, so that a scene is encoded
    # without gradients, once for several draws.
    "finetune": {
        "start_from": "furonghuang-lab/mu0",
        "trained": "expert",
        "steps": 10_000,
        "flow_samples": 4,
        "warmup_steps": 500,
        "final_lr_share": 0.1,
        "ema_decay": 0.999,
    },
    # A small model, all of it from scratch, on a processor.
    "ours": {
        "preset": "tiny",
        "rules": "all",
        "steps": 20_000,
        "flow_samples": 2,
        "lr": 1e-3,
        "warmup_steps": 300,
        "final_lr_share": 0.02,
        "weight_decay": 1e-2,
        "ema_decay": 0.999,
        "precision": "no",
        "evaluate_batches": 8,
        "evaluate_samples": 5,
    },
}


def describe_recipes() -> str:
    """Say what recipes set, for the help of a command line."""
    lines = ["recipes and what they set apart from the defaults above:"]
    for name, values in RECIPES.items():
        words = " ".join(f"--{key} {value}" for key, value in values.items())
        lines.append(f"  {name}: {words or 'nothing, they are its settings'}")
    return "\n".join(lines)
