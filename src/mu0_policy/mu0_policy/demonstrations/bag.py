"""Read a demonstration from a rosbag2 with pictures, joint states and trajectory commands."""

import sqlite3
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from scipy.interpolate import CubicHermiteSpline

from mu0_core.embodiment import Embodiment
from mu0_core.errors import EpisodeError
from mu0_policy.action_expert.actions import gripper_goals
from mu0_policy.demonstrations.alignment import moments, newest
from mu0_policy.demonstrations.demonstration import FRONT, Demonstration
from mu0_policy.demonstrations.static_frames import StaticFrames

FloatArray = NDArray[np.float64]

DEFAULT_TOPICS = {FRONT: "/camera/color/image_raw"}
DEPTH = "depth"
DEFAULT_DEPTH = "/camera/aligned_depth_to_color/image_raw"
_INSTRUCTION = "/mu0/instruction"
_JOINTS = "/joint_states"
_KEYPOINTS = "/mu0/keypoints"
_DESCRIPTION = "/robot_description"
_STATIC = "/tf_static"
_DEPTH_FORMATS: dict[str, tuple[np.dtype[Any], float]] = {
    "16UC1": (np.dtype("<u2"), 1e-3),
    "32FC1": (np.dtype("<f4"), 1.0),
}
_OLDEST_PERIODS = 2.5  # of a stream's own period
# What rosbags raises of a bag that is cut off or broken, depending on where.
_DAMAGED = (
    AnyReaderError,
    ReaderError,
    SerdeError,
    sqlite3.Error,
    struct.error,
    OSError,
    EOFError,
    KeyError,
    ValueError,
)
_SAME_TIME_S = 1e-4
_SLOWEST_PERIODS = 1.25  # of the moments' period: stamps are uneven
_STOPPED_S = 0.5  # before the others end


@dataclass(frozen=True, slots=True, kw_only=True)
class BagOptions:
    """Say how a bag is read.

    Attributes:
        embodiment: Names joints, gripper and controllers.
        rate_hz: Moments a second.
        topics: Image topics by camera; FRONT must be among them.
        depth: Topic of depth aligned with the front camera's pictures; it may be missing.
        instruction: What was done; empty: as the bag says on /mu0/instruction.
    """

    embodiment: Embodiment
    rate_hz: float
    topics: Mapping[str, str]
    depth: str = DEFAULT_DEPTH
    instruction: str = ""


@dataclass(frozen=True, slots=True)
class _Path:
    """Hold one commanded trajectory.

    Attributes:
        stamp_s: When it was recorded.
        start_s: When it starts.
        times_s: (n,) time of its points, absolute.
        q: (n, j).
        qd: Likewise, or None.
    """

    stamp_s: float
    start_s: float
    times_s: FloatArray
    q: FloatArray
    qd: FloatArray | None


