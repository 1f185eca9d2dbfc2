"""Own what action experts read of the frozen model: its hidden states half way to a prediction.

Text layers and expert are run as for a prediction, at keypoints on things or on a grid of points
that covers the picture, but only the first part of the flow: what the layers hold then is the
feature, not the trace. The noise is drawn from a seed, so the same picture and points always give
the same features; several draws are averaged.
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
from mu0_core.errors import ShapeError
from mu0_core.traces import PointsFrom
from mu0_world_model.checkpoint import WEIGHTS
from mu0_world_model.model import Mu0, Points, Prefix, Scene, moved
from mu0_world_model.processor import Processor, to_model_units

_SMALLEST_DEPTH_M = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """Choose which features are computed; the grid's numbers count for the grid alone."""

    points: PointsFrom = option(PointsFrom.GRID, description="Where trace features are of")
    max_points: int = option(
        32, description="Keypoints at most; of more, some evenly chosen ones", low=1
    )
    grid: int = option(20, description="Points on each side of the grid over the picture", low=1)
    pool: int = option(2, description="Points on each side that are averaged into one", low=1)
    draws: int = option(1, description="Draws of noise that are averaged", low=1)
    seed: int = option(0, description="Of the noise", low=0)
    n_steps: int = option(4, description="Euler steps that the whole flow is divided into", low=1)
    executed: int = option(1, description="Of these, the ones that are evaluated", low=1)

    def __post_init__(self) -> None:
        faults = []
        on_grid = self.points is PointsFrom.GRID
        if on_grid and self.pool and self.grid % self.pool:
            faults.append(f"pool: expected a divisor of grid = {self.grid}, got {self.pool}")
        if self.executed > self.n_steps:
            faults.append(
                f"executed: expected at most n_steps = {self.n_steps}, got {self.executed}"
            )
        validate(self, *faults)

    def __str__(self) -> str:
        """Return a short text that differs wherever features differ."""
        where = f"grid {self.grid}/{self.pool}"
        if self.points is PointsFrom.KEYPOINTS:
            where = f"keypoints {self.max_points}"
        return (
            f"{where}, draws {self.draws}, seed {self.seed}, steps {self.executed}/{self.n_steps}"
        )


SERVED = FeatureConfig(points=PointsFrom.KEYPOINTS, grid=8, pool=1, draws=2)
"""What the node publishes unless told otherwise, and what action experts are trained on."""
SERVED_GRID = FeatureConfig(grid=8, pool=1, draws=2)
"""The same on a grid, where there is no tracker."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Hold the features of B pictures.

    Attributes:
        context: (B, L, V) output of the last text layer before its norm, images then text.
        context_valid: (B, L) bool.
        traces: (B, K, E) hidden states of keypoints; or of the grid's points, pooled, row by row.
        places: (B, K, 3) u and v in [-1, 1] of where they are, and depth in m, 0 = unknown; the
            grid's have none.
        language: (B, T, V) embeddings of the text tokens, not scaled.
        language_valid: (B, T) bool.
    """

    context: Tensor
    context_valid: Tensor
    traces: Tensor
    places: Tensor
    language: Tensor
    language_valid: Tensor


