"""Own what a training run starts from: its episodes, and its model, units and tokenizer."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mu0_core.episode import read_episode
from mu0_core.errors import EpisodeError
from mu0_world_model import checkpoint
from mu0_world_model.model import Mu0
from mu0_world_model.presets import preset
from mu0_world_model.processor import Processor, load_tokenizer
from mu0_world_model.statistics import Statistics, measure, read_statistics
from mu0_world_model.text import save_tokenizer, train_tokenizer
from mu0_world_model.training_config import TrainingConfig


def split_episodes(config: TrainingConfig) -> tuple[list[Path], list[Path]]:
    """Return the folders to train on and to evaluate on.

    Raises:
        EpisodeError: A glob matches nothing.
    """
    paths = expand(config.episodes)
    if config.held_out:
        held_out = expand(config.held_out)
        return [path for path in paths if path not in set(held_out)], held_out
    count = math.ceil(config.held_out_share * len(paths)) if len(paths) > 1 else 0
    order = np.random.default_rng(config.seed).permutation(len(paths))
    chosen = {int(i) for i in order[:count]}
    held_out = [path for i, path in enumerate(paths) if i in chosen]
    return [path for i, path in enumerate(paths) if i not in chosen], held_out


def expand(patterns: Sequence[str]) -> list[Path]:
    """Return the folders that globs match, sorted, each once.

    Raises:
        EpisodeError: A glob matches no folder.
    """
    found: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern)
        matches = [p for p in Path(path.anchor or ".").glob(_relative(path)) if p.is_dir()]
        if not matches:
            raise EpisodeError(f"episodes: no folder matches {pattern!r}")
        found.update(matches)
    return sorted(found)


def _relative(path: Path) -> str:
    return str(path.relative_to(path.anchor)) if path.anchor else str(path)


def start_model(config: TrainingConfig, paths: list[Path]) -> tuple[Mu0, Processor, list[Path]]:
    """Make or load model, statistics and tokenizer.

    Returns:
        The model, its processor, and the tokenizer's files to store with it.
    """
    folder = config.start_from
    if config.resume and (config.output / "latest").is_dir():
        folder = config.output / "latest"
    if folder is not None:
        model = checkpoint.load(folder, dtype=torch.float32)
        statistics = read_statistics(folder)
        tokenizer = load_tokenizer(folder, model.config)
        return model, Processor(model.config, statistics, tokenizer), _tokenizer_files(folder)
    sizes = preset(config.preset)
    statistics = _measured(sizes.history_len, sizes.future_len, paths)
    sizes = replace(sizes, delta_scale=statistics.delta_scale)
    if sizes.vlm_model_name:
        tokenizer, files = load_tokenizer(config.output, sizes), []
    else:
        tokenizer = train_tokenizer(_texts(paths), sizes.vlm.vocab_size)
        files = save_tokenizer(tokenizer, config.output / "tokenizer")
    return Mu0(sizes), Processor(sizes, statistics, tokenizer), files


def _tokenizer_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*token*.json") if p.is_file())


def _measured(history_len: int, future_len: int, paths: list[Path]) -> Statistics:
    """Measure statistics on the episodes that can be read."""
    readable = []
    for path in paths:
        try:
            read_episode(path)
        except EpisodeError:
            continue  # the dataset names it
        readable.append(path)
    return measure(readable, history_len=history_len, future_len=future_len)


def _texts(paths: list[Path]) -> list[str]:
    """Return the prompts of the episodes that can be read."""
    texts = ["Task: predict future trajectory\n"]
    for path in paths:
        try:
            episode = read_episode(path)
        except EpisodeError:
            continue  # the dataset names it
        texts += [f"Task: {text}\n" for c in episode.captions for text in c.instructions]
    return texts
