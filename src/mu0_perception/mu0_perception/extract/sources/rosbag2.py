"""Read rosbag2 recordings (mcap, sqlite3): colour, depth, calibration, TF and instruction.

Topics are told apart by type and by what their first message holds; where that leaves a choice,
the configuration names one. Stamps are those in the messages' headers.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from mu0_core.errors import Mu0Error
from mu0_perception.extract.recording import (
    About,
    FloatArray,
    Found,
    Recording,
    Shot,
    SourceError,
)
from mu0_perception.extract.sources import SourceConfig
from mu0_perception.extract.sources._calibration import Lens, lens_of
from mu0_perception.extract.sources._images import picture_of, stamp_of
from mu0_perception.extract.sources._topics import choose_topics
from mu0_perception.extract.transforms import TransformTree, find_fixed_frame

NAME = "rosbag2"

_TF_TYPES = {"/tf": False, "/tf_static": True}


def matches(path: Path) -> bool:
    """Say whether a path is a bag: its folder, or one file that stands alone."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file()
    return path.suffix in (".mcap", ".db3")


def find(path: Path, config: SourceConfig) -> list[Found]:
    """Name the recording of a bag."""
    name = path.stem if path.is_file() else path.name
    return [Found(name=name, path=path, source=NAME)]


def open_recording(found: Found, config: SourceConfig) -> Recording:
    """Open a bag."""
    return BagRecording(found, config)


