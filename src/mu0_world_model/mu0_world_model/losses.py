"""Own the training objective: flow matching, validity, rigidity, and what training hides.

Each term is a sum and the count it is divided by, so that ranks and accumulated steps can divide
by the counts of the whole batch. The flow term's count is of keypoints, not of elements: it is 3D
times the mean over elements, and the other weights are balanced against that (released behaviour).
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mu0_world_model.config import Mu0Config
from mu0_world_model.model import BatchPart, Mu0, Points, Scene


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Hold what is to be predicted.

    Attributes:
        control: (B, n, D, 3) control points, anchor-relative and scaled.
        control_valid: (B, n) bool, keypoints that count in flow and rigidity.
        future_valid: (B, n, H) bool, what the validity head learns.
        cluster_ids: (B, n) int64 rigid entities, -1 = none.
    """

    control: Tensor
    control_valid: Tensor
    future_valid: Tensor
    cluster_ids: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """Hold a part of the loss as a sum and the count it is divided by, at least 1."""

    total: Tensor
    count: Tensor

    @property
    def mean(self) -> Tensor:
        """The term itself."""
        return self.total / self.count.clamp(min=1)


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """Hold the three terms, and what they were computed from.

    Attributes:
        flow: Squared velocity error, per valid keypoint.
        done: Cross entropy of validity, per step of a real keypoint.
        rigidity: Variance of distances within an entity, per entity.
        squared_error: (B, n, D, 3) squared velocity error of every element.
        counted: (B, n) bool, keypoints that count in `flow`.
        velocity: (B, n, D, 3) as predicted.
        done_logits: (B, n, H), None without that head.
    """

    flow: Term
    done: Term
    rigidity: Term
    squared_error: Tensor
    counted: Tensor
    velocity: Tensor
    done_logits: Tensor | None

    def total(self, config: Mu0Config, counts: Tensor | None = None) -> Tensor:
        """Add the terms with the weights of the configuration.

        Args:
            config: The configuration.
            counts: (3,) what flow, validity and rigidity are divided by, for example those of all
                processes; None: their own.
        """
        terms = [self.flow, self.done, self.rigidity]
        weights = (1.0, config.done_loss_weight, config.rigidity_loss_weight)
        if counts is not None:
            terms = [Term(t.total, count) for t, count in zip(terms, counts, strict=True)]
        return torch.stack([w * t.mean for w, t in zip(weights, terms, strict=True)]).sum()

    def flow_per_axis(self) -> Tensor:
        """Split the flow term into u, v, z: (3,)."""
        sums = (self.squared_error * self.counted[..., None, None]).sum((0, 1, 2))
        return sums / self.flow.count.clamp(min=1)

    def flow_per_sample(self) -> Tensor:
        """Return the flow term of every sample by itself: (B,)."""
        sums = (self.squared_error * self.counted[..., None, None]).sum((1, 2, 3))
        return sums / self.counted.sum(1).clamp(min=1)


@dataclass(frozen=True, slots=True, eq=False)
class HidingDraws:
    """Hold uniform numbers in [0, 1) that decide what training hides.

    Attributes:
        depth: (B,) below the probability: the sample's depth.
        history: (B,) likewise: the sample's history.
        point_history: (B, n) likewise: a keypoint's history.
    """

    depth: Tensor
    history: Tensor
    point_history: Tensor


def hide(
    config: Mu0Config, scene: Scene, points: Points, draws: HidingDraws
) -> tuple[Scene, Points]:
    """Hide depth and history at random, as for training."""
    if scene.depth is not None:
        kept = (draws.depth >= config.depth_dropout_prob).to(scene.depth.device)
        known = scene.depth_valid
        scene = replace(scene, depth_valid=kept if known is None else known & kept)
        if config.use_appearance:
            shown = points.anchor.new_tensor((1.0, 1.0, 0.0))
            anchor = torch.where(kept[:, None, None], points.anchor, points.anchor * shown)
            points = replace(points, anchor=anchor)
    if points.history is not None:
        kept = draws.history[:, None] >= config.trace_history_full_mask_prob
        kept = kept & (draws.point_history >= config.trace_history_kp_dropout_prob)
        kept = kept.to(points.history.device)
        known = points.history_valid
        points = replace(points, history_valid=kept if known is None else known & kept)
    return scene, points


