"""Own the choice of a predictor, and the one that several threads may ask."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.config import option, validate
from mu0_core.errors import ConfigError
from mu0_core.traces import Keypoints, Traces
from mu0_world_model.baselines import Motion, StraightLinePredictor
from mu0_world_model.features import FeatureConfig, FeatureExtractor, checkpoint_identity
from mu0_world_model.predictor import Predictor, TracePredictor
from mu0_world_model.queries import grid_uv, keypoints_without_past
from mu0_world_model.shipped import DEFAULT_CHECKPOINT, checkpoint_folder

_BASELINE_HISTORY = 8
_BASELINE_ARC_STEP = 0.01


class Kind(StrEnum):
    """Name what can predict."""

    MODEL = "model"
    STATIC = "static"
    CONSTANT_VELOCITY = "constant_velocity"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorConfig:
    """Say what predicts, and where it runs."""

    predictor: Kind = option(
        Kind.MODEL, description="The model, or a baseline without one", read_only=True
    )
    checkpoint: str = option(
        DEFAULT_CHECKPOINT,
        description="Name of a shipped one, path of a folder, or a hub repository",
        read_only=True,
    )
    device: str = option(
        "cpu", description="Where the model runs: cpu, cuda, cuda:1 ...", read_only=True
    )
    threads: int = option(
        1,
        description="Processor threads of the model; on cores that others use, two are slower",
        low=1,
        read_only=True,
    )

    def __post_init__(self) -> None:
        validate(self)


class SharedPredictor:
    """Hold a predictor for several threads, and hide what sets the model and baselines apart."""

    def __init__(self, predictor: TracePredictor) -> None:
        self._predictor = predictor
        self._one_at_a_time = threading.Lock()
        self._extractor: FeatureExtractor | None = None
        self._folder: Path | None = None
        model = predictor if isinstance(predictor, Predictor) else None
        self.arc_step = predictor.arc_step
        self.history_length = model.history_len if model else _BASELINE_HISTORY
        self.uses_depth = model is not None and model.uses_depth

    @classmethod
    def load(cls, config: PredictorConfig) -> Self:
        """Load a predictor; torch's number of threads is set for the whole process.

        Raises:
            ConfigError: The device cannot be used, or the checkpoint's config.json is wrong.
            CheckpointError: The checkpoint is missing or broken.
        """
        if config.predictor is not Kind.MODEL:
            motion = Motion(config.predictor.value)
            return cls(StraightLinePredictor(motion=motion, arc_step=_BASELINE_ARC_STEP))
        _check_device(config.device)
        torch.set_num_threads(config.threads)
        folder = checkpoint_folder(config.checkpoint)
        shared = cls(Predictor.from_pretrained(folder, device=config.device))
        shared._folder = Path(folder)
        return shared

    def predict(
        self,
        rgb: NDArray[np.uint8],
        keypoints: Keypoints,
        depth: NDArray[np.float32] | None = None,
        *,
        instruction: str = "",
        samples: int = 1,
        seed: int = -1,
    ) -> Traces:
        """Predict as `TracePredictor` does, a negative seed being another one each time."""
        predictor = self._predictor
        if isinstance(predictor, StraightLinePredictor):  # not tied to an arc step
            predictor = replace(predictor, arc_step=keypoints.arc_step)
        with self._one_at_a_time:
            return predictor.predict(
                rgb,
                keypoints,
                instruction,
                depth=depth,
                samples=samples,
                seed=None if seed < 0 else seed,
            )

    def features(
        self,
        config: FeatureConfig,
        rgb: NDArray[np.uint8],
        instruction: str,
        depth: NDArray[np.float32] | None = None,
    ) -> tuple[Mapping[str, NDArray[np.float16]], str]:
        """Return features for action experts, and what tells them from those of others.

        Raises:
            ConfigError: The predictor is a baseline; it has none.
        """
        predictor = self._predictor
        if not isinstance(predictor, Predictor) or self._folder is None:
            raise ConfigError("features: expected a model, a baseline has none; set predictor")
        with self._one_at_a_time:
            extractor = self._extractor
            if extractor is None or extractor.config != config:
                predictor.keep_hidden = True
                identity = checkpoint_identity(self._folder)
                extractor = FeatureExtractor(
                    predictor.model,
                    predictor.processor,
                    config,
                    identity=identity,
                    device=predictor.device,
                )
                self._extractor = extractor
            depth = depth if predictor.uses_depth else None
            prefix = predictor.prefix(rgb, instruction, depth, {})
            return extractor(rgb, instruction, depth, prefix=prefix), extractor.identity

    def warm_up(self) -> float:
        """Predict once from a grey picture, since a first time is slow; return how long, s."""
        camera = Camera.from_fovy(1.0, 320, 240)
        depth = np.ones((camera.height, camera.width), np.float32)
        keypoints = keypoints_without_past(
            grid_uv(camera),
            depth,
            camera,
            stamp_ns=0,
            frame_id="",
            arc_step=self.arc_step,
            history_length=self.history_length,
        )
        started_s = perf_counter()
        self.predict(np.full((*depth.shape, 3), 128, np.uint8), keypoints, depth)
        return perf_counter() - started_s


def _check_device(device: str) -> None:
    """Raise ConfigError unless torch can use the device here."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device: expected one that torch can use here, such as cpu, got {device!r}: {reason}"
        ) from error
