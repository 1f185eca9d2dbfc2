"""Own the model card that a training run leaves beside its weights."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mu0_world_model.presets import preset
from mu0_world_model.statistics import Statistics
from mu0_world_model.training_config import Precision, Trained, TrainingConfig

CARD = "README.md"

_TRAINED = {
    Trained.CONFIGURED: "what the configuration does not keep fixed",
    Trained.EXPERT: "the expert alone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """Hold what is worth knowing about a run.

    Attributes:
        config: Its settings.
        episodes: Number of episodes.
        skipped: Number of those that could not be used.
        samples: Number of samples (frames) in them.
        held_out: Number of episodes that were kept apart for evaluation.
        parameters: Number of weights.
        trained: Number of those that were trained.
        step: Optimiser steps so far.
        seconds: Time of training since it was last started.
        device: Where it ran.
        measured: Latest results on held-out episodes, by name.
    """

    config: TrainingConfig
    episodes: int
    skipped: int
    samples: int
    held_out: int
    parameters: int
    trained: int
    step: int
    seconds: float
    device: str
    measured: Mapping[str, float]


def model_card(facts: TrainingFacts, statistics: Statistics) -> str:
    """Write the card as Markdown."""
    config = facts.config
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), torch {torch.__version__}"
    data = f"{facts.episodes} episodes, {facts.samples} samples ({', '.join(config.episodes)})"
    rows = {
        "Weights": f"{facts.parameters / 1e6:.1f} million, {facts.trained / 1e6:.1f} trained",
        "Started from": _origin(config),
        "Trained": _TRAINED[config.trained],
        "Data": data + (f"; {facts.skipped} more were skipped" if facts.skipped else ""),
        "Held out": f"{facts.held_out} episodes",
        "Sample rules": config.rules,
        "Frames": "all" if config.frame_stride == 1 else f"one of {config.frame_stride}",
        "Arc step": f"{statistics.arc_step:g} (image fractions and metres in one norm)",
        "History, future": f"{statistics.history_len} and {statistics.future_len} steps",
        "Training": f"{facts.step} steps of {config.batch_size} samples with "
        f"{config.flow_samples} noise draws each",
        "Learning rate": f"{config.lr:g}, warm-up {config.warmup_steps} steps, cosine to "
        f"{config.final_lr_share:g} of it at step {config.steps}; AdamW, weight decay "
        f"{config.weight_decay:g}",
        "Average of weights": f"{config.ema_decay:g}" if config.ema_decay else "none",
        "Activations": "float32" if config.precision is Precision.FLOAT32 else "bfloat16",
        "Seed": str(config.seed),
        "Time": f"{facts.seconds / 3600:.2f} h since the last start, on {facts.device}",
        "Machine": machine,
        **{name: f"{value:.4f}" for name, value in facts.measured.items()},
    }
    if config.lora_rank:
        rows["Adapters"] = f"rank {config.lora_rank} on the language model, added to its weights"
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(
        [
            "# μ₀ trace world model",
            "",
            "Predicts 3D traces of image points from an image, an instruction and, if there is "
            "one, a depth image. No action labels were used.",
            "",
            "| | |",
            "| --- | --- |",
            *lines,
            "",
        ]
    )


def _origin(config: TrainingConfig) -> str:
    """Say what weights, units and words a run began with."""
    if config.start_from is None:
        sizes = preset(config.preset)
        names = [name for name in (sizes.vlm_model_name, sizes.dino_model_name) if name]
        return f"{' and '.join(names) or 'nothing'} (preset {config.preset})"
    changes = [
        text
        for text, wanted in (
            ("units measured anew", config.new_statistics),
            ("tokens for new words", config.new_words),
        )
        if wanted
    ]
    return ", ".join([config.start_from, *changes])
