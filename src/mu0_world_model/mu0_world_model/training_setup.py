"""Own what a training run starts from: its samples, and its model, units and tokenizer.

The main process writes them into the run's folder `start` before anything else; all processes
read them there, and so does a run that goes on. So all see the same samples in the same units,
even if the globs match more by then.
"""

import json
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mu0_core.episode import read_episode
from mu0_core.errors import CheckpointError, EpisodeError
from mu0_world_model import checkpoint
from mu0_world_model.backbones import load_backbones
from mu0_world_model.config import Mu0Config, config_to_released, read_config
from mu0_world_model.model import Mu0
from mu0_world_model.presets import preset
from mu0_world_model.processor import Processor, load_tokenizer
from mu0_world_model.samples import SampleIndex, find_samples, sample_rules
from mu0_world_model.statistics import STATISTICS, Statistics, measure, read_statistics
from mu0_world_model.text import extend_tokenizer, save_tokenizer, train_tokenizer
from mu0_world_model.training_config import TrainingConfig

_log = logging.getLogger(__name__)
START = "start"
_SAMPLES, _HELD_OUT = "samples.npz", "held_out.npz"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Start:
    """Hold what a run starts from, weights apart.

    Attributes:
        processor: Sizes, units and tokenizer.
        samples: What is trained on.
        held_out: What is evaluated on; None for nothing.
        tokenizer_files: To be put beside the weights.
    """

    processor: Processor
    samples: SampleIndex
    held_out: SampleIndex | None
    tokenizer_files: tuple[Path, ...]


def write_start(config: TrainingConfig) -> None:
    """Look through the episodes and write the folder `start`; a run that goes on keeps its own.

    Raises:
        EpisodeError: No episode matches, or none has a sample.
        CheckpointError: What the run is to start from is missing or broken.
    """
    folder = config.output / START
    if config.resume and folder.is_dir():
        return
    partial = config.output / f".{START}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    paths, held_out = split_episodes(config)
    source = _source(config)
    sizes = preset(config.preset) if source is None else read_config(source)
    if source is None and sizes.vlm_model_name:
        _check_backbones(sizes)
    if source is None or (config.new_statistics and not config.resume):
        statistics = _measured(sizes, paths)
        sizes = replace(sizes, delta_scale=statistics.delta_scale)
    else:
        statistics = read_statistics(source)
    texts = {
        "config.json": json.dumps(config_to_released(sizes), indent=2),
        STATISTICS: statistics.to_json(),
    }
    for name, text in texts.items():
        (partial / name).write_text(text, encoding="utf-8")
    _write_tokenizer(source, sizes, paths, partial)
    if config.new_words and not config.resume:
        _learn_words(sizes, paths, partial)
    for name, folders in ((_SAMPLES, paths), (_HELD_OUT, held_out)):
        if folders:
            _index(config, statistics, folders).save(partial / name)
    checkpoint.replace_folder(partial, folder)


def read_start(config: TrainingConfig) -> Start:
    """Read what `write_start` wrote."""
    folder = config.output / START
    sizes = read_config(folder)
    held_out = folder / _HELD_OUT
    return Start(
        processor=Processor(sizes, read_statistics(folder), load_tokenizer(folder, sizes)),
        samples=SampleIndex.load(folder / _SAMPLES),
        held_out=SampleIndex.load(held_out) if held_out.is_file() else None,
        tokenizer_files=_tokenizer_files(folder),
    )


def start_model(config: TrainingConfig, start: Start) -> Mu0:
    """Make the model of a run; one that goes on gets its weights with its state."""
    sizes = start.processor.config
    if config.resume:
        return Mu0(sizes)
    if config.start_from is not None:
        model = checkpoint.load(config.start_from, dtype=torch.float32)
        model.config = sizes  # with the units measured anew, if so
        return model
    model = Mu0(sizes)
    if sizes.vlm_model_name:
        load_backbones(model)
    return model


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

    What begins with a dot is left out, as a shell does: unfinished episodes, states of commands.

    Raises:
        EpisodeError: A glob matches no folder.
    """
    found: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern)
        found_here = Path(path.anchor or ".").glob(_relative(path))
        matches = [p for p in found_here if p.is_dir() and not p.name.startswith(".")]
        if not matches:
            raise EpisodeError(f"episodes: no folder matches {pattern!r}")
        found.update(matches)
    return sorted(found)


def _relative(path: Path) -> str:
    return str(path.relative_to(path.anchor)) if path.anchor else str(path)


def _source(config: TrainingConfig) -> Path | None:
    """Return the checkpoint whose sizes, units and tokenizer a run takes; None: it makes them."""
    if config.resume:  # a run of an older version, which had no folder `start`
        return config.output / "latest"
    return None if config.start_from is None else checkpoint.find(config.start_from)


def _check_backbones(sizes: Mu0Config) -> None:
    """Raise a CheckpointError if the weights that a new model starts from cannot be had."""
    try:
        for name in filter(None, (sizes.vlm_model_name, sizes.dino_model_name)):
            checkpoint.find(name)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}\na new model of this preset starts from these backbones; name a checkpoint "
            "by --start_from to start from that, or train a small model by --recipe ours"
        ) from error


def _write_tokenizer(
    source: Path | None, sizes: Mu0Config, paths: list[Path], folder: Path
) -> None:
    """Copy, fetch or learn the tokenizer."""
    files = () if source is None else _tokenizer_files(source)
    for file in files:
        shutil.copy(file, folder)
    if files:
        return
    if source is None and not sizes.vlm_model_name:
        save_tokenizer(train_tokenizer(_texts(paths), sizes.vlm.vocab_size), folder)
    else:
        source = source or checkpoint.find(sizes.vlm_model_name)
        save_tokenizer(load_tokenizer(source, sizes), folder)


def _learn_words(sizes: Mu0Config, paths: list[Path], folder: Path) -> None:
    """Extend the tokenizer of a folder by the words of episodes."""
    tokenizer = load_tokenizer(folder, sizes)
    known = len(tokenizer)
    extended = extend_tokenizer(tokenizer, _texts(paths), sizes.vlm.vocab_size)
    save_tokenizer(extended, folder)
    _log.info("tokens for new words: %d, now %d", len(extended) - known, len(extended))


def _tokenizer_files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.glob("*token*.json") if path.is_file()))


def _measured(sizes: Mu0Config, paths: list[Path]) -> Statistics:
    """Measure statistics on the episodes that can be read."""
    readable = []
    for path in paths:
        try:
            read_episode(path)
        except EpisodeError:
            continue  # the index of samples names it
        readable.append(path)
    return measure(readable, history_len=sizes.history_len, future_len=sizes.future_len)


def _texts(paths: list[Path]) -> set[str]:
    """Return the prompts of the episodes that can be read."""
    texts = {"Task: predict future trajectory\n"}
    for path in paths:
        try:
            episode = read_episode(path)
        except EpisodeError:
            continue  # the index of samples names it
        texts |= {f"Task: {text}\n" for c in episode.captions for text in c.instructions}
    return texts


def _index(config: TrainingConfig, statistics: Statistics, paths: list[Path]) -> SampleIndex:
    index = find_samples(
        paths,
        sample_rules(config.rules),
        history_len=statistics.history_len,
        future_len=statistics.future_len,
        arc_step=statistics.arc_step,
    )
    return index.every(config.frame_stride)
