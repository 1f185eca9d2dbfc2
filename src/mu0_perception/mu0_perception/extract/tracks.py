"""Own tracking through one part of a recording: all points, in 3D, in a frame that does not move.

Points are proposed again and again on what stands out, and followed to the end; then each is
followed backwards from where it was proposed, so that its track covers its whole life. Points out
of sight ride along with their entity or wait where they were, and keep their number when seen
again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate
from mu0_perception.entities import EntityConfig
from mu0_perception.extract.entities import EntityFinder
from mu0_perception.following import FollowConfig, follow
from mu0_perception.frame import RgbdFrame
from mu0_perception.points import Numbers, no_points
from mu0_perception.proposing import Proposer
from mu0_perception.selection import SelectionConfig, Source
from mu0_perception.tracking import FlowConfig, FlowTracker, Tracker

NS_PER_S = 1_000_000_000


_SELECTION = SelectionConfig(
    sources=(Source.ENTITY,), max_keypoints=320, points_per_entity=32, min_points_per_entity=8
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackConfig:
    """Say how points are chosen and followed."""

    selection: SelectionConfig = option(_SELECTION, description="Where points go")
    entity: EntityConfig = option(
        EntityConfig(max_entities=32), description="What counts as an entity"
    )
    flow: FlowConfig = field(default_factory=FlowConfig)
    follow: FollowConfig = option(
        FollowConfig(lost_after_s=2.0), description="When a point is still the same"
    )
    propose_every_s: float = option(
        0.5, description="Time between proposals of points", unit="s", low=0.0
    )
    backward: bool = option(True, description="Follow points back from where they were proposed")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tracks:
    """Hold the tracks of one part.

    Attributes:
        xyz_world: (T, n, 3) m; NaN before a point's life and after it.
        visible: (T, n) bool, seen in the picture.
        cluster: (n,) entity.
        born: (n,) frame in which the point was proposed.
        colour: (n, 3) its colour then, as `mu0_perception.tracking` compares them.
        group: (n,) points whose positions come from one and the same motion: the pose of a robot's
            frame, or an entity that moves as one body; -1 = followed on its own.
    """

    xyz_world: NDArray[np.float64]
    visible: NDArray[np.bool_]
    cluster: NDArray[np.int32]
    born: NDArray[np.int64]
    colour: NDArray[np.float32]
    group: NDArray[np.int32]

    @property
    def n(self) -> int:
        """Number of points."""
        return len(self.cluster)

    def part(self, points: NDArray) -> "Tracks":
        """Return some of the points."""
        return replace(
            self,
            xyz_world=self.xyz_world[:, points],
            visible=self.visible[:, points],
            cluster=self.cluster[points],
            born=self.born[points],
            colour=self.colour[points],
            group=self.group[points],
        )

    def trimmed(self, points: NDArray[np.bool_]) -> "Tracks":
        """End some of the tracks where they were seen last, and begin them where seen first."""
        seen = self.visible
        begun = np.logical_or.accumulate(seen, axis=0)
        ended = ~np.logical_or.accumulate(seen[::-1], axis=0)[::-1]
        unknown = (~begun | ended) & points
        return replace(self, xyz_world=np.where(unknown[..., None], np.nan, self.xyz_world))


def joined(*parts: Tracks) -> Tracks:
    """Return the points of several, of the same pictures, as one."""
    xyz_world, visible = (
        np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in ("xyz_world", "visible")
    )
    cluster, born, colour, group = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("cluster", "born", "colour", "group")
    )
    return Tracks(
        xyz_world=xyz_world,
        visible=visible,
        cluster=cluster,
        born=born,
        colour=colour,
        group=group,
    )


def track(
    frames: Sequence[RgbdFrame],
    config: TrackConfig,
    finder: EntityFinder,
    tracker: Tracker | None = None,
) -> Tracks:
    """Track points through pictures.

    Args:
        frames: The pictures; each is read up to twice, in order and backwards.
        config: Choice and following.
        finder: What finds entities.
        tracker: What finds points in pictures; None for Lucas-Kanade.
    """
    flow = FlowTracker(config.flow) if tracker is None else tracker
    log = _Log(len(frames))
    born = _forward(frames, config, finder, flow, log)
    if config.backward and any(frame > 0 for frame in born):
        _backward(frames, config, flow, log, born)
    return log.tracks(born)


def _forward(
    frames: Sequence[RgbdFrame],
    config: TrackConfig,
    finder: EntityFinder,
    tracker: Tracker,
    log: "_Log",
) -> dict[int, NDArray[np.void]]:
    """Propose and follow; return the points that each frame brought."""
    numbers = Numbers()
    points = no_points()
    before_ns = proposed_ns = None
    born: dict[int, NDArray[np.void]] = {}
    tracker.reset()
    for index, frame in enumerate(frames):
        points = _follow(points, frame, tracker, config, before_ns)
        before_ns = frame.stamp_ns
        pause_ns = np.inf if proposed_ns is None else frame.stamp_ns - proposed_ns
        if pause_ns >= NS_PER_S * config.propose_every_s:
            proposer = Proposer(frame=frame, config=config.selection, numbers=numbers, room=0)
            known = points["id"]
            points = proposer.with_entities(points, finder.find(frame))
            new = ~np.isin(points["id"], known)
            if new.any():
                born[index] = points[new]
            proposed_ns = frame.stamp_ns
        log.write(index, points)
    return born


def _backward(
    frames: Sequence[RgbdFrame],
    config: TrackConfig,
    tracker: Tracker,
    log: "_Log",
    born: dict[int, NDArray[np.void]],
) -> None:
    """Follow points from where they were proposed to the beginning, with time turned round."""
    last = max(born)
    points = no_points()
    before_ns = None
    tracker.reset()
    for index in range(last, -1, -1):
        frame = frames[index]
        frame = replace(frame, stamp_ns=-frame.stamp_ns)
        points = _follow(points, frame, tracker, config, before_ns)
        before_ns = frame.stamp_ns
        log.write(index, points)
        new = born.get(index, no_points()).copy()
        new["velocity"], new["seen_ns"] = 0.0, frame.stamp_ns
        points = np.concatenate([points, new])


def _follow(
    points: NDArray[np.void],
    frame: RgbdFrame,
    tracker: Tracker,
    config: TrackConfig,
    before_ns: int | None,
) -> NDArray[np.void]:
    dt_s = 0.0 if before_ns is None else (frame.stamp_ns - before_ns) / NS_PER_S
    return follow(points, frame, tracker, config.follow, dt_s=dt_s)


class _Log:
    """Collect where points are, frame by frame, in any order."""

    def __init__(self, n_frames: int) -> None:
        self._n_frames = n_frames
        self._rows: list[tuple[int, NDArray[np.void]]] = []

    def write(self, frame: int, points: NDArray[np.void]) -> None:
        """Write down all points of a frame."""
        self._rows.append((frame, points[["id", "cluster", "xyz", "visible"]].copy()))

    def tracks(self, born: dict[int, NDArray[np.void]]) -> Tracks:
        """Return the tracks of all points, by their ids."""
        ids = np.concatenate([np.empty(0, np.uint32), *(p["id"] for p in born.values())])
        n = len(ids)
        cluster = np.zeros(n, np.int32)
        frame_of = np.zeros(n, np.int64)
        colour = np.zeros((n, 3), np.float32)
        for frame, points in born.items():
            cluster[points["id"]], frame_of[points["id"]] = points["cluster"], frame
            colour[points["id"]] = points["colour"]
        xyz = np.full((self._n_frames, n, 3), np.nan)
        visible = np.zeros((self._n_frames, n), np.bool_)
        for frame, points in self._rows:
            xyz[frame, points["id"]] = points["xyz"]
            visible[frame, points["id"]] = points["visible"]
        return Tracks(
            xyz_world=xyz,
            visible=visible,
            cluster=cluster,
            born=frame_of,
            colour=colour,
            group=np.full(n, -1, np.int32),
        )
