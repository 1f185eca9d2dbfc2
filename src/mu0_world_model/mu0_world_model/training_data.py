"""Own the order of training: which samples each step and process gets, and their random draws.

All follows from the seed and the step, whatever the number of processes and workers; so a run can
stop and go on, or be split over processes, without a change.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mu0_core.errors import ConfigError
from mu0_world_model.dataset import Batch, Example, TraceDataset, collate, epoch_keys
from mu0_world_model.losses import HidingDraws, flow_time
from mu0_world_model.processor import Processor
from mu0_world_model.samples import SampleRules

Key = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Hold the random numbers of one example of n points with r flow samples.

    Attributes:
        noise: (r, n, D, 3) float32 standard normal.
        time: (r,) float32 flow times.
        hiding: (2,) float32 uniform: depth, history.
        point_hiding: (n,) float32 uniform: history of each point.
    """

    noise: NDArray[np.float32]
    time: NDArray[np.float32]
    hiding: NDArray[np.float32]
    point_hiding: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingBatch:
    """Hold a batch with its draws.

    Attributes:
        batch: The examples.
        noise: (B, r, n, D, 3).
        time: (B, r).
        hiding: What may be hidden.
    """

    batch: Batch
    noise: Tensor
    time: Tensor
    hiding: HidingDraws


class TrainingSet(Dataset[tuple[Example, Draws]]):
    """Yield examples with their draws for keys (epoch, index)."""

    def __init__(self, samples: TraceDataset, flow_samples: int) -> None:
        self.samples, self.flow_samples = samples, flow_samples

    def __getitem__(self, key: Key) -> tuple[Example, Draws]:
        example = self.samples[key]
        rng = np.random.default_rng([self.samples.seed, *key, 1])
        n, r = len(example.anchor), self.flow_samples
        n_ctrl = self.samples.processor.config.trace_bspline_n_ctrl
        draws = Draws(
            noise=rng.standard_normal((r, n, n_ctrl, 3), dtype=np.float32),
            time=flow_time(rng.random(r, dtype=np.float32)),
            hiding=rng.random(2, dtype=np.float32),
            point_hiding=rng.random(n, dtype=np.float32),
        )
        return example, draws


def step_keys(length: int, *, batch_size: int, seed: int, start: int = 0) -> Iterator[list[Key]]:
    """Yield the keys of each step from `start` on, without end; an epoch's last part is dropped.

    Args:
        length: Number of samples, at least a step's.
        batch_size: Samples of a step.
        seed: Seed of the order.
        start: First step.
    """
    per_epoch = length // batch_size
    epoch, skip = divmod(start, per_epoch)
    while True:
        keys = epoch_keys(length, epoch=epoch, seed=seed)
        batches = (list(islice(keys, batch_size)) for _ in range(per_epoch))
        yield from islice(batches, skip, None)
        epoch, skip = epoch + 1, 0


def own_part(keys: Sequence[Key], *, rank: int, world: int, micro: int) -> list[list[Key]]:
    """Return the micro-batches of one step that a process works on."""
    own = list(keys[rank::world])
    size = micro or len(own)
    return [own[i : i + size] for i in range(0, len(own), size)]


def step_size(samples: int, batch_size: int, world: int) -> int:
    """Return the samples of a step over all processes: fewer where there are not so many.

    Raises:
        ConfigError: The batch cannot be split over the processes, or there are too few samples.
    """
    if batch_size % world:
        raise ConfigError(
            f"batch_size: expected a multiple of the {world} processes, got {batch_size}"
        )
    size = min(batch_size, samples // world * world)
    if size == 0:
        raise ConfigError(
            f"expected at least a sample for each of {world} processes, got {samples}"
        )
    return size


def training_batches(
    data: TrainingSet,
    *,
    batch_size: int,
    micro: int,
    rank: int,
    world: int,
    start: int,
    workers: int,
) -> Iterator[list[TrainingBatch]]:
    """Yield the micro-batches of each step from `start` on.

    Raises:
        ConfigError: See `step_size`.
    """
    batch_size = step_size(len(data.samples), batch_size, world)
    steps = step_keys(
        len(data.samples), batch_size=batch_size, seed=data.samples.seed, start=start
    )
    parts_of_step = len(own_part([(0, 0)] * batch_size, rank=rank, world=world, micro=micro))
    parts = (
        part for keys in steps for part in own_part(keys, rank=rank, world=world, micro=micro)
    )
    loader = DataLoader(
        data,
        batch_sampler=_Endless(parts),
        num_workers=workers,
        collate_fn=partial(
            collate_training, processor=data.samples.processor, rules=data.samples.rules
        ),
    )
    batches = iter(loader)
    while True:
        yield [next(batches) for _ in range(parts_of_step)]


def collate_training(
    items: Sequence[tuple[Example, Draws]], processor: Processor, rules: SampleRules
) -> TrainingBatch:
    """Put examples and draws side by side; the draws of padding are 0."""
    examples, draws = zip(*items, strict=True)
    batch = collate(examples, processor, rules)
    n = batch.points.valid.shape[1]
    r, _, n_ctrl, _ = draws[0].noise.shape
    noise = torch.zeros(len(draws), r, n, n_ctrl, 3)
    point_hiding = torch.zeros(len(draws), n)
    for i, draw in enumerate(draws):
        noise[i, :, : draw.noise.shape[1]] = torch.from_numpy(draw.noise)
        point_hiding[i, : len(draw.point_hiding)] = torch.from_numpy(draw.point_hiding)
    hiding = torch.from_numpy(np.stack([draw.hiding for draw in draws]))
    return TrainingBatch(
        batch=batch,
        noise=noise,
        time=torch.from_numpy(np.stack([draw.time for draw in draws])),
        hiding=HidingDraws(hiding[:, 0], hiding[:, 1], point_hiding),
    )


class _Endless:
    """Pass an iterator of key lists to a DataLoader, which wants something to iterate."""

    def __init__(self, parts: Iterator[list[Key]]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[list[Key]]:
        return self._parts
