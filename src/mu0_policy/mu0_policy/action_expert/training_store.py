"""Own what a training keeps: settings, checkpoints `latest` and `best`, what it goes on from.

Each is written beside the old one and then put in its place, so a full disk or a process that is
killed leaves the last good one.
"""

import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from mu0_core.config import dump_yaml, from_dict, load_yaml, to_dict
from mu0_core.errors import CheckpointError, ConfigError
from mu0_core.folders import recover_folder, replace_folder
from mu0_policy.action_expert.training_config import ExpertTrainingConfig

SETTINGS = "training.yaml"
LATEST, BEST, STATE = "latest", "best", "state"
_RUN, _PARTIAL = "run.pt", f".{STATE}.partial"
_FAULTS = (OSError, RuntimeError)  # torch reports a failed write as a RuntimeError

# A run that goes on has these as it began: weights, examples and their order depend on them.
_FIXED = (
    "cameras",
    "space",
    "size",
    "use_traces",
    "grid",
    "pool",
    "draws",
    "chunk_size",
    "most_known",
    "known_share",
    "shift_px",
    "held_out_share",
    "batch_size",
    "noises",
    "seed",
)


def settings(given: Mapping[str, Any]) -> ExpertTrainingConfig:
    """Put the settings of a run together.

    Args:
        given: Options of the command line; a run that goes on has its own settings below them.

    Raises:
        ConfigError: The settings are wrong, or the folder holds a run that is not to go on.
        CheckpointError: There is no run to go on with.
    """
    if not given.get("resume"):
        config = from_dict(ExpertTrainingConfig, given)
        if any((config.output / name).exists() for name in (STATE, LATEST, BEST)):
            raise ConfigError(f"output: {config.output} holds a run; add --resume, or remove it")
        return config
    stored = Path(given.get("output", "")) / SETTINGS
    if not stored.is_file():
        raise CheckpointError(f"{stored}: nothing to resume there; leave --resume out to start")
    return from_dict(ExpertTrainingConfig, given, load_yaml(ExpertTrainingConfig, stored))


def begin_run(config: ExpertTrainingConfig) -> None:
    """Make the folder of a run, or clean up one that goes on, and write its settings.

    Raises:
        CheckpointError: There is nothing to resume, or the folder cannot be written.
        ConfigError: The run began with settings that cannot change.
    """
    path, kept = config.output / SETTINGS, replace(config, resume=False)
    try:
        config.output.mkdir(parents=True, exist_ok=True)
        for name in (LATEST, BEST, STATE):
            recover_folder(config.output / name)
        if config.resume and path.is_file():
            _check_same(load_yaml(ExpertTrainingConfig, path), config)
        if config.resume and not (config.output / STATE / _RUN).is_file():
            raise CheckpointError(
                f"{config.output / STATE}: nothing to resume there; leave --resume out to start"
            )
        partial = path.with_name(f".{SETTINGS}.partial")
        dump_yaml(kept, partial)
        os.replace(partial, path)
    except OSError as error:
        raise CheckpointError(f"{config.output}: the run cannot start there: {error}") from error


class RunStore:
    """Write and read the state of a run, all processes together: all succeed or all raise."""

    def __init__(self, output: Path, accelerator: Accelerator, data: str) -> None:
        """Hold a folder.

        Args:
            output: Of the run.
            accelerator: Knows expert and optimiser.
            data: What tells the demonstrations and their features from others.
        """
        self._state, self._accelerator, self._data = output / STATE, accelerator, data

    def save_state(self, run: Mapping[str, Any]) -> None:
        """Write all that an exact resume needs; `run` is what the trainer itself remembers.

        Raises:
            CheckpointError: It cannot be written; the one before it stays.
        """
        partial, main = self._state.with_name(_PARTIAL), self._accelerator.is_main_process
        with self._together():
            self._accelerator.save_state(str(partial))
            if main:
                torch.save({**run, "data": self._data}, partial / _RUN)
        with self._together():
            if main:
                replace_folder(partial, self._state)

    def load_state(self) -> dict[str, Any]:
        """Load what `save_state` wrote, and return the trainer's part.

        Raises:
            CheckpointError: It is broken or of another expert.
            ConfigError: The run has been trained on other demonstrations or features.
        """
        try:
            run: dict[str, Any] = torch.load(
                self._state / _RUN, map_location="cpu", weights_only=True
            )
            if run.get("data", self._data) != self._data:  # older runs do not say
                raise ConfigError(
                    "resume: demonstrations, their order or the world model are others than "
                    f"those that the run in {self._state.parent} began with; give them as they "
                    "were, or start a run in another folder"
                )
            self._accelerator.load_state(str(self._state))
            return run
        except (*_FAULTS, pickle.UnpicklingError, ValueError, KeyError, EOFError) as error:
            reason = str(error).split("\n", maxsplit=1)[0]
            raise CheckpointError(f"{self._state}: cannot be read: {reason}") from error

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Raise in all processes what went wrong in any."""
        fault = None
        try:
            yield
        except _FAULTS as error:
            fault = f"{self._state}: cannot be written: {error}"
        faults = [text for text in gather_object([fault]) if text is not None]
        if faults:
            if self._accelerator.is_main_process:
                shutil.rmtree(self._state.with_name(_PARTIAL), ignore_errors=True)
            raise CheckpointError(faults[0])


def _check_same(began: ExpertTrainingConfig, config: ExpertTrainingConfig) -> None:
    before, now = to_dict(began), to_dict(config)
    faults = [
        f"{name}: the run in {config.output} began with {before[name]!r}, got {now[name]!r}"
        for name in _FIXED
        if before[name] != now[name]
    ]
    if faults:
        faults.append("resume with the settings of the run, or start another one elsewhere")
        raise ConfigError("\n  ".join(faults))
