"""Own the choice of a bag's topics: which is colour, its depth, and what belongs to them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from mu0_perception.extract.recording import SourceError
from mu0_perception.extract.sources import SourceConfig
from mu0_perception.extract.sources._images import encoding_of

_PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_INFO = "sensor_msgs/msg/CameraInfo"
_TF = "tf2_msgs/msg/TFMessage"
_STRING = "std_msgs/msg/String"
_ROBOT = ("robot_description", "joint_states")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Hold the chosen topics.

    Attributes:
        color: Colour pictures.
        depth: Depth on the same pixels; None = none in the bag.
        info: Intrinsics of the colour pictures; None = none in the bag.
        others: Transforms and instructions.
        frame_id: Optical frame of the colour pictures.
        has_robot: Whether a robot is described.
    """

    color: Connection
    depth: Connection | None
    info: Connection | None
    others: tuple[Connection, ...]
    frame_id: str
    has_robot: bool

    def pictures(self) -> list[Connection]:
        """Return the topics with pictures."""
        return [self.color] if self.depth is None else [self.color, self.depth]

    def all(self) -> list[Connection]:
        """Return all topics that are read."""
        info = [] if self.info is None else [self.info]
        return [*self.pictures(), *info, *self.others]


@dataclass(frozen=True, slots=True)
class _Picture:
    """Hold a picture topic and what its first message says."""

    connection: Connection
    is_depth: bool
    encoding: str
    frame_id: str
    size: tuple[int, int] | None  # compressed pictures do not say

    def fits(self, color: "_Picture") -> bool:
        """Say whether depth may lie on the pixels of a colour topic."""
        sizes = self.size, color.size
        return self.frame_id == color.frame_id and (None in sizes or sizes[0] == sizes[1])


def choose_topics(reader: AnyReader, config: SourceConfig, path: Path) -> Topics:
    """Choose the topics of one camera.

    Raises:
        SourceError: A topic is missing or not to be told from others; it lists what there is.
    """
    there = {c.topic: c for c in reader.connections}
    pictures = _first_pictures(reader)
    depths = {t: p for t, p in pictures.items() if p.is_depth}
    colors = {t: p for t, p in pictures.items() if not p.is_depth}
    color = _choose_color(colors, depths, config, there, path)
    depth = _choose_depth(color, depths, config, there, path)
    info = _choose_info(color.connection.topic, config, there, path)
    others = [
        c
        for c in reader.connections
        if (c.msgtype == _TF and c.topic in ("/tf", "/tf_static"))
        or (c.msgtype == _STRING and "instruction" in c.topic)
    ]
    return Topics(
        color=color.connection,
        depth=None if depth is None else depth.connection,
        info=info,
        others=tuple(others),
        frame_id=color.frame_id,
        has_robot=any(t.rsplit("/", 1)[-1] in _ROBOT for t in there),
    )


def _first_pictures(reader: AnyReader) -> dict[str, _Picture]:
    """Look at the first message of each topic with pictures."""
    waiting = {c.topic: c for c in reader.connections if c.msgtype in _PICTURES and c.msgcount}
    found: dict[str, _Picture] = {}
    for topic, connection in waiting.items():
        for _, _, raw in reader.messages([connection]):
            message: Any = reader.deserialize(raw, connection.msgtype)
            encoding, is_depth = encoding_of(message)
            size = (message.width, message.height) if hasattr(message, "width") else None
            found[topic] = _Picture(connection, is_depth, encoding, message.header.frame_id, size)
            break
    return found


def _choose_color(
    colors: dict[str, _Picture],
    depths: dict[str, _Picture],
    config: SourceConfig,
    there: dict[str, Connection],
    path: Path,
) -> _Picture:
    if config.color_topic:
        return _named(config.color_topic, "color_topic", colors, there, path)
    with_depth = {t: p for t, p in colors.items() if any(d.fits(p) for d in depths.values())}
    candidates = with_depth or colors
    coloured = {t: p for t, p in candidates.items() if not _is_grey(p)}
    candidates = coloured or candidates
    if not candidates:
        raise SourceError(f"{path}: no topic with colour pictures; {_listed(there)}")
    cameras: dict[str, list[str]] = {}
    for topic in sorted(candidates):
        cameras.setdefault(_camera_name(topic), []).append(topic)
    if len(cameras) > 1:
        raise SourceError(
            f"{path}: pictures of {len(cameras)} cameras ({', '.join(sorted(candidates))}); "
            "choose one with --source.color_topic and extract each into its own folder"
        )
    # Of one camera several forms: straight before raw, raw before compressed.
    (topics,) = cameras.values()
    best = min(topics, key=lambda t: ("rect" not in t, "compressed" in t.lower(), t))
    return candidates[best]


def _choose_depth(
    color: _Picture,
    depths: dict[str, _Picture],
    config: SourceConfig,
    there: dict[str, Connection],
    path: Path,
) -> _Picture | None:
    if config.depth_topic:
        chosen = _named(config.depth_topic, "depth_topic", depths, there, path)
    else:
        fitting = [d for d in depths.values() if d.fits(color)]
        if depths and not fitting:
            raise SourceError(
                f"{path}: depth ({', '.join(sorted(depths))}) is not on the pixels of "
                f"{color.connection.topic} (frame {color.frame_id!r}, size {color.size}); record "
                "depth aligned to colour, or register it with depth_image_proc"
            )
        if not fitting:
            return None
        chosen = min(
            fitting,
            key=lambda d: (
                "aligned" not in d.connection.topic,
                "compressed" in d.connection.topic.lower(),
                d.connection.topic,
            ),
        )
    if chosen.encoding == "mono16" and config.depth_unit_m is None:
        raise SourceError(
            f"{path}: {chosen.connection.topic} has encoding mono16, which says nothing of its "
            "unit; give it with --source.depth_unit_m (0.001 for millimetres)"
        )
    return chosen


def _choose_info(
    color: str, config: SourceConfig, there: dict[str, Connection], path: Path
) -> Connection | None:
    infos = {t: c for t, c in there.items() if c.msgtype == _INFO and c.msgcount}
    if config.info_topic:
        if config.info_topic not in infos:
            raise SourceError(f"{path}: no CameraInfo on {config.info_topic!r}; {_listed(there)}")
        return infos[config.info_topic]
    parts = color.strip("/").split("/")
    for length in range(len(parts) - 1, -1, -1):
        beside = "/" + "/".join([*parts[:length], "camera_info"])
        if beside in infos:
            return infos[beside]
        if infos and length and length == len(parts) - 1 and len(infos) == 1:
            return next(iter(infos.values()))
    return None


def _named(
    topic: str,
    option: str,
    pictures: dict[str, _Picture],
    there: dict[str, Connection],
    path: Path,
) -> _Picture:
    if topic not in pictures:
        kind = option.split("_")[0]
        raise SourceError(f"{path}: no {kind} pictures on {topic!r}; {_listed(there)}")
    return pictures[topic]


def _is_grey(picture: _Picture) -> bool:
    return picture.encoding in ("mono8", "8UC1") or "infra" in picture.connection.topic


def _camera_name(topic: str) -> str:
    """Return what topics of one camera have in common."""
    return re.sub(r"/image_?\w*(/.*)?$", "", topic)


def _listed(there: dict[str, Connection]) -> str:
    """Say which topics a bag has."""
    rows = sorted(f"{t} ({c.msgtype}, {c.msgcount})" for t, c in there.items())
    return "the bag has " + (", ".join(rows) or "no topics")
