"""Own the transforms of a recording: a tree of frames, asked for many times at once."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import Mu0Error
from mu0_core.se3 import interpolate, inverse, transform_from_quat_xyzw

FloatArray = NDArray[np.float64]


class TransformTree:
    """Collect transforms between frames and look chains of them up.

    Args:
        max_gap_s: Longest time between two transforms that is bridged.
    """

    def __init__(self, max_gap_s: float) -> None:
        self._max_gap_s = max_gap_s
        self._parent: dict[str, str] = {}
        self._fixed: dict[str, FloatArray] = {}
        self._stamps: dict[str, list[float]] = {}
        self._poses: dict[str, list[tuple[float, ...]]] = {}

    def add(
        self,
        parent: str,
        child: str,
        stamp_s: float,
        xyz: Iterable[float],
        quat_xyzw: Iterable[float],
        *,
        fixed: bool,
    ) -> None:
        """Add T_parent_child; a fixed one holds for ever."""
        parent, child = parent.strip("/"), child.strip("/")
        self._parent[child] = parent
        pose = (*xyz, *quat_xyzw)
        if fixed:
            self._fixed[child] = transform_from_quat_xyzw(pose[:3], pose[3:])
        else:
            self._stamps.setdefault(child, []).append(stamp_s)
            self._poses.setdefault(child, []).append(pose)

    def frames(self) -> set[str]:
        """Return the names of all frames."""
        return set(self._parent) | set(self._parent.values())

    def ancestors(self, frame: str) -> list[str]:
        """Return a frame and those above it, the root last."""
        chain = [frame]
        while chain[-1] in self._parent:
            chain.append(self._parent[chain[-1]])
            if len(chain) > len(self._parent) + 1:
                raise Mu0Error(f"transforms: frames form a ring: {' -> '.join(chain[:8])}")
        return chain

    def moves(self, frame: str) -> bool:
        """Say whether a frame or one above it has transforms that depend on time."""
        return any(f in self._stamps for f in self.ancestors(frame.strip("/")))

    def lookup(self, target: str, frame: str, stamps_s: FloatArray) -> FloatArray:
        """Return (n, 4, 4) T_target_frame; NaN where a transform is missing at that time.

        Raises:
            Mu0Error: The frames are not connected; it says which there are.
        """
        target, frame = target.strip("/"), frame.strip("/")
        up_target, up_frame = self.ancestors(target), self.ancestors(frame)
        if up_target[-1] != up_frame[-1]:
            there = ", ".join(sorted(self.frames())) or "none"
            raise Mu0Error(
                f"transforms: {frame!r} and {target!r} are not connected; known: {there}"
            )
        common = next(f for f in up_frame if f in up_target)
        T_common_frame = self._down(up_frame[: up_frame.index(common)], stamps_s)
        T_common_target = self._down(up_target[: up_target.index(common)], stamps_s)
        known = np.isfinite(T_common_target).all(axis=(1, 2))
        T_target_common = np.full_like(T_common_target, np.nan)
        T_target_common[known] = inverse(T_common_target[known])
        return T_target_common @ T_common_frame

    def _down(self, chain: list[str], stamps_s: FloatArray) -> FloatArray:
        """Return the pose (n, 4, 4) of the first frame of a chain above the last one's parent."""
        T = np.tile(np.eye(4), (len(stamps_s), 1, 1))
        for frame in chain:
            T = self._edge(frame, stamps_s) @ T
        return T

    def _edge(self, child: str, stamps_s: FloatArray) -> FloatArray:
        """Return T_parent_child (n, 4, 4)."""
        if child not in self._stamps:
            return np.tile(self._fixed[child], (len(stamps_s), 1, 1))
        times = np.array(self._stamps[child])
        order = np.unique(times, return_index=True)[1]
        times = times[order]
        poses = np.array(self._poses[child])[order]
        T = transform_from_quat_xyzw(poses[:, :3], poses[:, 3:])
        after = np.clip(np.searchsorted(times, stamps_s, side="left"), 0, len(times) - 1)
        before = np.maximum(after - 1, 0)
        before = np.where(times[after] <= stamps_s, after, before)
        span = times[after] - times[before]
        alpha = np.where(span > 0, (stamps_s - times[before]) / np.where(span > 0, span, 1.0), 0.0)
        # Beyond the ends a transform holds for half a gap: the ends of a recording seldom agree.
        off = np.maximum(times[0] - stamps_s, stamps_s - times[-1])
        known = (span <= self._max_gap_s) & (off <= 0.5 * self._max_gap_s)
        result = np.full((len(stamps_s), 4, 4), np.nan)
        a, b = T[before[known]], T[after[known]]
        result[known] = interpolate(a, b, np.clip(alpha[known], 0.0, 1.0))
        return result
