"""Own writing pictures as video files (PyAV)."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def write_video(
    path: Path, pictures: Iterable[NDArray[np.uint8]], rate_hz: float, *, crf: int = 18
) -> None:
    """Write pictures (H, W, 3) uint8 of one even size as H.264, yuv420p."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(rate_hz).limit_denominator(1000)
    with av.open(str(path), mode="w") as container:
        stream = None
        for picture in pictures:
            if stream is None:
                height, width = picture.shape[:2]
                stream = container.add_stream("libx264", rate=rate)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.options = {"crf": str(crf), "g": "2"}
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
