"""Own the primitives that both streams share: rotation, heads, masked attention, RMS norm."""

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.llama.modeling_llama import LlamaRMSNorm

# Both streams rotate with this base; the backbone's own, larger one is not used.
_ROPE_BASE = 10_000.0


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """Turn (B, T, heads * head_dim) into (B, heads, T, head_dim)."""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Turn (B, heads, T, head_dim) into (B, T, heads * head_dim)."""
    return x.transpose(1, 2).flatten(2)


def rotation(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Compute the rotary embedding of positions (B, T).

    Returns:
        Cosine and sine, float32 (B, 1, T, head_dim), of position / 10000^(2i / head_dim) with the
        half-split layout of Llama.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions.float()[:, None, :, None] / _ROPE_BASE ** (exponents / head_dim)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate heads (B, heads, T, head_dim) in at least float32, and keep their dtype."""
    cos, sin = cos_sin
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


def rms_norm(norm: LlamaRMSNorm, x: Tensor) -> Tensor:
    """Apply an RMS norm with the one fused kernel."""
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def attend(q: Tensor, k: Tensor, v: Tensor, key_valid: Tensor | None = None) -> Tensor:
    """Attend from every query to the valid keys.

    Args:
        q: (B, heads, T, head_dim).
        k: (B, kv_heads, S, head_dim); kv_heads divides heads.
        v: As k.
        key_valid: (B, S) bool, None = all are valid. Each row must have a valid key.

    Returns:
        (B, heads, T, head_dim).
    """
    mask = None if key_valid is None else key_valid[:, None, None, :]
    grouped = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)


def join_masks(
    parts: list[tuple[Tensor | None, int]], batch: int, device: torch.device
) -> Tensor | None:
    """Concatenate key masks along the keys.

    Args:
        parts: Masks (B, length) with their lengths, in the order of the keys; None = all valid.
        batch: B, for the parts that have no mask.
        device: Device of the masks.

    Returns:
        (B, sum of lengths) bool, or None if every part is None.
    """
    if all(mask is None for mask, _ in parts):
        return None
    full = [
        torch.ones(batch, length, dtype=torch.bool, device=device) if mask is None else mask
        for mask, length in parts
    ]
    return torch.cat(full, dim=1)
