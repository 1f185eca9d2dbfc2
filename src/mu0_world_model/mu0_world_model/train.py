"""Own the training command: `ros2 run mu0_world_model train`, in one process or many."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from mu0_core.config import add_arguments, from_dict, load_yaml
from mu0_core.errors import CheckpointError, ConfigError, Mu0Error
from mu0_world_model.trainer import Trainer
from mu0_world_model.training_config import RECIPES, TrainingConfig, describe_recipes
from mu0_world_model.training_store import BEST, LATEST, SETTINGS, STATE

_DEFAULT_RECIPE = "released"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a model from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)  # tells of every file it writes
    parser = argparse.ArgumentParser(
        description="Train the μ₀ trace world model.",
        epilog=describe_recipes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), default=_DEFAULT_RECIPE, help="Settings to start with"
    )
    add_arguments(parser, TrainingConfig)
    given = vars(parser.parse_args(arguments))
    try:
        config = settings(given.pop("recipe"), given)
        with closing(Trainer(config)) as trainer:
            trainer.run()
    except Mu0Error as error:
        parser.exit(2, f"error: {error}\n")
    except (RuntimeError, MemoryError) as error:
        advice = advice_for(error)
        if advice is None:
            raise
        parser.exit(2, f"error: {advice}\n")


def settings(recipe: str, given: Mapping[str, Any]) -> TrainingConfig:
    """Put the settings of a run together.

    Args:
        recipe: What a new run starts with; one that goes on has its own settings.
        given: Options of the command line, which come before these.

    Raises:
        ConfigError: The settings are wrong, or the folder holds a run that is not to go on.
        CheckpointError: There is no run to go on with.
    """
    if not given.get("resume"):
        config = from_dict(TrainingConfig, {**RECIPES[recipe], **given})
        if any((config.output / name).exists() for name in (STATE, LATEST, BEST)):
            raise ConfigError(f"output: {config.output} holds a run; add --resume, or remove it")
        return config
    stored = Path(given.get("output", "")) / SETTINGS
    if not stored.is_file():
        raise CheckpointError(f"{stored}: nothing to resume there; leave --resume out to start")
    return from_dict(TrainingConfig, given, load_yaml(TrainingConfig, stored))


def advice_for(error: Exception) -> str | None:
    """Say what to do if a process was short of memory; None if it was not that."""
    text = str(error)
    if "DataLoader worker" in text and "killed" in text:
        return "a process that reads data was killed, as happens without memory; lower --workers"
    short = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if not (short or "DefaultCPUAllocator" in text):
        return None
    return (
        "out of memory; lower --micro_batch_size or --flow_samples, add --recompute, or split the "
        "model over several GPUs by --fsdp"
    )


if __name__ == "__main__":
    main()
