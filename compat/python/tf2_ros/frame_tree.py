"""The frames known so far and the arithmetic on them; knows neither nodes nor messages.

Follows the rules of tf2's BufferCore: every child frame has one parent and a history of poses over
a limited time, or one static pose; time 0 means the latest time that all links have in common.
"""

import math
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from .exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
)

_NORM_TOLERANCE = 0.01


def _rotate(q: tuple, v: tuple) -> tuple:
    x, y, z, w = q
    # t = 2 q_vec x v;  v' = v + w t + q_vec x t
    tx, ty, tz = 2 * (y * v[2] - z * v[1]), 2 * (z * v[0] - x * v[2]), 2 * (x * v[1] - y * v[0])
    return (
        v[0] + w * tx + y * tz - z * ty,
        v[1] + w * ty + z * tx - x * tz,
        v[2] + w * tz + x * ty - y * tx,
    )


def _multiply(a: tuple, b: tuple) -> tuple:
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def _slerp(a: tuple, b: tuple, alpha: float) -> tuple:
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    if dot < 0.0:
        b, dot = tuple(-q for q in b), -dot
    if dot > 1.0 - 1e-12:
        return a
    angle = math.acos(dot)
    wa, wb = math.sin((1.0 - alpha) * angle), math.sin(alpha * angle)
    return tuple((wa * p + wb * q) / math.sin(angle) for p, q in zip(a, b, strict=True))


@dataclass(frozen=True, slots=True)
class Pose:
    """A rigid transform: `xyz` in metres, unit quaternion `quat_xyzw`."""

    xyz: tuple = (0.0, 0.0, 0.0)
    quat_xyzw: tuple = (0.0, 0.0, 0.0, 1.0)

    def __matmul__(self, other: "Pose") -> "Pose":
        x, y, z = _rotate(self.quat_xyzw, other.xyz)
        return Pose(
            (x + self.xyz[0], y + self.xyz[1], z + self.xyz[2]),
            _multiply(self.quat_xyzw, other.quat_xyzw),
        )

    def inverse(self) -> "Pose":
        """Return the opposite transform."""
        x, y, z, w = self.quat_xyzw
        back = _rotate((-x, -y, -z, w), self.xyz)
        return Pose((-back[0], -back[1], -back[2]), (-x, -y, -z, w))

    def fault(self) -> str | None:
        """Say why this cannot be a transform, or None."""
        if any(math.isnan(value) for value in self.xyz + self.quat_xyzw):
            return "it holds a NaN"
        square = sum(value * value for value in self.quat_xyzw)
        if abs(square - 1.0) >= _NORM_TOLERANCE:
            return f"its quaternion {self.quat_xyzw} has norm {math.sqrt(square):.4f}, not 1"
        return None


class _StaticLink:
    """A pose in a parent that holds at every time."""

    latest_ns = 0

    def __init__(self) -> None:
        self.parent: str | None = None
        self._pose = Pose()

    def insert(self, stamp_ns: int, parent: str, pose: Pose) -> bool:
        self.parent, self._pose = parent, pose
        return True

    def at(self, stamp_ns: int) -> tuple[str, Pose]:
        assert self.parent is not None
        return self.parent, self._pose

    def clear(self) -> None:
        """Keep the pose: it does not depend on time."""


class _MovingLink:
    """Poses over the last `keep_ns`, oldest first."""

    def __init__(self, keep_ns: int) -> None:
        self._keep_ns = keep_ns
        self._stamps: list[int] = []
        self._samples: list[tuple[str, Pose]] = []

    @property
    def parent(self) -> str | None:
        return self._samples[-1][0] if self._samples else None

    @property
    def latest_ns(self) -> int:
        return self._stamps[-1] if self._stamps else 0

    def insert(self, stamp_ns: int, parent: str, pose: Pose) -> bool:
        expired = bisect_left(self._stamps, self.latest_ns - self._keep_ns)
        del self._stamps[:expired], self._samples[:expired]
        if self._stamps and stamp_ns < self.latest_ns - self._keep_ns:
            return False
        start, end = bisect_left(self._stamps, stamp_ns), bisect_right(self._stamps, stamp_ns)
        if (parent, pose) not in self._samples[start:end]:
            self._stamps.insert(end, stamp_ns)
            self._samples.insert(end, (parent, pose))
        return True

    def at(self, stamp_ns: int) -> tuple[str, Pose]:
        if not self._stamps:
            raise ExtrapolationException("no transform is left in the buffer")
        if stamp_ns == 0 or stamp_ns == self._stamps[-1]:
            return self._samples[-1]
        first, last = self._stamps[0], self._stamps[-1]
        if len(self._stamps) == 1:
            raise ExtrapolationException(
                f"Lookup would require extrapolation at time {stamp_ns * 1e-9:.6f}, "
                f"but only time {last * 1e-9:.6f} is in the buffer"
            )
        if stamp_ns > last or stamp_ns < first:
            side, known = ("future", "latest") if stamp_ns > last else ("past", "earliest")
            raise ExtrapolationException(
                f"Lookup would require extrapolation into the {side}.  Requested time "
                f"{stamp_ns * 1e-9:.6f} but the {known} data is at time "
                f"{(last if side == 'future' else first) * 1e-9:.6f}"
            )
        newer = bisect_right(self._stamps, stamp_ns)
        return self._between(newer - 1, newer, stamp_ns)

    def _between(self, older: int, newer: int, stamp_ns: int) -> tuple[str, Pose]:
        (parent, a), (next_parent, b) = self._samples[older], self._samples[newer]
        if parent != next_parent:
            return parent, a
        alpha = (stamp_ns - self._stamps[older]) / (self._stamps[newer] - self._stamps[older])
        xyz = tuple(p + alpha * (q - p) for p, q in zip(a.xyz, b.xyz, strict=True))
        return parent, Pose(xyz, _slerp(a.quat_xyzw, b.quat_xyzw, alpha))

    def clear(self) -> None:
        self._stamps.clear()
        self._samples.clear()


