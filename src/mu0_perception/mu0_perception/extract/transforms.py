"""Own the transforms of a recording: a tree of frames, asked for many times at once."""

import math
from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import Mu0Error
from mu0_core.se3 import interpolate, inverse, transform_from_quat_xyzw

FloatArray = NDArray[np.float64]

_LEAST_QUAT = 1e-12  # squared length
_ROW = 8  # stamp, xyz, quat_xyzw
_FIXED_FRAMES = ("odom", "world", "map")
_DRIVING = ("wheel", "footprint")  # parts of a robot whose base moves
_STILL = 1e-6  # m; of quaternions, 1 - |cos| is its square


class _Motion:
    """Hold T_parent_child of one frame over time: 64 bytes each, sorted when first asked."""

    def __init__(self) -> None:
        self._new = array("d")
        self._times = np.zeros(0)
        self._poses = np.zeros((0, _ROW - 1))
        self._varies: bool | None = None

    def add(self, stamp_s: float, pose: Iterable[float]) -> None:
        """Add a pose: xyz, quat_xyzw."""
        self._new.append(stamp_s)
        self._new.extend(pose)

    def columns(self) -> tuple[FloatArray, FloatArray]:
        """Return rising stamps (n,) and poses (n, 7) of all that was added."""
        if self._new:
            new = np.frombuffer(self._new).reshape(-1, _ROW)
            times = np.concatenate([self._times, new[:, 0]])
            poses = np.concatenate([self._poses, new[:, 1:]])
            if not (np.diff(times) > 0).all():
                order = np.unique(times, return_index=True)[1]
                times, poses = times[order], poses[order]
            self._times, self._poses = times, poses
            self._new, self._varies = array("d"), None
        return self._times, self._poses

    def varies(self) -> bool:
        """Say whether poses differ; some drivers repeat what is fixed."""
        _, poses = self.columns()
        if self._varies is None:
            cosine = np.abs(poses[:, 3:] @ poses[0, 3:])
            moved, turned = np.ptp(poses[:, :3], axis=0).max(), np.ptp(cosine)
            self._varies = bool(moved > _STILL or turned > _STILL**2)
        return self._varies

    def at(self, stamps_s: FloatArray, max_gap_s: float) -> FloatArray:
        """Return poses (n, 4, 4) between the nearest two, NaN in gaps; only these are touched."""
        times, poses = self.columns()
        after = np.clip(np.searchsorted(times, stamps_s, side="left"), 0, len(times) - 1)
        before = np.maximum(after - 1, 0)
        before = np.where(times[after] <= stamps_s, after, before)
        span = times[after] - times[before]
        alpha = np.where(span > 0, (stamps_s - times[before]) / np.where(span > 0, span, 1.0), 0.0)
        # Beyond the ends a transform holds for half a gap: the ends of a recording seldom agree.
        off = np.maximum(times[0] - stamps_s, stamps_s - times[-1])
        known = (span <= max_gap_s) & (off <= 0.5 * max_gap_s)
        result = np.full((len(stamps_s), 4, 4), np.nan)
        a, b = (
            transform_from_quat_xyzw(rows[:, :3], rows[:, 3:])
            for rows in (poses[before[known]], poses[after[known]])
        )
        result[known] = interpolate(a, b, np.clip(alpha[known], 0.0, 1.0))
        return result


class TransformTree:
    """Collect transforms between frames and look chains of them up.

    Args:
        max_gap_s: Longest time between two transforms that is bridged.
    """

    def __init__(self, max_gap_s: float) -> None:
        self._max_gap_s = max_gap_s
        self._parent: dict[str, str] = {}
        self._fixed: dict[str, FloatArray] = {}
        self._motions: dict[str, _Motion] = {}

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
        """Add T_parent_child; a fixed one holds for ever, one without meaning is left out."""
        parent, child = parent.strip("/"), child.strip("/")
        pose = (*xyz, *quat_xyzw)
        if not math.isfinite(sum(pose)) or sum(q * q for q in pose[3:]) < _LEAST_QUAT:
            return  # as tf2 does
        self._parent[child] = parent
        if fixed:
            self._fixed[child] = transform_from_quat_xyzw(pose[:3], pose[3:])
        else:
            self._motions.setdefault(child, _Motion()).add(stamp_s, pose)

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
        """Say whether a frame moves against the root of its tree."""
        chain = self.ancestors(frame.strip("/"))
        return any(self._motions[f].varies() for f in chain if f in self._motions)

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
        if child in self._motions:
            return self._motions[child].at(stamps_s, self._max_gap_s)
        return np.tile(self._fixed[child], (len(stamps_s), 1, 1))


def find_fixed_frame(tree: TransformTree, camera_frame: str) -> tuple[str | None, str]:
    """Find the frame of a camera's tree that stands still on the ground.

    By name, or the root where something moves against it: an arm on its base. A root with nothing
    but fixed frames below may be in someone's hand, and the base of a robot with wheels drives.

    Args:
        tree: All transforms.
        camera_frame: One of its frames.

    Returns:
        The frame, None = none; and why, in words.
    """
    chain = tree.ancestors(camera_frame)
    root = chain[-1]
    family = sorted(f for f in tree.frames() if tree.ancestors(f)[-1] == root)
    for name in _FIXED_FRAMES:
        for frame in (*chain, *family):
            if frame.rsplit("/", 1)[-1] == name:
                return frame, "by its name"
    driving = [f for f in family if any(part in f.lower() for part in _DRIVING)]
    if driving:
        return None, f"{root!r} carries {driving[0]!r}, so it may drive"
    if not any(tree.moves(frame) for frame in family):
        return None, f"nothing moves against {root!r}, so the camera may be in a hand"
    return root, "the root, frames move against it"
