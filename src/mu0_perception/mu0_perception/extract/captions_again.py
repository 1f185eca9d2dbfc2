"""Own the second try of captions: those that are missing, from the episode that is there."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mu0_core.episode import Episode, load_npz, read_episode
from mu0_core.episode_captions import CAPTION_FILE, Caption, caption_texts
from mu0_perception.extract.captions import Chunk, Words, Writer, make_chunk, write_captions
from mu0_perception.extract.events import EventConfig, find_chunks
from mu0_perception.extract.recording import About
from mu0_perception.extract.sidecar import read_sidecar, write_sidecar
from mu0_perception.extract.state import write_json


def write_missing_captions(
    path: Path, about: About, events: EventConfig, writer: Writer
) -> tuple[str, ...]:
    """Ask for the captions that an episode lacks, and put them into it.

    Args:
        path: Folder of an episode that was extracted.
        about: The recording it was made from.
        events: How it was cut into chunks.
        writer: Who writes what is missing.

    Returns:
        Why captions are missing still.

    Raises:
        EpisodeError: It is no whole episode.
    """
    episode = read_episode(path)
    acceleration = load_npz(path / "acceleration.npz")["acceleration"]
    chunks = [_chunk(episode, start, end) for start, end in find_chunks(acceleration, events)]
    told = write_captions(chunks, about, _Remembering(writer, episode.captions))
    if told.captions:
        texts = caption_texts(told.captions, video_id=path.name, n_frames=episode.n_frames)
        write_json(path / CAPTION_FILE, texts)
    write_sidecar(path, read_sidecar(path) | {"caption_failures": list(told.failures)})
    return told.failures


class _Remembering:
    """Repeat what an episode says already, and ask for the rest."""

    def __init__(self, writer: Writer, captions: Sequence[Caption]) -> None:
        self.name, self._writer = writer.name, writer
        chunks = [c for c in captions if not c.source_chunk_ids]
        self._of_chunk = {(c.start, c.end): _words(c) for c in chunks}
        self._of_parts = {
            tuple(chunks[i].instructions for i in c.source_chunk_ids): _words(c)
            for c in captions
            if c.source_chunk_ids
        }

    def describe(self, chunk: Chunk, about: About) -> Words | None:
        known = self._of_chunk.get((chunk.start, chunk.end))
        return known or self._writer.describe(chunk, about)

    def merge(self, parts: Sequence[Words]) -> Words:
        known = self._of_parts.get(tuple(part.instructions for part in parts))
        return known or self._writer.merge(parts)


def _words(caption: Caption) -> Words:
    return Words(
        instructions=caption.instructions,
        skills=caption.skill_labels,
        embodiment=caption.embodiment_type,
    )


def _chunk(episode: Episode, start: int, end: int) -> Chunk:
    assert episode.stamps is not None
    return make_chunk(
        episode.images, episode.stamps, start, end, _moving_most(episode, start, end)
    )


def _moving_most(episode: Episode, start: int, end: int) -> NDArray[np.float64]:
    """Return where (n, 2) px the points begin that move most in a range of frames."""
    index = int(np.searchsorted(episode.frame_indices, start))
    if index == episode.n_slots or episode.frame_indices[index] > end:
        return np.zeros((0, 2))
    slot = episode.slot(index)
    raw, valid = slot.rows.raw_future_uvz, slot.rows.raw_future_valid
    assert raw is not None and valid is not None and slot.rows.visible is not None
    step = min(end - slot.frame, raw.shape[1] - 1)
    counts = np.asarray(slot.rows.is_moving) & (np.asarray(slot.rows.visible) > 0.5)
    both = counts & np.asarray(valid[:, step])
    now = np.asarray(raw[:, 0, :2], np.float64)
    if not both.any():
        return now[counts]
    moved = np.linalg.norm(np.asarray(raw[both, step, :2], np.float64) - now[both], axis=-1)
    return now[both][moved >= np.median(moved)]
