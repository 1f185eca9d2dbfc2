"""Own the published weights of the backbones, which a model of the released shape starts from."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mu0_core.errors import CheckpointError
from mu0_world_model import checkpoint
from mu0_world_model.model import Mu0

# Names in the weights of a SmolVLM -> names in `Mu0`.
_VLM_PARTS = {
    "model.vision_model.": "tower.",
    "model.connector.": "connector.",
    "model.text_model.embed_tokens.": "embed_tokens.",
    "model.text_model.layers.": "layers.",
}


def load_backbones(model: Mu0) -> None:
    """Fill the VLM, and DINOv2 if there is one, with the weights its configuration names.

    The depth path starts from the vision tower's patch embedding.

    Raises:
        CheckpointError: They cannot be had, or are of other sizes.
    """
    from transformers import AutoModel, AutoModelForImageTextToText

    config = model.config
    state = _published(config.vlm_model_name, AutoModelForImageTextToText.from_pretrained)
    _fill(model.vlm, _renamed(state), config.vlm_model_name, besides="depth.")
    if model.vlm.depth is not None:
        stem = model.vlm.tower.embeddings.patch_embedding
        model.vlm.depth.stem.load_state_dict(stem.state_dict())
    if model.dino is not None:
        state = _published(config.dino_model_name, AutoModel.from_pretrained)
        _fill(model.dino.model, state, config.dino_model_name)


def _published(name: str, load: Callable[..., Any]) -> Mapping[str, Tensor]:
    """Read the weights of a folder or hub repository in float32."""
    folder = checkpoint.find(name)
    try:
        return load(folder, dtype=torch.float32).state_dict()
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{name}: its weights cannot be read: {error}") from error


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        ours + name.removeprefix(theirs): value
        for name, value in state.items()
        for theirs, ours in _VLM_PARTS.items()
        if name.startswith(theirs)
    }


def _fill(module: nn.Module, weights: Mapping[str, Tensor], name: str, besides: str = "-") -> None:
    """Copy weights into a module; it may have fewer layers than there are weights for."""
    own = module.state_dict()
    wanted = {key: value.shape for key, value in own.items() if not key.startswith(besides)}
    faults = [f"missing: {key}" for key in wanted if key not in weights]
    faults += [
        f"{key}: expected shape {tuple(shape)}, got {tuple(weights[key].shape)}"
        for key, shape in wanted.items()
        if key in weights and weights[key].shape != shape
    ]
    if faults:
        raise CheckpointError(
            f"{name}: its weights are not those of the configuration, {len(faults)} faults:\n  "
            + "\n  ".join(faults[:10])
        )
    module.load_state_dict({key: weights[key] for key in wanted}, strict=False)
