"""Own the decoder: a Gemma-type stack whose norms are steered by flow time.

The context never attends to the actions, so it is run first and leaves keys and values behind;
the actions attend to those and to each other.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GemmaConfig
from transformers.models.gemma.modeling_gemma import (
    GemmaAttention,
    GemmaDecoderLayer,
    apply_rotary_pos_emb,
)

from mu0_policy.action_expert.config import DecoderConfig

_ROPE_BASE = 10_000.0
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class ContextMemory:
    """Hold what actions read of a context of L tokens.

    Attributes:
        keys: Per layer (B, kv_heads, L, head_dim), rotated.
        values: Likewise, not rotated.
        valid: (B, L) bool.
    """

    keys: list[Tensor]
    values: list[Tensor]
    valid: Tensor

    def repeated(self, times: int) -> "ContextMemory":
        """Return this for a batch in which every context stands `times` times in a row."""
        keys, values = (
            [part.repeat_interleave(times, dim=0) for part in parts]
            for parts in (self.keys, self.values)
        )
        return ContextMemory(keys, values, self.valid.repeat_interleave(times, dim=0))


class AdaptiveNorm(nn.Module):
    """Normalise tokens, and scale, shift and gate them by a condition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.dense.weight)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised tokens and their gate.

        Args:
            x: (B, T, width).
            condition: (B, T or 1, width).
        """
        scale, shift, gate = self.dense(condition).float().chunk(3, dim=-1)
        normed = functional.rms_norm(x.float(), x.shape[-1:], eps=_EPSILON)
        return (normed * (1.0 + scale) + shift).to(x.dtype), gate.to(x.dtype)


class GemmaStack(nn.Module):
    """Run context, then actions, through the layers."""

    def __init__(self, sizes: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = sizes.head_dim
        config = GemmaConfig(
            hidden_size=sizes.width,
            intermediate_size=sizes.mlp,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.kv_heads,
            head_dim=sizes.head_dim,
            hidden_act="gelu_pytorch_tanh",
            vocab_size=1,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
        )
        layers = [GemmaDecoderLayer(config, i) for i in range(sizes.layers)]
        for layer in layers:
            for norm in ("input_layernorm", "post_attention_layernorm"):
                layer.register_module(norm, AdaptiveNorm(sizes.width))
        self.layers = nn.ModuleList(layers)
        self.norm = AdaptiveNorm(sizes.width)

    def remember(self, tokens: Tensor, valid: Tensor, condition: Tensor) -> ContextMemory:
        """Read a context.

        Args:
            tokens: (B, L, width).
            valid: (B, L) bool; the rest is attended by nothing and takes no position.
            condition: (B, 1, width).
        """
        positions = (valid.cumsum(1) - 1).clamp(min=0)
        mask = valid[:, None, None, :]
        keys, values, x = [], [], tokens
        for layer in self._blocks:
            x, k, v = self._layer(layer, x, condition, positions, [], mask)
            keys.append(k)
            values.append(v)
        return ContextMemory(keys, values, valid)

    def forward(self, tokens: Tensor, condition: Tensor, memory: ContextMemory) -> Tensor:
        """Run action tokens (B, T, width) under conditions (B, T or 1, width): (B, T, width)."""
        batch, length, _ = tokens.shape
        steps = torch.arange(length, device=tokens.device)
        positions = memory.valid.sum(1, keepdim=True) + steps
        all_valid = memory.valid.new_ones(batch, length)
        mask = torch.cat([memory.valid, all_valid], dim=1)[:, None, None, :]
        x = tokens
        for layer, k, v in zip(self._blocks, memory.keys, memory.values, strict=True):
            x, _, _ = self._layer(layer, x, condition, positions, [(k, v)], mask)
        return self.norm(x, condition)[0]

    @property
    def _blocks(self) -> list[GemmaDecoderLayer]:
        return cast(list[GemmaDecoderLayer], list(self.layers))

    def _layer(
        self,
        layer: GemmaDecoderLayer,
        x: Tensor,
        condition: Tensor,
        positions: Tensor,
        before: list[tuple[Tensor, Tensor]],
        mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one layer; return its output, and its own keys and values."""
        attention: GemmaAttention = layer.self_attn
        a, gate = cast(AdaptiveNorm, layer.input_layernorm)(x, condition)
        heads = [
            projection(a).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        ]
        q, k = apply_rotary_pos_emb(*heads[:2], *_rotation(positions, self.head_dim, x.dtype))
        v = heads[2]
        keys = torch.cat([*(pair[0] for pair in before), k], dim=2)
        values = torch.cat([*(pair[1] for pair in before), v], dim=2)
        attended = functional.scaled_dot_product_attention(
            q, keys, values, attn_mask=mask, enable_gqa=True
        )
        x = x + gate * attention.o_proj(attended.transpose(1, 2).flatten(2))
        b, gate = cast(AdaptiveNorm, layer.post_attention_layernorm)(x, condition)
        return x + gate * layer.mlp(b), k, v


def _rotation(positions: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Compute cosine and sine (B, T, head_dim) of the rotation at positions (B, T)."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim
    angles = positions.float()[..., None] / _ROPE_BASE**exponents
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)
