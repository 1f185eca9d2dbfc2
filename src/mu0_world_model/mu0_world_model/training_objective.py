"""Own the module that a run wraps: model and loss in one forward pass, and sampling.

Distributed training sees only this module's calls, so all that reads weights goes through it.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from mu0_world_model.dataset import Batch
from mu0_world_model.losses import Losses, flow_losses, hide, loss_counts
from mu0_world_model.model import Mu0, Points, Samples, Scene, moved
from mu0_world_model.training_data import TrainingBatch

TERMS = ("loss", "flow", "done", "rigidity")


class Objective(nn.Module):
    """Evaluate the loss of a batch, or sample futures."""

    def __init__(self, model: Mu0) -> None:
        super().__init__()
        self.model = model

    def forward(self, item: TrainingBatch, totals: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the objective.

        Args:
            item: A part of a step's batch.
            totals: (5,) of the whole step, see `step_totals`.

        Returns:
            The batch's share of the step's loss, and (4,) float64 of it and its terms, on the CPU.
        """
        batch, config, counts = item.batch, self.model.config, totals[:3]
        losses = flow_losses(
            self.model, batch.scene, batch.points, batch.targets, noise=item.noise, time=item.time
        )
        loss = losses.total(config, counts)
        if self.training and torch.is_grad_enabled():
            loss = loss + self._nothing(totals[3:])
        return loss, _shares(losses, loss, counts)

    def sample(self, scene: Scene, points: Points, noise: Tensor) -> Samples:
        """Sample futures, without gradients."""
        with torch.inference_mode():
            return self.model.sample(self.model.encode(scene), points, noise)

    def _nothing(self, used: Tensor) -> Tensor:
        """Return 0, with a gradient of 0 for what this batch hides and another one may not.

        Processes that split gradients among them must agree on which weights have one.
        """
        model = self.model
        parts = (model.vlm.depth, model.suffix.in_proj_history)
        idle = [
            weight.sum()
            for part, count in zip(parts, used.tolist(), strict=True)
            if part is not None and count > 0
            for weight in part.parameters()
            if weight.requires_grad
        ]
        return 0.0 * torch.stack(idle).sum() if idle else used.new_zeros(())


def hidden(item: TrainingBatch, model: Mu0) -> TrainingBatch:
    """Hide depth and history at random, as for training."""
    scene, points = hide(model.config, item.batch.scene, item.batch.points, item.hiding)
    return replace(item, batch=Batch(scene, points, item.batch.targets))


def step_totals(items: list[TrainingBatch], model: Mu0) -> Tensor:
    """Count what a step has, to be added up over processes.

    Returns:
        (5,) float64: what the three terms are divided by, samples with depth, points with history.
    """
    totals = torch.zeros(5, dtype=torch.float64)
    for item in items:
        scene, points, repeats = item.batch.scene, item.batch.points, item.noise.shape[1]
        counts = loss_counts(model.config, points, item.batch.targets, repeats)
        totals += torch.stack([*counts.cpu(), _depths(scene), _histories(points)])
    return totals


def on_device(item: TrainingBatch, device: torch.device) -> TrainingBatch:
    """Return a batch on a device; what decides about hiding stays on the CPU."""
    batch = item.batch
    return TrainingBatch(
        batch=Batch(
            moved(batch.scene, device), moved(batch.points, device), moved(batch.targets, device)
        ),
        noise=item.noise.to(device),
        time=item.time.to(device),
        hiding=item.hiding,
    )


def _shares(losses: Losses, loss: Tensor, counts: Tensor) -> Tensor:
    terms = (losses.flow, losses.done, losses.rigidity)
    shares = [t.total.detach() / c.clamp(min=1) for t, c in zip(terms, counts, strict=True)]
    return torch.stack([loss.detach(), *shares]).double().cpu()


def _depths(scene: Scene) -> Tensor:
    if scene.depth is None:
        return torch.tensor(0.0, dtype=torch.float64)
    known = scene.depth_valid
    count = torch.tensor(len(scene.depth)) if known is None else known.sum()
    return count.double().cpu()


def _histories(points: Points) -> Tensor:
    if points.history is None:
        return torch.tensor(0.0, dtype=torch.float64)
    shown = points.history_valid
    count = (points.valid if shown is None else shown & points.valid).sum()
    return count.double().cpu()
