"""Own what action experts read of the frozen model: its hidden states half way to a prediction.

Text layers and expert are run as for a prediction, on a grid of points that covers the picture,
but only the first part of the flow: what the layers hold then is the feature, not the trace. The
noise is drawn from a seed, so the same picture always gives the same features; several draws are
averaged.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mu0_core.config import option, validate
from mu0_world_model.checkpoint import WEIGHTS
from mu0_world_model.model import Mu0, Points, Prefix, Scene, moved
from mu0_world_model.processor import Processor

_SMALLEST_DEPTH_M = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """Choose which features are computed."""

    grid: int = option(20, description="Points on each side of the grid over the picture", low=1)
    pool: int = option(2, description="Points on each side that are averaged into one", low=1)
    draws: int = option(1, description="Draws of noise that are averaged", low=1)
    seed: int = option(0, description="Of the noise", low=0)
    n_steps: int = option(4, description="Euler steps that the whole flow is divided into", low=1)
    executed: int = option(1, description="Of these, the ones that are evaluated", low=1)

    def __post_init__(self) -> None:
        faults = []
        if self.pool and self.grid % self.pool:
            faults.append(f"pool: expected a divisor of grid = {self.grid}, got {self.pool}")
        if self.executed > self.n_steps:
            faults.append(
                f"executed: expected at most n_steps = {self.n_steps}, got {self.executed}"
            )
        validate(self, *faults)

    def __str__(self) -> str:
        """Return a short text that differs wherever features differ."""
        return (
            f"grid {self.grid}/{self.pool}, draws {self.draws}, seed {self.seed}, "
            f"steps {self.executed}/{self.n_steps}"
        )


SERVED = FeatureConfig(grid=8, pool=1, draws=2)
"""What the node publishes unless told otherwise, and what action experts are trained on."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Hold the features of B pictures.

    Attributes:
        context: (B, L, V) output of the last text layer before its norm, images then text.
        context_valid: (B, L) bool.
        traces: (B, K, E) pooled hidden states of the grid's points, row by row.
        language: (B, T, V) embeddings of the text tokens, not scaled.
        language_valid: (B, T) bool.
    """

    context: Tensor
    context_valid: Tensor
    traces: Tensor
    language: Tensor
    language_valid: Tensor


def features(
    model: Mu0,
    scene: Scene,
    config: FeatureConfig,
    *,
    noise: Tensor,
    anchor_z: Tensor | None = None,
    prefix: Prefix | None = None,
) -> Features:
    """Compute features.

    Args:
        model: The frozen model.
        scene: B scenes.
        config: Which features.
        noise: (B or 1, draws, grid * grid, D, 3) state at flow time 1.
        anchor_z: (B, grid * grid) depth at the grid's points, m, 0 = unknown; None: all unknown.
        prefix: Of these scenes with its hidden states, if it is known already.
    """
    with torch.no_grad():
        if prefix is None or prefix.hidden is None:
            prefix = model.encode(scene, hidden=True)
        assert prefix.hidden is not None
        tokens = scene.token_valid.any(0)
        return Features(
            context=prefix.hidden,
            context_valid=prefix.valid,
            traces=_trace_features(model, prefix, config, noise, anchor_z),
            language=model.vlm.embed_text(scene.tokens[:, tokens]),
            language_valid=scene.token_valid[:, tokens],
        )


def grid_uv(side: int) -> Tensor:
    """Return the grid over the picture: (side * side, 2) u and v in [-1, 1], u changing first."""
    line = torch.linspace(-1.0, 1.0, side)
    v, u = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([u, v], dim=-1).flatten(0, 1)


class FeatureExtractor:
    """Turn pictures into features with one checkpoint, always the same for the same picture."""

    def __init__(
        self,
        model: Mu0,
        processor: Processor,
        config: FeatureConfig,
        *,
        identity: str,
        device: torch.device | str = "cpu",
    ) -> None:
        """Hold a model.

        Args:
            model: The model; moved to the device, put in evaluation mode.
            processor: Its units.
            config: Which features.
            identity: What tells these features from those of other checkpoints.
            device: Where it runs.
        """
        self.model = model.to(device).eval()
        self.processor = processor
        self.config = config
        self.identity = f"{identity}, {config}"
        self.device = torch.device(device)
        self._uv = grid_uv(config.grid)
        shape = (1, config.draws, len(self._uv), model.config.trace_bspline_n_ctrl, 3)
        generator = torch.Generator().manual_seed(config.seed)
        self._noise = torch.randn(shape, generator=generator).to(self.device)

    def __call__(
        self,
        rgb: NDArray[np.uint8],
        instruction: str,
        depth: NDArray[np.floating] | None = None,
        *,
        prefix: Prefix | None = None,
    ) -> Mapping[str, NDArray[np.float16]]:
        """Compute the features of one picture.

        Args:
            rgb: (H, W, 3) uint8.
            instruction: What is to be done.
            depth: (H, W) m aligned with the picture, NaN or 0 = none; ignored without a depth
                path.
            prefix: Of this input with its hidden states, if it is known already.

        Returns:
            By name: context (L, V), traces (K, E) and language (T, V), without padding.
        """
        depth = depth if self.model.config.use_depth else None
        scene = moved(self.processor.scene(rgb, instruction, depth), self.device)
        anchor_z = None if depth is None else self._depth_at_grid(depth)
        found = features(
            self.model, scene, self.config, noise=self._noise, anchor_z=anchor_z, prefix=prefix
        )
        return {
            name: value[0].to(torch.float16).cpu().numpy()
            for name, value in (
                ("context", found.context),
                ("traces", found.traces),
                ("language", found.language),
            )
        }

    def origin(self, *, depth: bool) -> str:
        """Return what tells features from others, by checkpoint, settings and depth picture."""
        if not self.model.config.use_depth:
            return self.identity
        return f"{self.identity}, {'with' if depth else 'without'} depth"

    def _depth_at_grid(self, depth: NDArray[np.floating]) -> Tensor:
        height, width = depth.shape
        scale = np.array([width, height]) / 2.0
        pixels = (self._uv.numpy() + 1.0) * scale
        u, v = np.clip(np.rint(pixels), 0, (width - 1, height - 1)).astype(np.int64).T
        z = np.nan_to_num(np.asarray(depth[v, u], np.float32), nan=0.0, posinf=0.0)
        z[z < _SMALLEST_DEPTH_M] = 0.0
        return torch.from_numpy(z)[None].to(self.device)


def checkpoint_identity(folder: Path) -> str:
    """Return a text that differs between checkpoints: the folder's name, a digest of weights."""
    digest = hashlib.blake2b(digest_size=6)
    for name in ("config.json", WEIGHTS):
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return f"{folder.resolve().name} {digest.hexdigest()}"


