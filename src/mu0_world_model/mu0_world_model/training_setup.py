"""Own what a training run starts from: its samples, and its model, units and tokenizer.

The main process writes them into the run's folder `start` before anything else; all processes
read them there, and so does a run that goes on. So all see the same samples in the same units,
even if the globs match more by then.
"""

import json
import logging
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mu0_core.episode import RELEASED_ARC_STEP, read_episode
from mu0_core.errors import CheckpointError, EpisodeError
from mu0_core.folders import matching_folders, replace_folder
from mu0_world_model import checkpoint
from mu0_world_model.backbones import load_backbones
from mu0_world_model.config import Mu0Config, config_to_released, read_config
from mu0_world_model.model import Mu0
from mu0_world_model.presets import preset
from mu0_world_model.processor import Processor, load_tokenizer
from mu0_world_model.samples import SampleIndex, find_samples, sample_rules
from mu0_world_model.shipped import checkpoint_folder
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
    beside = config.output / f".{START}.partial"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    folders = episode_folders(config)
    source = _source(config)
    sizes = preset(config.preset) if source is None else read_config(source)
    if source is None and sizes.vlm_model_name:
        _check_backbones(sizes)
    known = None
    if source is not None and (config.resume or not config.new_statistics):
        known = read_statistics(source)
    samples, held_out = find_episodes(config, *folders, sizes if known is None else known)
    if known is None:
        lengths = {"history_len": sizes.history_len, "future_len": sizes.future_len}
        statistics = measure(samples.episodes, **lengths)
        sizes = replace(sizes, delta_scale=statistics.delta_scale)
    else:
        statistics = known
    texts = {
        "config.json": json.dumps(config_to_released(sizes), indent=2),
        STATISTICS: statistics.to_json(),
    }
    for name, text in texts.items():
        (beside / name).write_text(text, encoding="utf-8")
    _write_tokenizer(source, sizes, samples.episodes, beside)
    if config.new_words and not config.resume:
        _learn_words(sizes, samples.episodes, beside)
    samples.save(beside / _SAMPLES)
    if held_out is not None:
        held_out.save(beside / _HELD_OUT)
    replace_folder(beside, folder)


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
        model = checkpoint.load(checkpoint_folder(config.start_from), dtype=torch.float32)
        model.config = sizes  # with the units measured anew, if so
        return model
    model = Mu0(sizes)
    if sizes.vlm_model_name:
        load_backbones(model)
    return model


def episode_folders(config: TrainingConfig) -> tuple[list[Path], list[Path]]:
    """Return the folders to train on, and those that are named to be held out.

    Raises:
        EpisodeError: A glob matches nothing, or all episodes are held out.
    """
    paths, named = matching_folders(config.episodes), matching_folders(config.held_out)
    real = {path.resolve() for path in named}
    kept = [path for path in paths if path.resolve() not in real]
    if named and not kept:
        raise EpisodeError(
            f"held_out: names all {len(paths)} episodes, and none is left to train on; name fewer"
        )
    return kept, named


def find_episodes(
    config: TrainingConfig,
    kept: Sequence[Path],
    named: Sequence[Path],
    lengths: Mu0Config | Statistics,
) -> tuple[SampleIndex, SampleIndex | None]:
    """Return what to train on and what to evaluate on; None for nothing.

    Args:
        config: The settings.
        kept: Folders to train on.
        named: Folders to hold out; if there are none, a share of the episodes of `kept` that can
            be used is drawn.
        lengths: Of histories and futures; an arc step too, or it is that of most episodes.

    Raises:
        EpisodeError: No episode has a sample.
    """
    step = lengths.arc_step if isinstance(lengths, Statistics) else _commonest_arc_step(kept)
    find = partial(_index, config, lengths, step)
    samples = find(kept)
    if not named:
        return _drawn(config, samples)
    try:
        return samples, find(named)
    except EpisodeError as error:
        raise EpisodeError(f"held_out: {error}") from error


def _drawn(config: TrainingConfig, samples: SampleIndex) -> tuple[SampleIndex, SampleIndex | None]:
    """Draw the episodes to hold out."""
    total = len(samples.episodes)
    count = math.ceil(config.held_out_share * total)
    if total == 1 and count:
        _log.warning("only one episode can be used: nothing is held out, no checkpoint is best")
        count = 0
    if not count:
        return samples, None
    order = np.random.default_rng(config.seed).permutation(total)
    chosen = np.isin(np.arange(total), order[:count])
    return samples.part(~chosen), replace(samples.part(chosen), skipped={})


def _commonest_arc_step(paths: Sequence[Path]) -> float:
    """Return the arc step of most of the episodes that can be read."""
    steps: Counter[float] = Counter()
    for path in paths:
        try:
            steps[round(read_episode(path).arc_step, 9)] += 1
        except EpisodeError:
            continue  # the index of samples names it
    if not steps:
        return RELEASED_ARC_STEP  # of no use: the index of samples tells what is wrong
    chosen, count = steps.most_common(1)[0]
    if len(steps) > 1:
        _log.warning(
            "arc steps differ: that of %d of %d episodes is taken, %g; the others are left out",
            *(count, steps.total(), chosen),
        )
    return chosen


def _source(config: TrainingConfig) -> Path | None:
    """Return the checkpoint whose sizes, units and tokenizer a run takes; None: it makes them."""
    if config.resume:  # a run of an older version, which had no folder `start`
        return config.output / "latest"
    if config.start_from is None:
        return None
    return checkpoint.find(checkpoint_folder(config.start_from))


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
    source: Path | None, sizes: Mu0Config, paths: Sequence[Path], folder: Path
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


def _learn_words(sizes: Mu0Config, paths: Sequence[Path], folder: Path) -> None:
    """Extend the tokenizer of a folder by the words of episodes."""
    tokenizer = load_tokenizer(folder, sizes)
    known = len(tokenizer)
    extended = extend_tokenizer(tokenizer, _texts(paths), sizes.vlm.vocab_size)
    save_tokenizer(extended, folder)
    _log.info("tokens for new words: %d, now %d", len(extended) - known, len(extended))


def _tokenizer_files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.glob("*token*.json") if path.is_file()))


def _texts(paths: Iterable[Path]) -> set[str]:
    """Return the prompts of episodes."""
    texts = {"Task: predict future trajectory\n"}
    for path in paths:
        captions = read_episode(path).captions
        texts |= {f"Task: {text}\n" for c in captions for text in c.instructions}
    return texts


def _index(
    config: TrainingConfig,
    lengths: Mu0Config | Statistics,
    arc_step: float,
    paths: Sequence[Path],
) -> SampleIndex:
    index = find_samples(
        paths,
        sample_rules(config.rules),
        history_len=lengths.history_len,
        future_len=lengths.future_len,
        arc_step=arc_step,
    )
    return index.every(config.frame_stride)
