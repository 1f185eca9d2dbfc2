"""Own the drawing of an episode's traces over its pictures, and the video made of that."""

from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.depth_colour import turbo_lut
from mu0_core.episode import Episode, Slot
from mu0_core.errors import EpisodeError

_TEXT_HEIGHT = 26
_GOLDEN = 0.61803398875


class ColourBy(StrEnum):
    """Name what colours stand for."""

    CLUSTER = "cluster"
    TIME = "time"


def colours(slot: Slot, by: ColourBy) -> NDArray[np.uint8]:
    """Return the colour (n, F, 3) RGB of each step of each row of a slot."""
    n, steps = slot.rows.future_valid.shape
    if by is ColourBy.TIME:
        lut = (255 * turbo_lut()).astype(np.uint8)
        along = lut[np.linspace(0, 255, steps).astype(int)]
        return np.broadcast_to(along, (n, steps, 3)).copy()
    ids = slot.rows.cluster_ids
    cluster = np.zeros(n, np.int64) if ids is None else np.asarray(ids, np.int64)
    hue = ((cluster * _GOLDEN) % 1.0 * 179).astype(np.uint8)
    hsv = np.stack([hue, np.full_like(hue, 230), np.full_like(hue, 255)], axis=-1)
    rgb = np.asarray(cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0], np.uint8)
    return np.repeat(rgb[:, None], steps, axis=1)


def draw_frame(episode: Episode, frame: int, slot: Slot | None, by: ColourBy) -> NDArray[np.uint8]:
    """Return a picture (H + text, W, 3) RGB with traces, points and the caption of its time."""
    picture = np.array(episode.images[frame])
    if slot is not None:
        _draw_traces(picture, slot, colours(slot, by))
    bar = np.zeros((_TEXT_HEIGHT, picture.shape[1], 3), np.uint8)
    captions = [c for c in episode.captions_at(frame) if not c.source_chunk_ids]
    text = captions[0].instructions[0] if captions else ""
    label = f"{frame}/{episode.n_frames - 1}  {text}"
    white = (255, 255, 255)
    cv2.putText(bar, label, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, white, 1, cv2.LINE_AA)
    return np.concatenate([picture, bar])


def write_video(episode: Episode, path: Path, by: ColourBy) -> None:
    """Write the overlay of all frames as a video, at the episode's own rate.

    Raises:
        EpisodeError: The video cannot be written there.
    """
    slots = {slot.frame: slot for slot in episode.slots()}
    stamps = episode.stamps
    rate = 10.0 if stamps is None else (len(stamps) - 1) / float(stamps[-1] - stamps[0])
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    try:
        with av.open(str(path), "w") as container:
            frame_rate = Fraction(rate).limit_denominator(1000)
            stream = cast(av.VideoStream, container.add_stream(codec, rate=frame_rate))
            stream.pix_fmt = "yuv420p"
            height, width = episode.height + _TEXT_HEIGHT, episode.width
            stream.width, stream.height = width - width % 2, height - height % 2
            for frame in range(episode.n_frames):
                picture = draw_frame(episode, frame, slots.get(frame), by)
                picture = np.ascontiguousarray(picture[: stream.height, : stream.width])
                image = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode())
    except (av.FFmpegError, OSError, ValueError) as error:
        raise EpisodeError(f"{path}: video cannot be written: {error}") from error


def _draw_traces(picture: NDArray[np.uint8], slot: Slot, colour: NDArray[np.uint8]) -> None:
    rows = slot.rows
    far = 4 * max(picture.shape[:2])
    for uvz, valid, c in zip(rows.future_uvz, rows.future_valid, colour, strict=True):
        uv = np.asarray(uvz[valid, :2], np.float64)
        uv = uv[(np.abs(uv) < far).all(axis=1)].round().astype(int)
        for i in range(1, len(uv)):
            line = (int(uv[i - 1, 0]), int(uv[i - 1, 1])), (int(uv[i, 0]), int(uv[i, 1]))
            cv2.line(picture, *line, c[i].tolist(), 1, cv2.LINE_AA)
        if len(uv):
            cv2.circle(picture, (int(uv[0, 0]), int(uv[0, 1])), 2, c[0].tolist(), -1, cv2.LINE_AA)