def flow_time(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn uniform numbers in [0, 1) into flow times 0.999 b + 0.001 with b ~ Beta(1.5, 1)."""
    # The distribution function of Beta(a, 1) is x^a, so a uniform number to the power 1/a has it.
    return np.float32(0.999) * uniform ** np.float32(1.0 / 1.5) + np.float32(0.001)


def flow_losses(
    model: Mu0, scene: Scene, points: Points, targets: Targets, *, noise: Tensor, time: Tensor
) -> Losses:
    """Evaluate the objective.

    The prefix is encoded once for all draws of noise and time of a scene.

    Args:
        model: The model.
        scene: B scenes.
        points: Their keypoints.
        targets: What is to be predicted.
        noise: (B, r, n, D, 3) standard normal, r draws for each scene.
        time: (B, r) flow times in (0, 1].
    """
    repeats = noise.shape[1]
    prefix = model.encode(scene)
    if repeats > 1:
        prefix = prefix.repeated(repeats)
        points, targets = _repeated(points, repeats), _repeated(targets, repeats)
    noise, time = noise.flatten(0, 1), time.flatten()
    tau = time[:, None, None, None]
    noisy = tau * noise + (1.0 - tau) * targets.control
    queries = model.query(prefix, points)
    modulation = model.conditioning(time)
    velocity, logits = model.velocity(noisy[:, None], modulation, prefix, queries)
    velocity = velocity[:, 0].float()

    counted = targets.control_valid & points.valid
    squared = (velocity - (noise - targets.control)) ** 2
    clean = noisy - tau * velocity
    return Losses(
        flow=Term((squared * counted[..., None, None]).sum(), counted.sum()),
        done=_done_term(logits, targets.future_valid, points.valid),
        rigidity=_rigidity_term(model.config, clean, targets.cluster_ids, counted),
        squared_error=squared.detach(),
        counted=counted,
        velocity=velocity,
        done_logits=None if logits is None else logits[:, 0],
    )


def rigidity(clean: Tensor, cluster_ids: Tensor, counted: Tensor) -> Term:
    """Measure how much distances between points of one entity change along their traces.

    Distances are between anchor-relative scaled points, as released; so a turning rigid body is
    not free of cost.

    Args:
        clean: (B, n, D, 3) control points.
        cluster_ids: (B, n) int64, -1 = none.
        counted: (B, n) bool.

    Returns:
        Sum over entities with two or more points of the mean over pairs of the variance over D.
    """
    ids = torch.where(counted, cluster_ids, -1)
    same = (ids[:, :, None] == ids[:, None, :]) & (ids >= 0)[:, :, None]  # (B, n, n)
    size = same.sum(2)
    distance = torch.linalg.vector_norm(clean[:, :, None] - clean[:, None], dim=-1)
    variance = distance.var(dim=-1, correction=0)
    pairs = (size * (size - 1)).clamp(min=1)  # each pair stands in the matrix twice
    upper = same.triu(diagonal=1)
    total = (variance * upper * (2.0 / pairs)[:, :, None]).sum()
    return Term(total, _entities(size))


def loss_counts(config: Mu0Config, points: Points, targets: Targets, repeats: int) -> Tensor:
    """Return what flow, validity and rigidity of a batch are divided by: (3,) float64."""
    counted = targets.control_valid & points.valid
    ids = torch.where(counted, targets.cluster_ids, -1)
    same = (ids[:, :, None] == ids[:, None, :]) & (ids >= 0)[:, :, None]
    counts = [counted.sum(), points.valid.sum() * config.future_len, _entities(same.sum(2))]
    return torch.stack([count.double() for count in counts]) * repeats


def _entities(size: Tensor) -> Tensor:
    """Count entities of two or more points, from the size (B, n) of each point's entity."""
    return torch.where(size >= 2, 1.0 / size.clamp(min=1), 0.0).sum().round()


def _rigidity_term(config: Mu0Config, clean: Tensor, cluster_ids: Tensor, counted: Tensor) -> Term:
    """Skip the pairwise work where its weight is 0."""
    if config.rigidity_loss_weight == 0.0:
        return Term(clean.new_zeros(()), clean.new_zeros(()))
    return rigidity(clean, cluster_ids, counted)


def _done_term(logits: Tensor | None, future_valid: Tensor, valid: Tensor) -> Term:
    """Compare validity logits (B, 1, n, H) with the truth over real keypoints."""
    horizon = future_valid.shape[-1]
    if logits is None:
        zero = torch.zeros((), device=valid.device)
        return Term(zero, zero)
    entropy = functional.binary_cross_entropy_with_logits(
        logits[:, 0].float(), future_valid.float(), reduction="none"
    )
    return Term((entropy * valid[..., None]).sum(), valid.sum() * horizon)


def _repeated(part: BatchPart, times: int) -> BatchPart:
    """Let every sample of a batch part stand `times` times in a row."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    spread = {k: None if v is None else v.repeat_interleave(times, 0) for k, v in values.items()}
    return type(part)(**spread)
