"""Read video files and folders of frames: pictures alone, with times where they have any.

A folder of frames may have a folder `depth` beside or in it, with 16-bit PNGs of the same names;
their unit must then be given.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import ShapeError
from mu0_perception.extract.recording import (
    About,
    FloatArray,
    Found,
    Recording,
    Shot,
    SourceError,
)
from mu0_perception.extract.sources import SourceConfig

NAME = "video"
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v")
_FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
_LEAST_FRAMES = 2


def matches(path: Path) -> bool:
    """Say whether a path is a video, or a folder with at least two frames in it."""
    if path.is_file():
        return path.suffix.lower() in VIDEO_SUFFIXES
    return path.name != "depth" and len(_frame_files(path)) >= _LEAST_FRAMES


def find(path: Path, config: SourceConfig) -> list[Found]:
    """Name the recording of a video or of a folder of frames."""
    return [Found(name=path.stem if path.is_file() else path.name, path=path, source=NAME)]


def open_recording(found: Found, config: SourceConfig) -> Recording:
    """Open a video or a folder of frames."""
    if found.path.is_file():
        return VideoRecording(found, config)
    return FrameFolder(found, config)


class VideoRecording:
    """Decode a video file picture by picture.

    Args:
        found: The file.
        config: Its task in words.

    Raises:
        SourceError: It is no video.
    """

    def __init__(self, found: Found, config: SourceConfig) -> None:
        self.problem = ""
        self._path = found.path
        self._stamps = video_stamps(found.path)
        texts = (config.instruction,) if config.instruction else ()
        self.about = About(name=found.name, path=found.path, source=NAME, instructions=texts)

    def stamps_s(self) -> FloatArray:
        """Return when each picture is shown, from the file."""
        return self._stamps

    def shots(self, indices: Sequence[int]) -> Iterator[Shot | None]:
        """Decode pictures; what is damaged in the file is left out."""
        stamps = self._stamps[list(indices)]
        pictures = video_pictures(self._path, stamps, self._note)
        for stamp, rgb in zip(stamps, pictures, strict=True):
            yield None if rgb is None else Shot(stamp_s=float(stamp), rgb=rgb)

    def frame_poses(self, stamps_s: FloatArray) -> dict[str, FloatArray]:
        """Return nothing: a video knows no robot."""
        return {}

    def _note(self, problem: str) -> None:
        self.problem = self.problem or problem


class FrameFolder:
    """Read a folder of frames, named so that their natural order is that of time.

    Args:
        found: The folder.
        config: Rate, unit of depth, task.

    Raises:
        SourceError: Depth is there but its unit is not known, or a depth picture is missing.
    """

    def __init__(self, found: Found, config: SourceConfig) -> None:
        self.problem = ""
        self._files = _frame_files(found.path)
        self._period_s = 1.0 / config.folder_rate_hz
        self._unit_m = config.depth_unit_m
        self._depth = _depth_files(found.path, self._files)
        if self._depth and self._unit_m is None:
            raise SourceError(
                f"{found.path}: its depth pictures do not say their unit; give it with "
                "--source.depth_unit_m (0.001 for millimetres)"
            )
        texts = (config.instruction,) if config.instruction else ()
        self.about = About(
            name=found.name,
            path=found.path,
            source=NAME,
            instructions=texts,
            has_depth=bool(self._depth),
            details={"rate_hz": config.folder_rate_hz},
        )

    def stamps_s(self) -> FloatArray:
        """Return evenly spaced times."""
        return np.arange(len(self._files), dtype=np.float64) * np.float64(self._period_s)

    def shots(self, indices: Sequence[int]) -> Iterator[Shot | None]:
        """Read pictures."""
        for index in indices:
            try:
                rgb = _colour_of(self._files[index])
                depth_m = _depth_of(self._depth[index], self._unit_m) if self._depth else None
            except ShapeError as error:
                self.problem = self.problem or str(error)
                yield None
                continue
            yield Shot(stamp_s=index * self._period_s, rgb=rgb, depth_m=depth_m)

    def frame_poses(self, stamps_s: FloatArray) -> dict[str, FloatArray]:
        """Return nothing: frames know no robot."""
        return {}


def video_stamps(path: Path) -> FloatArray:
    """Return when each picture of a video is shown (n,) s, rising, without decoding it.

    Raises:
        SourceError: It is no video, or says no times.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            base = float(stream.time_base or 0.0)
            times = [p.pts * base for p in container.demux(stream) if p.pts is not None]
    except (av.FFmpegError, IndexError, OSError) as error:
        raise SourceError(f"{path}: not readable as a video: {error}") from error
    if len(times) < _LEAST_FRAMES:
        raise SourceError(f"{path}: a video of {len(times)} pictures with times")
    return np.unique(np.array(times)).astype(np.float64)


