"""Own the benchmark command: `ros2 run mu0_world_model benchmark --json`."""

import argparse
import json
import logging
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from mu0_core.config import add_arguments, from_namespace, option, to_dict, validate
from mu0_core.errors import Mu0Error
from mu0_world_model.benchmarking import Case, Figures, cases, measure, row
from mu0_world_model.checkpoint import find, released_shapes
from mu0_world_model.config import Mu0Config, read_config
from mu0_world_model.execution import Precision, check_device, memory_errors
from mu0_world_model.memory import stored_mb
from mu0_world_model.predictor import Predictor
from mu0_world_model.presets import preset
from mu0_world_model.shipped import checkpoint_folder
from mu0_world_model.untrained import untrained_predictor
from mu0_world_model.yardstick import Yardstick

_DEFAULT_PRESET = "peer-150m"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """Choose a model and what is asked of it."""

    preset: str | None = option(
        None, description="Sizes with random weights: released, peer-150m (if none), tiny"
    )
    checkpoint: str | None = option(
        None, description="In its place, a shipped name, folder or hub repository"
    )
    device: str = option("cpu", description="Where the model runs, as torch names it")
    threads: int | None = option(
        None, description="Processor threads; none: as torch chooses, one for each core", low=1
    )
    precision: tuple[Precision, ...] = option(
        (Precision.FLOAT32,), description="Number formats; with float32 first, errors are told"
    )
    compile: bool = option(
        False, description="Compile the layers, of each number format anew; that does not count"
    )
    keypoints: tuple[int, ...] = option((64, 400), description="Numbers of keypoints", low=1)
    samples: tuple[int, ...] = option((1, 5), description="Numbers of samples", low=1)
    steps: tuple[int, ...] = option(
        (), description="Numbers of Euler steps; none: as in the configuration", low=1
    )
    history: tuple[bool, ...] = option((False, True), description="Whether keypoints have a past")
    depth: tuple[bool, ...] = option((False, True), description="Whether there is a depth image")
    repeats: int = option(5, description="Predictions of each kind that count", low=1)
    yardstick: bool = option(
        True, description="Whether times are told in yardsticks too; takes the float32 backbone"
    )
    json: bool = option(False, description="Print all figures as one JSON line last")

    def __post_init__(self) -> None:
        empty = [
            f"{name}: expected at least one value, got none"
            for name in ("precision", "keypoints", "samples", "history", "depth")
            if not getattr(self, name)
        ]
        both = self.preset is not None and self.checkpoint is not None
        validate(self, *empty, "preset: expected no checkpoint beside it" if both else None)


def benchmark(config: BenchmarkConfig) -> dict[str, Any]:
    """Measure a model.

    Raises:
        ConfigError: The device, a preset or a checkpoint's config.json is wrong.
        CheckpointError: The checkpoint is missing or broken.
        ResourceError: The memory does not suffice.
    """
    for precision in config.precision:
        check_device(config.device, precision, compiled=config.compile)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    sizes = _sizes(config)
    with memory_errors("the yardstick's float32 backbone does not fit; add --no-yardstick"):
        yardstick = Yardstick(sizes, config.device) if config.yardstick else None
    asked = [
        case
        for case in cases(
            config.keypoints,
            config.samples,
            config.steps or (sizes.num_steps,),
            config.history,
            config.depth,
        )
        if sizes.use_depth or not case.depth
    ]
    exact: dict[Case, Figures] = {}
    results, weights_mb, name = [], {}, ""
    progress = tqdm(total=len(asked) * len(config.precision), disable=None)
    for precision in config.precision:
        predictor = _predictor(config, sizes, precision)
        name, weights_mb[str(precision)] = predictor.name, round(stored_mb(predictor.model), 1)
        for case in asked:
            figures = measure(predictor, case, yardstick, config.repeats)
            if precision is Precision.FLOAT32:
                exact[case] = figures
            told = None if precision is Precision.FLOAT32 else exact.get(case)
            results.append(row(case, precision, figures, told))
            progress.update()
        del predictor
        if config.compile:
            torch.compiler.reset()  # what it keeps of all formats together would be too much
    progress.close()
    return {
        "model": name,
        "parameters_millions": round(_parameters(sizes) / 1e6, 1),
        "weights_mb": weights_mb,
        "results": results,
        "machine": machine(config.device),
    }


def machine(device: str) -> dict[str, Any]:
    """Describe what was measured on."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "torch": torch.__version__,
    }


def table(report: Mapping[str, Any]) -> str:
    """Write the results of a report as a text table."""
    what = ("dtype", "keypoints", "samples", "steps", "history", "depth")
    measured = ("yardsticks", "seconds", "again_seconds", "peak_memory_mb", "error_rms")
    stages = list(dict.fromkeys(name for r in report["results"] for name in r["stages"]))
    names = ("y", "seconds", "again s", "peak MB", "error", *stages)
    lines = ["".join(f"{name:>12}" for name in (*what, *names))]
    for result in report["results"]:
        values = [result[name] for name in (*what, *measured)]
        values += [result["stages"].get(name) for name in stages]
        lines.append("".join(f"{_word(value):>12}" for value in values))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a model from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(
        description="Measure speed and memory, of a checkpoint or of random weights."
    )
    add_arguments(parser, BenchmarkConfig)
    try:
        config = from_namespace(BenchmarkConfig, parser.parse_args(arguments))
        report = benchmark(config)
    except Mu0Error as error:
        parser.exit(2, f"error: {error}\n")
    sys.stdout.write(table(report) + "\n")
    if config.json:
        sys.stdout.write(json.dumps({**report, "settings": to_dict(config)}) + "\n")


def _sizes(config: BenchmarkConfig) -> Mu0Config:
    if config.checkpoint is None:
        return preset(config.preset or _DEFAULT_PRESET)
    return read_config(find(checkpoint_folder(config.checkpoint)))


def _predictor(config: BenchmarkConfig, sizes: Mu0Config, precision: Precision) -> Predictor:
    if config.checkpoint is not None:
        folder = checkpoint_folder(config.checkpoint)
        return Predictor.from_pretrained(
            folder, device=config.device, precision=precision, compiled=config.compile
        )
    name = config.preset or _DEFAULT_PRESET
    with memory_errors(f"the weights of {name} do not fit; take a lower precision"):
        return untrained_predictor(
            sizes,
            name=name,
            precision=precision,
            device=config.device,
            compiled=config.compile,
        )


def _parameters(sizes: Mu0Config) -> int:
    """Count weights, those included that a released file has and nothing reads."""
    return sum(math.prod(shape) for shape in released_shapes(sizes).values())


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


if __name__ == "__main__":
    main()
