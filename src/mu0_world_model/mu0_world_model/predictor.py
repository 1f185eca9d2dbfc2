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
from torch import nn

from mu0_core.errors import ConfigError
from mu0_core.traces import Keypoints, Traces
from mu0_world_model import checkpoint
from mu0_world_model.images import PixelFeatures
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
        folder: str | Path,
        *,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        n_steps: int | None = None,
    ) -> Self:
        """Load a checkpoint folder, released or ours, without a network.

        Args:
            folder: The folder.
            device: Where to run.
            precision: float32, or bfloat16 for tower, text layers, expert and DINOv2 while tokens,
                heads and integration stay float32.
            n_steps: Euler steps; None: as in the configuration.

        Raises:
            ConfigError: config.json or the precision is wrong.
            CheckpointError: Weights, statistics or tokenizer are missing or do not fit.
        """
        folder = checkpoint.find(folder)
        if precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision: expected float32 or bfloat16, got {precision!r}")
        model = checkpoint.load(folder, dtype=torch.float32)
        if precision == "bfloat16":
            use_bfloat16(model)
        tokenizer = load_tokenizer(folder, model.config)
        statistics = read_statistics(_statistics_folder(folder))
        processor = Processor(model.config, statistics, tokenizer)
        name = folder.resolve().name
        return cls(model, processor, name=name, device=device, n_steps=n_steps)

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
        """
        seconds: dict[str, float] = {}
        depth = depth if self.uses_depth else None
        with _timed(seconds, "preprocess"):
            points = moved(self.processor.points(keypoints), self.device)
        prefix = self.prefix(rgb, instruction, depth, seconds)
        with _timed(seconds, "denoise"):
            noise = self.model.initial_noise(points, samples, _generator(seed))
            predicted = self.model.sample(prefix, points, noise, n_steps=self.n_steps)
            _wait_for(self.device)
        with _timed(seconds, "decode"):
            traces = self.processor.traces(
                predicted,
                keypoints,
                instruction=instruction,
                model=self.name,
            )
        return replace(
            traces,
            stage_names=tuple(seconds),
            stage_seconds=np.array(list(seconds.values()), np.float32),
        )

    def prefix(
        self,
        rgb: NDArray[np.uint8],
        instruction: str,
        depth: NDArray[np.floating] | None,
        seconds: dict[str, float],
    ) -> Prefix:
        """Return the kept prefix if it is of this input, else encode it and keep that.

        Args:
            rgb: As for `predict`.
            instruction: Likewise.
            depth: Likewise; None without a depth path.
            seconds: Gets the time of each stage.
        """
        with _timed(seconds, "preprocess"):
            key = _fingerprint(rgb, instruction, depth)
            if self._kept is not None and self._kept[0] == key and self._has_all(self._kept[1]):
                return self._kept[1]
            scene = moved(self.processor.scene(rgb, instruction, depth), self.device)
        with _timed(seconds, "prefix"), torch.inference_mode():
            prefix = self.model.encode(scene, hidden=self.keep_hidden)
            _wait_for(self.device)
        self._kept = (key, prefix)
        return prefix

    def _has_all(self, prefix: Prefix) -> bool:
        return prefix.hidden is not None or not self.keep_hidden


def use_bfloat16(model: Mu0) -> None:
    """Store and run the large parts in bfloat16; tokens, heads and integration stay float32."""
    for module in (model.vlm, model.expert):
        module.to(torch.bfloat16)
    if isinstance(model.dino, PixelFeatures):
        nn.Module.to(model.dino.model, torch.bfloat16)


def _statistics_folder(folder: Path) -> Path:
    """Return where the statistics of a checkpoint stand: beside its weights, or one level up."""
    own = folder / "normalizer_stats.json"
    return folder if own.is_file() else folder.parent


def _wait_for(device: torch.device) -> None:
    """Let a device that works on its own finish, so that times are true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time spent inside to a stage."""
    started = perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + perf_counter() - started
