"""Bring keypoints together with the picture that they were found in."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from mu0_core.errors import ShapeError
from mu0_core.ros.interfaces import Qos, create_subscription
from mu0_core.ros.messages import (
    depth_from_image,
    keypoints_from_message,
    ns_from_stamp,
    rgb_from_image,
)
from mu0_core.traces import Keypoints
from mu0_msgs.msg import KeypointArray

COLOUR = "camera/color/image_raw"
DEPTH = "camera/aligned_depth_to_color/image_raw"
KEYPOINTS = "mu0/keypoints"
_KEPT = 15  # pictures: what comes in half a second at 30 Hz, while a tracker works on one
_DEPTH_SLOP_NS = 20_000_000  # drivers may stamp the two pictures of a pair apart
_DEPTH_WAIT_S = 0.1  # for the depth of a picture that is there, wall clock
_DEPTH_SILENT_NS = 500_000_000  # without depth for so long, none is waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Hold the messages of one moment, unconverted."""

    colour: Image | CompressedImage
    keypoints: KeypointArray
    depth: Image | CompressedImage | None

    def arrays(
        self,
    ) -> tuple[NDArray[np.uint8], Keypoints, NDArray[np.float32] | None]:
        """Convert: picture (H, W, 3), keypoints, and depth (H, W) m if there is one.

        Raises:
            ShapeError: A message contradicts itself, or the sizes differ.
            CalibrationError: The keypoints' intrinsics are impossible.
        """
        rgb, keypoints = rgb_from_image(self.colour), keypoints_from_message(self.keypoints)
        camera = keypoints.camera
        if rgb.shape[:2] != (camera.height, camera.width):
            raise ShapeError(
                f"colour image: expected {camera.width} x {camera.height} px as the keypoints "
                f"say, got {rgb.shape[1]} x {rgb.shape[0]}; tracker and world model must take "
                "the same topic"
            )
        depth = None if self.depth is None else depth_from_image(self.depth)
        if depth is not None and depth.shape != rgb.shape[:2]:
            raise ShapeError(
                f"depth image: expected the colour image's {rgb.shape[1]} x {rgb.shape[0]} px, "
                f"got {depth.shape[1]} x {depth.shape[0]}; take depth aligned to colour"
            )
        return rgb, keypoints, depth


class PictureInput:
    """Subscribe to keypoints and pictures, and hand on those of the same stamp.

    Args:
        node: The node that subscribes.
        on_query: Called with each match, the newest last.
        depth: Whether depth pictures are wanted too; a query may lack one even so.
        compressed: Whether pictures come compressed.
    """

    def __init__(
        self, node: Node, on_query: Callable[[Query], None], *, depth: bool, compressed: bool
    ) -> None:
        self._node, self._on_query, self.takes_depth = node, on_query, depth
        self._pictures: deque[Any] = deque(maxlen=_KEPT)
        self._depths: deque[Any] = deque(maxlen=_KEPT)
        self._waiting: KeypointArray | None = None
        self._waiting_since_s = -np.inf
        self._matched = 0
        kind = CompressedImage if compressed else Image
        colour = f"{COLOUR}/compressed" if compressed else COLOUR
        depths = f"{DEPTH}/compressedDepth" if compressed else DEPTH
        self._colour = colour
        self._came = {colour: 0, KEYPOINTS: 0}
        sensor = Qos.SENSOR.profile
        node.create_subscription(kind, colour, self._on_picture, sensor)
        create_subscription(node, KEYPOINTS, self._on_keypoints)
        if depth:
            node.create_subscription(kind, depths, self._on_depth, sensor)
            wall_clock = Clock(clock_type=ClockType.STEADY_TIME)
            node.create_timer(_DEPTH_WAIT_S, self._match, clock=wall_clock)

    def silence(self) -> str | None:
        """Say what did not come since the last call, or None if a match came."""
        came, self._came = self._came, dict.fromkeys(self._came, 0)
        matched, self._matched = self._matched, 0
        if matched:
            return None
        for name, needed in ((self._colour, "colour images"), (KEYPOINTS, "keypoints")):
            if not came[name]:
                return f"no {needed} on {self._node.resolve_topic_name(name)}"
        colour, keypoints = map(self._node.resolve_topic_name, (self._colour, KEYPOINTS))
        return (
            f"no image on {colour} has the stamp of keypoints on {keypoints}; tracker and world "
            "model must take the same topic"
        )

    def _on_picture(self, message: Any) -> None:
        self._came[self._colour] += 1
        self._pictures.append(message)
        self._match()

    def _on_depth(self, message: Any) -> None:
        self._depths.append(message)
        self._match()

    def _on_keypoints(self, message: KeypointArray) -> None:
        self._came[KEYPOINTS] += 1
        self._waiting, self._waiting_since_s = message, time.monotonic()
        self._match()

    def _match(self) -> None:
        """Hand on the newest keypoints as soon as their picture is there, once."""
        if self._waiting is None:
            return
        stamp_ns = _stamp_ns(self._waiting)
        colour = _nearest(self._pictures, stamp_ns, 0)
        if colour is None:
            return
        depth = _nearest(self._depths, stamp_ns, _DEPTH_SLOP_NS)
        if depth is None and self._depth_may_come(stamp_ns):
            return
        keypoints, self._waiting = self._waiting, None
        self._matched += 1
        self._on_query(Query(colour=colour, keypoints=keypoints, depth=depth))

    def _depth_may_come(self, stamp_ns: int) -> bool:
        """Say whether the depth of this time is still on its way."""
        newest_ns = max(map(_stamp_ns, self._depths), default=None)
        if newest_ns is None or not 0 < stamp_ns - newest_ns < _DEPTH_SILENT_NS:
            return False
        return time.monotonic() - self._waiting_since_s < _DEPTH_WAIT_S


def _stamp_ns(message: Any) -> int:
    return ns_from_stamp(message.header.stamp)


def _nearest(messages: deque[Any], stamp_ns: int, slop_ns: int) -> Any | None:
    """Return the message nearest in time, none if it is further away than the slop."""

    def distance(message: Any) -> int:
        return abs(_stamp_ns(message) - stamp_ns)

    best = min(messages, key=distance, default=None)
    return best if best is not None and distance(best) <= slop_ns else None
