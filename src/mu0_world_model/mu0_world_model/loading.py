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
from mu0_world_model import checkpoint
from mu0_world_model.baselines import Motion, StraightLinePredictor
from mu0_world_model.execution import ExecutionConfig
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
class PredictorConfig(ExecutionConfig):
    """Say what predicts, and where and how it runs."""

    predictor: Kind = option(
        Kind.MODEL, description="The model, or a baseline without one", read_only=True
    )
    checkpoint: str = option(
        DEFAULT_CHECKPOINT,
        description="Name of a shipped one, path of a folder, or a hub repository",
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
            ResourceError: It does not fit into memory.
        """
        if config.predictor is not Kind.MODEL:
            motion = Motion(config.predictor.value)
            return cls(StraightLinePredictor(motion=motion, arc_step=_BASELINE_ARC_STEP))
        torch.set_num_threads(config.threads)
        folder = checkpoint_folder(config.checkpoint)
        shared = cls(
            Predictor.from_pretrained(
                folder,
                device=config.device,
                precision=config.precision,
                compiled=config.compile,
            )
        )
        shared._folder = checkpoint.find(folder)
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
        keypoints: NDArray[np.floating] | None = None,
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
                extractor = FeatureExtractor(
                    predictor.model,
                    predictor.processor,
                    config,
                    identity=checkpoint_identity(self._folder),
                    device=predictor.device,
                )
                self._extractor = extractor
            depth = depth if predictor.uses_depth else None
            prefix = predictor.prefix(rgb, instruction, depth)
            found = extractor(rgb, instruction, depth, keypoints, prefix=prefix)
            return found, extractor.origin(depth=depth is not None)

    def warm_up(self, samples: int = 1) -> float:
        """Predict from a grey picture, since a first time is slow; return how long it took, s.

        A compiled model is asked in all the ways that are compiled apart: with and without a past,
        and with another number of keypoints, after which any number will do.
        """
        predictor = self._predictor
        compiled = isinstance(predictor, Predictor) and predictor.compiled
        started_s = perf_counter()
        for past, columns in ((False, 8), (True, 8), (True, 6), (False, 6)):
            self._try(samples, past, columns)
            if not compiled:
                break
        return perf_counter() - started_s

    def _try(self, samples: int, past: bool, columns: int) -> None:
        """Predict once."""
        camera = Camera.from_fovy(1.0, 320, 240)
        depth = np.ones((camera.height, camera.width), np.float32)
        keypoints = keypoints_without_past(
            grid_uv(camera, columns),
            depth,
            camera,
            stamp_ns=0,
            frame_id="",
            arc_step=self.arc_step,
            history_length=self.history_length,
        )
        if past:
            still = np.column_stack([keypoints.uv, keypoints.z])[:, None]
            still = np.repeat(still, self.history_length, axis=1)
            known = np.ones(still.shape[:2], np.bool_)
            keypoints = replace(keypoints, history_uvz=still, history_valid=known)
        grey = np.full((*depth.shape, 3), 128, np.uint8)
        self.predict(grey, keypoints, depth, instruction="word " * columns, samples=samples)
