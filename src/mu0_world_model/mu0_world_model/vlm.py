"""Own the prefix: the SmolVLM parts that read images and text, driven by hand.

Parts come from transformers; its own forward passes are not used, because the prefix differs from
theirs: bidirectional attention, images and text scaled by the square root of the width, a rotation
base of 10 000, and a table of position indices fixed to the number format of training.
Images pass through the tower on one of two explicit paths: colour, or depth with its own patch
embedding and low-rank adapters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, SmolVLMConfig, SmolVLMVisionConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.smolvlm.modeling_smolvlm import (
    SmolVLMConnector,
    SmolVLMEncoderLayer,
    SmolVLMVisionTransformer,
)

from mu0_world_model.attention import attend, merge_heads, rms_norm, rotate, rotation, split_heads
from mu0_world_model.config import Mu0Config, PositionRounding, VlmConfig


@dataclass(frozen=True, slots=True, eq=False)
class PrefixPass:
    """Hold what the text layers made of a prefix of L tokens.

    Attributes:
        keys: Of every layer run, (B, kv_heads, L, head_dim), rotated.
        values: Likewise, not rotated.
        hidden: (B, L, V) after the last layer and before the final norm; None unless asked for.
    """

    keys: list[Tensor]
    values: list[Tensor]
    hidden: Tensor | None


class LowRank(nn.Module):
    """Add scale * B A x to what a linear layer makes of x."""

    def __init__(self, inner: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.A = nn.Linear(inner.in_features, rank, bias=False)
        self.B = nn.Linear(rank, inner.out_features, bias=False)
        nn.init.zeros_(self.B.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction of x (..., in): (..., out), in the adapter's dtype."""
        return self.B(self.A(x.to(self.A.weight.dtype))) * self.scale


class DepthPath(nn.Module):
    """Own the depth path's weights: a patch embedding and an adapter for each tower linear."""

    def __init__(self, tower: SmolVLMVisionTransformer, rank: int, scale: float) -> None:
        super().__init__()
        first = tower.embeddings.patch_embedding
        patch = first.kernel_size[0]
        self.stem = nn.Conv2d(3, first.out_channels, patch, patch)
        self.adapters = nn.ModuleList(
            nn.ModuleDict({name: LowRank(linear, rank, scale) for name, linear in _linears(layer)})
            for layer in cast(list[SmolVLMEncoderLayer], tower.encoder.layers)
        )
        self.stem.load_state_dict(first.state_dict())


class Vlm(nn.Module):
    """Turn images and text into prefix embeddings, and those into keys and values per layer."""

    position_ids: Tensor

    def __init__(self, config: Mu0Config) -> None:
        super().__init__()
        sizes = config.vlm
        self.head_dim = sizes.text_head_dim
        self.tower_heads = sizes.vision_heads
        self.embedding_scale = sizes.text_width**0.5
        text = llama_config(
            width=sizes.text_width, mlp=sizes.text_mlp, sizes=sizes, layers=config.num_vlm_layers
        )
        vision = vision_config(sizes)
        self.tower = SmolVLMVisionTransformer(vision)
        self.connector = SmolVLMConnector(connector_config(sizes, text, vision))
        self.embed_tokens = nn.Embedding(sizes.vocab_size, sizes.text_width)
        layers = (LlamaDecoderLayer(text, i) for i in range(config.num_vlm_layers))
        self.layers = nn.ModuleList(layers)
        self.depth = None
        if config.use_depth:
            scale = config.depth_lora_alpha / config.depth_lora_rank
            self.depth = DepthPath(self.tower, config.depth_lora_rank, scale)
        nn.init.normal_(self.embed_tokens.weight, std=text.initializer_range)
        side = config.resize_imgs_with_padding[0] // sizes.patch_size
        table = sizes.vision_image_size // sizes.patch_size
        ids = position_ids(side, table, config.position_rounding)
        self.register_buffer("position_ids", ids, persistent=False)
        self.gradient_checkpointing = False
        self._tower_pass: Callable[..., Tensor] = _tower_layer
        self._text_pass: Callable[..., tuple[Tensor, Tensor, Tensor]] = _text_layer

    def compile_layers(self) -> None:
        """Compile what runs a layer, of either kind."""
        self._tower_pass = torch.compile(_tower_layer)
        self._text_pass = torch.compile(_text_layer)

    @property
    def _blocks(self) -> list[LlamaDecoderLayer]:
        return cast(list[LlamaDecoderLayer], list(self.layers))

    def embed_image(self, pixels: Tensor, *, depth: bool = False) -> Tensor:
        """Encode images (B, 3, side, side) in [-1, 1] to unscaled tokens (B, tokens, V)."""
        path = self.depth if depth else None
        tower = self.tower
        stem = tower.embeddings.patch_embedding if path is None else path.stem
        x = stem(pixels.to(stem.weight.dtype)).flatten(2).transpose(1, 2)  # (B, patches, width)
        x = x + tower.embeddings.position_embedding(self.position_ids)
        for i, layer in enumerate(tower.encoder.layers):
            adapters = None if path is None else path.adapters[i]
            x = self._run(self._tower_pass, layer, x, adapters, self.tower_heads)
        return self.connector(tower.post_layernorm(x))

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Look up tokens (B, T): unscaled (B, T, V)."""
        return self.embed_tokens(tokens)

    def forward(
        self, embeddings: Tensor, valid: Tensor, *, n_layers: int, hidden: bool = False
    ) -> PrefixPass:
        """Run the first text layers over a prefix.

        Args:
            embeddings: (B, L, V) scaled embeddings.
            valid: (B, L) bool; the rest is attended by nothing and takes no position.
            n_layers: Number of layers whose keys and values are wanted.
            hidden: Whether the output of the last layer is wanted too; the traces need no more of
                it than keys and values.
        """
        cos_sin = rotation((valid.cumsum(1) - 1).clamp(min=0), self.head_dim)
        mask = None if bool(valid.all()) else valid
        keys, values, x = [], [], embeddings
        for i in range(n_layers):
            last = i == n_layers - 1 and not hidden
            x, k, v = self._run(
                self._text_pass, self._blocks[i], x, cos_sin, mask, self.head_dim, last
            )
            keys.append(k)
            values.append(v)
        return PrefixPass(keys, values, x if hidden else None)

    def _run(self, layer_pass: Callable[..., Any], *args: object) -> Any:
        """Run one layer, keeping its activations or recomputing them in the backward pass."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return torch.utils.checkpoint.checkpoint(layer_pass, *args, use_reentrant=False)
        return layer_pass(*args)


