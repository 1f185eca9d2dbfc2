"""Own the statistics that a checkpoint is normalised with: normalizer_stats.json.

The file is that of the released model; ours adds the arc step of the data. A file without it is
taken for a released one.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import from_dict, option, validate
from mu0_core.episode import RELEASED_ARC_STEP, Episode, Rows, read_episode
from mu0_core.errors import CheckpointError, ConfigError, EpisodeError

STATISTICS = "normalizer_stats.json"
_RUN_STATISTICS = "delta_stats.json"  # what the released trainer calls it

_PERCENTILE = 95.0
_DEPTH_PERCENTILES = (1.0, 99.0)
_MAX_PAIRS_PER_EPISODE = 200_000
_MAX_DEPTH_FRAMES_PER_EPISODE = 32
# Of all episodes together, so that memory does not grow with their number.
_MAX_PAIRS = 4_000_000
_MAX_DEPTHS = 4_000_000
_DEPTH_STRIDE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Hold what turns metric data into the model's units and back."""

    delta_scale: tuple[float, float, float] = option(
        description="95th percentile of |future - anchor| of u, v (normalised) and z (m)", low=1e-9
    )
    arc_step: float = option(
        description="Distance between trace points, image fractions and metres in one norm",
        low=1e-6,
    )
    history_len: int = option(description="History steps h", low=1)
    future_len: int = option(description="Future steps H", low=1)
    depth_log_min: float | None = option(None, description="Natural log of the nearest depth in m")
    depth_log_max: float | None = option(
        None, description="Natural log of the farthest depth in m"
    )
    num_samples: int = option(0, description="Pairs the scale was measured on", low=0)

    def __post_init__(self) -> None:
        low, high = self.depth_log_min, self.depth_log_max
        fault = None
        if (low is None) != (high is None):
            fault = f"depth_log_max: expected both depth limits or none, got {low} and {high}"
        elif low is not None and high is not None and not low < high:
            fault = f"depth_log_max: expected above depth_log_min = {low}, got {high}"
        validate(self, fault)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "Statistics":
        """Read the content of a statistics file.

        Raises:
            CheckpointError: It is no such file, of another kind of target, or a value is wrong.
        """
        try:
            raw = json.loads(text)
            scale = tuple(float(raw[f"delta_scale_{axis}"]) for axis in "xyz")
            lengths = {name: int(raw[name]) for name in ("history_len", "future_len")}
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise CheckpointError(f"{where}: no statistics of a trace model: {error!r}") from error
        kind = raw.get("target_kind", "anchor")
        if kind != "anchor":
            raise CheckpointError(f"{where}: target_kind: expected 'anchor', got {kind!r}")
        if not any(name.startswith("depth_") for name in raw):
            raise CheckpointError(f"{where}: no depth_* fields; the file is of an older version")
        values = {
            "delta_scale": scale,
            "arc_step": raw.get("arc_step", RELEASED_ARC_STEP),
            "depth_log_min": raw.get("depth_log_min"),
            "depth_log_max": raw.get("depth_log_max"),
            "num_samples": raw.get("num_samples", 0),
            **lengths,
        }
        try:
            return from_dict(cls, values)
        except ConfigError as error:
            raise CheckpointError("\n  ".join([f"{where}:", *str(error).splitlines()])) from error

    def to_json(self) -> str:
        """Return the content of a statistics file that the released loader reads too."""
        content: dict[str, Any] = dataclasses.asdict(self)
        scale = content.pop("delta_scale")
        content |= {f"delta_scale_{axis}": value for axis, value in zip("xyz", scale, strict=True)}
        content |= {"target_kind": "anchor", "percentile": _PERCENTILE, "video_fraction": 1.0}
        content |= {"depth_percentile_low": _DEPTH_PERCENTILES[0]}
        content |= {"depth_percentile_high": _DEPTH_PERCENTILES[1]}
        for name, log in (("depth_p1_m", self.depth_log_min), ("depth_p99_m", self.depth_log_max)):
            content[name] = None if log is None else math.exp(log)
        return json.dumps(content, indent=2)


def read_statistics(folder: Path) -> Statistics:
    """Read the statistics of a checkpoint: in its folder, or in the run's around it.

    Raises:
        CheckpointError: There are none, or they cannot be used.
    """
    for path in (p / n for p in (folder, folder.parent) for n in (STATISTICS, _RUN_STATISTICS)):
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise CheckpointError(f"{path}: cannot be read: {error}") from error
            return Statistics.from_json(text, where=str(path))
    raise CheckpointError(f"{folder}: expected {STATISTICS} beside the weights, there is none")


