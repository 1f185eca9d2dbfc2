"""Own the examples of training: moments of demonstrations with the chunk that follows.

All draws follow from the seed and the key of an example, so a run can stop and go on, or be split
over processes, without a change.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mu0_core.errors import ConfigError
from mu0_policy.action_expert.actions import Translator
from mu0_policy.action_expert.eyes import picture_tensor
from mu0_policy.action_expert.feature_cache import Prepared
from mu0_policy.action_expert.model import Observation, flow_time
from mu0_policy.action_expert.normaliser import Normaliser
from mu0_policy.action_expert.places import ToolView, placed
from mu0_policy.action_expert.policy import PLACES
from mu0_world_model.training_data import Key, own_part, step_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleRules:
    """Say what an example is made of; all as in ExpertTrainingConfig."""

    chunk_size: int
    most_known: int
    known_share: float
    shift_px: int
    noises: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class ExpertBatch:
    """Hold B examples, with m draws of noise for each, which stand in a row.

    Attributes:
        seen: What is shown, normalised.
        actions: (B, chunk, a) normalised.
        counted: (B, chunk) bool, False after the demonstration's end.
        noise: (B m, chunk, a).
        time: (B m,) flow time.
        n_known: (B m,) actions at the head that are given.
    """

    seen: Observation
    actions: Tensor
    counted: Tensor
    noise: Tensor
    time: Tensor
    n_known: Tensor


class ExpertDataset(Dataset[dict[str, Any]]):
    """Yield examples for keys (epoch, index); without epochs, quiet ones for evaluation."""

    def __init__(
        self,
        prepared: Sequence[Prepared],
        translator: Translator,
        rules: ExampleRules,
        normaliser: Normaliser | None = None,
        view: ToolView | None = None,
    ) -> None:
        self.prepared, self._translator, self.rules = list(prepared), translator, rules
        self._view = view
        self._moments = [(d, i) for d, one in enumerate(self.prepared) for i in range(len(one))]
        self.normaliser = self._measured() if normaliser is None else normaliser

    def __len__(self) -> int:
        return len(self._moments)

    def chunk(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the commands (chunk, j + 1) after a moment, and which are real."""
        d, i = self._moments[index]
        commands = self.prepared[d].commands
        steps = np.arange(i, i + self.rules.chunk_size)
        return commands[np.minimum(steps, len(commands) - 1)], steps < len(commands)

    def joints(self, index: int) -> NDArray[np.float64]:
        """Return the joints (j,) measured at a moment, rad."""
        d, i = self._moments[index]
        return self.prepared[d].q[i]

    def __getitem__(self, key: Key) -> dict[str, Any]:
        (epoch, index), rules = key, self.rules
        d, i = self._moments[index]
        one = self.prepared[d]
        rng = np.random.default_rng([rules.seed, epoch, index])
        commands, counted = self.chunk(index)
        actions = torch.from_numpy(self._translator.actions(commands, one.q[i])).float()
        state = torch.from_numpy(np.append(one.q[i], one.gripper[i])).float()
        m = rules.noises
        noise = rng.standard_normal((m, *actions.shape), dtype=np.float32)
        time = flow_time(torch.from_numpy(rng.random(m, dtype=np.float32)))
        n_known = rng.integers(1, rules.most_known + 1, m) if rules.most_known else np.zeros(m)
        n_known = np.where(rng.random(m) < rules.known_share, n_known, 0).astype(np.int64)
        pictures = {}
        for name, frames in one.pictures.items():
            picture = picture_tensor(np.asarray(frames[i]))
            pictures[name] = _shifted(picture, rules.shift_px, rng)
        features = {
            name: torch.from_numpy(np.asarray(rows, np.float32))
            for name, rows in self._features(one, i).items()
        }
        return {
            **features,
            "pictures": pictures,
            "state": self.normaliser.state(state),
            "actions": self.normaliser.action(actions),
            "counted": torch.from_numpy(counted),
            "noise": torch.from_numpy(noise),
            "time": time,
            "n_known": torch.from_numpy(n_known),
        }

    def quiet(self) -> "ExpertDataset":
        """Return the same examples without shifted pictures and known actions, one noise each."""
        rules = replace(self.rules, shift_px=0, most_known=0, noises=1)
        return ExpertDataset(self.prepared, self._translator, rules, self.normaliser, self._view)

    def _features(self, one: Prepared, moment: int) -> dict[str, NDArray[Any]]:
        """Return the features of a moment by name, places as the expert is told them."""
        features: dict[str, NDArray[Any]] = {**one.features_at(moment)}
        T_base_camera = np.eye(4) if one.T_base_camera is None else one.T_base_camera
        features[PLACES] = placed(self._view, features[PLACES], one.q[moment], T_base_camera)
        return features

    def _measured(self) -> Normaliser:
        """Measure statistics on all moments."""
        states = [np.column_stack([one.q, one.gripper]) for one in self.prepared]
        actions = []
        for index in range(len(self)):
            commands, counted = self.chunk(index)
            actions.append(self._translator.actions(commands, self.joints(index))[counted])
        return Normaliser.measured(np.concatenate(states), np.concatenate(actions))


