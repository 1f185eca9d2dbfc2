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
    FLOAT16 = "fp16"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Describe a training run."""

    episodes: tuple[str, ...] = option(description="Folders of episodes, as globs")
    output: Path = option(description="Folder of the run")
    held_out: tuple[str, ...] = option((), description="Folders of episodes to evaluate on, globs")
    held_out_share: float = option(
        0.05, description="Share of episodes held out where none are named", low=0.0, high=0.5
    )
    start_from: Path | None = option(None, description="Checkpoint to start from")
    preset: str = option("tiny", description="Model to start without a checkpoint")
    rules: str = option("all", description="Sample rules")
    steps: int = option(20_000, description="Optimiser steps", low=1)
    batch_size: int = option(16, description="Samples of a step over all processes", low=1)
    micro_batch_size: int = option(
        0, description="Samples at once in a process; 0: all of its share", low=0
    )
    flow_samples: int = option(2, description="Noise draws for each encoded scene", low=1)
    lr: float = option(1e-3, description="Learning rate", low=0.0)
    warmup_steps: int = option(300, description="Steps of linear warm-up", low=0)
    final_lr_share: float = option(
        0.02, description="Learning rate at the end over the highest, cosine between", low=0.0
    )
    betas: tuple[float, float] = option((0.9, 0.95), description="AdamW betas", low=0.0, high=1.0)
    eps: float = option(1e-8, description="AdamW epsilon", low=0.0)
    weight_decay: float = option(1e-2, description="AdamW weight decay", low=0.0)
    grad_clip: float = option(10.0, description="Largest gradient norm", low=0.0)
    ema_decay: float = option(0.999, description="Moving average of weights, 0: none", low=0.0)
    precision: Precision = option(Precision.FLOAT32, description="Number format of activations")
    recompute: bool = option(False, description="Recompute activations to save memory")
    seed: int = option(0, description="Seed of everything", low=0)
    workers: int = option(0, description="Processes that read data", low=0)
    log_every: int = option(50, description="Steps between log lines", low=1)
    evaluate_every: int = option(1000, description="Steps between evaluations", low=1)
    evaluate_batches: int = option(8, description="Batches of an evaluation", low=1)
    save_every: int = option(1000, description="Steps between checkpoints", low=1)
    resume: bool = option(False, description="Go on where the run in `output` stopped")

    def __post_init__(self) -> None:
        faults = [
            f"{name}: expected one of {', '.join(sorted(known))}, got {value!r}"
            for name, value, known in (
                ("preset", self.preset, PRESETS),
                ("rules", self.rules, RULES),
            )
            if value not in known
        ]
        validate(self, *faults)


# Settings that differ from the defaults above.
RECIPES: dict[str, dict[str, Any]] = {
    "ours": {},
    # The published run: constant rate, no average of weights, one draw for each scene.
    "released": {
        "preset": "released",
        "rules": "released",
        "steps": 200_000,
        "flow_samples": 1,
        "lr": 1e-4,
        "warmup_steps": 0,
        "final_lr_share": 1.0,
        "weight_decay": 1e-10,
        "ema_decay": 0.0,
        "precision": "bf16",
    },
}
