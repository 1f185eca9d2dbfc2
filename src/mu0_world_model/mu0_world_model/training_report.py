"""Own what is seen of a run: its log, its curves and pictures in TensorBoard, a progress bar."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

LOG, CURVES = "log.jsonl", "tensorboard"


class Report:
    """Write `log.jsonl` and `tensorboard` into a run's folder, in the main process alone."""

    def __init__(self, output: Path, *, step: int, steps: int, enabled: bool) -> None:
        """Start, or go on.

        Args:
            output: Folder of the run.
            step: Steps that are done; what was written of later ones is dropped.
            steps: Steps of the whole run.
            enabled: Whether this process writes.
        """
        self._bar = tqdm(initial=step, total=steps, disable=not enabled, unit="step")
        self._started = time.monotonic()
        self._log = output / LOG
        self._curves: SummaryWriter | None = None
        if enabled:
            _drop_later(self._log, step)
            self._curves = SummaryWriter(str(output / CURVES), purge_step=step + 1)

    @property
    def seconds(self) -> float:
        """Time since the start, s."""
        return time.monotonic() - self._started

    def advance(self) -> None:
        """Count a step."""
        self._bar.update()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write values; `eval_` before a name sets the held-out ones apart."""
        if self._curves is None:
            return
        if "loss" in values:
            self._bar.set_postfix(loss=f"{values['loss']:.3f}")
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            group = "held_out" if name.startswith("eval_") else "training"
            self._curves.add_scalar(f"{group}/{name.removeprefix('eval_')}", value, step)
        self._curves.flush()

    def show(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Show a picture (H, W, 3) RGB."""
        if self._curves is not None:
            self._curves.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Finish writing."""
        self._bar.close()
        if self._curves is not None:
            self._curves.close()


def _drop_later(log: Path, step: int) -> None:
    """Remove the lines of steps that a run which goes on takes again."""
    if not log.is_file():
        return
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            continue  # the process was stopped while it wrote this one
    log.write_text("".join(kept), encoding="utf-8")
