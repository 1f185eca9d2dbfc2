"""Own the statistics that states and actions are normalised with, part of every checkpoint."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mu0_core.config import from_dict, option, to_dict, validate
from mu0_core.errors import CheckpointError, ConfigError

STATISTICS = "statistics.json"
_SMALLEST_SPREAD = 1e-2  # rad or share: a joint that hardly moves is not blown up


@dataclass(frozen=True, slots=True, kw_only=True)
class Normaliser:
    """Hold mean and spread of each number of states and actions."""

    state_mean: tuple[float, ...] = option(description="Mean of the states")
    state_std: tuple[float, ...] = option(description="Their spread", low=1e-9)
    action_mean: tuple[float, ...] = option(description="Mean of the actions")
    action_std: tuple[float, ...] = option(description="Their spread", low=1e-9)

    def __post_init__(self) -> None:
        faults = [
            f"{name}_std: expected {len(mean)} values as in {name}_mean, got {len(std)}"
            for name, mean, std in (
                ("state", self.state_mean, self.state_std),
                ("action", self.action_mean, self.action_std),
            )
            if len(mean) != len(std)
        ]
        validate(self, *faults)

    @classmethod
    def measured(cls, states: NDArray[np.floating], actions: NDArray[np.floating]) -> "Normaliser":
        """Measure states (n, s) and actions (m, a)."""

        def spread(rows: NDArray[np.floating]) -> tuple[float, ...]:
            return tuple(np.maximum(rows.std(axis=0), _SMALLEST_SPREAD).tolist())

        return cls(
            state_mean=tuple(states.mean(axis=0).tolist()),
            state_std=spread(states),
            action_mean=tuple(actions.mean(axis=0).tolist()),
            action_std=spread(actions),
        )

    def state(self, values: Tensor) -> Tensor:
        """Normalise states (..., s)."""
        return (values - _like(self.state_mean, values)) / _like(self.state_std, values)

    def action(self, values: Tensor) -> Tensor:
        """Normalise actions (..., a)."""
        return (values - _like(self.action_mean, values)) / _like(self.action_std, values)

    def action_back(self, values: Tensor) -> Tensor:
        """Undo `action`."""
        return values * _like(self.action_std, values) + _like(self.action_mean, values)

    def to_json(self) -> str:
        """Return the content of the file."""
        return json.dumps(to_dict(self), indent=2)

    @classmethod
    def read(cls, folder: Path) -> "Normaliser":
        """Read a checkpoint's file; raises a CheckpointError where it is missing or wrong."""
        path = folder / STATISTICS
        try:
            return from_dict(cls, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, ConfigError) as error:
            raise CheckpointError(f"{path}: no statistics of an action expert: {error}") from error


def _like(values: tuple[float, ...], tensor: Tensor) -> Tensor:
    return torch.tensor(values, dtype=tensor.dtype, device=tensor.device)