class BagPictures:
    """Give the pictures of a topic that moments show, decoded on demand."""

    def __init__(self, path: Path, decode: Callable[[int], NDArray[Any]], n: int) -> None:
        self._path, self._decode, self._n = path, decode, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Return one picture."""
        if not -self._n <= index < self._n:
            raise IndexError(f"{self._path}: picture {index} of {self._n}")
        return self._decode(index % self._n)


def is_bag(path: Path) -> bool:
    """Say whether a folder is a rosbag2."""
    return (path / "metadata.yaml").is_file()


def read_bag(path: Path, options: BagOptions) -> Demonstration:
    """Read a bag as one demonstration; its pictures are kept encoded in memory.

    Raises:
        EpisodeError: A topic is missing, has a gap, or what it says does not fit the embodiment.
    """
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            return _read(path, reader, options)
    except _DAMAGED as error:
        raise EpisodeError(f"{path}: cannot be read as a bag: {error}") from error


def _read(path: Path, reader: AnyReader, options: BagOptions) -> Demonstration:
    body = options.embodiment
    arm = body.arm.joints
    gripper = body.gripper.joints[0]
    topics = {_absolute(t): t for t in (*options.topics.values(), _JOINTS, _INSTRUCTION)}
    commands = {
        n: _absolute(c) for n, c in (("arm", body.arm.controller), ("g", body.gripper.controller))
    }
    images = {camera: _absolute(topic) for camera, topic in options.topics.items()}
    infos = {camera: f"{topic.rpartition('/')[0]}/camera_info" for camera, topic in images.items()}
    depth = _absolute(options.depth)
    optional = {_INSTRUCTION, _STATIC, _KEYPOINTS, _DESCRIPTION, depth, *infos.values()}
    wanted = {*topics, *commands.values(), *optional}
    found: dict[str, list[tuple[float, Any]]] = {topic: [] for topic in wanted}
    connections = [c for c in reader.connections if c.topic in wanted]
    for connection, stamp_ns, raw in reader.messages(connections):
        found[connection.topic].append((stamp_ns * 1e-9, _message(reader, connection, raw)))
    missing = sorted(t for t in wanted - optional if not found[t])
    if missing:
        there = ", ".join(sorted({c.topic for c in reader.connections}))
        raise EpisodeError(f"{path}: nothing on {', '.join(missing)}; the bag has {there}")
    stamps = {topic: [_stamp(m, at) for at, m in rows] for topic, rows in found.items()}
    needed = [*images.values(), _JOINTS, *([depth] if found[depth] else [])]
    first = max(stamps[topic][0] for topic in needed)
    _check_streams(path, {topic: stamps[topic] for topic in needed}, options.rate_hz)
    arm_paths = _paths(path, found[commands["arm"]], arm)
    hand_paths = _paths(path, found[commands["g"]], (gripper,))
    last = min(stamps[topic][-1] for topic in needed)
    times = moments(max(first, arm_paths[0].stamp_s), last, options.rate_hz)
    if not len(times):
        raise EpisodeError(
            f"{path}: pictures and joints are of {first:.1f} to {last:.1f} s, the first command "
            f"was recorded at {arm_paths[0].stamp_s:.1f} s: they have no time in common; in "
            "simulated time record with --use-sim-time"
        )
    chosen = {
        topic: newest(
            stamps[topic], times, oldest_s=_oldest(stamps[topic]), what=f"{path}, {topic}"
        )
        for topic in needed
    }
    states = [_joint_values(path, found[_JOINTS][i][1], (*arm, gripper)) for i in chosen[_JOINTS]]
    measured = np.array(states).reshape(len(times), len(arm) + 1)
    opened, closed = body.gripper.open[0], body.gripper.closed[0]
    later = np.append(times, times[-1] + 1.0 / options.rate_hz)
    q_commanded = np.stack([_in_force(arm_paths, t, measured[0, :-1]) for t in later[1:]])
    hand = np.array([_in_force(hand_paths, t, measured[:1, -1])[0] for t in later])
    goals = gripper_goals((hand - opened) / (closed - opened))
    said = [m.data for _, m in found[_INSTRUCTION] if m.data]
    frames = StaticFrames((m for _, m in found[_STATIC]), f"{path}, {_STATIC}")
    described = [m.data for _, m in found[_DESCRIPTION]]
    places = {
        camera: frames.place(found[topic][0][1].header.frame_id, body.base_frame, body.tool_frame)
        for camera, topic in images.items()
    }
    return Demonstration(
        name=str(path),
        robot=body.name,
        instruction=options.instruction or (said[0] if said else ""),
        rate_hz=options.rate_hz,
        joints=arm,
        gripper_joints=body.gripper.joints,
        pictures={
            camera: _pictures(path, topic, found[topic], chosen[topic])
            for camera, topic in images.items()
        },
        depth=_pictures(path, depth, found[depth], chosen[depth]) if found[depth] else None,
        q=measured[:, :-1],
        gripper=(measured[:, -1] - opened) / (closed - opened),
        commands=np.concatenate([q_commanded, goals[:, None]], axis=1),
        focal_lengths={
            camera: float(found[topic][0][1].k[4]) / found[topic][0][1].height
            for camera, topic in infos.items()
            if found[topic] and found[topic][0][1].height
        },
        camera_places={camera: place for camera, place in places.items() if place is not None},
        keypoints=_keypoints(
            found[_KEYPOINTS],
            stamps[_KEYPOINTS],
            [stamps[images[FRONT]][i] for i in chosen[images[FRONT]]],
        ),
        robot_description=described[-1] if described else "",
    )


def _absolute(topic: str) -> str:
    return "/" + topic.lstrip("/")


def _message(reader: AnyReader, connection: Connection, raw: bytes) -> Any:
    return reader.deserialize(raw, connection.msgtype)


def _stamp(message: Any, recorded_s: float) -> float:
    """Return when something was measured; when it was recorded, if it does not say."""
    header = getattr(message, "header", None)
    stamp_s = 0.0 if header is None else header.stamp.sec + header.stamp.nanosec * 1e-9
    return stamp_s or recorded_s


def _oldest(stamps_s: Sequence[float]) -> float:
    """Return how old a stream's value may be: a few of its own periods."""
    return _OLDEST_PERIODS * _period(stamps_s)


def _period(stamps_s: Sequence[float]) -> float:
    return float(np.median(np.diff(stamps_s))) if len(stamps_s) > 1 else 0.1


def _check_streams(path: Path, stamps: Mapping[str, Sequence[float]], rate_hz: float) -> None:
    """Refuse a stream that is too slow, or that stopped: it would shorten the demonstration."""
    for topic, times_s in stamps.items():
        period_s = _period(times_s)
        if period_s * rate_hz > _SLOWEST_PERIODS:
            raise EpisodeError(
                f"{path}, {topic}: {1.0 / period_s:.1f} a second, moments are taken {rate_hz:g} a "
                "second; lower --bag_rate_hz"
            )
    first, *_, last = sorted(stamps, key=lambda topic: stamps[topic][-1])
    early_s = stamps[last][-1] - stamps[first][-1]
    if early_s > max(_STOPPED_S, _oldest(stamps[first])):
        raise EpisodeError(
            f"{path}, {first}: it ends {early_s:.2f} s before {last}, limit {_STOPPED_S:g} s: "
            "has it stopped? Record anew, or cut the bag there"
        )


