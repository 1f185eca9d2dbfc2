"""Own what training and evaluation read: episodes as samples, in the model's units.

A sample is one slot (frame) of an episode with some of its rows (points). Episodes are opened when
they are used and stay memory-mapped. Every random choice follows from (seed, epoch, sample),
whatever worker or process makes it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mu0_core.bspline import fit
from mu0_core.camera import Camera
from mu0_core.episode import Episode, Rows, Slot, read_episode
from mu0_world_model.losses import Targets
from mu0_world_model.model import Points, Scene
from mu0_world_model.processor import Processor, to_model_units
from mu0_world_model.samples import SampleIndex, SampleRules, eligible, find_samples

_OPEN_EPISODES = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """Hold one sample of n points; uvz are in the model's units (u, v in [-1, 1], z in m).

    Attributes:
        image: (3, side, side) float32 RGB in [0, 1].
        depth: (3, side, side) float32 coloured depth in [0, 1]; None without.
        task: Instruction, may be empty.
        anchor: (n, 3) float32 uvz in frame t.
        history: (n, h, 3) float32 past minus anchor, oldest first, 0 where not finite.
        history_valid: (n, h) bool.
        future: (n, H, 3) float32 (future minus anchor) / scale, 0 where not finite.
        future_valid: (n, H) bool.
        control: (n, D, 3) float32 spline through the future.
        control_valid: (n,) bool.
        cluster_ids: (n,) int64, -1 = none.
        moving: (n,) bool.
        rows: (n,) int64 rows of the slot that the points are.
        camera: Intrinsics of the original image; None if not stored.
        name: Episode and frame.
    """

    image: Tensor
    depth: Tensor | None
    task: str
    anchor: NDArray[np.float32]
    history: NDArray[np.float32]
    history_valid: NDArray[np.bool_]
    future: NDArray[np.float32]
    future_valid: NDArray[np.bool_]
    control: NDArray[np.float32]
    control_valid: NDArray[np.bool_]
    cluster_ids: NDArray[np.int64]
    moving: NDArray[np.bool_]
    rows: NDArray[np.int64]
    camera: Camera | None
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Hold examples side by side; fewer points are padded."""

    scene: Scene
    points: Points
    targets: Targets


