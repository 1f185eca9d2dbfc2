"""Own the way from a recording to its episodes: part by part, each remembered when done."""

import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from mu0_core.episode import read_manifest
from mu0_core.errors import EpisodeError, Mu0Error
from mu0_perception.extract.captions import Writer
from mu0_perception.extract.captions_again import write_missing_captions
from mu0_perception.extract.config import ExtractConfig
from mu0_perception.extract.frames import select_frames
from mu0_perception.extract.part import Clock, extract_part
from mu0_perception.extract.recording import Found, LeftOutError, Recording, SourceError
from mu0_perception.extract.sidecar import read_sidecar
from mu0_perception.extract.sources import open_recording, recording_stamp
from mu0_perception.extract.state import OutFolder, RecordState
from mu0_perception.extract.vision_writers import make_writer

Report = Callable[[str], None]
STILL = "still"
LEFT_OUT = "left out"
EPISODE = "episode"
_LOSSES = {
    "dropped_pictures": "out of order, or without depth or pose",
    "unreadable_pictures": "unreadable",
    "cut_off_pictures": "beyond a gap that unreadable ones left",
    "odometry_lost_pictures": "whose pose odometry did not find",
}


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
        details: Topics, frames and the like that were read.
        caption_failures: Why captions are missing.
        peak_memory_mb: Of the process until then.
    """

    name: str
    status: str = "done"
    reason: str = ""
    episodes: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    backends: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    caption_failures: list[str] = field(default_factory=list)
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
    state = _state(found, folder, config)
    writer = None
    if not _is_finished(state, folder):
        writer = make_writer(config.captions)  # first: without its weights nothing is begun
        report("open")
        recording = open_recording(found, config.source)
        result.details = recording.about.details
        _extract_parts(recording, folder, config, state, writer, result, report)
    else:
        result.status = "kept"
    _conclude(state, result)


def _state(found: Found, folder: OutFolder, config: ExtractConfig) -> RecordState:
    """Return what became of a recording until now; episodes of what it was before are deleted.

    Raises:
        SourceError: The folder holds another recording of its name.
    """
    source = found.path.resolve()
    stamp = recording_stamp(found, config.source)
    state = folder.state(found.name)
    if state is not None and Path(state.source).resolve() != source:
        raise SourceError(
            f"{source}: {folder.path} holds {found.name!r} from {state.source} already; choose "
            "another folder for the episodes, or rename the recording"
        )
    if state is not None and state.stamp == stamp:
        return state
    if state is not None:
        for name, became in state.parts.items():
            if became == EPISODE and _is_own(folder.path / name, state):
                folder.remove_episode(name)
    return RecordState(source=str(source), stamp=stamp)


def _is_own(path: Path, state: RecordState) -> bool:
    """Say whether the episode at a path was made from a recording."""
    try:
        source = read_sidecar(path)["source"]["path"]
    except (OSError, ValueError, KeyError, TypeError):
        return state.parts.get(path.name) == EPISODE
    return Path(source).resolve() == Path(state.source)


def _is_finished(state: RecordState, folder: OutFolder) -> bool:
    """Say whether nothing is left to do; what failed is tried again.

    So is a recording all of whose parts were left out.
    """
    if not state.finished or any(state.caption_failures.values()):
        return False
    for name, became in state.parts.items():
        if became == EPISODE and not _is_there(folder.path / name):
            return False
        if became.startswith("failed"):
            return False
    return any(became in (EPISODE, STILL) for became in state.parts.values())


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
        is_there = became == EPISODE and _is_there(folder.path / name)
        lacks_captions = bool(state.caption_failures.get(name))
        if became == STILL or (is_there and not lacks_captions):
            continue
        prefix = f"part {i + 1} of {n_parts}: " if n_parts > 1 else ""
        try:
            _check_free(folder.path / name, state)
            if is_there and writer is not None:
                report(f"{prefix}caption")
                state.caption_failures[name] = list(
                    write_missing_captions(folder.path / name, about, config.events, writer)
                )
                folder.remember(about.name, state)
                continue
            outcome = extract_part(
                recording,
                indices,
                folder.path / name,
                config,
                writer=writer,
                work_folder=folder.work_folder(about.name),
                clock=clock,
                report=_prefixed(report, prefix),
            )
        except Mu0Error as error:
            kind = LEFT_OUT if isinstance(error, LeftOutError) else "failed"
            state.parts[name] = f"{kind}: {error}"
            folder.remember(about.name, state)
            continue
        state.parts[name] = EPISODE if outcome.written else STILL
        state.caption_failures[name] = list(outcome.caption_failures)
        result.backends = outcome.backends
        state.figures[name] = {
            "pictures": outcome.n_frames,
            "points": outcome.n_points,
            "duration_s": outcome.duration_s,
            **outcome.losses,
        }
        folder.remember(about.name, state)
    state.finished = True
    folder.remember(about.name, state)
    result.figures |= {"dropped_pictures": selection.dropped, "gaps": len(selection.gaps_s)}
    result.figures |= {f"{stage}_cpu_s": s for stage, s in clock.seconds.items()}


def _check_free(path: Path, state: RecordState) -> None:
    """Refuse to replace what was not made from the same recording."""
    if path.exists() and not _is_own(path, state):
        raise SourceError(
            f"{path}: is there already and was not made from {state.source}; move it away, or "
            "choose another folder for the episodes"
        )


def _prefixed(report: Report, prefix: str) -> Report:
    return lambda text: report(prefix + text)


def _conclude(state: RecordState, result: Result) -> None:
    """Sum up the parts of a recording."""
    result.episodes = [name for name, became in state.parts.items() if became == EPISODE]
    for figures in state.figures.values():
        for name, value in figures.items():
            result.figures[name] = result.figures.get(name, 0.0) + value
    failed, left_out = _told_of(state, "failed"), _told_of(state, LEFT_OUT)
    captions = [text for texts in state.caption_failures.values() for text in texts]
    result.caption_failures = captions
    notes = []
    if failed or len(left_out) == len(state.parts):
        result.status = "failed"
        notes += failed or left_out
    elif not result.episodes:
        result.status = STILL
        notes.append("nothing moves: no episode")
    if left_out and result.status != "failed":
        notes.append(f"{len(left_out)} of {len(state.parts)} parts left out: {left_out[0]}")
    if captions and result.episodes:
        notes.append(f"{len(captions)} captions failed, tried again next time: {captions[0]}")
    lost = [
        f"{int(n)} {text}" for name, text in _LOSSES.items() if (n := result.figures.get(name))
    ]
    if lost:
        notes.append("pictures lost: " + ", ".join(lost))
    result.reason = "; ".join(notes)


def _told_of(state: RecordState, kind: str) -> list[str]:
    """Return name and reason of the parts that became of a kind."""
    return [
        f"{name}: {became.removeprefix(f'{kind}: ')}"
        for name, became in state.parts.items()
        if became.startswith(kind)
    ]