def features(
    model: Mu0,
    scene: Scene,
    config: FeatureConfig,
    *,
    noise: Tensor,
    anchor_z: Tensor | None = None,
    keypoints: Tensor | None = None,
    prefix: Prefix | None = None,
) -> Features:
    """Compute features, on the grid unless there are keypoints.

    Args:
        model: The frozen model.
        scene: B scenes.
        config: Which features.
        noise: (B or 1, draws, n, D, 3) state at flow time 1 of the points, grid * grid or K.
        anchor_z: (B, grid * grid) depth at the grid's points, m, 0 = unknown; None: all unknown.
        keypoints: (B, K, 3) u and v in [-1, 1], depth in m with 0 = unknown.
        prefix: Of these scenes with its hidden states, if it is known already.
    """
    with torch.no_grad():
        if prefix is None or prefix.hidden is None:
            prefix = model.encode(scene, hidden=True)
        assert prefix.hidden is not None
        tokens = scene.token_valid.any(0)
        if keypoints is None:
            traces, places = _on_grid(model, prefix, config, noise, anchor_z)
        else:
            traces, places = _hidden(model, prefix, config, noise, keypoints), keypoints
        return Features(
            context=prefix.hidden,
            context_valid=prefix.valid,
            traces=traces,
            places=places,
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
        on_grid = config.points is PointsFrom.GRID
        n = len(self._uv) if on_grid else config.max_points
        shape = (1, config.draws, n, model.config.trace_bspline_n_ctrl, 3)
        generator = torch.Generator().manual_seed(config.seed)
        self._noise = torch.randn(shape, generator=generator).to(self.device)

    def __call__(
        self,
        rgb: NDArray[np.uint8],
        instruction: str,
        depth: NDArray[np.floating] | None = None,
        keypoints: NDArray[np.floating] | None = None,
        *,
        prefix: Prefix | None = None,
    ) -> Mapping[str, NDArray[np.float16]]:
        """Compute the features of one picture.

        Args:
            rgb: (H, W, 3) uint8.
            instruction: What is to be done.
            depth: (H, W) m aligned with the picture, NaN or 0 = none; ignored without a depth
                path.
            keypoints: (n, 3) px, px, m with NaN or 0 = unknown, needed unless the points are a
                grid's; those outside the picture are left out.
            prefix: Of this input with its hidden states, if it is known already.

        Returns:
            By name: context (L, V), traces (K, E), places (K, 3) and language (T, V), without
            padding. K may be 0 with keypoints.

        Raises:
            ShapeError: Keypoints are needed and were not given.
        """
        depth = depth if self.model.config.use_depth else None
        scene = moved(self.processor.scene(rgb, instruction, depth), self.device)
        noise, anchor_z, points = self._noise, None, None
        if self.config.points is PointsFrom.KEYPOINTS:
            points = self._chosen(keypoints, rgb.shape[1], rgb.shape[0])
            noise = noise[:, :, : points.shape[1]]
        elif depth is not None:
            anchor_z = self._depth_at_grid(depth)
        found = features(
            self.model,
            scene,
            self.config,
            noise=noise,
            anchor_z=anchor_z,
            keypoints=points,
            prefix=prefix,
        )
        return {
            name: value[0].to(torch.float16).cpu().numpy()
            for name, value in (
                ("context", found.context),
                ("traces", found.traces),
                ("places", found.places),
                ("language", found.language),
            )
        }

    def origin(self, *, depth: bool) -> str:
        """Return what tells features from others, by checkpoint, settings and depth picture."""
        if not self.model.config.use_depth:
            return self.identity
        return f"{self.identity}, {'with' if depth else 'without'} depth"

    def _chosen(self, keypoints: NDArray[np.floating] | None, width: int, height: int) -> Tensor:
        """Return the keypoints that are used, at most as many as configured: (1, K, 3)."""
        if keypoints is None or keypoints.ndim != 2 or keypoints.shape[1] != 3:
            got = None if keypoints is None else keypoints.shape
            raise ShapeError(f"features: expected keypoints (n, 3) px, px, m, got {got}")
        uvz = to_model_units(np.asarray(keypoints, np.float64), width, height)
        with np.errstate(invalid="ignore"):
            uvz = uvz[(np.abs(uvz[:, :2]) <= 1.0).all(axis=1)]
        if len(uvz) > self.config.max_points:  # the first ones may all be on the robot
            rows = np.linspace(0.0, len(uvz) - 1.0, self.config.max_points)
            uvz = uvz[np.rint(rows).astype(np.int64)]
        uvz[:, 2] = _known_depth(uvz[:, 2])
        return torch.from_numpy(uvz.astype(np.float32))[None].to(self.device)

    def _depth_at_grid(self, depth: NDArray[np.floating]) -> Tensor:
        height, width = depth.shape
        scale = np.array([width, height]) / 2.0
        pixels = (self._uv.numpy() + 1.0) * scale
        u, v = np.clip(np.rint(pixels), 0, (width - 1, height - 1)).astype(np.int64).T
        z = _known_depth(np.asarray(depth[v, u], np.float32))
        return torch.from_numpy(z)[None].to(self.device)


def _known_depth(z: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return depths with 0 for those that are unknown."""
    z = np.nan_to_num(z, nan=0.0, posinf=0.0)
    z[z < _SMALLEST_DEPTH_M] = 0.0
    return z


def checkpoint_identity(folder: Path) -> str:
    """Return a text that differs between checkpoints: the folder's name, a digest of weights."""
    digest = hashlib.blake2b(digest_size=6)
    for name in ("config.json", WEIGHTS):
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return f"{folder.resolve().name} {digest.hexdigest()}"


def _on_grid(
    model: Mu0, prefix: Prefix, config: FeatureConfig, noise: Tensor, anchor_z: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the grid's hidden states, pooled, and the places of what remains."""
    batch, side = len(prefix.valid), config.grid
    uv = grid_uv(side).to(noise.device).expand(batch, -1, -1)
    z = torch.zeros(uv.shape[:2], device=noise.device) if anchor_z is None else anchor_z
    hidden = _hidden(model, prefix, config, noise, torch.cat([uv, z[..., None]], dim=-1))
    places = functional.pad(_pooled(uv, config), (0, 1))
    return _pooled(hidden, config), places


def _pooled(rows: Tensor, config: FeatureConfig) -> Tensor:
    """Average the rows (B, grid * grid, E) of neighbouring points."""
    maps = rows.transpose(1, 2).unflatten(2, (config.grid, config.grid))
    return functional.avg_pool2d(maps, config.pool).flatten(2).transpose(1, 2)


def _hidden(
    model: Mu0, prefix: Prefix, config: FeatureConfig, noise: Tensor, anchor: Tensor
) -> Tensor:
    """Run the first part of the flow at points (B, n, 3); return its last hidden states."""
    batch, n = anchor.shape[:2]
    if not n:
        return noise.new_zeros(batch, 0, model.config.expert_width)
    valid = torch.ones((batch, n), dtype=torch.bool, device=noise.device)
    queries = model.query(prefix, Points(anchor=anchor, valid=valid))
    control = noise.expand(batch, -1, -1, -1, -1)
    times = 1.0 - torch.arange(config.executed, device=noise.device) / config.n_steps
    modulations = model.conditioning(times)[:, None]
    for modulation in modulations[:-1]:
        velocity, _ = model.velocity(control, modulation, prefix, queries)
        control = control - velocity.to(control.dtype) / config.n_steps
    return model.hidden(control, modulations[-1], prefix, queries).mean(1)  # (B, n, E)
