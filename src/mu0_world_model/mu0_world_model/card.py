"""Own the model card that a training run leaves beside its weights."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mu0_world_model.statistics import Statistics

CARD = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """Hold what is worth knowing about a run.

    Attributes:
        data: What it was trained on: the globs that were given.
        episodes: Number of episodes.
        samples: Number of samples (frames) in them.
        parameters: Number of weights.
        step: Optimiser steps so far.
        batch_size: Samples of a step.
        flow_samples: Noise draws for each of them.
        seconds: Time of training since it was last started.
        device: Where it ran.
        measured: Latest results on held-out episodes, by name.
    """

    data: tuple[str, ...]
    episodes: int
    samples: int
    parameters: int
    step: int
    batch_size: int
    flow_samples: int
    seconds: float
    device: str
    measured: Mapping[str, float]


def model_card(facts: TrainingFacts, statistics: Statistics) -> str:
    """Write the card as Markdown."""
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), torch {torch.__version__}"
    rows = {
        "Weights": f"{facts.parameters / 1e6:.1f} million",
        "Data": f"{facts.episodes} episodes, {facts.samples} samples ({', '.join(facts.data)})",
        "Arc step": f"{statistics.arc_step:g} (image fractions and metres in one norm)",
        "History, future": f"{statistics.history_len} and {statistics.future_len} steps",
        "Training": f"{facts.step} steps of {facts.batch_size} samples with "
        f"{facts.flow_samples} noise draws each",
        "Time": f"{facts.seconds / 3600:.2f} h since the last start, on {facts.device}",
        "Machine": machine,
        **{name: f"{value:.4f}" for name, value in facts.measured.items()},
    }
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
