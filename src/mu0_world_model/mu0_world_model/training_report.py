"""Own what is seen of a run: its log, its curves and pictures in TensorBoard, a progress bar.

What cannot be written, as on a full disk, is left out: training does not depend on it.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from mu0_world_model.training_store import in_place_of

LOG, CURVES = "log.jsonl", "tensorboard"
_BAR_DELAY_S = 0.5

_logger = logging.getLogger(__name__)


class Report:
    """Write `log.jsonl` and `tensorboard` into a run's folder, in the main process alone."""

    def __init__(self, output: Path, *, step: int, steps: int, enabled: bool) -> None:
        """Start, or go on.

        Args:
            output: Folder of the run.
            step: Steps that are done; what was written of later ones is dropped.
            steps: Steps of the whole run.
            enabled: Whether this process writes.

        Raises:
            CheckpointError: What was written of later steps cannot be dropped.
        """
        self._started = time.monotonic()
        self._output, self._enabled = output, enabled
        self._curves: SummaryWriter | None = None
        self._purge_step: int | None = step + 1
        self._failing = False
        if enabled:
            _drop_later(output / LOG, step)
            with self._tolerant():
                self._open_curves()
        # Shown after a moment, not here: what it is written to may be on a full disk too.
        self._bar = tqdm(
            initial=step, total=steps, disable=not enabled, unit="step", delay=_BAR_DELAY_S
        )

    @property
    def seconds(self) -> float:
        """Time since the start, s."""
        return time.monotonic() - self._started

    def advance(self) -> None:
        """Count a step."""
        with suppress(OSError):
            self._bar.update()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write values; `eval_` before a name sets the held-out ones apart."""
        if not self._enabled:
            return
        if "loss" in values:
            with suppress(OSError):
                self._bar.set_postfix(loss=f"{values['loss']:.3f}")
        with self._tolerant():
            _append(self._output / LOG, json.dumps({"step": step, **values}) + "\n")
            curves = self._open_curves()
            for name, value in values.items():
                group = "held_out" if name.startswith("eval_") else "training"
                curves.add_scalar(f"{group}/{name.removeprefix('eval_')}", value, step)
            curves.flush()
            self._failing = False

    def show(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Show a picture (H, W, 3) RGB."""
        if self._curves is not None:
            with self._tolerant():
                self._curves.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Finish writing."""
        with suppress(OSError):
            self._bar.close()
        if self._curves is not None:
            with self._tolerant():
                self._curves.close()

    def _open_curves(self) -> SummaryWriter:
        """Return the writer of curves, a new one after a fault, since that has stopped the old."""
        if self._curves is None:
            folder = str(self._output / CURVES)
            self._curves = SummaryWriter(folder, purge_step=self._purge_step)
            self._purge_step = None
        return self._curves

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Go on if something cannot be written, and tell so once until it can be again."""
        try:
            yield
        except OSError as error:
            curves, self._curves = self._curves, None
            if curves is not None:
                with suppress(OSError):
                    curves.close()
            if not self._failing:
                _logger.error(
                    "%s: log and curves cannot be written (%s); they miss what comes now, and "
                    "training goes on",
                    *(self._output, error),
                )
            self._failing = True


def _append(log: Path, line: str) -> None:
    """Append a line, all of it or nothing, so that the next one does not run into it."""
    size = log.stat().st_size if log.is_file() else 0
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError:
        with suppress(OSError):
            os.truncate(log, size)
        raise


def _drop_later(log: Path, step: int) -> None:
    """Remove the lines of steps that a run which goes on takes again."""
    if not log.is_file():
        return
    written = log.read_text(encoding="utf-8")
    kept = []
    for line in written.splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            continue  # the process was stopped while it wrote this one
    if "".join(kept) != written:
        with in_place_of(log) as partial:
            partial.write_text("".join(kept), encoding="utf-8")
