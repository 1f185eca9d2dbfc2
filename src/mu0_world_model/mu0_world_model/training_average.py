"""Own the moving average of the weights that a run trains, world model or action expert."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


class MovingAverage:
    """Keep an exponential moving average; weights that are split over processes stay split.

    It is faster at first, or short runs would keep how they began: after n updates the next one
    keeps no more than (1 + n) / (10 + n) of the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from a model's present weights.

        Args:
            model: The model; weights that take no gradient are left out.
            decay: Share of the average that one update keeps, after the first ones.
        """
        self._weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._values = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights in; the first ones are taken as they are."""
        n = self._updates
        kept = min(self._decay, (1 + n) / (10 + n)) if n else 0.0
        for name, weight in self._weights.items():
            self._values[name].lerp_(weight, 1.0 - kept)
        self._updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the averaged weights for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes: whole weights; all processes must ask."""
        return {
            "updates": self._updates,
            "weights": {n: whole(v) for n, v in self._values.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, also from one of torch's AveragedModel."""
        if "n_averaged" in state:
            self._updates = int(state["n_averaged"])
            weights = {name.removeprefix("module."): value for name, value in state.items()}
        else:
            self._updates, weights = state["updates"], state["weights"]
        for name, value in self._values.items():
            stored = weights[name].to(value.device)
            if isinstance(value, DTensor):
                stored = distribute_tensor(stored, value.device_mesh, value.placements)
            value.copy_(stored)

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            value = self._values[name]
            kept = weight.clone()
            weight.copy_(value)
            value.copy_(kept)


def whole(weight: Tensor) -> Tensor:
    """Return a weight on the CPU, put together if it is split over processes."""
    return (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().cpu()
