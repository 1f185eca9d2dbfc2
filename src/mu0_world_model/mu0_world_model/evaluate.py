"""Own the evaluation command: `ros2 run mu0_world_model evaluate --json`."""

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mu0_core.config import add_arguments, from_namespace, option, to_dict, validate
from mu0_core.errors import Mu0Error
from mu0_core.folders import matching_folders
from mu0_world_model import checkpoint, recordings
from mu0_world_model.dataset import TraceDataset
from mu0_world_model.evaluation import Plan, evaluate, horizons_of
from mu0_world_model.execution import ExecutionConfig
from mu0_world_model.predictor import Predictor
from mu0_world_model.samples import sample_rules
from mu0_world_model.shipped import DEFAULT_CHECKPOINT, checkpoint_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig(ExecutionConfig):
    """Choose a checkpoint and what it is measured on."""

    checkpoint: str = option(
        DEFAULT_CHECKPOINT, description="Shipped name, folder or hub repository"
    )
    episodes: tuple[str, ...] = option(
        (), description="Held-out episodes, globs; none: the ones that the checkpoint names"
    )
    training: tuple[str, ...] = option(
        (), description="Episodes of the nearest neighbours, globs; without --episodes as there"
    )
    neighbour_episodes: int = option(
        20, description="Of each training recording that the checkpoint names; 0: all", low=0
    )
    recordings: Path = option(
        Path("out/recordings"), description="Where episodes that the checkpoint names are kept"
    )
    rules: str = option("all", description="Sample rules")
    samples: int = option(5, description="Futures of each method", low=1)
    scenes: int = option(400, description="Pictures, spread evenly over the episodes", low=1)
    seed: int = option(0, description="Seed of points, captions and noise", low=0)
    steps: int | None = option(None, description="Euler steps; none: as in the checkpoint", low=1)
    batch: int = option(
        8, description="Scenes asked for at once; another number draws other noise", low=1
    )
    threads: int = option(os.cpu_count() or 1, description="Processor threads", low=1)
    json: bool = option(False, description="Print all figures as one JSON line last")

    def __post_init__(self) -> None:
        validate(self)


def table(report: Mapping[str, Any]) -> str:
    """Write the main measures of a report as a text table."""
    samples = report["samples"]
    names = ["ade_uvz", "ade_m", "fde_m"]
    if samples > 1:
        names[1:1] = [f"minADE_{samples}_uvz", f"jointADE_{samples}_uvz"]
        names.append(f"minADE_{samples}_m")
    lines = [f"{'points':8} {'steps':>5} {'method':20}" + "".join(f"{n:>17}" for n in names)]
    horizons = [key for key in report["methods"]["model"] if key.startswith("horizon_")]
    for points in ("moving", "all"):
        for horizon in horizons:
            for method, results in report["methods"].items():
                row = results[horizon][points]
                values = "".join(f"{row.get(name, float('nan')):17.4f}" for name in names)
                lines.append(f"{points:8} {horizon[8:]:>5} {method:20}{values}")
    for method, results in report["methods"].items():
        if "grasp" in results:
            grasp = results["grasp"]
            lines.append(
                f"at the grasp ({grasp['scenes']} scenes), mean position error: {method:20} "
                f"object {grasp['object_m']:.4f} m, gripper {grasp['gripper_m']:.4f} m"
            )
    return "\n".join(lines)


def without_nan(value: Any) -> Any:
    """Replace numbers that are none by None, for JSON has no NaN."""
    if isinstance(value, Mapping):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate a checkpoint from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description="Measure a checkpoint beside baselines.")
    add_arguments(parser, EvaluationConfig)
    try:
        config = from_namespace(EvaluationConfig, parser.parse_args(arguments))
        torch.set_num_threads(config.threads)
        predictor = Predictor.from_pretrained(
            checkpoint_folder(config.checkpoint),
            device=config.device,
            precision=config.precision,
            compiled=config.compile,
            n_steps=config.steps,
        )
        held_out, training = (
            _dataset(patterns, predictor, config) for patterns in _episodes(config)
        )
        assert held_out is not None
        plan = Plan(
            horizons=horizons_of(predictor.model.config.future_len),
            samples=config.samples,
            scenes=config.scenes,
            seed=config.seed,
            batch=config.batch,
        )
        report = evaluate(predictor, held_out, training, plan)
    except Mu0Error as error:
        parser.exit(2, f"error: {error}\n")
    sys.stdout.write(table(report) + "\n")
    if config.json:
        told = without_nan({**report, "settings": to_dict(config)})
        sys.stdout.write(json.dumps(told, allow_nan=False) + "\n")


def _episodes(config: EvaluationConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return globs of the held-out and of the training episodes."""
    if config.episodes:
        return config.episodes, config.training
    folder = checkpoint.find(checkpoint_folder(config.checkpoint))
    named = recordings.read_recordings(folder)
    training = recordings.first(named.training, config.neighbour_episodes)
    held_out, known = (
        recordings.make(wanted, named.arc_step, config.recordings)
        for wanted in (named.held_out, training)
    )
    return held_out, config.training or known


def _dataset(
    patterns: Sequence[str], predictor: Predictor, config: EvaluationConfig
) -> TraceDataset | None:
    """Open episodes without varying their pictures; None for no pattern."""
    if not patterns:
        return None
    rules = sample_rules(config.rules)
    paths = matching_folders(patterns)
    return TraceDataset(paths, predictor.processor, rules, seed=config.seed, augment=False)


if __name__ == "__main__":
    main()
