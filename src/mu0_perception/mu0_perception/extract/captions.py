"""Own the words of an episode: who writes them, how chunks merge, what becomes of failures.

A writer says what happens in a chunk. What it cannot say is a failure: it is noted, leaves no
caption, and is tried again the next time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate
from mu0_core.episode_captions import Caption
from mu0_core.errors import Mu0Error
from mu0_perception.extract.recording import About, KnownEvent

SKILLS = (
    "reach",
    "grasp",
    "lift",
    "transport",
    "place",
    "release",
    "push",
    "pull",
    "rotate",
    "open_close",
    "reposition",
    "unknown",
)
EMBODIMENTS = ("human_hand", "robot_gripper", "robot_arm", "tool", "unknown")
_MOTION_RADIUS = 1 / 50  # of the picture's width, of the disks that mark moving points
_MIDDLE_FROM = 30  # pictures of a chunk that is shown with its middle


class CaptionError(Mu0Error):
    """Report that a writer gave no usable words."""


class CaptionFrom(StrEnum):
    """Name who writes captions."""

    AUTO = "auto"
    RECORDED = "recorded"
    MODEL = "model"
    ENDPOINT = "endpoint"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionConfig:
    """Say who writes captions."""

    writer: CaptionFrom = option(
        CaptionFrom.AUTO,
        description="Who writes; auto: the endpoint or model that is given, else what is recorded",
    )
    model: str = option(
        "", description="Vision-language model: a folder, or a name in the local cache"
    )
    endpoint: str = option(
        "", description="Base URL of an OpenAI-compatible service, such as http://host:8000/v1"
    )
    endpoint_model: str = option("", description="Name of the model at the endpoint")
    key_variable: str = option(
        "OPENAI_API_KEY", description="Environment variable that holds its key, if it wants one"
    )
    timeout_s: float = option(60.0, description="Longest wait for an answer", unit="s", low=1.0)
    tries: int = option(4, description="Times that an answer is asked for", low=1)

    def __post_init__(self) -> None:
        faults = []
        if self.writer is CaptionFrom.MODEL and not self.model:
            faults.append("model: expected a folder or name, as writer is model; got nothing")
        if self.writer is CaptionFrom.ENDPOINT and not self.endpoint:
            faults.append("endpoint: expected a URL, as writer is endpoint; got nothing")
        validate(self, *faults)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """Hold what a writer gets to see.

    Attributes:
        start: First frame.
        end: Last frame, inclusive.
        start_s: Its stamp.
        end_s: Its stamp.
        pictures: RGB at the start, perhaps in the middle, and at the end.
        motion: (H, W) bool, around what moves most, in the first picture.
    """

    start: int
    end: int
    start_s: float
    end_s: float
    pictures: tuple[NDArray[np.uint8], ...]
    motion: NDArray[np.bool_]


def make_chunk(
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    stamps_s: NDArray[np.float64],
    start: int,
    end: int,
    moving_uv: NDArray[np.float64],
) -> Chunk:
    """Return what a writer sees of a range of frames.

    Args:
        images: (T, H, W, 3) RGB of all frames.
        stamps_s: (T,) s.
        start: First frame.
        end: Last frame, inclusive.
        moving_uv: (n, 2) px in the first picture, what moves most; not finite where unknown.
    """
    shown = [start, end] if end - start < _MIDDLE_FROM else [start, (start + end) // 2, end]
    pictures = tuple(np.asarray(images[i]) for i in shown)
    height, width = pictures[0].shape[:2]
    marks = np.zeros((height, width), np.uint8)
    known = np.isfinite(moving_uv).all(axis=1)
    for u, v in moving_uv[known].round().astype(int).tolist():
        cv2.circle(marks, (u, v), round(_MOTION_RADIUS * width), 1, -1)
    motion = marks.astype(np.bool_)
    return Chunk(
        start=start,
        end=end,
        start_s=float(stamps_s[start]),
        end_s=float(stamps_s[end]),
        pictures=pictures,
        motion=motion if motion.any() else np.ones_like(motion),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Hold what a writer says."""

    instructions: tuple[str, ...]
    skills: tuple[str, ...] = ("unknown",)
    embodiment: str = "unknown"


