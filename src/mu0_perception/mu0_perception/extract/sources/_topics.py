"""Own the choice of a bag's topics: which is colour, its depth, and what belongs to them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from mu0_core.errors import Mu0Error
from mu0_perception.extract.recording import SourceError
from mu0_perception.extract.sources import SourceConfig
from mu0_perception.extract.sources._calibration import picture_size
from mu0_perception.extract.sources._images import encoding_of, picture_of

_PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_INFO = "sensor_msgs/msg/CameraInfo"
_TF = "tf2_msgs/msg/TFMessage"
_STRING = "std_msgs/msg/String"
_ROBOT = ("robot_description", "joint_states")

# What is added to the name of a picture topic: by image_transport, and by image_proc.
_TRANSPORT = re.compile(r"/(compressed|compressedDepth|zstd)$")
_FORM = re.compile(r"(_(raw|mono|color|colour|rect|rectified))+$")
_ON_COLOUR = re.compile(r"aligned|registered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Hold the chosen topics.

    Attributes:
        color: Colour pictures.
        depth: Depth on the same pixels; None = none in the bag.
        info: Intrinsics of the colour pictures; None = none in the bag.
        other_infos: Intrinsics of other pictures.
        others: Transforms and instructions.
        frame_id: Optical frame of the colour pictures.
        has_robot: Whether a robot is described.
    """

    color: Connection
    depth: Connection | None
    info: Connection | None
    other_infos: tuple[str, ...]
    others: tuple[Connection, ...]
    frame_id: str
    has_robot: bool

    @property
    def rectified(self) -> bool:
        """Whether the colour pictures are straight already."""
        return _is_rectified(self.color.topic)

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
    size: tuple[int, int] | None  # (width, height); None = the first one is broken

    @property
    def topic(self) -> str:
        """Where it is."""
        return self.connection.topic

    @property
    def camera(self) -> tuple[str, str]:
        """What all forms of one camera's pictures share: the frame, and the name but for them."""
        return self.frame_id, _plain_name(self.topic)

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
    depth = _choose_depth(color, colors, depths, config, there, path)
    info = _choose_info(reader, color, config, there, path)
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
        other_infos=tuple(sorted(t for t, c in there.items() if c.msgtype == _INFO and c != info)),
        others=tuple(others),
        frame_id=color.frame_id,
        has_robot=any(t.rsplit("/", 1)[-1] in _ROBOT for t in there),
    )


def _first_pictures(reader: AnyReader) -> dict[str, _Picture]:
    """Look at the first message of each topic with pictures."""
    found: dict[str, _Picture] = {}
    for connection in reader.connections:
        if connection.msgtype in _PICTURES and connection.msgcount:
            message = _first(reader, connection)
            encoding, is_depth = encoding_of(message)
            found[connection.topic] = _Picture(
                connection,
                is_depth,
                encoding,
                message.header.frame_id,
                _size_of(message, is_depth),
            )
    return found


def _first(reader: AnyReader, connection: Connection) -> Any:
    """Return the first message of a topic that has some."""
    _, _, raw = next(iter(reader.messages([connection])))
    return reader.deserialize(raw, connection.msgtype)


def _size_of(message: Any, is_depth: bool) -> tuple[int, int] | None:
    """Return (width, height) of a picture; compressed ones do not say, so they are decoded."""
    if hasattr(message, "width"):
        return message.width, message.height
    try:
        height, width = picture_of(message, depth=is_depth, depth_unit_m=None).shape[:2]
    except Mu0Error:
        return None
    return width, height


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
    cameras = {candidates[topic].camera for topic in candidates}
    if len(cameras) > 1:
        raise SourceError(
            f"{path}: pictures of {len(cameras)} cameras ({', '.join(sorted(candidates))}); "
            "choose one with --source.color_topic and extract each into its own folder"
        )
    # Of one camera several forms: straight before raw, raw before compressed.
    best = min(candidates, key=lambda t: (not _is_rectified(t), "compressed" in t.lower(), t))
    return candidates[best]


