"""Own what a run keeps: settings, the checkpoints `latest` and `best`, the state it goes on from.

Each is written beside the old one and then put in its place, so a full disk or a process that is
killed leaves the last good one.
"""

import logging
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
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from mu0_core.config import dump_yaml, load_yaml
from mu0_core.errors import CheckpointError
from mu0_core.folders import recover_folder, replace_folder
from mu0_world_model import checkpoint
from mu0_world_model.adapters import merged
from mu0_world_model.card import CARD
from mu0_world_model.model import Mu0
from mu0_world_model.statistics import STATISTICS
from mu0_world_model.training_config import TrainingConfig
from mu0_world_model.training_setup import Start, write_start

SETTINGS = "training.yaml"
LATEST, BEST, STATE = "latest", "best", "state"
_RUN = "run.pt"
_SUFFIX = ".partial"
_PARTIAL = f".{STATE}{_SUFFIX}"
# torch reports a failed write as a RuntimeError.
_FAULTS = (OSError, RuntimeError, SafetensorError, CheckpointException)
_logger = logging.getLogger(__name__)


def begin_run(config: TrainingConfig) -> None:
    """Make the folder of a run, or clean up one that goes on, and write what it starts with.

    Raises:
        EpisodeError: No episode matches, or none has a sample.
        CheckpointError: What the run starts from is missing or broken, or the folder cannot be
            written.
    """
    try:
        config.output.mkdir(parents=True, exist_ok=True)
        _recover(config.output)
        write_start(config)
    except OSError as error:
        raise CheckpointError(f"{config.output}: the run cannot start there: {error}") from error
    write_settings(config)


def write_settings(config: TrainingConfig) -> None:
    """Write the settings of a run, unless they stand there.

    Raises:
        CheckpointError: They cannot be written; the ones before stay.
    """
    path, kept = config.output / SETTINGS, replace(config, resume=False)
    if config.resume and path.is_file() and load_yaml(TrainingConfig, path) == kept:
        return
    with in_place_of(path) as partial:
        dump_yaml(kept, partial)


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """Let a file be written beside an old one, and then put it in its place.

    Raises:
        CheckpointError: It cannot be written; the old one stays.
    """
    partial = path.with_name(f".{path.name}{_SUFFIX}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written: {error}") from error


@contextmanager
def tolerant(*, last: bool) -> Iterator[None]:
    """Train on if saving fails, since there may be room next time, but not past the end.

    Args:
        last: Whether there is no next time.

    Raises:
        CheckpointError: It failed at the end.
    """
    try:
        yield
    except CheckpointError as error:
        if last:
            raise
        _logger.error("%s; what was saved before is kept, and training goes on", error)


class RunStore:
    """Write and read a run's folder, all processes together: all succeed or all raise."""

    def __init__(self, config: TrainingConfig, accelerator: Accelerator, start: Start) -> None:
        self._config, self._accelerator, self._start = config, accelerator, start
        self._output = config.output

    def save_checkpoint(
        self, name: str, model: Mu0, weights: Mapping[str, Tensor], *, step: int, card: str
    ) -> None:
        """Write a checkpoint in the released form.

        Args:
            name: Of its folder.
            model: For its configuration.
            weights: By our names, adapters apart.
            step: Steps so far.
            card: The model card.

        Raises:
            CheckpointError: It cannot be written; the one before it stays.
        """
        config = self._config
        with self._together(name):
            if self._accelerator.is_main_process:
                checkpoint.save(
                    model,
                    self._output / name,
                    step=step,
                    extras={
                        STATISTICS: self._start.processor.statistics.to_json(),
                        CARD: card,
                    },
                    copy=self._start.tokenizer_files,
                    state=merged(
                        weights, lora_rank=config.lora_rank, lora_alpha=config.lora_alpha
                    ),
                )

    def save_state(self, run: Mapping[str, Any]) -> None:
        """Write all that an exact resume needs; `run` is what the trainer itself remembers.

        Raises:
            CheckpointError: It cannot be written; the one before it stays.
        """
        partial, main = self._output / _PARTIAL, self._accelerator.is_main_process
        with self._together(STATE):  # before all processes write: one that fails would be alone
            if main:
                _check_room(self._output / STATE)
        with self._together(STATE):
            self._accelerator.save_state(str(partial))
            if main:
                torch.save(dict(run), partial / _RUN)
        with self._together(STATE):
            if main:
                replace_folder(partial, self._output / STATE)

    def load_state(self) -> dict[str, Any]:
        """Load what `save_state` wrote, and return the trainer's part.

        Raises:
            CheckpointError: There is nothing, or it is broken or of another model.
        """
        state = self._output / STATE
        if not (state / _RUN).is_file():
            latest, advice = self._output / LATEST, "leave --resume out to start"
            if latest.is_dir():
                advice = f"start a run in another folder, with --start_from {latest}"
            raise CheckpointError(f"{state}: nothing to resume there; {advice}")
        try:
            self._accelerator.load_state(str(state))
            return torch.load(state / _RUN, map_location="cpu", weights_only=True)
        except (*_FAULTS, pickle.UnpicklingError, ValueError, KeyError, EOFError) as error:
            reason = str(error).split("\n", maxsplit=1)[0]
            raise CheckpointError(f"{state}: cannot be read: {reason}") from error

    @contextmanager
    def _together(self, name: str) -> Iterator[None]:
        """Raise in all processes what went wrong in any."""
        fault = None
        try:
            yield
        except CheckpointError as error:
            fault = str(error)
        except _FAULTS as error:
            fault = f"{self._output / name}: cannot be written: {error}"
        faults = [text for text in gather_object([fault]) if text is not None]
        if faults:
            if self._accelerator.is_main_process:
                shutil.rmtree(self._output / _PARTIAL, ignore_errors=True)
            raise CheckpointError(faults[0])


def _check_room(folder: Path) -> None:
    """Raise an OSError if there is no room for another folder of this size beside it."""
    needed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise OSError(f"no space: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")


def _recover(output: Path) -> None:
    """Clean up after a run that was killed while it saved."""
    for name in (LATEST, BEST, STATE):
        recover_folder(output / name)
    for path in output.glob(f".*{_SUFFIX}"):
        if path.is_file():
            path.unlink()
