"""Publishes transforms that never change on /tf_static."""

from collections.abc import Iterable

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from .transform_broadcaster import as_list


class StaticTransformBroadcaster:
    """Publishes on /tf_static, kept for late subscribers.

    Every message holds all transforms sent so far. A child frame sent again keeps its first
    transform, as in the real class of this version: what changes belongs on /tf.
    """

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.pub_tf = node.create_publisher(
            TFMessage, "/tf_static", latched if qos is None else qos
        )
        self._sent: dict[str, TransformStamped] = {}

    def sendTransform(  # noqa: N802 - the name is tf2's
        self, transform: TransformStamped | Iterable[TransformStamped]
    ) -> None:
        """Publish one transform or several, together with those sent before."""
        for one in as_list(transform):
            self._sent.setdefault(one.child_frame_id, one)
        self.pub_tf.publish(TFMessage(transforms=list(self._sent.values())))
