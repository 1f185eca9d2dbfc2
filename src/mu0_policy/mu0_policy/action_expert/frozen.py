"""Own the frozen world model in training: loading it, and which features it gives."""

import torch

from mu0_core.traces import PointsFrom
from mu0_world_model.checkpoint import find
from mu0_world_model.features import (
    SERVED,
    SERVED_GRID,
    FeatureConfig,
    FeatureExtractor,
    checkpoint_identity,
)
from mu0_world_model.predictor import Predictor
from mu0_world_model.shipped import checkpoint_folder


def load_extractor(
    checkpoint: str, config: FeatureConfig, device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """Load what turns pictures into features.

    Args:
        checkpoint: Name of a shipped one, path of a folder, or hub repository ("owner/name").
        config: Which features.
        device: Where it runs.

    Raises:
        CheckpointError: The checkpoint is missing or broken.
    """
    folder = find(checkpoint_folder(checkpoint))
    predictor = Predictor.from_pretrained(folder, device=str(device))
    return FeatureExtractor(
        predictor.model,
        predictor.processor,
        config,
        identity=checkpoint_identity(folder),
        device=device,
    )


def load_served(checkpoint: str, points: PointsFrom) -> FeatureExtractor:
    """Load what turns pictures into features of such points, with the settings as served."""
    return load_extractor(checkpoint, SERVED if points is PointsFrom.KEYPOINTS else SERVED_GRID)
