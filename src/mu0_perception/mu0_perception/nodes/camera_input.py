"""Bring colour and depth pictures together and look up where the camera and the gripper are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped
from message_filters import ApproximateTimeSynchronizer, Subscriber
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_ros import Buffer, TransformException, TransformListener

from mu0_core.errors import CalibrationError, StaleInputError
from mu0_core.ros.interfaces import Qos
from mu0_core.ros.messages import (
    array_from_image,
    camera_from_info,
    depth_from_image,
    ns_from_stamp,
    rgb_from_image,
    transform_from_message,
)
from mu0_core.se3 import transform_points
from mu0_perception.frame import RgbdFrame

COLOUR = "camera/color/image_raw"
COLOUR_INFO = "camera/color/camera_info"
DEPTH = "camera/aligned_depth_to_color/image_raw"
MASK = "mu0/mask"
CLICK = "/clicked_point"
_QUEUE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Hold a colour and a depth message of the same moment."""

    colour: Image | CompressedImage
    depth: Image | CompressedImage


class CameraInput:
    """Subscribe to what the tracker needs and turn it into frames.

    Callbacks only store; `frame` converts, and may be called on another thread.

    Args:
        node: The node that subscribes.
        tf: Where the transforms go that are heard.
        on_pair: Called with each pair of pictures.
        compressed: Whether pictures come compressed.
        slop_s: Largest difference of stamps within a pair, s.
    """

    def __init__(
        self,
        node: Node,
        tf: Buffer,
        on_pair: Callable[[Pair], None],
        *,
        compressed: bool,
        slop_s: float,
    ) -> None:
        self._node, self._tf = node, tf
        self._info: CameraInfo | None = None
        self._clicks: list[PointStamped] = []
        self._mask: Image | None = None
        self._on_pair, self._slop_s = on_pair, slop_s
        self._came = {"colour": 0, "depth": 0, "pair": 0}
        kind = CompressedImage if compressed else Image
        names = (
            (f"{COLOUR}/compressed", f"{DEPTH}/compressedDepth") if compressed else (COLOUR, DEPTH)
        )
        sensor = Qos.SENSOR.profile
        self._sources = [Subscriber(node, kind, name, qos_profile=sensor) for name in names]
        self._sources[0].registerCallback(self._count, "colour")
        self._sources[1].registerCallback(self._count, "depth")
        self._synchroniser = ApproximateTimeSynchronizer(self._sources, _QUEUE, slop_s)
        self._synchroniser.registerCallback(self._hand_on)
        node.create_subscription(CameraInfo, COLOUR_INFO, self._on_info, sensor)
        node.create_subscription(Image, MASK, self._on_mask, Qos.RELIABLE.profile)
        node.create_subscription(PointStamped, CLICK, self._clicks.append, Qos.RELIABLE.profile)
        self._tf_listener = TransformListener(tf, node)

    def close(self) -> None:
        """End the subscriptions that the node does not know of."""
        self._tf_listener.unregister()

    def silence(self) -> str | None:
        """Say what did not come since the last call, or None if a pair came."""
        colour, depth = (source.sub.topic_name for source in self._sources)
        came, self._came = self._came, dict.fromkeys(self._came, 0)
        if not came["colour"]:
            return f"no colour images on {colour}"
        if not came["depth"]:
            return f"colour images without depth: nothing on {depth}"
        if not came["pair"]:
            return (
                f"images on {colour} and {depth} have stamps more than {self._slop_s} s apart; "
                "synchronise the streams in the driver or raise slop_s"
            )
        return None

    def frame(
        self, pair: Pair, *, fixed_frame: str, gripper_frame: str, tf_timeout_s: float
    ) -> RgbdFrame:
        """Convert a pair of pictures and add what was known at their time.

        Args:
            pair: The pictures.
            fixed_frame: Frame that a moving camera moves in; empty for a camera at rest.
            gripper_frame: Frame of the gripper; empty for none.
            tf_timeout_s: How long to wait for transforms, s.

        Raises:
            CalibrationError: camera_info is missing, or cannot be right.
            ShapeError: A picture does not fit its encoding or camera_info.
            StaleInputError: The camera's pose in the fixed frame is unknown.
        """
        header = pair.colour.header
        if self._info is None:
            raise CalibrationError(
                f"no camera_info on {self._node.resolve_topic_name(COLOUR_INFO)}: without "
                "intrinsics pixels cannot be lifted to 3D; start the driver's camera_info or "
                "remap the topic"
            )
        camera = camera_from_info(self._info)
        rgb, depth_m = rgb_from_image(pair.colour), depth_from_image(pair.depth)
        frame_id, stamp = header.frame_id, Time.from_msg(header.stamp)
        T_fixed_camera, T_camera_gripper = np.eye(4), None
        wait = Duration(seconds=tf_timeout_s)
        if fixed_frame:
            T_fixed_camera = self._transform(fixed_frame, frame_id, stamp, wait)
        if gripper_frame:
            try:
                T_camera_gripper = self._transform(frame_id, gripper_frame, stamp, wait)
            except StaleInputError:
                T_camera_gripper = None  # the tracker says that gripper points are left out
        mask, self._mask = self._mask, None
        return RgbdFrame(
            stamp_ns=ns_from_stamp(header.stamp),
            frame_id=frame_id,
            rgb=rgb,
            depth_m=depth_m,
            camera=camera,
            T_fixed_camera=T_fixed_camera,
            T_camera_gripper=T_camera_gripper,
            clicked_xyz=self._clicked(frame_id),
            mask=None if mask is None else array_from_image(mask) > 0,
        )

    def _clicked(self, frame_id: str) -> NDArray[np.float64]:
        """Return the points clicked since the last call, in the camera's frame."""
        found = []
        for _ in range(len(self._clicks)):
            click = self._clicks.pop(0)
            xyz = np.array([click.point.x, click.point.y, click.point.z])
            try:
                T = self._transform(frame_id, click.header.frame_id, Time(), Duration())
            except StaleInputError as error:
                self._node.get_logger().warning(f"clicked point ignored: {error}")
                continue
            if np.isfinite(xyz).all():
                found.append(transform_points(T, xyz))
        return np.array(found).reshape(-1, 3)

    def _transform(
        self, target: str, source: str, stamp: Time, wait: Duration
    ) -> NDArray[np.float64]:
        """Look up T_target_source."""
        try:
            message = self._tf.lookup_transform(target, source, stamp, wait)
        except TransformException as error:
            raise StaleInputError(
                f"no transform from {source!r} to {target!r}: {error}; check that /tf has both "
                "frames and that all machines share one clock"
            ) from error
        return transform_from_message(message.transform)

    def _count(self, message: Any, kind: str) -> None:
        self._came[kind] += 1

    def _hand_on(self, colour: Any, depth: Any) -> None:
        self._came["pair"] += 1
        self._on_pair(Pair(colour=colour, depth=depth))

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_mask(self, message: Image) -> None:
        self._mask = message
