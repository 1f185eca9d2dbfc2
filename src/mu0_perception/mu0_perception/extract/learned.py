"""Own networks from transformers: loaded from this machine only, refused clearly where absent."""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import Mu0Error

_MATCHERS = ("lightglue", "superglue")
_KEPT_LOADED = 4  # networks: all that one extraction may use
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class WeightsError(Mu0Error):
    """Report a network whose weights are not on this machine."""


class DepthNetwork:
    """Estimate metric depth of single pictures.

    Args:
        name: A folder with weights, or the name of a model in the local cache of transformers.

    Raises:
        WeightsError: They are not there.
    """

    def __init__(self, name: str) -> None:
        self.name = f"depth network {name}"
        self._processor, self._model = load("AutoModelForDepthEstimation", name, "depth network")

    def depth(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (H, W) float32 m of a picture (H, W, 3), NaN where not above zero."""
        import torch

        inputs = self._processor(images=rgb, return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            raw = self._model(**inputs).predicted_depth[0].float().cpu().numpy()
        size = (rgb.shape[1], rgb.shape[0])
        depth = cv2.resize(raw, size, interpolation=cv2.INTER_LINEAR)
        return np.where(depth > 0.0, depth, np.float32(np.nan)).astype(np.float32)


class FeatureNetwork:
    """Turn pictures into a grid of features, with DINOv2, DINOv3 or the like.

    Args:
        name: As for DepthNetwork.

    Raises:
        WeightsError: They are not there.
    """

    def __init__(self, name: str) -> None:
        self.name = f"features of {name}"
        self._processor, self._model = load("AutoModel", name, "feature network")

    def features(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return unit vectors (h, w, c) of the patches of a picture (H, W, 3), squashed square."""
        import torch

        size = 224
        square = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA)
        inputs = self._processor(
            images=square, return_tensors="pt", do_resize=False, do_center_crop=False
        ).to(self._model.device)
        with torch.inference_mode():
            tokens = self._model(**inputs).last_hidden_state[0].float().cpu().numpy()
        side = size // int(self._model.config.patch_size)
        patches = tokens[-side * side :]  # class and register tokens come first
        patches = patches / np.linalg.norm(patches, axis=1, keepdims=True)
        return patches.reshape(side, side, -1).astype(np.float32)


class MatchNetwork:
    """Find points that two pictures show, with LightGlue or SuperGlue.

    Args:
        name: As for DepthNetwork.

    Raises:
        WeightsError: They are not there, or of another network.
    """

    def __init__(self, name: str) -> None:
        self.name = f"matches of {name}"
        what = "matching network"
        self._processor, self._model = load("AutoModelForKeypointMatching", name, what)
        kind = self._model.config.model_type
        # EfficientLoFTR of transformers lists its points in the order of either picture: no pairs.
        if kind not in _MATCHERS:
            raise WeightsError(
                f"{what} {name!r}: is of the kind {kind}; give one of {', '.join(_MATCHERS)}"
            )

    def matches(
        self, before: NDArray[np.uint8], after: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return points (n, 2) px of a grey picture (H, W) and the same of another of its size."""
        import torch

        pair = [np.repeat(grey[..., None], 3, axis=2) for grey in (before, after)]
        inputs = self._processor(images=pair, return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            found = self._model(**inputs)
        relative = found.keypoints[0].double().cpu().numpy()
        partner = found.matches[0, 0].long().cpu().numpy()
        valid = found.mask[0].cpu().numpy() > 0
        matched = valid[0] & (partner >= 0) & valid[1][partner]
        # Pixels are shares of the picture that the network saw, counted from a pixel's middle.
        (height, width), seen = before.shape, inputs["pixel_values"].shape[-2:]
        middle = 0.5 * np.array([width / seen[1], height / seen[0]]) - 0.5
        uv = relative * (width, height) + middle
        return uv[0][matched], uv[1][partner[matched]]


@lru_cache(_KEPT_LOADED)
def load(kind: str, name: str, what: str) -> tuple[Any, Any]:
    """Return processor and model of transformers, on the GPU where there is one.

    They stay loaded: each part of a recording asks for them.

    Args:
        kind: Name of the class of transformers.
        name: A folder, or a name in the local cache.
        what: What to call it in the error.

    Raises:
        WeightsError: It is not on this machine, or not of that kind.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise WeightsError(
            f"{what} {name!r}: needs torch and transformers, which are not installed; "
            "requirements/learning.txt names them"
        ) from error
    try:
        processors = "AutoProcessor" if "ImageText" in kind else "AutoImageProcessor"
        processor = getattr(transformers, processors).from_pretrained(name, local_files_only=True)
        model = getattr(transformers, kind).from_pretrained(name, local_files_only=True)
    except ImportError as error:
        raise WeightsError(f"{what} {name!r}: needs a package that is absent: {error}") from error
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{what} {name!r}: its weights are not on this machine; give a folder that holds "
            f"them, or fetch them into the cache with `hf download {name}`"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return processor, model.eval().to(device)


def is_cached(name: str) -> bool:
    """Say whether a model is whole in the local cache of transformers, its weights in one file."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False

    def has(file: str) -> bool:
        return isinstance(try_to_load_from_cache(name, file), str)

    settings = has("config.json") and has("preprocessor_config.json")
    return settings and any(has(file) for file in _WEIGHTS)