class Writer(Protocol):
    """Put motion into words."""

    name: str

    def describe(self, chunk: Chunk, about: About) -> Words | None:
        """Say what happens in a chunk; None if there is nothing to say.

        Raises:
            CaptionError: No usable answer came.
        """

    def merge(self, parts: Sequence[Words]) -> Words:
        """Say in one what happens in parts that follow each other.

        Raises:
            CaptionError: No usable answer came.
        """


class RecordedWriter:
    """Repeat what the recording says: its events where they are known, its task otherwise."""

    name = "recorded text"

    def describe(self, chunk: Chunk, about: About) -> Words | None:
        """Return the event that takes most of the chunk, and the task."""
        event = _longest_event(chunk, about.events)
        texts = tuple(dict.fromkeys([*([event.text] if event else []), *about.instructions]))
        if not texts:
            return None
        skills = event.skills if event else ("unknown",)
        return Words(instructions=texts[:3], skills=skills, embodiment=about.embodiment)

    def merge(self, parts: Sequence[Words]) -> Words:
        """Join different events with "then"; what all parts share stays as it is."""
        shared = [t for t in parts[0].instructions if all(t in p.instructions for p in parts)]
        firsts = [part.instructions[0] for part in parts]
        steps = [text for i, text in enumerate(firsts) if i == 0 or text != firsts[i - 1]]
        joined = ", then ".join(steps)
        texts = tuple(dict.fromkeys([joined, *shared]))
        return Words(instructions=texts[:3], skills=union(parts), embodiment=majority(parts))


def union(parts: Sequence[Words]) -> tuple[str, ...]:
    """Return the skills of all parts, each once."""
    skills = dict.fromkeys(skill for part in parts for skill in part.skills)
    known = tuple(skill for skill in skills if skill != "unknown")
    return known or ("unknown",)


def majority(parts: Sequence[Words]) -> str:
    """Return the embodiment that most parts name."""
    names = [part.embodiment for part in parts]
    return max(dict.fromkeys(names), key=names.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """Hold captions, and why some are missing."""

    captions: tuple[Caption, ...]
    failures: tuple[str, ...]


def write_captions(chunks: Sequence[Chunk], about: About, writer: Writer) -> Captioned:
    """Describe chunks, and all pairs, triples and the whole of those that follow each other."""
    told: list[tuple[Chunk, Words]] = []
    failures = []
    for chunk in chunks:
        try:
            words = writer.describe(chunk, about)
        except CaptionError as error:
            failures.append(f"frames {chunk.start} to {chunk.end}: {error}")
            continue
        if words is not None:
            told.append((chunk, words))
    captions = [_caption(chunk.start, chunk.end, words) for chunk, words in told]
    for ids in _windows([chunk for chunk, _ in told]):
        parts = [told[i][1] for i in ids]
        start, end = told[ids[0]][0].start, told[ids[-1]][0].end
        try:
            words = parts[0] if len(parts) == 1 else writer.merge(parts)
        except CaptionError as error:
            failures.append(f"frames {start} to {end}: {error}")
            continue
        captions.append(_caption(start, end, words, ids))
    return Captioned(captions=tuple(captions), failures=tuple(failures))


def _windows(chunks: Sequence[Chunk]) -> list[tuple[int, ...]]:
    """Return the ids of pairs, triples and the whole, of each run of adjacent chunks."""
    runs: list[list[int]] = [[0]] if chunks else []
    for i, (before, after) in enumerate(pairwise(chunks), start=1):
        if after.start == before.end + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    windows: list[tuple[int, ...]] = []
    for run in runs:
        for length in (2, 3, len(run)):
            windows += [tuple(run[i : i + length]) for i in range(len(run) - length + 1)]
    return list(dict.fromkeys(windows))


def _caption(start: int, end: int, words: Words, ids: tuple[int, ...] = ()) -> Caption:
    return Caption(
        start=start,
        end=end,
        instructions=words.instructions[:3],
        skill_labels=words.skills,
        embodiment_type=words.embodiment,
        source_chunk_ids=ids,
    )


def _longest_event(chunk: Chunk, events: Sequence[KnownEvent]) -> KnownEvent | None:
    """Return the event that covers most of a chunk, if any does."""

    def common(event: KnownEvent) -> float:
        return min(event.end_s, chunk.end_s) - max(event.start_s, chunk.start_s)

    covering = [event for event in events if common(event) > 0.0]
    return max(covering, key=common) if covering else None