class TraceDataset(Dataset[Example]):
    """Yield examples of episodes for keys (epoch, index)."""

    def __init__(
        self,
        episodes: Sequence[Path] | SampleIndex,
        processor: Processor,
        rules: SampleRules,
        *,
        seed: int = 0,
        augment: bool = True,
    ) -> None:
        """Open a set of episodes.

        Args:
            episodes: Folders, which are looked through once, or the index of that.
            processor: Sizes, units and text of the model.
            rules: Which points are samples.
            seed: Seed of all random choices.
            augment: Whether pictures are varied.

        Raises:
            EpisodeError: No episode has a sample.
        """
        self.processor, self.rules, self.seed, self.augment = processor, rules, seed, augment
        if not isinstance(episodes, SampleIndex):
            statistics = processor.statistics
            episodes = find_samples(
                episodes,
                rules,
                history_len=statistics.history_len,
                future_len=statistics.future_len,
                arc_step=statistics.arc_step,
            )
        self.index = episodes
        self._open = lru_cache(_OPEN_EPISODES)(read_episode)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, index = key
        episode, slot = self._slot(index)
        rng = np.random.default_rng([self.seed, epoch, index])
        return self._example(episode, slot, rng)

    def __getstate__(self) -> dict[str, object]:
        """Leave open episodes behind when a worker process takes a copy."""
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open = lru_cache(_OPEN_EPISODES)(read_episode)

    def episode_of(self, index: int) -> Path:
        """Return the folder that a sample comes from."""
        return self.index.episodes[self.index.episode_numbers[index]]

    def instruction(self, index: int) -> str:
        """Return the first wording of the first caption of a sample, empty if it has none."""
        episode, slot = self._slot(index)
        captions = episode.captions_at(slot.frame)
        return captions[0].instructions[0] if captions else ""

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Return the image (H, W, 3) RGB of a sample as it was recorded."""
        episode, slot = self._slot(index)
        return np.array(episode.images[slot.frame])

    def all_points(self, index: int) -> dict[str, NDArray]:
        """Return anchor, history and future (fields of `Example`) of all points of a sample."""
        episode, slot = self._slot(index)
        return self._points(episode, slot.rows, self._eligible(episode, slot.rows))

    def _slot(self, index: int) -> tuple[Episode, Slot]:
        """Open the episode of a sample."""
        episode = self._open(self.episode_of(index))
        return episode, episode.slot(int(self.index.slots[index]))

    def _eligible(self, episode: Episode, rows: Rows) -> NDArray[np.int64]:
        """Return the numbers of the rows that the rules take."""
        config = self.processor.config
        return np.flatnonzero(
            eligible(episode, rows, self.rules, config.history_len, config.future_len)
        )

    def _example(self, episode: Episode, slot: Slot, rng: np.random.Generator) -> Example:
        """Choose points and caption, vary the pictures, change the units."""
        rules, config = self.rules, self.processor.config
        taken = self._eligible(episode, slot.rows)
        most = min(rules.n_max, config.n_max, len(taken))
        count = int(rng.integers(min(rules.n_min, most), most + 1))
        chosen = rng.permutation(taken)[:count]
        points = self._points(episode, slot.rows, chosen)
        fitted = fit(
            points["future"],
            points["future_valid"],
            config.trace_bspline_n_ctrl,
            reg_lambda=rules.reg_lambda,
            reg_order=rules.reg_order,
            clip=rules.control_clip,
            min_valid_steps=rules.min_future_steps,
        )
        ids = slot.rows.cluster_ids
        example = Example(
            image=self._image(episode, slot.frame, rng),
            depth=self._depth(episode, slot.frame, rng),
            task=_caption(episode, slot.frame, rng),
            control=fitted.control.astype(np.float32),
            control_valid=fitted.valid,
            cluster_ids=np.full(count, -1) if ids is None else ids[chosen].astype(np.int64),
            moving=np.asarray(slot.rows.is_moving)[chosen],
            rows=chosen,
            camera=None if episode.K is None else episode.camera(slot.frame),
            name=f"{episode.path.name}/{slot.frame}",
            **points,
        )
        if self.augment and rng.random() < rules.mirrored_share:
            return mirrored(example, episode.width)
        return example

    def _points(
        self, episode: Episode, rows: Rows, chosen: NDArray[np.int64]
    ) -> dict[str, NDArray]:
        """Return anchor, history and future of rows in the model's units."""
        config = self.processor.config
        h, horizon = config.history_len, config.future_len
        size = (episode.width, episode.height)
        future = to_model_units(rows.future_uvz[chosen, : horizon + 1].astype(np.float32), *size)
        past = to_model_units(rows.history_uvz[chosen, 1 : h + 1].astype(np.float32), *size)
        anchor = to_model_units(rows.history_uvz[chosen, :1].astype(np.float32), *size)
        ahead = (future[:, 1:] - anchor) / self.processor.statistics.delta_scale
        behind = past[:, ::-1] - anchor  # stored newest first
        finite_ahead = np.asarray(np.isfinite(ahead).all(-1))
        finite_behind = np.asarray(np.isfinite(behind).all(-1))
        history_valid = rows.history_valid[chosen, 1 : h + 1][:, ::-1] & finite_behind
        return {
            "anchor": anchor[:, 0].astype(np.float32),
            "history": np.where(finite_behind[..., None], behind, 0.0).astype(np.float32),
            "history_valid": history_valid,
            "future": np.where(finite_ahead[..., None], ahead, 0.0).astype(np.float32),
            "future_valid": rows.future_valid[chosen, 1 : horizon + 1] & finite_ahead,
        }

    def _image(self, episode: Episode, frame: int, rng: np.random.Generator) -> Tensor:
        image = self.processor.image(np.asarray(episode.images[frame]))
        if not self.augment:
            return image
        return jitter(image, rng, strength=self.rules.rgb_jitter, hue=self.rules.hue_jitter)

    def _depth(self, episode: Episode, frame: int, rng: np.random.Generator) -> Tensor | None:
        if not self.processor.config.use_depth or episode.depth is None:
            return None
        depth = np.array(episode.depth[frame], dtype=np.float32)
        if self.augment and self.rules.depth_noise_m > 0.0:
            known = np.isfinite(depth) & (depth > 1e-3)
            noise = rng.standard_normal(depth.shape, dtype=np.float32)
            depth += noise * (known * np.float32(self.rules.depth_noise_m))
        return self.processor.depth(depth)