def position_ids(side: int, table_side: int, rounding: PositionRounding) -> Tensor:
    """Map a grid of patches onto a smaller or larger table of position embeddings.

    The index on each axis is the number of boundaries k / table_side at or below i / side, with
    i / side rounded to a number format: many fractions lie exactly on a boundary.

    Args:
        side: Patches per side of the image.
        table_side: Positions per side of the table.
        rounding: Number format of the fraction.

    Returns:
        (side * side,) int64, row by row.
    """
    dtype = getattr(torch, rounding.value)
    fractions = (torch.arange(side, device="cpu") / side).to(dtype).float()
    fractions = fractions.clamp(max=1.0 - 1e-6)
    boundaries = torch.arange(1 / table_side, 1.0, 1 / table_side, device="cpu")
    index = torch.bucketize(fractions, boundaries, right=True)
    return (index[:, None] * table_side + index[None, :]).flatten()


def _tower_layer(
    layer: SmolVLMEncoderLayer, x: Tensor, adapters: nn.ModuleDict | None, heads: int
) -> Tensor:
    """Run one layer of the vision tower, adapted or not."""

    def linear(name: str, module: nn.Linear, value: Tensor) -> Tensor:
        result = module(value)
        if adapters is None:
            return result
        return (result + adapters[name](value)).to(result.dtype)

    attention, mlp = layer.self_attn, layer.mlp
    head_dim = x.shape[-1] // heads
    a = layer.layer_norm1(x)
    q = split_heads(linear("q_proj", attention.q_proj, a), head_dim)
    k = split_heads(linear("k_proj", attention.k_proj, a), head_dim)
    v = split_heads(linear("v_proj", attention.v_proj, a), head_dim)
    x = x + linear("out_proj", attention.out_proj, merge_heads(attend(q, k, v)))
    hidden = functional.gelu(linear("fc1", mlp.fc1, layer.layer_norm2(x)), approximate="tanh")
    return x + linear("fc2", mlp.fc2, hidden)


def _text_layer(
    layer: LlamaDecoderLayer,
    x: Tensor,
    cos_sin: tuple[Tensor, Tensor],
    valid: Tensor | None,
    head_dim: int,
    keys_only: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one text layer; return its output (or input, if only keys are wanted), keys, values."""
    attention = layer.self_attn
    a = rms_norm(layer.input_layernorm, x)
    k = rotate(split_heads(attention.k_proj(a), head_dim), cos_sin)
    v = split_heads(attention.v_proj(a), head_dim)
    if keys_only:
        return x, k, v
    q = rotate(split_heads(attention.q_proj(a), head_dim), cos_sin)
    x = x + attention.o_proj(merge_heads(attend(q, k, v, valid)))
    return x + layer.mlp(rms_norm(layer.post_attention_layernorm, x)), k, v


def _linears(layer: SmolVLMEncoderLayer) -> list[tuple[str, nn.Linear]]:
    """Name the linear layers of a tower layer that the depth path adapts."""
    attention, mlp = layer.self_attn, layer.mlp
    linears = [(n, getattr(attention, n)) for n in ("q_proj", "k_proj", "v_proj", "out_proj")]
    return [*linears, ("fc1", mlp.fc1), ("fc2", mlp.fc2)]


def llama_config(*, width: int, mlp: int, sizes: VlmConfig, layers: int) -> LlamaConfig:
    """Describe a Llama-type stack with the heads of the VLM's text model."""
    return LlamaConfig(
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=sizes.text_heads,
        num_key_value_heads=sizes.text_kv_heads,
        head_dim=sizes.text_head_dim,
        vocab_size=sizes.vocab_size,
        rms_norm_eps=sizes.rms_norm_eps,
        pad_token_id=0,
    )


def vision_config(sizes: VlmConfig) -> SmolVLMVisionConfig:
    """Describe the vision tower to transformers."""
    return SmolVLMVisionConfig(
        hidden_size=sizes.vision_width,
        intermediate_size=sizes.vision_mlp,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=sizes.vision_image_size,
        patch_size=sizes.patch_size,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=sizes.layer_norm_eps,
    )


def connector_config(
    sizes: VlmConfig, text: LlamaConfig, vision: SmolVLMVisionConfig
) -> SmolVLMConfig:
    """Describe the connector between tower and text layers to transformers."""
    return SmolVLMConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        scale_factor=sizes.pixel_shuffle,
    )
