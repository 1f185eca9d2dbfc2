"""Own what goes into the expert and what comes out of it: tokens, flow time, heads.

Keypoints are queries: each has an anchor pixel, optionally its depth and colour, optionally a
DINOv2 feature, a history and control points. Control points of s samples are embedded side by
side; all else is computed once.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mu0_world_model.config import Mu0Config


@dataclass(frozen=True, slots=True, eq=False)
class QueryFeatures:
    """Hold what all tokens of a keypoint share.

    Attributes:
        position: (B, n, E) embedding of the anchor pixel, and of its depth and colour.
        dino: (B, n, E) DINOv2 part of the fusion's first layer, its bias included; None without.
    """

    position: Tensor
    dino: Tensor | None


class SuffixEmbedding(nn.Module):
    """Embed keypoints' history and control points as tokens."""

    def __init__(self, config: Mu0Config) -> None:
        super().__init__()
        width = config.expert_width
        self.history_groups = config.history_groups
        self.control_groups = config.control_groups
        self.n_freqs = config.trace_uv_num_freqs
        self.in_proj_history = nn.Linear(3 * config.trace_group_horizon, width)
        self.in_proj_future = nn.Linear(3 * config.trace_bspline_ctrl_per_token, width)
        # The released table has a row for each step; a row for each group is what is read.
        self.time_embedding = nn.Embedding(config.history_len + config.future_len, width)
        self.seg_embedding = nn.Embedding(2, width)
        self.uv_pos_mlp = nn.Sequential(
            nn.Linear(4 * self.n_freqs, width), nn.SiLU(), nn.Linear(width, width)
        )
        _zero(self.uv_pos_mlp[2])
        self.appearance_mlp = None
        if config.use_appearance:
            self.appearance_mlp = nn.Sequential(
                nn.Linear(2 * self.n_freqs + 4, width), nn.SiLU(), nn.Linear(width, width)
            )
            _zero(self.appearance_mlp[2])
        for table in (self.time_embedding, self.seg_embedding):
            nn.init.normal_(table.weight, std=0.02)
        self.dino_fuse_in = self.dino_fuse_out = None
        if config.dino is not None:
            self.dino_fuse_in = nn.Linear(width + config.dino.width, width)
            self.dino_fuse_out = nn.Linear(width, width)

    def queries(
        self, anchor: Tensor, valid: Tensor, *, dino: Tensor | None, colour: Tensor | None
    ) -> QueryFeatures:
        """Embed anchors.

        Args:
            anchor: (B, n, 3) u and v in [-1, 1], z in m with 0 = unknown.
            valid: (B, n) bool, False = padding.
            dino: (B, n, width of DINOv2), 0 on padding; None without DINOv2.
            colour: (B, n, 3) in [-1, 1]; None where keypoints carry no depth and colour.
        """
        position = self.uv_pos_mlp(fourier(anchor[..., :2], self.n_freqs))
        if self.appearance_mlp is not None:
            assert colour is not None
            z = anchor[..., 2:]
            depth = torch.cat([fourier(z, self.n_freqs), torch.ones_like(z)], dim=-1) * (z > 0)
            position = position + self.appearance_mlp(torch.cat([depth, colour], dim=-1))
        position = position * valid[..., None]
        if self.dino_fuse_in is None or dino is None:
            return QueryFeatures(position, None)
        weight = self.dino_fuse_in.weight[:, position.shape[-1] :]
        return QueryFeatures(position, functional.linear(dino, weight, self.dino_fuse_in.bias))

    def history(self, history: Tensor, queries: QueryFeatures) -> Tensor:
        """Embed histories (B, n, h, 3), oldest first: (B, history groups, n, E)."""
        steps = history.flatten(2).unflatten(2, (self.history_groups, -1))  # (B, n, groups, 3g)
        tokens = self.in_proj_history(steps).transpose(1, 2)
        labels = self.time_embedding.weight[: self.history_groups] + self.seg_embedding.weight[0]
        return self._finish(tokens + labels[:, None], queries)

    def control(self, points: Tensor, queries: QueryFeatures) -> Tensor:
        """Embed control points (B, s, n, D, 3): (B, s, control groups, n, E)."""
        groups = points.flatten(3).unflatten(3, (self.control_groups, -1))  # (B, s, n, groups, 3g)
        tokens = self.in_proj_future(groups).transpose(2, 3)
        rows = slice(self.history_groups, self.history_groups + self.control_groups)
        labels = self.time_embedding.weight[rows] + self.seg_embedding.weight[1]
        return self._finish(tokens + labels[:, None], queries)

    def _finish(self, tokens: Tensor, queries: QueryFeatures) -> Tensor:
        """Add the anchor and fuse the DINOv2 feature, which replaces the token."""
        lead = (slice(None),) + (None,) * (tokens.ndim - queries.position.ndim)
        tokens = tokens + queries.position[lead]
        if self.dino_fuse_in is None or self.dino_fuse_out is None or queries.dino is None:
            return tokens
        weight = self.dino_fuse_in.weight[:, : tokens.shape[-1]]
        return self.dino_fuse_out(
            functional.silu(functional.linear(tokens, weight) + queries.dino[lead])
        )