def measure(
    episodes: Sequence[Path], *, history_len: int, future_len: int, seed: int = 0
) -> Statistics:
    """Measure the statistics of episodes.

    Args:
        episodes: Folders.
        history_len: History steps of the model.
        future_len: Future steps of the model.
        seed: Seed of the choice of pairs where an episode has too many.

    Raises:
        EpisodeError: There is no valid step, or the episodes differ in arc step.
    """
    most = min(_MAX_PAIRS_PER_EPISODE, _MAX_PAIRS // max(len(episodes), 1))
    most_depths = _MAX_DEPTHS // max(len(episodes), 1)
    pairs = np.empty((most * len(episodes), 3), np.float32)
    depths = np.empty(most_depths * len(episodes), np.float32)
    n_pairs, n_depths, arc_steps = 0, 0, set()
    for number, path in enumerate(episodes):
        episode = read_episode(path)
        arc_steps.add(round(episode.arc_step, 9))
        rng = np.random.default_rng([seed, number])
        found = _deltas(episode, future_len, most, rng)
        pairs[n_pairs : n_pairs + len(found)] = found
        n_pairs += len(found)
        found = _depths(episode, most_depths, rng)
        depths[n_depths : n_depths + len(found)] = found
        n_depths += len(found)
    if not n_pairs:
        raise EpisodeError(f"statistics: no valid future step in {len(episodes)} episodes")
    if len(arc_steps) > 1:
        raise EpisodeError(f"statistics: the episodes differ in arc step: {sorted(arc_steps)}")
    scale = np.percentile(pairs[:n_pairs], _PERCENTILE, axis=0, overwrite_input=True)
    scale = np.maximum(scale, 1e-6)
    limits: tuple[float | None, float | None] = (None, None)
    if n_depths:
        low, high = np.percentile(depths[:n_depths], _DEPTH_PERCENTILES, overwrite_input=True)
        low = max(low, 1e-3)
        limits = (float(np.log(low)), float(np.log(max(high, 1.01 * low))))
    return Statistics(
        delta_scale=(float(scale[0]), float(scale[1]), float(scale[2])),
        arc_step=arc_steps.pop(),
        history_len=history_len,
        future_len=future_len,
        depth_log_min=limits[0],
        depth_log_max=limits[1],
        num_samples=n_pairs,
    )


def anchors_inside(episode: Episode, rows: Rows) -> NDArray[np.bool_]:
    """Return which rows (R,) have a known anchor inside the image.

    The anchor is column 0 of the history, as in the released loader; the future's is the same
    point.
    """
    anchor = np.asarray(rows.history_uvz[:, 0], dtype=np.float64)
    inside = (anchor[:, :2] >= 0.0) & (anchor[:, :2] <= (episode.width, episode.height))
    return np.asarray(rows.history_valid[:, 0]) & inside.all(-1) & np.isfinite(anchor[:, 2])


def _deltas(
    episode: Episode, future_len: int, most: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return |future - anchor| (pairs, 3) of `most` valid steps, in normalised uv and m."""
    rows = episode.rows
    steps = slice(1, future_len + 1)
    future = np.asarray(rows.future_uvz[:, steps], dtype=np.float64)
    counted = np.asarray(rows.future_valid[:, steps]) & np.isfinite(future).all(-1)
    pairs = np.argwhere(counted & anchors_inside(episode, rows)[:, None])
    if len(pairs) > most:
        pairs = rng.choice(pairs, most, replace=False)
    row, step = pairs.T
    offset = future[row, step] - np.asarray(rows.history_uvz[row, 0], dtype=np.float64)
    scaled = np.abs(offset) * (2.0 / episode.width, 2.0 / episode.height, 1.0)
    return scaled.astype(np.float32)


def _depths(episode: Episode, most: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return `most` known depths (m) of some frames."""
    if episode.depth is None:
        return np.zeros(0, np.float32)
    count = min(episode.n_frames, _MAX_DEPTH_FRAMES_PER_EPISODE)
    frames = np.linspace(0, episode.n_frames - 1, count).astype(int)
    depth = np.stack([episode.depth[f, ::_DEPTH_STRIDE, ::_DEPTH_STRIDE] for f in frames])
    depth = depth.astype(np.float32)
    depth = depth[np.isfinite(depth) & (depth > 1e-3)]
    return rng.choice(depth, most, replace=False) if len(depth) > most else depth
