"""Own the arithmetic of pictures on tensors: resizing, value ranges, DINOv2 features of pixels."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Dinov2Config, Dinov2Model

from mu0_world_model.config import DinoConfig, Mu0Config

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def resize_with_pad(images: Tensor, width: int, height: int) -> Tensor:
    """Fit images (B, 3, H, W) into a size without squeezing them; pad left and top with 0.

    The padding moves pixels, and the released model does not correct the keypoints for it: give it
    pictures already squeezed to the model's size, as the processor does.
    """
    h, w = images.shape[-2:]
    if (h, w) == (height, width):
        return images
    ratio = max(w / width, h / height)
    size = (int(h / ratio), int(w / ratio))
    resized = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
    return functional.pad(resized, (width - size[1], 0, height - size[0], 0))


def prepare(images: Tensor, width: int, height: int) -> Tensor:
    """Bring images (B, 3, H, W) in [0, 1] to the size of the model and to [-1, 1]."""
    return resize_with_pad(images, width, height) * 2.0 - 1.0


class PixelFeatures(nn.Module):
    """Own the frozen DINOv2 whose patch features are read at keypoints."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: Mu0Config) -> None:
        super().__init__()
        assert config.dino is not None
        self.side = config.dino_input_size
        self.n_patches = self.side // config.dino.patch_size
        self.n_prefix = config.dino_num_prefix_tokens
        self.model = Dinov2Model(_hub_config(config.dino))
        for name, values in (("mean", _IMAGENET_MEAN), ("std", _IMAGENET_STD)):
            self.register_buffer(
                name, torch.tensor(values, device="cpu").view(3, 1, 1), persistent=False
            )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature maps (B, width, P, P) of prepared images (B, 3, side, side)."""
        scaled = ((images + 1.0) / 2.0 - self.mean) / self.std
        scaled = functional.interpolate(
            scaled, size=(self.side, self.side), mode="bilinear", align_corners=False
        )
        patches = self.model(scaled.to(self.model.dtype)).last_hidden_state[:, self.n_prefix :]
        return patches.transpose(1, 2).unflatten(2, (self.n_patches, self.n_patches))


def read_at(maps: Tensor, uv: Tensor, valid: Tensor) -> Tensor:
    """Read maps (B, C, P, P) at uv (B, n, 2) in [-1, 1].

    Returns (B, n, C) of the dtype of uv, 0 where not valid. The sampling coordinates are rounded
    to the dtype of the maps, as released; the interpolation is not, since torch's for bfloat16
    gives arbitrary numbers on a processor if channels come last in memory.
    """
    grid = uv.to(maps.dtype).to(uv.dtype)[:, :, None]
    sampled = functional.grid_sample(
        maps.to(uv.dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled[..., 0].transpose(1, 2) * valid[..., None]


def _hub_config(sizes: DinoConfig) -> Dinov2Config:
    """Describe the DINOv2 to transformers."""
    return Dinov2Config(
        hidden_size=sizes.width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        mlp_ratio=sizes.mlp_ratio,
        patch_size=sizes.patch_size,
        image_size=sizes.image_size,
    )
