"""Measure what trace features are worth: `ros2 run mu0_policy ablate_action_expert`.

The same expert is trained with and without them, on the same data, for the same steps and from the
same seeds, for several sizes of its decoder. A seed decides weights, noise, order and which
demonstrations are held out. A study that was interrupted goes on where it stopped; the last line
of the output is all of it as JSON, and the folder holds the table as ablation.md and the plot as
ablation.png: a finished study only draws them again.
"""

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mu0_core.config import add_arguments, from_namespace, load_yaml, option, validate
from mu0_core.errors import ConfigError, EpisodeError, Mu0Error
from mu0_policy.action_expert.config import decoder_size
from mu0_policy.action_expert.train import Trainer
from mu0_policy.action_expert.training_config import ExpertTrainingConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RESULT, _TABLE, _PLOT = "result.json", "ablation.md", "ablation.png"
_LOOKS = {True: ("with traces", "tab:blue", -0.2), False: ("without", "tab:orange", 0.2)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationConfig:
    """Describe a study."""

    training: Path = option(
        description="Settings of the trainings: training.yaml of a run, or written by hand; "
        "output, size, use_traces, seed and resume do not count"
    )
    output: Path = option(description="Folder of the study")
    sizes: tuple[str, ...] = option(("small", "medium"), description="Decoders")
    seeds: tuple[int, ...] = option((0, 1, 2), description="Seeds of the trainings", low=0)

    def __post_init__(self) -> None:
        validate(
            self,
            None if self.sizes else "sizes: expected at least one",
            None if self.seeds else "seeds: expected at least one",
        )
        for size in self.sizes:
            decoder_size(size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Hold what one training came to.

    Attributes:
        size: Of the decoder.
        traces: Whether trace features were read.
        seed: Of the training.
        steps: Taken.
        held_out_rad: Error of the joints on held-out demonstrations at the end.
        best_rad: The least on the way.
        loss: Of the last batch.
    """

    size: str
    traces: bool
    seed: int
    steps: int
    held_out_rad: float
    best_rad: float
    loss: float


def trainings(config: AblationConfig) -> Iterator[ExpertTrainingConfig]:
    """Yield the settings of every training, pairs with and without traces side by side."""
    settings = load_yaml(ExpertTrainingConfig, config.training)
    if not settings.held_out_share:
        raise ConfigError("held_out_share: expected more than 0; it is what is compared")
    for seed in config.seeds:
        for size in config.sizes:
            for traces in (True, False):
                name = f"{size}_{'traces' if traces else 'no_traces'}_{seed}"
                yield replace(
                    settings,
                    output=config.output / name,
                    cache=settings.cache or config.output / "cache",
                    size=size,
                    use_traces=traces,
                    seed=seed,
                    resume=(config.output / name / "state" / "run.pt").is_file(),
                )


def train_one(settings: ExpertTrainingConfig) -> Result:
    """Train, or return the result that is there.

    Raises:
        ConfigError: A result of other settings is there.
        EpisodeError: There are too few demonstrations to hold one out.
    """
    path = settings.output / _RESULT
    if path.is_file():
        found = Result(**json.loads(path.read_text(encoding="utf-8")))
        if found.steps != settings.steps:
            raise ConfigError(
                f"{settings.output}: trained for {found.steps} steps, now {settings.steps} are "
                "asked for; take another output"
            )
        return found
    settings.output.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings)
    if trainer.held_out is None:
        raise EpisodeError("demonstrations: expected at least 2, one is held out")
    results = trainer.run()
    result = Result(
        size=settings.size,
        traces=settings.use_traces,
        seed=settings.seed,
        steps=settings.steps,
        held_out_rad=results["held_out_rad"],
        best_rad=trainer.best,
        loss=results.get("loss", 0.0),
    )
    _write(path, json.dumps(asdict(result)).encode())
    return result


def summary(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Compare pairs: one row for each size, errors in rad."""
    rows: list[dict[str, Any]] = []
    for size in dict.fromkeys(result.size for result in results):
        errors = {
            traces: np.array(
                [r.held_out_rad for r in results if r.size == size and r.traces == traces]
            )
            for traces in (True, False)
        }
        less = errors[False] - errors[True]  # of the same seed
        rows.append(
            {
                "size": size,
                "seeds": len(less),
                "with_traces_rad": float(errors[True].mean()),
                "with_traces_std_rad": float(errors[True].std()),
                "without_rad": float(errors[False].mean()),
                "without_std_rad": float(errors[False].std()),
                "less_error": float(less.mean() / errors[False].mean()),
                "seeds_with_less": int((less > 0.0).sum()),
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write the rows of `summary` as Markdown."""
    lines = [
        "| decoder | seeds | with traces, rad | without, rad | less error | seeds with less |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        "| {size} | {seeds} | {with_traces_rad:.4f} ± {with_traces_std_rad:.4f} | "
        "{without_rad:.4f} ± {without_std_rad:.4f} | {less_error:.1%} | {seeds_with_less} |"
        "".format(**row)
        for row in rows
    ]
    return "\n".join([*lines, ""])


def plot(results: Sequence[Result]) -> "Figure":
    """Draw the errors: a dot for each seed, a line between those of one seed, bars for means.

    Raises:
        ConfigError: Matplotlib is not installed.
    """
    figure = _figure_class()(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    sizes = list(dict.fromkeys(result.size for result in results))
    for place, size in enumerate(sizes):
        rad = {(r.traces, r.seed): r.held_out_rad for r in results if r.size == size}
        seeds = list(dict.fromkeys(seed for _, seed in rad))
        for traces, (label, colour, aside) in _LOOKS.items():
            mean = np.mean([rad[traces, seed] for seed in seeds])
            shown = label if place == 0 else None
            axes.bar(place + aside, mean, width=0.36, color=colour, alpha=0.4, label=shown)
        places = [place + aside for *_, aside in _LOOKS.values()]
        for seed in seeds:
            pair = [rad[traces, seed] for traces in _LOOKS]
            axes.plot(places, pair, ".-", color="black", linewidth=0.5)
    axes.set_xticks(range(len(sizes)), sizes)
    axes.set_xlabel("decoder")
    axes.set_ylabel("held-out error of the joints, rad")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(prog="ablate_action_expert", description=__doc__)
    add_arguments(parser, AblationConfig)
    try:
        config = from_namespace(AblationConfig, parser.parse_args(arguments))
        _figure_class()  # or it were missed after hours
        config.output.mkdir(parents=True, exist_ok=True)
        results = [train_one(settings) for settings in trainings(config)]
    except Mu0Error as error:
        parser.exit(2, f"ablate_action_expert: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "ablate_action_expert: stopped; the same command goes on from here\n")
    rows = summary(results)
    _write(config.output / _TABLE, table(rows).encode())
    _write(config.output / _PLOT, _png(plot(results)))
    found = {"summary": rows, "trainings": [asdict(result) for result in results]}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _figure_class() -> type["Figure"]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "the plot needs Matplotlib, which is not installed; requirements/learning.txt names "
            "the version"
        ) from error
    return Figure


def _png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