def _trace_features(
    model: Mu0, prefix: Prefix, config: FeatureConfig, noise: Tensor, anchor_z: Tensor | None
) -> Tensor:
    """Run the first part of the flow on the grid; return its last hidden states, pooled."""
    batch, side = len(prefix.valid), config.grid
    uv = grid_uv(side).to(noise.device).expand(batch, -1, -1)
    z = torch.zeros(uv.shape[:2], device=noise.device) if anchor_z is None else anchor_z
    anchor = torch.cat([uv, z[..., None]], dim=-1)
    valid = torch.ones(uv.shape[:2], dtype=torch.bool, device=noise.device)
    queries = model.query(prefix, Points(anchor=anchor, valid=valid))
    control = noise.expand(batch, -1, -1, -1, -1)
    times = 1.0 - torch.arange(config.executed, device=noise.device) / config.n_steps
    modulations = model.conditioning(times)[:, None]
    for modulation in modulations[:-1]:
        velocity, _ = model.velocity(control, modulation, prefix, queries)
        control = control - velocity.to(control.dtype) / config.n_steps
    hidden = model.hidden(control, modulations[-1], prefix, queries).mean(1)  # (B, n, E)
    maps = hidden.transpose(1, 2).unflatten(2, (side, side))
    return functional.avg_pool2d(maps, config.pool).flatten(2).transpose(1, 2)