def mirrored(example: Example, width: int) -> Example:
    """Return a sample with left and right exchanged.

    Args:
        example: The sample.
        width: Of the original image, px: its pixel k becomes pixel width - 1 - k.
    """
    across = np.array([-1.0, 1.0, 1.0], np.float32)
    shift = np.array([-2.0 / width, 0.0, 0.0], np.float32)
    camera = example.camera
    if camera is not None:
        K = camera.K.copy()
        K[0, 2] = width - 1 - K[0, 2]
        camera = replace(camera, K=K)
    return replace(
        example,
        image=example.image.flip(-1),
        depth=None if example.depth is None else example.depth.flip(-1),
        anchor=example.anchor * across + shift,
        history=example.history * across,
        future=example.future * across,
        control=example.control * across,
        camera=camera,
    )


def jitter(image: Tensor, rng: np.random.Generator, *, strength: float, hue: float) -> Tensor:
    """Vary brightness, contrast, saturation and hue of an image (3, H, W) in [0, 1].

    Done after the resize, which is linear, to the small picture.
    """
    factors = rng.uniform(1.0 - strength, 1.0 + strength, 3)
    turn = rng.uniform(-hue, hue)
    rgb = image.permute(1, 2, 0).numpy() * np.float32(factors[0])
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    rgb = grey.mean() + (rgb - grey.mean()) * np.float32(factors[1])
    rgb = np.clip(grey[..., None] + (rgb - grey[..., None]) * np.float32(factors[2]), 0.0, 1.0)
    hsv = cv2.cvtColor(rgb.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360.0 * turn) % 360.0
    varied = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return torch.from_numpy(np.clip(varied, 0.0, 1.0)).permute(2, 0, 1).contiguous()


def collate(examples: Sequence[Example], processor: Processor, rules: SampleRules) -> Batch:
    """Put examples side by side, padding points with zeros."""
    n = max(len(example.anchor) for example in examples)

    def padded(name: str, fill: float = 0.0) -> Tensor:
        arrays = [np.asarray(getattr(example, name)) for example in examples]
        stacked = np.full((len(arrays), n, *arrays[0].shape[1:]), fill, arrays[0].dtype)
        for row, array in zip(stacked, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(stacked)

    valid = torch.zeros(len(examples), n, dtype=torch.bool)
    for row, example in zip(valid, examples, strict=True):
        row[: len(example.anchor)] = True
    history_valid = padded("history_valid").any(-1) if rules.hide_empty_history else None
    tokens, token_valid = processor.text([example.task for example in examples])
    scene = Scene(
        image=torch.stack([example.image for example in examples]),
        tokens=tokens,
        token_valid=token_valid,
        **_depth_batch(examples),
    )
    points = Points(padded("anchor"), valid, padded("history"), history_valid)
    targets = Targets(
        control=padded("control"),
        control_valid=padded("control_valid"),
        future_valid=padded("future_valid"),
        cluster_ids=padded("cluster_ids", -1),
    )
    return Batch(scene, points, targets)


def epoch_keys(length: int, *, epoch: int, seed: int) -> Iterator[tuple[int, int]]:
    """Yield the keys of all samples in the order of an epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(length)
    return ((epoch, int(index)) for index in order)


def _depth_batch(examples: Sequence[Example]) -> dict[str, Tensor | None]:
    """Stack depth pictures; a sample without has a blank one that is marked."""
    known = torch.tensor([example.depth is not None for example in examples])
    if not known.any():
        return {"depth": None, "depth_valid": None}
    blank = torch.zeros_like(examples[0].image)
    stacked = torch.stack([blank if e.depth is None else e.depth for e in examples])
    return {"depth": stacked, "depth_valid": None if known.all() else known}


def _caption(episode: Episode, frame: int, rng: np.random.Generator) -> str:
    """Choose a caption that covers a frame, then one of its wordings; empty if there is none."""
    captions = episode.captions_at(frame)
    if not captions:
        return ""
    instructions = captions[rng.integers(len(captions))].instructions
    return instructions[rng.integers(len(instructions))]
