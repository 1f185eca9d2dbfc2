"""Own the captions of an episode: the file `curated_training_texts.json`, read and written.

A caption covers an inclusive range of frames and says the same thing in up to three ways. A merged
caption describes several chunks that follow each other. Of the file, readers need the range and
the instructions; the rest is written with neutral values where nothing is known.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mu0_core.errors import EpisodeError

CAPTION_FILE = "curated_training_texts.json"
MAX_INSTRUCTIONS = 3
_MERGE_TYPES = {2: "pair", 3: "triple"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """Describe what happens in a range of frames.

    Attributes:
        start: First frame.
        end: Last frame, inclusive.
        instructions: One to three ways to say it.
        skill_labels: What is done, such as reach, grasp, lift, place.
        embodiment_type: human_hand, robot_gripper, robot_arm, tool or unknown.
        source_chunk_ids: Of a merged caption, the chunks it spans, counted over the captions that
            are not merged; empty for those.
    """

    start: int
    end: int
    instructions: tuple[str, ...]
    skill_labels: tuple[str, ...] = ("unknown",)
    embodiment_type: str = "unknown"
    source_chunk_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise EpisodeError(
                f"caption: expected frames 0 <= start <= end, got {self.start} to {self.end}"
            )
        if len(self.instructions) > MAX_INSTRUCTIONS:
            raise EpisodeError(
                f"caption: at most {MAX_INSTRUCTIONS} instructions fit the format, "
                f"got {len(self.instructions)}"
            )

    def covers(self, frame: int) -> bool:
        """Tell whether a frame is in the range."""
        return self.start <= frame <= self.end


def read_captions(path: Path) -> tuple[Caption, ...]:
    """Read the captions of a file, chunks first; entries without any instruction are left out.

    Raises:
        EpisodeError: The file is not JSON of the expected form; it names file and entry.
    """
    captions = []
    for key, index, entry in caption_entries(load_json(path)):
        place = f"{path}: {key}[{index}]"
        try:
            caption = Caption(
                start=int(entry["start_idx"]),
                end=int(entry["end_idx"]),
                instructions=_instructions(entry),
                skill_labels=tuple(entry.get("skill_labels", ())),
                embodiment_type=entry.get("embodiment_type", "unknown"),
                source_chunk_ids=tuple(entry.get("source_chunk_ids", ())),
            )
        except KeyError as error:
            raise EpisodeError(f"{place}: {error} is missing") from error
        except (TypeError, ValueError, EpisodeError) as error:
            raise EpisodeError(f"{place}: {error}") from error
        if caption.instructions:
            captions.append(caption)
    return tuple(captions)


def caption_entries(texts: dict[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    """Return (list name, index, entry) of all entries of the file."""
    keys = ("chunk_texts", "merged_texts")
    return [(key, i, entry) for key in keys for i, entry in enumerate(texts.get(key, ()))]


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object, or raise an EpisodeError that names it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EpisodeError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise EpisodeError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def caption_texts(captions: Sequence[Caption], *, video_id: str, n_frames: int) -> dict[str, Any]:
    """Return the content of the caption file.

    Raises:
        EpisodeError: A caption leaves the episode, chunks overlap, or a merged caption does not
            span its chunks.
    """
    chunks = [c for c in captions if not c.source_chunk_ids]
    merged = [c for c in captions if c.source_chunk_ids]
    faults = [
        f"frames {c.start} to {c.end} leave the episode of {n_frames} frames"
        for c in captions
        if c.end >= n_frames
    ]
    faults += [
        f"chunks {i} and {i + 1} overlap at frame {after.start} or are not in order"
        for i, (before, after) in enumerate(pairwise(chunks))
        if after.start <= before.end
    ]
    faults += [fault for caption in merged for fault in _merge_faults(caption, chunks)]
    if faults:
        raise EpisodeError(f"captions of {video_id}: " + "; ".join(faults))
    return {
        "video_id": video_id,
        "n_frames": n_frames,
        "chunk_texts": [_chunk_entry(i, chunk) for i, chunk in enumerate(chunks)],
        "merged_texts": [_merged_entry(caption, chunks) for caption in merged],
    }


def _merge_faults(caption: Caption, chunks: Sequence[Caption]) -> list[str]:
    """Return why a merged caption does not fit its chunks."""
    unknown = [i for i in caption.source_chunk_ids if not 0 <= i < len(chunks)]
    if unknown:
        return [f"merged caption names chunks {unknown}, but there are {len(chunks)}"]
    sources = [chunks[i] for i in caption.source_chunk_ids]
    span = min(c.start for c in sources), max(c.end for c in sources)
    if span == (caption.start, caption.end):
        return []
    return [
        f"merged caption covers frames {caption.start} to {caption.end}, "
        f"its chunks {span[0]} to {span[1]}"
    ]


def _chunk_entry(chunk_id: int, caption: Caption) -> dict[str, Any]:
    return {
        "chunk_id": chunk_id,
        **_common_entry(caption),
        "embodiment_type": caption.embodiment_type,
        "task_type": "manipulation",
        "hallucination_flags": {
            "contact_claim_without_clear_evidence": False,
            "object_identity_uncertain": False,
            "embodiment_uncertain": False,
        },
        "used_middle_frame": False,
        "complexity_tier": "simple",
    }


def _merged_entry(caption: Caption, chunks: Sequence[Caption]) -> dict[str, Any]:
    ids = caption.source_chunk_ids
    return {
        "merge_type": _MERGE_TYPES.get(len(ids), "full"),
        "source_chunk_ids": list(ids),
        **_common_entry(caption),
        "timeline": [
            {
                "chunk_id": i,
                "start_idx": chunks[i].start,
                "end_idx": chunks[i].end,
                "event": chunks[i].instructions[0] if chunks[i].instructions else "",
            }
            for i in ids
        ],
    }


def _common_entry(caption: Caption) -> dict[str, Any]:
    texts = [*caption.instructions, "", "", ""][:MAX_INSTRUCTIONS]
    return {
        "start_idx": caption.start,
        "end_idx": caption.end,
        **{f"instruction_{i}": text for i, text in enumerate(texts, start=1)},
        "skill_labels": list(caption.skill_labels),
    }


def _instructions(entry: dict[str, Any]) -> tuple[str, ...]:
    """Return the non-empty instructions of an entry."""
    texts = [entry.get(f"instruction_{i}") or "" for i in range(1, MAX_INSTRUCTIONS + 1)]
    return tuple(text for text in texts if text.strip())
