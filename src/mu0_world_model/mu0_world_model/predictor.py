"""Own the one object that a node, a script or a benchmark holds: a loaded model, ready to ask."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from mu0_core.errors import ConfigError, unknown_name_message
from mu0_core.traces import Keypoints, Traces
from mu0_world_model import checkpoint
from mu0_world_model.execution import (
    Precision,
    check_device,
    memory_errors,
    number_format,
    settle,
)
from mu0_world_model.model import Mu0, Prefix, moved
from mu0_world_model.processor import Processor, load_tokenizer
from mu0_world_model.statistics import read_statistics


class TracePredictor(Protocol):
    """Predict traces: the learned model, or a baseline behind the same door."""

    @property
    def name(self) -> str:
        """What the traces say they were made by."""

    @property
    def arc_step(self) -> float:
        """Arc step that keypoints must have and traces will have."""

    def predict(
        self,
        rgb: NDArray[np.uint8],
        keypoints: Keypoints,
        instruction: str,
        *,
        depth: NDArray[np.floating] | None = None,
        samples: int = 1,
        seed: int | None = None,
    ) -> Traces:
        """Predict traces of keypoints in an image."""


class Predictor:
    """Predict traces with a checkpoint.

    The prefix of the last image and instruction is kept: asking again about the same ones, with
    other keypoints or seeds, costs only the expert. Not thread-safe.
    """

    def __init__(
        self,
        model: Mu0,
        processor: Processor,
        *,
        name: str,
        device: torch.device | str = "cpu",
        n_steps: int | None = None,
    ) -> None:
        """Hold a model.

        Args:
            model: The model; moved to the device, put in evaluation mode.
            processor: Its units.
            name: What the traces say they were made by.
            device: Where it runs.
            n_steps: Euler steps; None: as in the configuration.
        """
        self.model = model.to(device).eval()
        self.processor = processor
        self.name = name
        self.device = torch.device(device)
        self.n_steps = n_steps
        self.keep_hidden = False
        """Whether prefixes keep what action experts read."""
        self._kept: tuple[bytes, Prefix] | None = None

    @classmethod
    def from_pretrained(
        cls,
        checkpoint_name: str | Path,
        *,
        device: str = "cpu",
        precision: str = Precision.FLOAT32,
        compiled: bool = False,
        n_steps: int | None = None,
    ) -> Self:
        """Load a checkpoint, released or ours; a folder needs no network.

        Args:
            checkpoint_name: A folder, or a hub repository ("owner/name").
            device: Where to run.
            precision: A `Precision`.
            compiled: Whether layers are compiled; the first predictions then take long.
            n_steps: Euler steps; None: as in the configuration.

        Raises:
            ConfigError: config.json, the device or the precision is wrong.
            CheckpointError: Weights, statistics or tokenizer are missing or do not fit.
            ResourceError: The weights do not fit into memory.
        """
        if precision not in list(Precision):
            raise ConfigError(f"precision: {unknown_name_message('format', precision, Precision)}")
        precision = Precision(precision)
        check_device(device, precision, compiled=compiled)
        folder = checkpoint.find(checkpoint_name)
        advice = f"the weights of {folder} do not fit; take a lower precision than {precision}"
        with memory_errors(advice):
            model = checkpoint.load(folder, dtype=number_format(precision))
            settle(model, device, precision, compiled=compiled)
        tokenizer = load_tokenizer(folder, model.config)
        processor = Processor(model.config, read_statistics(folder), tokenizer)
        given = Path(checkpoint_name)
        name = given.resolve().name if given.is_dir() else str(checkpoint_name)
        return cls(model, processor, name=name, device=device, n_steps=n_steps)

    @property
    def compiled(self) -> bool:
        """Whether layers are compiled, each kind at its first use."""
        return self.model.expert.compiled_layer is not None

    @property
    def arc_step(self) -> float:
        """Arc step that keypoints must have and traces will have."""
        return self.processor.statistics.arc_step

    @property
    def history_len(self) -> int:
        """History steps that keypoints must have."""
        return self.model.config.history_len

    @property
    def uses_depth(self) -> bool:
        """Whether a depth image improves the prediction."""
        return self.model.config.use_depth

    def predict(
        self,
        rgb: NDArray[np.uint8],
        keypoints: Keypoints,
        instruction: str,
        *,
        depth: NDArray[np.floating] | None = None,
        samples: int = 1,
        seed: int | None = None,
    ) -> Traces:
        """Predict traces of keypoints in an image.

        Args:
            rgb: (H, W, 3) uint8, the image that the keypoints' camera describes.
            keypoints: At least one.
            instruction: What is to be done; may be empty.
            depth: (H, W) m aligned with the image, NaN or 0 = none; ignored without a depth path.
            samples: Samples s of the distribution.
            seed: Seed of the noise; None: another each time.

        Returns:
            Traces, with the seconds spent in each stage.

        Raises:
            ShapeError: The keypoints or images do not fit the checkpoint.
            ResourceError: The memory does not suffice.
        """
        watch = Stopwatch(self.device)
        depth = depth if self.uses_depth else None
        advice = (
            f"{samples} samples of {keypoints.n} keypoints do not fit on {self.device}; lower the "
            "number of either, or take a lower precision"
        )
        with memory_errors(advice):
            with watch("preprocess"):
                points = moved(self.processor.points(keypoints), self.device)
            prefix = self.prefix(rgb, instruction, depth, watch)
            with watch("denoise"):
                noise = self.model.initial_noise(points, samples, _generator(seed))
                predicted = self.model.sample(prefix, points, noise, n_steps=self.n_steps)
            with watch("decode"):
                traces = self.processor.traces(
                    predicted, keypoints, instruction=instruction, model=self.name
                )
        return replace(
            traces,
            stage_names=tuple(watch.seconds),
            stage_seconds=np.array(list(watch.seconds.values()), np.float32),
        )

    def forget(self) -> None:
        """Let go of the kept prefix."""
        self._kept = None

    def prefix(
        self,
        rgb: NDArray[np.uint8],
        instruction: str,
        depth: NDArray[np.floating] | None,
        watch: "Stopwatch | None" = None,
    ) -> Prefix:
        """Return the kept prefix if it is of this input, else encode it and keep that.

        Args:
            rgb: As for `predict`.
            instruction: Likewise.
            depth: Likewise; None without a depth path.
            watch: Gets the time of each stage.
        """
        watch = watch or Stopwatch(self.device)
        with watch("preprocess"):
            key = _fingerprint(rgb, instruction, depth)
            if self._kept is not None and self._kept[0] == key and self._has_all(self._kept[1]):
                return self._kept[1]
            scene = moved(self.processor.scene(rgb, instruction, depth), self.device)
        with torch.inference_mode():
            prefix = self.model.encode(scene, hidden=self.keep_hidden, stage=watch)
        self._kept = (key, prefix)
        return prefix

    def _has_all(self, prefix: Prefix) -> bool:
        return prefix.hidden is not None or not self.keep_hidden


class Stopwatch:
    """Add up the time that named stages take, of a device that works on its own too.

    Attributes:
        seconds: Of each stage so far, in order.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is enclosed."""
        started_s = perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - started_s


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def _fingerprint(
    rgb: NDArray[np.uint8], instruction: str, depth: NDArray[np.floating] | None
) -> bytes:
    """Summarise what a prefix is made from."""
    digest = hashlib.blake2b(instruction.encode(), digest_size=16)
    for array in (rgb, depth):
        if array is not None:
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
