"""Own which points of which frames are samples: the rules, and the index of an episode set.

An index is made by looking through all episodes once. It holds two numbers for each sample and a
path for each episode, and it can be stored, so that all processes of a run, and the run when it
goes on, read the same samples without looking again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate
from mu0_core.episode import Episode, Rows, load_npz, read_episode
from mu0_core.errors import ConfigError, EpisodeError, unknown_name_message
from mu0_world_model.statistics import anchors_inside

_STEP_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRules:
    """Say which points of an episode are samples and how they are varied."""

    min_future_steps: int = option(description="Fewest valid future steps of a point", low=1)
    moving_only: bool = option(description="Whether points at rest are left out")
    hide_empty_history: bool = option(
        description="Whether a history without any valid step is hidden, not shown as rest"
    )
    n_min: int = option(1, description="Fewest points of a sample, if it has so many", low=1)
    n_max: int = option(256, description="Most points of a sample", low=1)
    reg_lambda: float = option(0.2, description="Regularisation of the spline fit", low=0.0)
    reg_order: int = option(1, description="Its order, 1 or 2", low=1, high=2)
    control_clip: float = option(1.5, description="Largest control coordinate, scaled", low=0.0)
    rgb_jitter: float = option(
        0.3, description="Variation of brightness, contrast, saturation", low=0.0, high=1.0
    )
    hue_jitter: float = option(
        0.15, description="Variation of hue, in turns of the colour circle", low=0.0, high=0.5
    )
    mirrored_share: float = option(
        0.0, description="Share of samples seen in a mirror, left for right", low=0.0, high=1.0
    )
    depth_noise_m: float = option(0.01, description="Noise on depth", unit="m", low=0.0)

    def __post_init__(self) -> None:
        fault = None
        if self.n_max < self.n_min:
            fault = f"n_max: expected at least n_min = {self.n_min}, got {self.n_max}"
        validate(self, fault)


# The rules of the released training, and ours: short tails and points at rest are samples too,
# since a robot's queries end in both. Hue stays nearly as it is: instructions name colours. Points
# at rest make the scale of motion small, so that a clip at 1.5 would cut real motions short. A
# mirror doubles the scenes; leave it out where instructions say left or right.
RULES = {
    "released": SampleRules(min_future_steps=10, moving_only=True, hide_empty_history=False),
    "all": SampleRules(
        min_future_steps=1,
        moving_only=False,
        hide_empty_history=True,
        n_min=8,
        n_max=24,
        control_clip=10.0,
        hue_jitter=0.02,
        mirrored_share=0.5,
    ),
}


def sample_rules(name: str) -> SampleRules:
    """Return rules by name, or raise a ConfigError with the known ones."""
    if name not in RULES:
        raise ConfigError(unknown_name_message("sample rules", name, RULES))
    return RULES[name]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleIndex:
    """Hold the samples of a set of episodes: S slots.

    Attributes:
        episodes: Folders of the episodes that have samples.
        episode_numbers: (S,) int32 episode of each sample.
        slots: (S,) int32 slot of that episode.
        skipped: Why the other folders were left out.
    """

    episodes: tuple[Path, ...]
    episode_numbers: NDArray[np.int32]
    slots: NDArray[np.int32]
    skipped: Mapping[Path, str]

    def __len__(self) -> int:
        return len(self.slots)

    def every(self, stride: int) -> Self:
        """Return the index with every so many-th sample of each episode, from its first on."""
        starts = np.searchsorted(self.episode_numbers, self.episode_numbers)
        kept = (np.arange(len(self)) - starts) % stride == 0
        return replace(self, episode_numbers=self.episode_numbers[kept], slots=self.slots[kept])

    def part(self, chosen: NDArray[np.bool_]) -> Self:
        """Return the index of the chosen (E,) of its episodes."""
        numbers = (np.cumsum(chosen) - 1).astype(np.int32)
        kept = chosen[self.episode_numbers]
        return replace(
            self,
            episodes=tuple(compress(self.episodes, chosen)),
            episode_numbers=numbers[self.episode_numbers[kept]],
            slots=self.slots[kept],
        )

    def save(self, path: Path) -> None:
        """Write a .npz file."""
        np.savez(
            path,
            episodes=_texts(self.episodes),
            episode_numbers=self.episode_numbers,
            slots=self.slots,
            skipped=_texts(self.skipped),
            reasons=_texts(self.skipped.values()),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote, or raise an EpisodeError that names the file."""
        arrays = load_npz(path)
        skipped = zip(arrays["skipped"], arrays["reasons"], strict=True)
        return cls(
            episodes=tuple(Path(str(name)) for name in arrays["episodes"]),
            episode_numbers=arrays["episode_numbers"],
            slots=arrays["slots"],
            skipped={Path(str(name)): str(reason) for name, reason in skipped},
        )