def _joint_values(path: Path, message: Any, joints: Sequence[str]) -> list[float]:
    places = {name: i for i, name in enumerate(message.name)}
    missing = [name for name in joints if name not in places]
    if missing:
        raise EpisodeError(
            f"{path}: joint_states has no {', '.join(missing)}, only {', '.join(message.name)}; "
            "is this the embodiment's robot?"
        )
    if len(message.position) < len(message.name):
        raise EpisodeError(
            f"{path}: joint_states with {len(message.name)} names and {len(message.position)} "
            "positions"
        )
    return [float(message.position[places[name]]) for name in joints]


def _paths(path: Path, rows: Sequence[tuple[float, Any]], joints: Sequence[str]) -> list[_Path]:
    """Bring trajectory messages to the order of the joints."""
    result = []
    for recorded_s, message in rows:
        names = list(message.joint_names)
        if sorted(names) != sorted(joints):
            raise EpisodeError(
                f"{path}: a command of {', '.join(names)}, expected {', '.join(joints)}"
            )
        order = [names.index(name) for name in joints]
        start_s = _stamp(message, recorded_s)
        points = message.points
        lengths = {len(point.positions) for point in points}
        if lengths != {len(names)}:
            raise EpisodeError(
                f"{path}: a command of {len(points)} points with "
                f"{', '.join(map(str, sorted(lengths))) or 'no'} positions, expected "
                f"{len(names)} in each"
            )
        offsets = [p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in points]
        speeds = [p.velocities for p in points]
        qd = None
        if all(len(speed) == len(names) for speed in speeds):
            qd = np.stack(speeds).astype(np.float64)[:, order]
        result.append(
            _Path(
                stamp_s=recorded_s,
                start_s=start_s,
                times_s=start_s + np.array(offsets),
                q=np.stack([p.positions for p in points]).astype(np.float64)[:, order],
                qd=qd,
            )
        )
    return result


def _in_force(paths: Sequence[_Path], time_s: float, resting: FloatArray) -> FloatArray:
    """Return what the newest command that had come by a time says for it."""
    known = [p for p in paths if p.stamp_s <= time_s + 1e-6]
    begun = [p for p in known if p.times_s[0] <= time_s + 1e-6]
    if not begun:
        return resting
    last = begun[-1]
    at_s = float(np.clip(time_s, last.times_s[0], last.times_s[-1]))
    if len(last.times_s) == 1:
        return last.q[0]
    if last.qd is not None:
        return np.asarray(CubicHermiteSpline(last.times_s, last.q, last.qd)(at_s))
    return np.array([np.interp(at_s, last.times_s, column) for column in last.q.T])


def _keypoints(
    rows: Sequence[tuple[float, Any]], stamps_s: Sequence[float], pictures_s: Sequence[float]
) -> list[NDArray[np.float32]] | None:
    """Return the newest keypoints (n, 3) px, px, m at pictures, none where they are too old."""
    if not rows:
        return None
    found = []
    for picture_s in pictures_s:
        index = int(np.searchsorted(stamps_s, picture_s + _SAME_TIME_S, side="right")) - 1
        uvz = np.empty((0, 3), np.float32)
        if index >= 0 and picture_s - stamps_s[index] <= _oldest(stamps_s):
            message = rows[index][1]
            uvz = np.column_stack([np.reshape(message.uv, (-1, 2)), message.z])
        found.append(uvz.astype(np.float32))
    return found


def _pictures(
    path: Path,
    topic: str,
    rows: Sequence[tuple[float, Any]],
    chosen: NDArray[np.int64],
) -> BagPictures:
    shown = [rows[int(index)][1] for index in chosen]  # the others are forgotten

    def decode(moment: int) -> NDArray[Any]:
        return _decoded(f"{path}, {topic}", shown[moment])

    return BagPictures(path, decode, len(chosen))


def _decoded(where: str, message: Any) -> NDArray[Any]:
    """Turn an Image or CompressedImage into (H, W, 3) uint8 RGB, or (H, W) depth in m."""
    if hasattr(message, "format"):
        picture = cv2.imdecode(np.asarray(message.data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise EpisodeError(f"{where}: a picture cannot be decoded")
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
    if message.encoding in _DEPTH_FORMATS:
        number, unit_m = _DEPTH_FORMATS[message.encoding]
        flat = np.asarray(message.data, np.uint8).reshape(message.height, message.step)
        values = np.ascontiguousarray(flat[:, : number.itemsize * message.width]).view(number)
        return values.astype(np.float32) * np.float32(unit_m)
    if message.encoding not in ("rgb8", "bgr8"):
        raise EpisodeError(f"{where}: expected rgb8 or bgr8, got {message.encoding}")
    rows = np.asarray(message.data, np.uint8).reshape(message.height, message.step)
    picture = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
    return np.ascontiguousarray(picture[..., ::-1] if message.encoding == "bgr8" else picture)
