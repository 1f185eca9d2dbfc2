"""Own reading pictures out of video files, frame by frame (PyAV)."""

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import EpisodeError

_SAME_TIME = 0.5  # of a frame's duration


class VideoPictures:
    """Give the pictures of a part of a video. Fast in order; the file stays open.

    Args:
        path: The file.
        start_s: Time of the first picture in it.
        n: Number of pictures.
        rate_hz: Pictures a second.
    """

    def __init__(self, path: Path, start_s: float, n: int, rate_hz: float) -> None:
        self._path, self._start_s, self._n, self._rate_hz = path, start_s, n, rate_hz
        self._container: av.container.InputContainer | None = None
        self._next = -1

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return a picture.

        Raises:
            IndexError: There is no such number.
            EpisodeError: The video ends earlier, or cannot be decoded.
        """
        if not -self._n <= index < self._n:
            raise IndexError(f"{self._path}: picture {index} of {self._n}")
        index %= self._n
        if self._container is None or index != self._next:
            self._seek(index)
        wanted_s = self._start_s + index / self._rate_hz
        try:
            for frame in self._frames:
                assert frame.time is not None
                if frame.time >= wanted_s - _SAME_TIME / self._rate_hz:
                    self._next = index + 1
                    return np.asarray(frame.to_ndarray(format="rgb24"))
        except av.FFmpegError as error:
            raise EpisodeError(f"{self._path}: cannot be decoded: {error}") from error
        raise EpisodeError(f"{self._path}: ends before {wanted_s:.3f} s")

    def _seek(self, index: int) -> None:
        """Go to the key frame before a picture."""
        try:
            if self._container is None:
                self._container = av.open(str(self._path))
            stream = self._container.streams.video[0]
            assert stream.time_base is not None
            wanted_s = self._start_s + index / self._rate_hz
            self._container.seek(int(wanted_s / stream.time_base), stream=stream)
            self._frames = self._container.decode(stream)
        except (av.FFmpegError, IndexError) as error:
            self._container = None
            raise EpisodeError(f"{self._path}: cannot be read as a video: {error}") from error
