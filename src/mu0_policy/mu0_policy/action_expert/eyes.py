"""Own the way from a camera's picture to tokens: size, a small network, pooling, places."""

from itertools import pairwise

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mu0_core.errors import ShapeError

SIDE = 96
"""Side of the pictures that the small network sees, px."""
_GROUPS = 8


def small_picture(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Squeeze a picture (H, W, 3) uint8 RGB to the size that is seen: (SIDE, SIDE, 3).

    Raises:
        ShapeError: It is no such picture.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ShapeError(f"picture: expected uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
    return np.asarray(cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def picture_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """Turn pictures (..., H, W, 3) uint8 into (..., 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(pictures)).movedim(-1, -3).float() / 255.0


class ConvolutionalEye(nn.Module):
    """Turn pictures into a coarse map of features; trained with the expert."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (3, width // 4, width // 2, width, width)
        stages: list[nn.Module] = []
        for before, after in pairwise(widths):
            groups = _GROUPS if after % _GROUPS == 0 else 1
            stages += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(groups, after), nn.SiLU()]
        self.stages = nn.Sequential(*stages)

    def forward(self, picture: Tensor) -> Tensor:
        """Turn pictures (B, 3, SIDE, SIDE) in [0, 1] into features (B, width, 6, 6)."""
        return self.stages(picture * 2.0 - 1.0)


class CameraTokens(nn.Module):
    """Turn maps of features into tokens that know their place in the picture."""

    def __init__(self, eye_width: int, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.proj = nn.Linear(eye_width, width)
        self.places = nn.Parameter(torch.randn(side * side, width) * 0.02)

    def forward(self, maps: Tensor) -> Tensor:
        """Turn maps (B, C, P, P) into tokens (B, side * side, width), row by row."""
        pooled = functional.adaptive_avg_pool2d(maps, self.side).flatten(2).transpose(1, 2)
        return self.proj(pooled.to(self.proj.weight.dtype)) + self.places