def find_samples(
    paths: Sequence[Path],
    rules: SampleRules,
    *,
    history_len: int,
    future_len: int,
    arc_step: float,
) -> SampleIndex:
    """Look through episodes once.

    Args:
        paths: Folders; one that is broken, of another arc step or without a sample is left out.
        rules: Which points are samples.
        history_len: History steps that a model reads.
        future_len: Future steps that it predicts.
        arc_step: Distance between its steps.

    Raises:
        EpisodeError: No episode has a sample.
    """
    episodes: list[Path] = []
    slots: list[NDArray[np.int32]] = []
    skipped: dict[Path, str] = {}
    for path in paths:
        try:
            episode = read_episode(path)
            check_arc_step(episode, arc_step)
            usable = _usable_slots(episode, rules, history_len, future_len)
        except EpisodeError as error:
            skipped[path] = str(error)
            continue
        if len(usable) == 0:
            skipped[path] = "no frame has points that these rules take"
            continue
        episodes.append(path)
        slots.append(usable)
    if not slots:
        reasons = "\n  ".join(f"{p}: {why}" for p, why in list(skipped.items())[:5])
        raise EpisodeError(f"none of {len(paths)} episodes has a sample\n  {reasons}")
    numbers = np.repeat(np.arange(len(slots), dtype=np.int32), [len(s) for s in slots])
    return SampleIndex(
        episodes=tuple(episodes),
        episode_numbers=numbers,
        slots=np.concatenate(slots),
        skipped=skipped,
    )


def check_arc_step(episode: Episode, arc_step: float) -> None:
    """Raise an EpisodeError if an episode's steps are not those of a model."""
    if abs(episode.arc_step - arc_step) > _STEP_TOLERANCE * arc_step:
        raise EpisodeError(
            f"{episode.path}: arc step {episode.arc_step:g}, the model's is {arc_step:g}; extract "
            "the episode with that step, or start training with --new_statistics"
        )


def eligible(
    episode: Episode, rows: Rows, rules: SampleRules, history_len: int, future_len: int
) -> NDArray[np.bool_]:
    """Return which rows (R,) rules take; an anchor outside the image never counts.

    Raises:
        EpisodeError: The episode has fewer history or future steps than asked for.
    """
    columns = (rows.history_uvz.shape[1], rows.future_uvz.shape[1])
    if columns[0] < history_len + 1 or columns[1] < future_len + 1:
        raise EpisodeError(
            f"{episode.path}: expected at least {history_len + 1} history and {future_len + 1} "
            f"future columns, got {columns[0]} and {columns[1]}"
        )
    taken = anchors_inside(episode, rows)
    future = rows.future_uvz[:, 1 : future_len + 1]
    steps = np.asarray(rows.future_valid[:, 1 : future_len + 1]) & np.isfinite(future).all(-1)
    taken &= steps.sum(-1) >= rules.min_future_steps
    return taken & np.asarray(rows.is_moving) if rules.moving_only else taken


def _usable_slots(
    episode: Episode, rules: SampleRules, history_len: int, future_len: int
) -> NDArray[np.int32]:
    """Return the slots with points that the rules take."""
    if episode.n_slots == 0:
        return np.zeros(0, np.int32)
    taken = eligible(episode, episode.rows, rules, history_len, future_len)
    counts = np.concatenate([[0], np.cumsum(taken)])
    per_slot = counts[episode.offsets[1:]] - counts[episode.offsets[:-1]]
    return np.flatnonzero(per_slot > 0).astype(np.int32)


def _texts(values: Iterable[object]) -> NDArray[np.str_]:
    return np.array([str(value) for value in values], dtype=np.str_)