def video_pictures(
    path: Path, stamps_s: FloatArray, tell: Callable[[str], None] = lambda problem: None
) -> Iterator[NDArray[np.uint8] | None]:
    """Decode the pictures (H, W, 3) of a video at rising times; None where there is none.

    Args:
        path: The video.
        stamps_s: (n,) s, as `video_stamps` has them.
        tell: Is told what is wrong with the video.
    """
    stamps = [float(s) for s in stamps_s]
    if not stamps:
        return
    tolerance = 1e-4
    next_wanted = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # of frames decoded beside each other, faults come late
            if stamps[0] > 1.0:  # to the key picture before
                container.seek(
                    int((stamps[0] - 0.5) / float(stream.time_base or 1.0)), stream=stream
                )
            for frame in _decoded(container, stream, tell):
                while next_wanted < len(stamps) and frame.time > stamps[next_wanted] + tolerance:
                    tell(f"{path}: no picture at {stamps[next_wanted]:.3f} s")
                    next_wanted += 1
                    yield None
                if next_wanted == len(stamps):
                    return
                if abs(frame.time - stamps[next_wanted]) <= tolerance:
                    next_wanted += 1
                    yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except (av.FFmpegError, OSError) as error:  # damaged from here on
        tell(f"{path}: {error}")
    if next_wanted < len(stamps):
        tell(f"{path}: ends before {stamps[next_wanted]:.3f} s")
    yield from [None] * (len(stamps) - next_wanted)


def _decoded(container: Any, stream: Any, tell: Callable[[str], None]) -> Iterator[av.VideoFrame]:
    """Decode packet by packet: a broken one costs the pictures in it only."""
    for packet in container.demux(stream):
        try:
            yield from (frame for frame in packet.decode() if frame.time is not None)
        except av.FFmpegError as error:
            tell(f"{container.name}: {error}")


def _colour_of(file: Path) -> NDArray[np.uint8]:
    """Read a picture (H, W, 3)."""
    bgr = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ShapeError(f"{file}: not readable as a picture")
    return np.ascontiguousarray(bgr[..., ::-1], np.uint8)


def _depth_of(file: Path, unit_m: float | None) -> NDArray[np.float32]:
    """Read a depth picture (H, W) in m, NaN = none."""
    raw = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise ShapeError(f"{file}: not readable as a depth picture")
    if raw.ndim != 2 or raw.dtype != np.uint16:
        raise ShapeError(
            f"{file}: expected a depth picture of one channel with 16 bits, got {raw.shape} "
            f"{raw.dtype}"
        )
    metres = raw.astype(np.float32) * np.float32(unit_m)
    return np.where(metres > 0.0, metres, np.float32(np.nan)).astype(np.float32)


def _frame_files(folder: Path) -> list[Path]:
    files = [p for p in folder.iterdir() if p.suffix.lower() in _FRAME_SUFFIXES]
    return sorted(files, key=_natural)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort 2 before 10."""
    parts = re.split(r"(\d+)", path.stem)
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]


def _depth_files(folder: Path, frames: list[Path]) -> list[Path]:
    """Return the depth picture of each frame; nothing if there is no such folder."""
    for place in (folder / "depth", folder.parent / "depth"):
        if not place.is_dir():
            continue
        depth = [place / f"{frame.stem}.png" for frame in frames]
        missing = [p for p in depth if not p.exists()]
        if missing:
            raise SourceError(
                f"{place}: {len(missing)} depth pictures missing, first {missing[0]}"
            )
        return depth
    return []