def _choose_depth(
    color: _Picture,
    colors: dict[str, _Picture],
    depths: dict[str, _Picture],
    config: SourceConfig,
    there: dict[str, Connection],
    path: Path,
) -> _Picture | None:
    if config.depth_topic:
        chosen = _named(config.depth_topic, "depth_topic", depths, there, path)
    else:
        others = [
            c
            for c in colors.values()
            if c.camera != color.camera and (_is_grey(color) or not _is_grey(c))
        ]
        own = [d for d in depths.values() if not any(_nearer(d, c, color) for c in others)]
        fitting = [d for d in own if d.fits(color)]
        if own and not fitting:
            raise SourceError(
                f"{path}: depth ({', '.join(sorted(d.topic for d in own))}) is not on the pixels "
                f"of {color.topic} (frame {color.frame_id!r}, size {color.size}); record "
                "depth aligned to colour, or register it with depth_image_proc"
            )
        if not fitting:
            return None
        chosen = _best_depth(fitting, color, path)
    if chosen.encoding == "mono16" and config.depth_unit_m is None:
        raise SourceError(
            f"{path}: {chosen.topic} has encoding mono16, which says nothing of its "
            "unit; give it with --source.depth_unit_m (0.001 for millimetres)"
        )
    return chosen


def _nearer(depth: _Picture, other: _Picture, color: _Picture) -> bool:
    """Say whether depth belongs to another camera rather than to a colour topic."""
    if not depth.fits(other):
        return False
    return not depth.fits(color) or _shared(depth, other) > _shared(depth, color)


def _best_depth(fitting: list[_Picture], color: _Picture, path: Path) -> _Picture:
    """Choose among depth topics that may lie on a colour topic's pixels."""
    near = max(_shared(d, color) for d in fitting)
    nearest = [d for d in fitting if _shared(d, color) == near]
    nearest = [d for d in nearest if _ON_COLOUR.search(d.topic)] or nearest
    if len({_plain_name(d.topic) for d in nearest}) > 1:
        raise SourceError(
            f"{path}: depth of {color.topic} may be any of "
            f"{', '.join(sorted(d.topic for d in nearest))}; choose one with --source.depth_topic"
        )
    return min(nearest, key=lambda d: ("compressed" in d.topic.lower(), d.topic))


def _choose_info(
    reader: AnyReader,
    color: _Picture,
    config: SourceConfig,
    there: dict[str, Connection],
    path: Path,
) -> Connection | None:
    infos = {t: c for t, c in there.items() if c.msgtype == _INFO and c.msgcount}
    if config.info_topic:
        if config.info_topic not in infos:
            raise SourceError(f"{path}: no CameraInfo on {config.info_topic!r}; {_listed(there)}")
        return infos[config.info_topic]
    name = _TRANSPORT.sub("", color.topic)
    beside = [f"{name}/camera_info", f"{name.rpartition('/')[0]}/camera_info"]
    for topic in [*beside, *sorted(infos.keys() - set(beside))]:
        if topic in infos and _is_info_of(color, _first(reader, infos[topic]), topic in beside):
            return infos[topic]
    return None


def _is_info_of(color: _Picture, info: Any, beside: bool) -> bool:
    """Say whether a CameraInfo is of a colour topic; only beside it frames may have no name."""
    frames = {color.frame_id, info.header.frame_id}
    if beside:
        frames.discard("")
    same_frame = len(frames) <= 1 and (beside or frames != {""})
    return same_frame and color.size in (None, picture_size(info))


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
    return picture.encoding in ("mono8", "8UC1") or "infra" in picture.topic


def _plain_name(topic: str) -> str:
    """Return the name that all forms of one picture topic share."""
    return _FORM.sub("", _TRANSPORT.sub("", topic))


def _is_rectified(topic: str) -> bool:
    parts = re.split("[/_]", _TRANSPORT.sub("", topic))
    return "rect" in parts or "rectified" in parts


def _shared(a: _Picture, b: _Picture) -> int:
    """Return how many leading parts the names of two topics share."""
    count = 0
    for one, other in zip(a.topic.split("/"), b.topic.split("/"), strict=False):
        if one != other:
            break
        count += 1
    return count


def _listed(there: dict[str, Connection]) -> str:
    """Say which topics a bag has."""
    rows = sorted(f"{t} ({c.msgtype}, {c.msgcount})" for t, c in there.items())
    return "the bag has " + (", ".join(rows) or "no topics")
