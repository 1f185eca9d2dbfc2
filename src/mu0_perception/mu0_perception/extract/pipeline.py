"""Own the way from a recording to its episodes: part by part, each remembered when done."""

import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from mu0_core.episode import read_manifest
from mu0_core.errors import EpisodeError, Mu0Error
from mu0_perception.extract.captions import Writer
from mu0_perception.extract.config import ExtractConfig
from mu0_perception.extract.frames import select_frames
from mu0_perception.extract.part import Clock, extract_part
from mu0_perception.extract.recording import Found, Recording, SourceError
from mu0_perception.extract.sources import open_recording
from mu0_perception.extract.state import OutFolder, RecordState, fingerprint
from mu0_perception.extract.vision_writers import make_writer

Report = Callable[[str], None]
STILL = "still"
EPISODE = "episode"


@dataclass(slots=True, kw_only=True)
class Result:
    """Hold what became of a recording.

    Attributes:
        name: Of the recording.
        status: "done", "kept" (was done before), "still" (nothing moves) or "failed".
        reason: Why it failed, or what is to be known.
        episodes: Names of its episodes.
        figures: Numbers: pictures, points, duration_s, wall_s, and processor time of stages.
        backends: What was used.
        peak_memory_mb: Of the process until then.
    """

    name: str
    status: str = "done"
    reason: str = ""
    episodes: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    backends: dict[str, str] = field(default_factory=dict)
    peak_memory_mb: float = 0.0


def extract_recording(
    found: Found, out: Path, config: ExtractConfig, report: Report = lambda text: None
) -> Result:
    """Extract one recording; what is done already is kept, what fails is said in the result.

    Args:
        found: The recording.
        out: Folder of the episodes, claimed for this configuration.
        config: All stages.
        report: Is told what is being done.
    """
    started_s = time.monotonic()
    cv2.setNumThreads(1)  # recordings run beside each other instead
    folder = OutFolder(out)
    result = Result(name=found.name)
    try:
        with folder.locked(found.name):
            _extract(found, folder, config, result, report)
    except Mu0Error as error:
        result.status, result.reason = "failed", str(error)
    except Exception as error:  # a fault of the program must not stop the other recordings
        result.status = "failed"
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        result.reason = f"{type(error).__name__} at {place}: {error}"
    result.figures["wall_s"] = time.monotonic() - started_s
    result.peak_memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def _extract(
    found: Found, folder: OutFolder, config: ExtractConfig, result: Result, report: Report
) -> None:
    stamp = fingerprint(found.path)
    state = folder.state(found.name)
    if state is None or state.stamp != stamp:
        state = RecordState(source=str(found.path), stamp=stamp)
    writer = None
    if not _is_finished(state, folder):
        writer = make_writer(config.captions)  # first: without its weights nothing is begun
        report("open")
        recording = open_recording(found, config.source)
        _extract_parts(recording, folder, config, state, writer, result, report)
    else:
        result.status = "kept"
    _conclude(state, result)


def _is_finished(state: RecordState, folder: OutFolder) -> bool:
    """Say whether nothing is left to do; failed parts and captions are tried again."""
    if not state.finished or any(state.caption_failures.values()):
        return False
    for name, became in state.parts.items():
        if became == EPISODE and not _is_there(folder.path / name):
            return False
        if became.startswith("failed"):
            return False
    return True


def _is_there(path: Path) -> bool:
    """Say whether an episode is there and whole."""
    try:
        return read_manifest(path) is not None
    except EpisodeError:
        return False


def _extract_parts(
    recording: Recording,
    folder: OutFolder,
    config: ExtractConfig,
    state: RecordState,
    writer: Writer | None,
    result: Result,
    report: Report,
) -> None:
    about = recording.about
    stamps = recording.stamps_s()
    if not len(stamps):
        raise SourceError(f"{about.path}: has no pictures")
    selection = select_frames(stamps, config.frames)
    if not selection.parts:
        raise SourceError(
            f"{about.path}: has {len(stamps)} pictures, but no {config.frames.min_frames} of them "
            f"follow each other within {config.frames.max_gap_s} s (--frames.max_gap_s)"
        )
    clock = Clock()
    n_parts = len(selection.parts)
    for i, indices in enumerate(selection.parts):
        name = about.name if n_parts == 1 else f"{about.name}_part{i:03d}"
        became = state.parts.get(name, "")
        redo_captions = bool(state.caption_failures.get(name))
        if became == STILL or (
            became == EPISODE and not redo_captions and _is_there(folder.path / name)
        ):
            continue
        prefix = f"part {i + 1} of {n_parts}: " if n_parts > 1 else ""
        try:
            outcome = extract_part(
                recording,
                indices,
                folder.path / name,
                config,
                writer=writer,
                work_folder=folder.work_folder(),
                clock=clock,
                report=_prefixed(report, prefix),
            )
        except Mu0Error as error:
            state.parts[name] = f"failed: {error}"
            folder.remember(about.name, state)
            continue
        state.parts[name] = EPISODE if outcome.written else STILL
        state.caption_failures[name] = list(outcome.caption_failures)
        result.backends = outcome.backends
        state.figures[name] = {
            "pictures": outcome.n_frames,
            "points": outcome.n_points,
            "duration_s": outcome.duration_s,
            "unreadable_pictures": outcome.unreadable,
        }
        folder.remember(about.name, state)
    state.finished = True
    folder.remember(about.name, state)
    result.figures |= {"dropped_pictures": selection.dropped, "gaps": len(selection.gaps_s)}
    result.figures |= {f"{stage}_cpu_s": s for stage, s in clock.seconds.items()}


def _prefixed(report: Report, prefix: str) -> Report:
    return lambda text: report(prefix + text)


def _conclude(state: RecordState, result: Result) -> None:
    """Sum up the parts of a recording."""
    result.episodes = [name for name, became in state.parts.items() if became == EPISODE]
    for figures in state.figures.values():
        for name, value in figures.items():
            result.figures[name] = result.figures.get(name, 0.0) + value
    failed = {name: r for name, r in state.parts.items() if r.startswith("failed")}
    captions = [text for texts in state.caption_failures.values() for text in texts]
    if failed:
        result.status = "failed"
        result.reason = "; ".join(
            f"{name}: {r.removeprefix('failed: ')}" for name, r in failed.items()
        )
    elif not result.episodes:
        result.status, result.reason = STILL, "nothing moves: no episode"
    elif captions:
        result.reason = f"{len(captions)} captions failed, tried again next time: {captions[0]}"
