"""Own the pictures of one part while it is worked on: on disk, read one at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_perception.frame import RgbdFrame

FloatArray = NDArray[np.float64]


class PictureFile:
    """Hold pictures of one size in a file; looks like an array (T, ...) that is read row by row.

    Attributes:
        shape: Of the whole.
        dtype: Of its values.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: type) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._row_shape = row_shape
        self._n = 0
        self._row_bytes = int(np.prod(row_shape)) * self.dtype.itemsize
        self._file = path.open("w+b")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole."""
        return (self._n, *self._row_shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self._n

    def append(self, picture: NDArray[Any]) -> None:
        """Add a picture at the end."""
        self.write(self._n, picture)
        self._n += 1

    def write(self, index: int, picture: NDArray[Any]) -> None:
        """Replace a picture."""
        if picture.shape != self._row_shape:
            raise ValueError(f"picture: expected shape {self._row_shape}, got {picture.shape}")
        self._file.seek(index * self._row_bytes)
        self._file.write(np.ascontiguousarray(picture, self.dtype).tobytes())

    def __getitem__(self, index: int) -> NDArray[Any]:
        if not 0 <= index < self._n:
            raise IndexError(f"picture {index} of {self._n}")
        self._file.seek(index * self._row_bytes)
        data = self._file.read(self._row_bytes)
        return np.frombuffer(data, self.dtype).reshape(self._row_shape)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(self._n))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class PartFrames(Sequence[RgbdFrame]):
    """Hold the pictures of a part with their geometry.

    Attributes:
        images: (T, H, W, 3) uint8.
        depth: (T, H, W) float32 m, NaN = none.
        stamps_s: (T,) s.
        camera: Intrinsics of all.
        T_world_camera: (T, 4, 4).
    """

    def __init__(
        self,
        images: PictureFile,
        depth: PictureFile,
        stamps_s: FloatArray,
        camera: Camera,
        T_world_camera: FloatArray,
    ) -> None:
        self.images, self.depth = images, depth
        self.stamps_s, self.camera, self.T_world_camera = stamps_s, camera, T_world_camera

    def __len__(self) -> int:
        return len(self.stamps_s)

    @overload
    def __getitem__(self, index: int) -> RgbdFrame: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[RgbdFrame]: ...

    def __getitem__(self, index: int | slice) -> RgbdFrame | Sequence[RgbdFrame]:
        """Read one picture, or several at once."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        return RgbdFrame(
            stamp_ns=round(float(self.stamps_s[index]) * 1e9),
            frame_id="camera",
            rgb=self.images[index],
            depth_m=self.depth[index],
            camera=self.camera,
            T_fixed_camera=self.T_world_camera[index],
        )