class TimeConditioning(nn.Module):
    """Turn flow time into the modulation of every expert layer."""

    def __init__(self, config: Mu0Config) -> None:
        super().__init__()
        width = config.expert_width
        self.size = config.trace_adaln_freq_embed_size
        self.periods = (config.min_period, config.max_period)
        self.mlp = nn.Sequential(nn.Linear(self.size, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.ModuleList(
            nn.Linear(width, 6 * width) for _ in range(config.expert_layers)
        )
        for head in self.modulation:
            _zero(head)

    def embed(self, time: Tensor) -> Tensor:
        """Embed flow times (B,) in [0, 1]: (B, E)."""
        features = sinusoid(time, self.size, *self.periods)
        return self.mlp(features.to(next(self.mlp.parameters()).dtype))

    def forward(self, time: Tensor) -> Tensor:
        """Return (B, layers, 6, E): shift, scale, gate of attention, then of the MLP."""
        condition = functional.silu(self.embed(time))
        return torch.stack([head(condition) for head in self.modulation], 1).unflatten(2, (6, -1))


class Heads(nn.Module):
    """Read velocity and validity from the expert's output."""

    def __init__(self, config: Mu0Config) -> None:
        super().__init__()
        width = config.expert_width
        self.velocity = nn.Linear(width, 3 * config.trace_bspline_ctrl_per_token)
        self.done = None
        if config.trace_done_head:
            self.done = nn.Linear(width, config.future_len)
            nn.init.zeros_(self.done.weight)
            nn.init.constant_(self.done.bias, config.done_bias_init)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Read tokens (B, s, control groups, n, E).

        Returns:
            Velocity (B, s, n, D, 3), and logits (B, s, n, H) that a step is still valid (None
            without that head).
        """
        tokens = tokens.to(self.velocity.weight.dtype)
        velocity = self.velocity(tokens).transpose(2, 3).flatten(3).unflatten(3, (-1, 3))
        return velocity, None if self.done is None else self.done(tokens.mean(2))


def fourier(x: Tensor, n_freqs: int) -> Tensor:
    """Return sines and cosines of 2^k pi x of the first of x (..., c), then of the next.

    Returns (..., 2 c n_freqs).
    """
    frequencies = math.pi * 2.0 ** torch.arange(n_freqs, device=x.device, dtype=x.dtype)
    angles = x[..., None] * frequencies  # (..., c, n_freqs)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def sinusoid(time: Tensor, size: int, min_period: float, max_period: float) -> Tensor:
    """Return sines, then cosines of times (B,) at geometrically spaced periods: (B, size).

    Computed in float64 where the device has it.
    """
    dtype = torch.float32 if time.device.type == "mps" else torch.float64
    fraction = torch.linspace(0.0, 1.0, size // 2, device=time.device, dtype=dtype)
    periods = min_period * (max_period / min_period) ** fraction
    angles = time.to(dtype)[:, None] * (2.0 * math.pi / periods)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _zero(linear: nn.Module) -> None:
    """Let a layer start as 0, so that its branch starts as the identity."""
    assert isinstance(linear, nn.Linear)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
