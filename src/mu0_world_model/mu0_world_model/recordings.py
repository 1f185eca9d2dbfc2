"""Own which simulated episodes a checkpoint was trained on and is measured on.

The episodes are too large to ship. A checkpoint names them by robot, task and seeds in
recordings.yaml, and the simulator's recorder makes them again; what is there is not made twice.
"""

import logging
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from mu0_core.config import load_yaml, option, validate
from mu0_core.errors import EpisodeError

RECORDINGS = "recordings.yaml"

_RECORDER = "mu0_sim.nodes.record"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Name a series of demonstrations."""

    robot: str = option(description="As the simulator names it")
    task: str = option(description="As the simulator names it")
    seed: int = option(description="Seed of the first scene; the next ones count up", low=0)
    episodes: int = option(description="Number of scenes", low=1)
    astray: bool = option(False, description="Whether they begin beside the target")
    depth_noise: bool = option(False, description="Whether depth has the flaws of a sensor")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """Name the demonstrations of a checkpoint."""

    arc_step: float = option(
        description="Step of the traces, image fractions and metres in one norm", low=1e-6
    )
    training: tuple[Recording, ...] = option(description="What the weights were learned from")
    held_out: tuple[Recording, ...] = option(description="What they are measured on")

    def __post_init__(self) -> None:
        validate(self)


def read_recordings(folder: str | Path) -> Recordings:
    """Read what a checkpoint folder says.

    Raises:
        EpisodeError: It says nothing.
        ConfigError: The file does not fit.
    """
    path = Path(folder) / RECORDINGS
    if not path.is_file():
        raise EpisodeError(
            f"{folder}: no {RECORDINGS} in this checkpoint; name the held-out episodes by "
            "--episodes and, for the nearest neighbours, the training ones by --training"
        )
    return load_yaml(Recordings, path)


def trained_robots(folder: str | Path) -> tuple[str, ...]:
    """Return the robots that a checkpoint was trained on; empty where it does not say."""
    if not (Path(folder) / RECORDINGS).is_file():
        return ()
    return tuple(sorted({recording.robot for recording in read_recordings(folder).training}))


def first(recordings: tuple[Recording, ...], episodes: int) -> tuple[Recording, ...]:
    """Return at most so many scenes of each recording; 0 = all."""
    if episodes == 0:
        return recordings
    return tuple(replace(r, episodes=min(r.episodes, episodes)) for r in recordings)


def make(recordings: tuple[Recording, ...], arc_step: float, out: Path) -> tuple[str, ...]:
    """Record what is not there yet, in a process of its own.

    Args:
        recordings: What is wanted.
        arc_step: Of the traces.
        out: Folder of the recordings.

    Returns:
        Globs of exactly these episodes.

    Raises:
        EpisodeError: The recorder failed, or is not installed.
    """
    paths: list[str] = []
    for recording in recordings:
        kind = "_astray" * recording.astray + "_noise" * recording.depth_noise
        folder = out / f"{recording.robot}_{recording.task}{kind}"
        seeds = range(recording.seed, recording.seed + recording.episodes)
        names = [f"{recording.robot}_{recording.task}_{seed:06d}" for seed in seeds]
        if not all((folder / name).is_dir() for name in names):
            _record(recording, arc_step, folder)
        paths += [str(folder / name) for name in names if (folder / name).is_dir()]
    return tuple(paths)


def _record(recording: Recording, arc_step: float, folder: Path) -> None:
    options = {
        "robot": recording.robot,
        "task": recording.task,
        "seed": recording.seed,
        "episodes": recording.episodes,
        "arc_step": arc_step,
        "out": folder,
    }
    _logger.info("recording %d episodes into %s", recording.episodes, folder)
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words += ["--astray"] * recording.astray + ["--depth_noise"] * recording.depth_noise
    done = subprocess.run(
        [sys.executable, "-m", _RECORDER, *words], stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode not in (0, 1):  # 1: some scenes had no demonstration; the log names them
        raise EpisodeError(
            f"{folder}: the simulator's recorder ended with code {done.returncode} (see above); "
            "it comes with the package mu0_sim"
        )
