"""Own the border between the world's units and the model's: pictures, text, keypoints, traces.

The world: uint8 images, depth in metres, pixels, metres in the camera's frame (mu0_core.traces).
The model: images in [0, 1] of its size, coloured depth, tokens, uv in [-1, 1] of the original
image, futures relative to their anchor and scaled.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mu0_core.camera import Camera, denormalise_uv, normalise_uv
from mu0_core.depth_colour import depth_to_rgb
from mu0_core.errors import CheckpointError, ShapeError
from mu0_core.traces import Keypoints, Traces
from mu0_world_model.config import Mu0Config
from mu0_world_model.model import Points, Samples, Scene
from mu0_world_model.statistics import Statistics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NO_INSTRUCTION = "predict future trajectory"
_STEP_TOLERANCE = 1e-3


class Processor:
    """Translate between the world and one checkpoint."""

    def __init__(
        self, config: Mu0Config, statistics: Statistics, tokenizer: "PreTrainedTokenizerBase"
    ) -> None:
        self.config = config
        self.statistics = statistics
        self.tokenizer = tokenizer
        _check_agreement(config, statistics)
        self._scale = np.array(statistics.delta_scale)

    def image(self, rgb: NDArray[np.uint8]) -> Tensor:
        """Turn an image (H, W, 3) uint8 RGB into (3, side, side) float32 in [0, 1]."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ShapeError(f"image: expected uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
        return self._squeezed(rgb.astype(np.float32) / np.float32(255.0))

    def depth(self, depth: NDArray[np.floating]) -> Tensor:
        """Colour a depth image (H, W) in m, unknown as NaN or 0: (3, side, side) in [0, 1].

        Raises:
            CheckpointError: The checkpoint has no depth path or no depth range.
        """
        low, high = self.statistics.depth_log_min, self.statistics.depth_log_max
        if not self.config.use_depth or low is None or high is None:
            raise CheckpointError("depth: this checkpoint was trained without; leave depth out")
        if depth.ndim != 2 or depth.dtype.kind != "f":
            raise ShapeError(
                f"depth: expected floats (H, W) in m, got {depth.dtype} {depth.shape}"
            )
        return self._squeezed(depth_to_rgb(depth, log_min=low, log_max=high))

    def text(self, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenise instructions: (B, T) int64 tokens and (B, T) bool validity.

        Raises:
            CheckpointError: The tokenizer is of another checkpoint.
        """
        prompts = [f"Task: {text.strip() or _NO_INSTRUCTION}\n" for text in instructions]
        encoded = self.tokenizer(
            prompts,
            padding="max_length",
            padding_side="right",
            truncation=True,
            max_length=self.config.tokenizer_max_length,
            return_tensors="pt",
        )
        tokens, rows = encoded["input_ids"], self.config.vlm.vocab_size
        if int(tokens.max()) >= rows:
            raise CheckpointError(
                f"tokenizer of another checkpoint: got token {int(tokens.max())}, config.json has "
                f"a vocab_size of {rows}"
            )
        return tokens, encoded["attention_mask"].bool()

    def scene(
        self, rgb: NDArray[np.uint8], instruction: str, depth: NDArray[np.floating] | None = None
    ) -> Scene:
        """Translate one image with its instruction and, where there is one, its depth image."""
        if depth is not None and depth.shape != rgb.shape[:2]:
            raise ShapeError(
                f"depth: expected the image's size {rgb.shape[:2]}, got {depth.shape}"
            )
        tokens, valid = self.text([instruction])
        return Scene(
            image=self.image(rgb)[None],
            tokens=tokens,
            token_valid=valid,
            depth=None if depth is None else self.depth(depth)[None],
        )

    def points(self, keypoints: Keypoints) -> Points:
        """Translate keypoints; one without any valid history step has its history hidden.

        Raises:
            ShapeError: There are none, one lies outside the image, or the history is of another
                length or arc step than the checkpoint's.
        """
        self._check_keypoints(keypoints)
        width, height = keypoints.camera.width, keypoints.camera.height
        anchor = to_model_units(_anchor_uvz(keypoints), width, height)
        past = to_model_units(keypoints.history_uvz, width, height)
        offset = past - np.nan_to_num(anchor, nan=0.0)[:, None]
        known = keypoints.history_valid & _finite(past) & _finite(anchor)[:, None]
        history = np.where(known[..., None], offset, 0.0)
        return Points(
            anchor=_tensor(np.nan_to_num(anchor, nan=0.0))[None],
            valid=torch.ones(1, keypoints.n, dtype=torch.bool),
            history=_tensor(history)[None],
            history_valid=torch.from_numpy(np.asarray(known.any(-1)))[None],
        )

    def traces(
        self,
        samples: Samples,
        keypoints: Keypoints,
        *,
        instruction: str,
        model: str,
    ) -> Traces:
        """Translate predictions for one scene; what needs an unknown depth is NaN."""
        camera = keypoints.camera
        anchor = to_model_units(_anchor_uvz(keypoints), camera.width, camera.height)

        def absolute(scaled: Tensor) -> NDArray[np.float64]:
            offset = scaled[0].double().cpu().numpy() * self._scale
            return from_model_units(offset + anchor[:, None], camera.width, camera.height)

        uvz = absolute(samples.traces)
        valid_prob = np.ones(uvz.shape[:3], np.float32)
        if samples.valid_prob is not None:
            valid_prob = samples.valid_prob[0].float().cpu().numpy()
        return Traces(
            stamp_ns=keypoints.stamp_ns,
            frame_id=keypoints.frame_id,
            instruction=instruction,
            model=model,
            arc_step=self.statistics.arc_step,
            ids=keypoints.ids,
            cluster_ids=keypoints.cluster_ids,
            source=keypoints.source,
            current_xyz=keypoints.xyz(),
            xyz=lift(camera, uvz).astype(np.float32),
            control_uvz=absolute(samples.control).astype(np.float32),
            valid_prob=valid_prob,
            stage_names=(),
            stage_seconds=np.zeros(0, np.float32),
        )

    def _squeezed(self, picture: NDArray[np.float32]) -> Tensor:
        """Resize (H, W, 3) to (3, side, side) as for training: bilinear, each axis by itself."""
        resized = cv2.resize(picture, self.config.resize_imgs_with_padding)
        return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))

    def _check_keypoints(self, keypoints: Keypoints) -> None:
        """Raise if the keypoints are not what this checkpoint was trained on."""
        faults = []
        if keypoints.n == 0:
            faults.append("expected at least one keypoint, got none")
        steps = self.config.history_len
        if keypoints.history_length != steps:
            faults.append(f"history: expected {steps} steps, got {keypoints.history_length}")
        expected = self.statistics.arc_step
        if abs(keypoints.arc_step - expected) > _STEP_TOLERANCE * expected:
            faults.append(
                f"arc_step: expected {expected:g} as this checkpoint was trained, got "
                f"{keypoints.arc_step:g}; set the tracker's to the checkpoint's"
            )
        size = (keypoints.camera.width, keypoints.camera.height)
        outside = ~((keypoints.uv >= 0) & (keypoints.uv <= size)).all(1)
        if outside.any():
            first = keypoints.uv[outside][0].tolist()
            faults.append(
                f"uv: {outside.sum()} keypoints lie outside the {size[0]} x {size[1]} px image, "
                f"the first at {first} px"
            )
        if faults:
            raise ShapeError("keypoints: " + "; ".join(faults))


def to_model_units(uvz: NDArray[np.floating], width: int, height: int) -> NDArray[np.float64]:
    """Turn (..., 3) px, px, m into u, v in [-1, 1] of the original image, and m."""
    return np.concatenate([normalise_uv(uvz[..., :2], width, height), uvz[..., 2:]], axis=-1)


def from_model_units(uvz: NDArray[np.floating], width: int, height: int) -> NDArray[np.float64]:
    """Undo `to_model_units`."""
    return np.concatenate([denormalise_uv(uvz[..., :2], width, height), uvz[..., 2:]], axis=-1)


def lift(camera: Camera, uvz: NDArray[np.floating]) -> NDArray[np.float64]:
    """Lift (..., 3) px, px, m to xyz in m in the camera's frame."""
    return np.asarray(camera.unproject(uvz))


def load_tokenizer(folder: Path, config: Mu0Config) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a checkpoint: beside its weights, or of the VLM it names.

    The VLM may be a folder beside the checkpoint, or a hub id in the local cache or online.

    Raises:
        CheckpointError: There is none; the error says where one was looked for.
    """
    from transformers import AutoTokenizer

    name = config.vlm_model_name
    candidates = [folder, *([folder.parent / name, folder / name] if name else [])]
    for candidate in candidates:
        if (candidate / "tokenizer.json").is_file():
            try:
                return AutoTokenizer.from_pretrained(candidate)
            except Exception as error:  # the library raises nothing narrower
                raise CheckpointError(
                    f"tokenizer: the files in {candidate} cannot be read: {error}"
                ) from error
    looked = ", ".join(map(str, candidates))
    if not name:
        raise CheckpointError(f"tokenizer: no tokenizer.json in {looked}")
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"tokenizer: no tokenizer.json in {looked}, and {name!r} cannot be had from the hub "
            f"({type(error).__name__}); copy that model's tokenizer files beside the weights"
        ) from error


def _check_agreement(config: Mu0Config, statistics: Statistics) -> None:
    """Refuse the statistics of another checkpoint."""
    pairs: dict[str, tuple[Any, Any]] = {
        "delta_scale": (config.delta_scale, statistics.delta_scale),
        "history_len": (config.history_len, statistics.history_len),
        "future_len": (config.future_len, statistics.future_len),
    }
    faults = [
        f"{name}: config.json has {ours}, the statistics have {theirs}"
        for name, (ours, theirs) in pairs.items()
        if not np.allclose(ours, theirs, rtol=1e-5)
    ]
    if faults:
        raise CheckpointError("statistics of another checkpoint: " + "; ".join(faults))


def _finite(points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return where all coordinates (..., 3) are finite: (...)."""
    return np.asarray(np.isfinite(points).all(-1))


def _anchor_uvz(keypoints: Keypoints) -> NDArray[np.float64]:
    return np.concatenate([keypoints.uv, keypoints.z[:, None]], axis=1).astype(np.float64)


def _tensor(array: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