class BagRecording:
    """Read one camera of a bag; nothing but an index stays in memory.

    Args:
        found: The bag.
        config: Topics and frames, where it leaves a choice.

    Raises:
        SourceError: The bag is damaged or lacks what is needed.
    """

    def __init__(self, found: Found, config: SourceConfig) -> None:
        path = found.path
        self._path, self._config = path, config
        self.problem = ""
        with self._open() as reader:
            self._topics = choose_topics(reader, config, path)
            self._index(reader)
        self._lens = self._make_lens()
        self._fixed_frame, fixed_why = self._find_fixed_frame()
        self._usable_s = self._stamps_of_usable()
        topics = self._topics
        self.about = About(
            name=found.name,
            path=path,
            source=NAME,
            instructions=self._instructions,
            embodiment="robot_gripper" if topics.has_robot else "unknown",
            has_depth=topics.depth is not None,
            has_pose=self._fixed_frame is not None,
            details={
                "color_topic": topics.color.topic,
                "depth_topic": topics.depth.topic if topics.depth else None,
                "info_topic": topics.info.topic if topics.info else None,
                "other_info_topics": list(topics.other_infos),
                "camera_frame": self._camera_frame,
                "fixed_frame": self._fixed_frame,
                "fixed_frame_why": fixed_why,
            },
        )

    def stamps_s(self) -> FloatArray:
        """Return the stamps of the colour pictures; NaN where depth or pose is missing."""
        return self._usable_s

    def _stamps_of_usable(self) -> FloatArray:
        usable = self._depth_of >= 0
        if self._fixed_frame is not None:
            T = self._tree.lookup(self._fixed_frame, self._camera_frame, self._color_s)
            posed = np.isfinite(T).all(axis=(1, 2))
            if posed.any():  # else the pictures say what is wrong with them
                usable = usable & posed
        return np.where(usable, self._color_s, np.nan)

    def shots(self, indices: Sequence[int]) -> Iterator[Shot | None]:
        """Read pictures; depth that came a little before or after its colour is waited for."""
        wanted = [int(i) for i in indices]
        if not wanted:
            return
        poses = self._poses(self._color_s[wanted])
        with self._open() as reader:
            read = self._pictures(reader, wanted)
            for index, T_world_camera in zip(wanted, poses, strict=True):
                color, depth = next(read)
                yield self._shot(index, color, depth, T_world_camera)

    def frame_poses(self, stamps_s: FloatArray) -> dict[str, FloatArray]:
        """Return the frames that move, but for those the camera hangs on."""
        if self._fixed_frame is None:
            return {}
        own = set(self._tree.ancestors(self._camera_frame))
        found = {}
        for frame in sorted(self._tree.frames() - own):
            if not self._tree.moves(frame):
                continue
            with contextlib.suppress(Mu0Error):  # another tree
                found[frame] = self._tree.lookup(self._fixed_frame, frame, stamps_s)
        return found

    @contextlib.contextmanager
    def _open(self) -> Iterator[AnyReader]:
        """Open the bag; what rosbags says of a damaged one becomes a SourceError."""
        try:
            store = get_typestore(Stores.ROS2_JAZZY)
            with AnyReader([self._path], default_typestore=store) as reader:
                yield reader
        except (Mu0Error, GeneratorExit):
            raise
        except Exception as error:  # rosbags, sqlite3 and zstd raise many kinds
            hint = "; a file cut short is mended by `mcap recover` or `ros2 bag reindex`"
            message = f"{self._path}: not readable as a bag: {error}"
            raise SourceError(message + (hint if "magic" in str(error) else "")) from error

    def _index(self, reader: AnyReader) -> None:
        """Go through the bag once: stamps, transforms, calibration and instruction."""
        topics = self._topics
        tree = TransformTree(self._config.max_tf_gap_s)
        stamps: dict[str, list[tuple[float, int]]] = {c.topic: [] for c in topics.pictures()}
        infos: list[Any] = []
        texts: list[str] = []
        self._camera_frame = self._config.camera_frame
        for connection, bag_ns, raw in reader.messages(topics.all()):
            topic = connection.topic
            if topic in stamps:
                stamps[topic].append((stamp_of(raw) or bag_ns * 1e-9, bag_ns))
                continue
            if connection == topics.info and infos:
                continue
            message: Any = reader.deserialize(raw, connection.msgtype)
            if connection == topics.info:
                infos.append(message)
            elif topic in _TF_TYPES:
                _add_transforms(tree, message, fixed=_TF_TYPES[topic])
            elif message.data.strip() and message.data.strip() not in texts:
                texts.append(message.data.strip())
        self._color_s, self._color_ns = _columns(stamps[topics.color.topic])
        self._depth_of, self._depth_ns = self._paired(stamps, self._color_s)
        self._tree, self._info = tree, infos[0] if infos else None
        asked = self._config.instruction
        self._instructions = (asked,) if asked else tuple(texts)
        self._camera_frame = self._camera_frame or topics.frame_id

    def _paired(
        self, stamps: dict[str, list[tuple[float, int]]], color_s: FloatArray
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number (n,) of the depth picture nearest to each colour one, -1 = none."""
        if self._topics.depth is None:
            return np.zeros(len(color_s), np.int64), np.zeros(0, np.int64)
        depth_s, depth_ns = _columns(stamps[self._topics.depth.topic])
        if len(depth_s) == 0:
            return np.full(len(color_s), -1), depth_ns
        order = np.argsort(depth_s, kind="stable")
        times = depth_s[order]
        after = np.clip(np.searchsorted(times, color_s), 0, len(times) - 1)
        before = np.maximum(after - 1, 0)
        nearer = np.abs(times[before] - color_s) <= np.abs(times[after] - color_s)
        nearest = np.where(nearer, before, after)
        apart = np.abs(times[nearest] - color_s)
        pair = np.where(apart <= self._config.max_pair_s, order[nearest], -1)
        if len(pair) and (pair < 0).all():
            raise SourceError(
                f"{self._path}: no depth picture within {self._config.max_pair_s} s of a colour "
                f"picture, the nearest is {apart.min():.3f} s away; raise --source.max_pair_s"
            )
        return pair, depth_ns

    def _make_lens(self) -> Lens | None:
        if self._info is None:
            return None
        name = f"{self._path}: camera_info"
        return lens_of(self._info, rectified=self._topics.rectified, name=name)

    def _find_fixed_frame(self) -> tuple[str | None, str]:
        """Choose the frame that poses are given in; None if there is none; and why."""
        asked = self._config.fixed_frame.strip("/")
        self._camera_frame = self._camera_frame.strip("/")
        known = self._tree.frames()
        named = asked or self._config.camera_frame
        for frame in (asked, self._camera_frame if named else ""):
            if frame and frame not in known:
                raise SourceError(
                    f"{self._path}: frame {frame!r} is not in its TF; known are "
                    + (", ".join(sorted(known)) or "none")
                )
        if asked:
            self._tree.lookup(asked, self._camera_frame, np.zeros(0))  # are they connected?
            return asked, "asked for"
        if self._camera_frame not in known:
            return None, f"{self._camera_frame!r} is not in TF"
        return find_fixed_frame(self._tree, self._camera_frame)

    def _poses(self, stamps_s: FloatArray) -> list[FloatArray | None]:
        if self._fixed_frame is None:
            return [None] * len(stamps_s)
        T = self._tree.lookup(self._fixed_frame, self._camera_frame, stamps_s)
        return [pose if np.isfinite(pose).all() else None for pose in T]

    def _pictures(
        self, reader: AnyReader, wanted: list[int]
    ) -> Iterator[tuple[Any | None, Any | None]]:
        """Yield the decoded colour and depth of each wanted picture, in order."""
        topics = self._topics
        depth_wanted = [int(self._depth_of[i]) for i in wanted] if topics.depth else []
        times = [self._color_ns[wanted]]
        if depth_wanted:
            times.append(self._depth_ns[depth_wanted])
        start, stop = min(t.min() for t in times), max(t.max() for t in times) + 1
        found: dict[tuple[str, int], Any] = {}
        numbers = {
            topics.color.topic: (int(np.count_nonzero(self._color_ns < start)), set(wanted))
        }
        if topics.depth:
            first = int(np.count_nonzero(self._depth_ns < start))
            numbers[topics.depth.topic] = (first, set(depth_wanted))
        connections = [c for c in reader.connections if c.topic in numbers]
        messages = reader.messages(connections, start=int(start), stop=int(stop))
        counts = {topic: first for topic, (first, _) in numbers.items()}

        def read_until(keys: list[tuple[str, int]]) -> None:
            while any(key not in found for key in keys):
                item = next(messages, None)
                if item is None:
                    found.update({key: None for key in keys if key not in found})
                    return
                connection, _, raw = item
                number = counts[connection.topic]
                counts[connection.topic] += 1
                if number in numbers[connection.topic][1]:
                    found[connection.topic, number] = self._decoded(reader, connection, raw)

        for i, index in enumerate(wanted):
            keys = [(topics.color.topic, index)]
            if topics.depth:
                keys.append((topics.depth.topic, depth_wanted[i]))
            read_until(keys)
            pictures = [found[key] for key in keys]
            found.pop(keys[0])
            if topics.depth and depth_wanted[i] not in depth_wanted[i + 1 : i + 2]:
                found.pop(keys[1])
            yield pictures[0], pictures[1] if topics.depth else None

    def _decoded(self, reader: AnyReader, connection: Connection, raw: bytes) -> Any | None:
        """Decode a picture; None if it is broken."""
        depth = self._topics.depth
        is_depth = depth is not None and connection.topic == depth.topic
        unit_m = self._config.depth_unit_m
        try:
            message = reader.deserialize(raw, connection.msgtype)
            return picture_of(message, depth=is_depth, depth_unit_m=unit_m)
        except Exception as error:  # one broken picture costs that picture only
            self._note(f"{connection.topic}: {error}")
            return None

    def _note(self, problem: str) -> None:
        """Keep what was wrong with the first picture that is lost."""
        self.problem = self.problem or problem

    def _shot(
        self, index: int, rgb: Any, depth: Any, T_world_camera: FloatArray | None
    ) -> Shot | None:
        """Join what belongs to a picture; None, and a note, where something is wrong with it."""
        stamp_s, lens = float(self._color_s[index]), self._lens
        problem = self._problem_of(rgb, depth, T_world_camera, stamp_s)
        if problem is not None:
            self._note(problem)
            return None
        return Shot(
            stamp_s=stamp_s,
            rgb=lens.straight(rgb) if lens else rgb,
            depth_m=lens.straight_depth(depth) if lens and depth is not None else depth,
            camera=lens.camera if lens else None,
            T_world_camera=T_world_camera,
        )

    def _problem_of(
        self, rgb: Any, depth: Any, T_world_camera: FloatArray | None, stamp_s: float
    ) -> str | None:
        """Say what makes a picture useless."""
        if rgb is None or (self._topics.depth is not None and depth is None):
            return f"{self._topics.color.topic}: no picture or no depth at {stamp_s:.3f} s"
        if self._fixed_frame is not None and T_world_camera is None:
            frames = f"{self._camera_frame!r} to {self._fixed_frame!r}"
            return f"no transform from {frames} at {stamp_s:.3f} s"
        (height, width), lens = rgb.shape[:2], self._lens
        pictures = f"{self._topics.color.topic}: pictures have {width}x{height} pixels"
        if lens is not None and (width, height) != (lens.camera.width, lens.camera.height):
            return f"{pictures}, their CameraInfo has {lens.camera.width}x{lens.camera.height}"
        if depth is not None and depth.shape != rgb.shape[:2]:
            return f"{pictures}, their depth has {depth.shape[1]}x{depth.shape[0]}"
        return None


def _columns(rows: list[tuple[float, int]]) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return stamps (n,) s and times of storage (n,) ns."""
    return np.array([s for s, _ in rows], np.float64), np.array([ns for _, ns in rows], np.int64)


def _add_transforms(tree: TransformTree, message: Any, *, fixed: bool) -> None:
    for row in message.transforms:
        stamp, t, q = row.header.stamp, row.transform.translation, row.transform.rotation
        tree.add(
            row.header.frame_id,
            row.child_frame_id,
            stamp.sec + 1e-9 * stamp.nanosec,
            (t.x, t.y, t.z),
            (q.x, q.y, q.z, q.w),
            fixed=fixed,
        )