def collate(items: Sequence[dict[str, Any]]) -> ExpertBatch:
    """Put examples side by side; shorter features are padded."""
    context, context_valid = _padded([item["context"] for item in items])
    language, language_valid = _padded([item["language"] for item in items])
    traces, traces_valid = _padded([item["traces"] for item in items])
    cameras = items[0]["pictures"]
    seen = Observation(
        context=context,
        context_valid=context_valid,
        traces=traces,
        language=language,
        language_valid=language_valid,
        cameras={name: torch.stack([i["pictures"][name] for i in items]) for name in cameras},
        state=torch.stack([item["state"] for item in items]),
        traces_valid=traces_valid,
        places=_padded([item["places"] for item in items])[0],
    )
    return ExpertBatch(
        seen,
        *(torch.stack([item[name] for item in items]) for name in ("actions", "counted")),
        *(torch.cat([item[name] for item in items]) for name in ("noise", "time", "n_known")),
    )


def on_device(batch: ExpertBatch, device: torch.device) -> ExpertBatch:
    """Return a batch on a device."""
    seen = {
        field.name: _moved(getattr(batch.seen, field.name), device)
        for field in fields(Observation)
    }
    rest = [getattr(batch, field.name).to(device) for field in fields(ExpertBatch)[1:]]
    return ExpertBatch(Observation(**seen), *rest)


def expert_batches(
    data: ExpertDataset, *, batch_size: int, rank: int, world: int, start: int, workers: int
) -> Iterator[ExpertBatch]:
    """Yield a process's part of each step from `start` on, without end.

    Raises:
        ConfigError: The batch cannot be split over the processes, or there are too few examples.
    """
    if batch_size % world:
        raise ConfigError(
            f"batch_size: expected a multiple of the {world} processes, got {batch_size}"
        )
    steps = step_keys(len(data), batch_size=batch_size, seed=data.rules.seed, start=start)
    parts = (own_part(keys, rank=rank, world=world, micro=0)[0] for keys in steps)
    return iter(
        DataLoader(data, batch_sampler=_Endless(parts), num_workers=workers, collate_fn=collate)
    )


class _Endless:
    """Pass an iterator of key lists to a DataLoader, which wants something to iterate."""

    def __init__(self, parts: Iterator[list[Key]]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[list[Key]]:
        return self._parts


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return {name: part.to(device) for name, part in value.items()}


def _padded(tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return tokens (B, longest, width) padded with 0, and which are real."""
    padded = torch.nn.utils.rnn.pad_sequence(list(tokens), batch_first=True)
    lengths = torch.tensor([len(t) for t in tokens])
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def _shifted(picture: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """Shift a picture (3, H, W) by up to some pixels; its rim is repeated."""
    if not most:
        return picture
    dx, dy = rng.integers(0, 2 * most + 1, 2)
    padded = torch.nn.functional.pad(picture[None], (most,) * 4, mode="replicate")[0]
    height, width = picture.shape[1:]
    return padded[:, dy : dy + height, dx : dx + width]
