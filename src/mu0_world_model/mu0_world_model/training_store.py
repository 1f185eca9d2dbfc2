"""Own what a run keeps: the checkpoints `latest` and `best`, and the state it goes on from.

Each is written beside the old one and then put in its place, so a full disk or a process that is
killed leaves the last good one.
"""

import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from mu0_core.errors import CheckpointError
from mu0_world_model import checkpoint
from mu0_world_model.adapters import merged
from mu0_world_model.card import CARD
from mu0_world_model.model import Mu0
from mu0_world_model.statistics import STATISTICS
from mu0_world_model.training_config import TrainingConfig
from mu0_world_model.training_setup import Start

LATEST, BEST, STATE = "latest", "best", "state"
_RUN = "run.pt"
_PARTIAL = ".state.partial"
# torch reports a failed write as a RuntimeError.
_FAULTS = (OSError, RuntimeError, SafetensorError, CheckpointException)


def recover_run(output: Path) -> None:
    """Clean up after a run that was killed while it saved."""
    for name in (LATEST, BEST, STATE):
        checkpoint.recover_folder(output / name)


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
                checkpoint.replace_folder(partial, self._output / STATE)

    def load_state(self) -> dict[str, Any]:
        """Load what `save_state` wrote, and return the trainer's part.

        Raises:
            CheckpointError: There is nothing, or it is broken or of another model.
        """
        state = self._output / STATE
        if not (state / _RUN).is_file():
            raise CheckpointError(f"{state}: nothing to resume there; leave --resume out to start")
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
