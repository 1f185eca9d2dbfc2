"""Own the benchmark of the data path: `ros2 run mu0_world_model benchmark_data --json`.

It reads training batches from few and from many episodes and tells samples a second and memory.
Synthetic episodes have small files with real points and pictures that are holes on the disk.
"""

import argparse
import json
import logging
import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from tqdm import trange

from mu0_core.config import add_arguments, from_namespace, option, to_dict, validate
from mu0_core.errors import Mu0Error
from mu0_core.folders import matching_folders
from mu0_world_model.dataset import TraceDataset
from mu0_world_model.presets import preset
from mu0_world_model.processor import Processor
from mu0_world_model.samples import find_samples, sample_rules
from mu0_world_model.statistics import measure
from mu0_world_model.text import train_tokenizer
from mu0_world_model.training_data import TrainingSet, training_batches

_CAPTION = "lift the red cube"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """Say what is read."""

    episodes: tuple[str, ...] = option((), description="Folders, globs; none: synthetic ones")
    counts: tuple[int, ...] = option(
        (10, 2000), description="Numbers of synthetic episodes, each measured by itself", low=1
    )
    frames: int = option(16, description="Frames of a synthetic episode", low=2)
    width: int = option(320, description="Of its pictures", unit="px", low=8)
    height: int = option(240, description="Of its pictures", unit="px", low=8)
    points: int = option(32, description="Points in a frame of it", low=2)
    folder: Path | None = option(
        None, description="Where synthetic episodes are made for a while; none: as the system says"
    )
    preset: str = option("tiny", description="Model that the batches are for")
    rules: str = option("all", description="Sample rules")
    batch_size: int = option(16, description="Samples of a batch", low=1)
    batches: int = option(50, description="Batches to read", low=2)
    workers: int = option(0, description="Processes that read", low=0)
    json: bool = option(False, description="Print all figures as one JSON line last")

    def __post_init__(self) -> None:
        validate(self)


def measure_reading(config: BenchmarkConfig, paths: Sequence[Path]) -> dict[str, float]:
    """Prepare for training on episodes and read batches, as a run does.

    Returns:
        episodes, samples; seconds to look through all; samples a second of wall-clock time, and
        of processor time of all processes; memory_mb of its own that the process has after each
        stage beyond what it had before; peak_mb, all that it ever had in memory, files included.
    """
    torch.set_num_threads(1)
    sizes, rules = preset(config.preset), sample_rules(config.rules)
    before_mb, started = _own_memory_mb(), perf_counter()
    lengths = {"history_len": sizes.history_len, "future_len": sizes.future_len}
    statistics = measure(paths, **lengths)
    index = find_samples(paths, rules, arc_step=statistics.arc_step, **lengths)
    looked_s, looked_mb = perf_counter() - started, _own_memory_mb() - before_mb
    sizes = replace(sizes, delta_scale=statistics.delta_scale)
    tokenizer = train_tokenizer([f"Task: {_CAPTION}\n"], min(sizes.vlm.vocab_size, 512))
    data = TraceDataset(index, Processor(sizes, statistics, tokenizer), rules)
    batches = training_batches(
        TrainingSet(data, 1),
        batch_size=config.batch_size,
        micro=0,
        rank=0,
        world=1,
        start=0,
        workers=config.workers,
    )
    read = sum(len(parts[0].time) for parts in islice(batches, 1))  # workers start, files warm up
    started, started_cpu = perf_counter(), process_time()
    read = sum(len(parts[0].time) for parts in islice(batches, config.batches - 1))
    wall_s, cpu_s = perf_counter() - started, process_time() - started_cpu
    values = {
        "episodes": len(index.episodes),
        "samples": len(index),
        "look_through_s": looked_s,
        "samples_per_s": read / wall_s,
        "index_memory_mb": looked_mb,
        "memory_mb": _own_memory_mb() - before_mb,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if not config.workers:
        values["samples_per_cpu_s"] = read / cpu_s
    return values


def write_episode(folder: Path, config: BenchmarkConfig, seed: int) -> None:
    """Write a synthetic episode: random walks before black pictures, depth in the first one."""
    rng = np.random.default_rng(seed)
    sizes = preset(config.preset)
    frames, n = config.frames, config.points
    samples = folder / "samples"
    samples.mkdir(parents=True)
    shape = (frames, config.height, config.width)
    open_ = np.lib.format.open_memmap
    open_(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(*shape, 3))
    depth = open_(folder / "depth.npy", mode="w+", dtype=np.float16, shape=shape)
    depth[0] = rng.uniform(0.5, 2.0, shape[1:])
    caption = {"start_idx": 0, "end_idx": frames - 1, "instruction_1": _CAPTION}
    texts = {"chunk_texts": [], "merged_texts": [caption]}
    (folder / "curated_training_texts.json").write_text(json.dumps(texts), encoding="utf-8")
    rows = frames * n
    start = rng.uniform(0.2, 0.8, (rows, 1, 3)) * (config.width, config.height, 1.0)
    arrays: dict[str, Any] = {
        "frame_indices": np.arange(frames, dtype=np.int32),
        "offsets": np.arange(frames + 1, dtype=np.int64) * n,
        "is_moving": np.ones(rows, bool),
        "cluster_ids": rng.integers(0, 4, rows).astype(np.int32),
    }
    for suffix, steps in (("", sizes.future_len), ("_history", sizes.history_len)):
        walk = rng.normal(0.0, (2.0, 2.0, 0.01), (rows, steps, 3)).cumsum(1)
        arrays[f"traj{suffix}"] = np.concatenate([start, start + walk], 1).astype(np.float16)
        arrays[f"valid_steps{suffix}"] = np.ones((rows, steps + 1), bool)
    for name, array in arrays.items():
        np.save(samples / f"{name}.npy", array)


def run(config: BenchmarkConfig) -> list[dict[str, float]]:
    """Measure, each set of episodes in a process of its own."""
    with (
        _episode_sets(config) as sets,
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
    ):
        return [pool.apply(measure_reading, (config, paths)) for paths in sets]


@contextmanager
def _episode_sets(config: BenchmarkConfig) -> Iterator[list[list[Path]]]:
    """Give the episodes to read; synthetic ones are removed afterwards."""
    if config.episodes:
        yield [matching_folders(config.episodes)]
        return
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        paths = [Path(folder) / f"{i:06d}" for i in range(max(config.counts))]
        for i in trange(len(paths), desc="writing", unit="episode"):
            write_episode(paths[i], config, i)
        yield [paths[:count] for count in config.counts]


def _own_memory_mb() -> float:
    """Return the memory of this process and its children that no file stands behind."""
    children = [child.pid for child in multiprocessing.active_children()]
    total = 0
    for pid in ("self", *children):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return total / 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description="Measure how fast training batches are read.")
    add_arguments(parser, BenchmarkConfig)
    try:
        config = from_namespace(BenchmarkConfig, parser.parse_args(arguments))
        results = run(config)
    except Mu0Error as error:
        parser.exit(2, f"error: {error}\n")
    names = list(results[0])
    sys.stdout.write("".join(f"{name:>20}" for name in names) + "\n")
    for values in results:
        sys.stdout.write("".join(f"{values[name]:20.1f}" for name in names) + "\n")
    if config.json:
        content = {"results": results, "settings": to_dict(config)}
        sys.stdout.write(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