class FrameTree:
    """All links by child frame; safe to use from several threads."""

    def __init__(self, keep_ns: int) -> None:
        self._keep_ns = keep_ns
        self._links: dict[str, _StaticLink | _MovingLink] = {}
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def insert(self, child: str, parent: str, stamp_ns: int, pose: Pose, *, static: bool) -> None:
        """Add one pose of `child` in `parent`.

        Raises:
            ValueError: the pose cannot be used; the text says why.
        """
        child, parent = child.removeprefix("/"), parent.removeprefix("/")
        if not child or not parent or child == parent:
            raise ValueError(f"frame '{child}' in parent '{parent}': two different names expected")
        if (fault := pose.fault()) is not None:
            raise ValueError(f"frame '{child}' in parent '{parent}': {fault}")
        kind = _StaticLink if static else _MovingLink
        with self._lock:
            self._names |= {child, parent}
            link = self._links.get(child)
            if not isinstance(link, kind):
                link = _StaticLink() if static else _MovingLink(self._keep_ns)
                self._links[child] = link
            if not link.insert(stamp_ns, parent, pose):
                raise ValueError(
                    f"frame '{child}' in parent '{parent}': time {stamp_ns * 1e-9:.6f} lies more "
                    f"than the cache time of {self._keep_ns * 1e-9:g} s in the past"
                )

    def lookup(self, target: str, source: str, stamp_ns: int) -> tuple[int, Pose]:
        """Return (time, pose of `source` in `target`); time 0 asks for the latest common one."""
        with self._lock:
            if target == source:
                link = self._links.get(target)
                return stamp_ns or (link.latest_ns if link else 0), Pose()
            self._check_name("target_frame", target)
            self._check_name("source_frame", source)
            if stamp_ns == 0:
                stamp_ns = self._latest_common_ns(target, source)
            return stamp_ns, self._pose(target, source, stamp_ns)

    def check_names(self, **frames: str) -> None:
        """Raise unless each frame, given by its argument's name, is known."""
        with self._lock:
            for argument, name in frames.items():
                self._check_name(argument, name)

    def clear(self) -> None:
        """Forget every moving pose; names and static poses stay."""
        with self._lock:
            for link in self._links.values():
                link.clear()

    def _check_name(self, argument: str, name: str) -> None:
        where = f'"{name}" passed to lookupTransform argument {argument}'
        if not name:
            raise InvalidArgumentException(
                f"Invalid argument {where} - in tf2 frame_ids cannot be empty"
            )
        if name.startswith("/"):
            raise InvalidArgumentException(
                f"Invalid argument {where} - in tf2 frame_ids cannot start with a '/'"
            )
        if name not in self._names:
            raise LookupException(f"{where} does not exist. ")

    def _climb(self, frame: str, parent_of: Callable, until: dict[str, Pose]) -> tuple:
        """Walk up from `frame` until the root, a frame of `until`, or a link without data.

        Returns the pose of `frame` in each frame passed, in order, and the error that ended it.
        """
        passed = {frame: Pose()}
        while frame not in until and frame in self._links:
            try:
                parent, pose = parent_of(self._links[frame])
            except ExtrapolationException as error:
                return passed, error
            if parent in passed:
                raise LookupException(
                    f"The tf tree is invalid because it contains a loop: {parent}"
                )
            passed[parent] = pose @ passed[frame]
            frame = parent
        return passed, None

    def _meet(self, target: str, source: str, parent_of: Callable) -> tuple[str, dict, dict]:
        """Return the lowest common frame and both chains up to it."""
        up_source, source_error = self._climb(source, parent_of, {})
        up_target, target_error = self._climb(target, parent_of, up_source)
        common = next(reversed(up_target))
        if common in up_source:
            return common, up_target, up_source
        if (error := target_error or source_error) is not None:
            raise ExtrapolationException(
                f"{error}, when looking up transform from frame [{source}] to frame [{target}]"
            )
        raise ConnectivityException(
            f"Could not find a connection between '{target}' and '{source}' because they are not "
            "part of the same tree. Tf has two or more unconnected trees."
        )

    def _pose(self, target: str, source: str, stamp_ns: int) -> Pose:
        common, up_target, up_source = self._meet(target, source, lambda link: link.at(stamp_ns))
        return up_target[common].inverse() @ up_source[common]

    def _latest_common_ns(self, target: str, source: str) -> int:
        def parent_now(link: _StaticLink | _MovingLink) -> tuple[str, Pose]:
            if link.parent is None:
                raise ExtrapolationException("no transform is left in the buffer")
            return link.parent, Pose()

        try:
            common, up_target, up_source = self._meet(target, source, parent_now)
        except ExtrapolationException as error:
            raise ConnectivityException(str(error)) from error
        stamps = []
        for chain in (up_target, up_source):
            below = list(chain)[: list(chain).index(common)]
            stamps += [self._links[frame].latest_ns for frame in below]
        return min((stamp for stamp in stamps if stamp != 0), default=0)
