"""Own the whole model: a prefix per scene, queries per set of keypoints, samples of both.

One class serves every size. The three stages are separate, so that whoever holds a prefix can ask
it again: `encode` reads images and text once, `query` prepares keypoints, `velocity` and `sample`
integrate the flow. Flow time 1 is noise and 0 is data.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from mu0_core.bspline import render_matrix
from mu0_core.errors import ShapeError
from mu0_world_model.attention import rms_norm
from mu0_world_model.config import Mu0Config
from mu0_world_model.expert import Expert, Memory, SuffixLayout
from mu0_world_model.images import PixelFeatures, prepare, read_at
from mu0_world_model.suffix import Heads, QueryFeatures, SuffixEmbedding, TimeConditioning
from mu0_world_model.vlm import Vlm


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Hold what the model is told about a batch of scenes.

    Attributes:
        image: (B, 3, H, W) float32 RGB in [0, 1].
        tokens: (B, T) int64 text tokens, padded on the right.
        token_valid: (B, T) bool.
        depth: (B, 3, H, W) float32 coloured depth in [0, 1], None = no depth.
        depth_valid: (B,) bool, samples whose depth is used; None = all.
    """

    image: Tensor
    tokens: Tensor
    token_valid: Tensor
    depth: Tensor | None = None
    depth_valid: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Hold the keypoints that are asked about.

    Attributes:
        anchor: (B, n, 3) u and v in [-1, 1], z in m with 0 = unknown; the network reads z only
            with `use_appearance`.
        valid: (B, n) bool, False = padding.
        history: (B, n, h, 3) past minus anchor, oldest first, not scaled; None = none known.
        history_valid: (B, n) bool, keypoints whose history is used; None = all.
    """

    anchor: Tensor
    valid: Tensor
    history: Tensor | None = None
    history_valid: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Hold encoded scenes; the parts that are masked in every sample are left out.

    Attributes:
        memory: What the expert reads.
        embeddings: (B, L, V) what went into the text layers.
        valid: (B, L) bool.
        pixel_features: (B, C, P, P) DINOv2 maps; None without.
        image: (B, 3, side, side) that keypoints read their colour from; None where they do not.
        hidden: (B, L, V) output of the last text layer before its norm; None unless asked for.
    """

    memory: Memory
    embeddings: Tensor
    valid: Tensor
    pixel_features: Tensor | None
    image: Tensor | None
    hidden: Tensor | None = None

    def repeated(self, times: int) -> "Prefix":
        """Return this prefix for a batch in which every scene stands `times` times in a row."""
        maps = [
            None if x is None else x.repeat_interleave(times, dim=0)
            for x in (self.pixel_features, self.image)
        ]
        return Prefix(
            self.memory.repeated(times),
            self.embeddings,
            self.valid.repeat_interleave(times, dim=0),
            *maps,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """Hold embedded keypoints.

    Attributes:
        features: What all tokens of a keypoint share.
        history: (B, history groups, n, E) tokens; None where all history is hidden.
        history_valid: (B, n) bool, None = all.
        valid: (B, n) bool, None = all.
        places: (B, n, 3) anchors, depth 0 where unknown.
    """

    features: QueryFeatures
    history: Tensor | None
    history_valid: Tensor | None
    valid: Tensor | None
    places: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Hold predictions, s samples each.

    Attributes:
        control: (B, s, n, D, 3) float32 control points, anchor-relative and scaled.
        traces: (B, s, n, H, 3) float32 rendered, likewise.
        valid_prob: (B, s, n, H) float32 probability that a step is still valid; None without it.
    """

    control: Tensor
    traces: Tensor
    valid_prob: Tensor | None


Stage = Callable[[str], AbstractContextManager[None]]
"""Enclose a named part of the work, for example to time it."""


def no_stage(name: str) -> AbstractContextManager[None]:
    """Enclose nothing."""
    return nullcontext()


BatchPart = TypeVar("BatchPart", bound=Any)  # a dataclass of tensors


class Mu0(nn.Module):
    """Predict distributions of 3D traces for any points of an image."""

    render_basis: Tensor

    def __init__(self, config: Mu0Config) -> None:
        super().__init__()
        self.config = config
        self.vlm = Vlm(config)
        self.expert = Expert(config)
        self.suffix = SuffixEmbedding(config)
        self.conditioning = TimeConditioning(config)
        self.heads = Heads(config)
        self.dino = PixelFeatures(config) if config.dino is not None else None
        basis = render_matrix(config.future_len, config.trace_bspline_n_ctrl)
        rows = torch.tensor(basis, device="cpu").float()
        self.register_buffer("render_basis", rows, persistent=False)
        self._freeze()

    @classmethod
    def from_pretrained(cls, name: str | Path, *, dtype: torch.dtype | None = None) -> "Mu0":
        """Load a checkpoint folder or hub repository, see `checkpoint.load`."""
        from mu0_world_model import checkpoint

        return checkpoint.load(name, dtype=dtype)

    def train(self, mode: bool = True) -> Self:
        """Switch to training; a frozen DINOv2 stays in evaluation mode."""
        super().train(mode)
        if self.dino is not None:
            self.dino.eval()
        return self

    def checkpoint_activations(self, enabled: bool = True) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        self.vlm.gradient_checkpointing = self.expert.gradient_checkpointing = enabled

    def compile_layers(self) -> None:
        """Compile what runs a layer of tower, text and expert, at its first use."""
        self.vlm.compile_layers()
        self.expert.compile_layers()

    def encode(self, scene: Scene, *, hidden: bool = False, stage: Stage = no_stage) -> Prefix:
        """Read images and text, once for all queries about them.

        Args:
            scene: The scenes.
            hidden: Whether the last text layer's output is wanted (action experts read it).
            stage: Encloses image_tower, depth_tower (if there is depth), prefix (text layers and
                what the expert makes of their keys and values) and dino.
        """
        _check_scene(scene)
        width, height = self.config.resize_imgs_with_padding
        with stage("image_tower"):
            image = prepare(scene.image, width, height)
            blocks: list[tuple[Tensor, Tensor | None]] = [(self.vlm.embed_image(image), None)]
        if scene.depth is not None:
            with stage("depth_tower"):
                blocks += self._depth_block(scene)
        with stage("prefix"):
            blocks.append((self.vlm.embed_text(scene.tokens), scene.token_valid))
            valid = torch.cat([_full_mask(block, mask) for block, mask in blocks], dim=1)
            embeddings = torch.cat([block for block, _ in blocks], dim=1)
            embeddings = embeddings * self.vlm.embedding_scale
            used = valid.any(0)
            if not bool(used.all()):
                embeddings, valid = embeddings[:, used], valid[:, used]
            n_layers = self.config.num_vlm_layers if hidden else self.expert.vlm_layers
            passed = self.vlm(embeddings, valid, n_layers=n_layers, hidden=hidden)
            memory = self.expert.remember(passed, valid)
        pixel_features = None
        if self.dino is not None:
            with stage("dino"):
                pixel_features = self.dino(image)
        return Prefix(
            memory=memory,
            embeddings=embeddings,
            valid=valid,
            pixel_features=pixel_features,
            image=image if self.config.use_appearance else None,
            hidden=passed.hidden,
        )

    def query(self, prefix: Prefix, points: Points) -> Queries:
        """Embed keypoints, once for all samples and flow steps."""
        _check_points(points, self.config)
        uv, valid = points.anchor[..., :2], points.valid
        dino, colour = (
            None if maps is None else read_at(maps, uv, valid)
            for maps in (prefix.pixel_features, prefix.image)
        )
        features = self.suffix.queries(points.anchor, valid, dino=dino, colour=colour)
        places = torch.cat([uv, points.anchor[..., 2:].clamp(min=0.0)], dim=-1)
        mask = _unless_all(valid)
        shown = points.history_valid
        if points.history is None or (shown is not None and not bool((shown & valid).any())):
            return Queries(features, None, None, mask, places)
        shown = valid if shown is None else shown & valid
        history = self.suffix.history(points.history, features)
        return Queries(features, history, _unless_all(shown), mask, places)

    def velocity(
        self, control: Tensor, modulation: Tensor, prefix: Prefix, queries: Queries
    ) -> tuple[Tensor, Tensor | None]:
        """Evaluate the flow.

        Args:
            control: (B, s, n, D, 3) noisy control points.
            modulation: (B or 1, layers, 6, E) of the flow time, shared by the samples of a scene.
            prefix: The scenes.
            queries: The keypoints.

        Returns:
            Velocity (B, s, n, D, 3), noise minus data, and validity logits (B, s, n, H) or None.
        """
        n = control.shape[2]
        groups = self.config.control_groups
        tokens = self._refine(control, modulation, prefix, queries)
        return self.heads(rms_norm(self.expert.norm, tokens).unflatten(1, (-1, groups, n)))

    def hidden(
        self, control: Tensor, modulation: Tensor, prefix: Prefix, queries: Queries
    ) -> Tensor:
        """Return what the expert makes of each keypoint's last token, before its final norm.

        Args:
            control: As for `velocity`, like all that follow.
            modulation: Of the flow time.
            prefix: The scenes.
            queries: The keypoints.

        Returns:
            (B, s, n, E), what action experts read.
        """
        samples, n = control.shape[1], control.shape[2]
        tokens = self._refine(control, modulation, prefix, queries)
        return tokens.unflatten(1, (samples, -1, n))[:, :, -1]

    def _refine(
        self, control: Tensor, modulation: Tensor, prefix: Prefix, queries: Queries
    ) -> Tensor:
        """Run the expert: (B, s * control groups * n, E) before the final norm."""
        samples, n = control.shape[1], control.shape[2]
        tokens = self.suffix.control(control, queries.features).flatten(1, 3)  # (B, s g n, E)
        n_history = 0 if queries.history is None else queries.history.shape[1]
        if queries.history is not None:
            tokens = torch.cat([queries.history.flatten(1, 2), tokens], dim=1)
        layout = SuffixLayout(
            n_keypoints=n,
            history_groups=n_history,
            samples=samples,
            history_valid=_repeat_groups(queries.history_valid, n_history),
            control_valid=_repeat_groups(queries.valid, self.config.control_groups),
            places=queries.places,
            keypoint_valid=queries.valid,
        )
        return self.expert(
            tokens.to(self.expert.norm.weight.dtype), modulation, prefix.memory, layout
        )

    def initial_noise(
        self, points: Points, samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the state at flow time 1: (B, s, n, D, 3) float32, the same on every device."""
        batch, n = points.valid.shape
        shape = (batch, samples, n, self.config.trace_bspline_n_ctrl, 3)
        return torch.randn(shape, generator=generator).to(points.anchor.device)

    @torch.inference_mode()
    def sample(
        self, prefix: Prefix, points: Points, noise: Tensor, *, n_steps: int | None = None
    ) -> Samples:
        """Integrate the flow from noise (B, s, n, D, 3) at time 1 to traces, by Euler steps."""
        n_steps = self.config.num_steps if n_steps is None else n_steps
        if n_steps < 1:
            raise ValueError(f"n_steps: expected at least 1, got {n_steps}")
        queries = self.query(prefix, points)
        times = 1.0 - torch.arange(n_steps, device=noise.device) / n_steps
        control, logits = noise, None
        for modulation in self.conditioning(times):
            velocity, logits = self.velocity(control, modulation[None], prefix, queries)
            control = control - velocity.to(control.dtype) / n_steps
        return Samples(
            control=control,
            traces=self.render_basis @ control,
            valid_prob=None if logits is None else logits.to(control.dtype).sigmoid(),
        )

    def _depth_block(self, scene: Scene) -> list[tuple[Tensor, Tensor | None]]:
        """Encode the depth of the samples that have it; nothing if none has."""
        keep = scene.depth_valid
        if scene.depth is None or (keep is not None and not bool(keep.any())):
            return []
        width, height = self.config.resize_imgs_with_padding
        if keep is None or bool(keep.all()):
            return [(self.vlm.embed_image(prepare(scene.depth, width, height), depth=True), None)]
        some = self.vlm.embed_image(prepare(scene.depth[keep], width, height), depth=True)
        tokens = some.new_zeros((len(keep), *some.shape[1:]))
        tokens[keep] = some
        return [(tokens, keep[:, None].expand(tokens.shape[:2]))]

    def _freeze(self) -> None:
        """Fix the weights that the configuration keeps; depth path and expert always train."""
        fixed: list[nn.Module] = [] if self.dino is None else [self.dino]
        if self.config.freeze_vision_encoder or self.config.train_expert_only:
            fixed.append(self.vlm.tower)
        if self.config.train_expert_only:
            fixed += [self.vlm.connector, self.vlm.embed_tokens, self.vlm.layers]
        for module in fixed:
            module.requires_grad_(False)


def moved(part: BatchPart, device: torch.device) -> BatchPart:
    """Return a batch part with its tensors on a device."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    return type(part)(**{k: None if v is None else v.to(device) for k, v in values.items()})


def _full_mask(block: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mask of a block of tokens (B, t, V), all true where there is none."""
    if mask is not None:
        return mask
    return torch.ones(block.shape[:2], dtype=torch.bool, device=block.device)


def _unless_all(mask: Tensor) -> Tensor | None:
    return None if bool(mask.all()) else mask


def _repeat_groups(mask: Tensor | None, groups: int) -> Tensor | None:
    """Turn a mask of keypoints (B, n) into one of their tokens, group after group."""
    return None if mask is None else mask.repeat(1, groups)


def _check_scene(scene: Scene) -> None:
    """Check shapes at the border of the model."""
    image, depth, tokens = scene.image, scene.depth, scene.tokens
    if image.ndim != 4 or image.shape[1] != 3:
        raise ShapeError(f"image: expected (B, 3, H, W), got {tuple(image.shape)}")
    if depth is not None and (depth.ndim != 4 or depth.shape[:2] != image.shape[:2]):
        raise ShapeError(f"depth: expected ({len(image)}, 3, H, W), got {tuple(depth.shape)}")
    if tokens.ndim != 2 or len(tokens) != len(image) or scene.token_valid.shape != tokens.shape:
        raise ShapeError(
            f"tokens: expected ({len(image)}, T) with a mask of that shape, got "
            f"{tuple(tokens.shape)} with {tuple(scene.token_valid.shape)}"
        )


def _check_points(points: Points, config: Mu0Config) -> None:
    """Check shapes at the border of the model."""
    shape, history = points.valid.shape, points.history
    if points.anchor.shape != (*shape, 3):
        raise ShapeError(f"anchor: expected {(*shape, 3)}, got {tuple(points.anchor.shape)}")
    if history is not None and history.shape != (*shape, config.history_len, 3):
        expected = (*shape, config.history_len, 3)
        raise ShapeError(f"history: expected {expected}, got {tuple(history.shape)}")
