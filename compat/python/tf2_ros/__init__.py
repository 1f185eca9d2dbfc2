"""Stand-in for tf2_ros (tf2_ros_py 0.36.4) where ROS 2 comes from wheels, which lack it.

Offers the buffer, the listener and both broadcasters; not the buffer client and server, the
conversion of messages (`Buffer.transform`), nor the coroutines.
"""

from .buffer import Buffer
from .exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TimeoutException,
    TransformException,
)
from .static_transform_broadcaster import StaticTransformBroadcaster
from .transform_broadcaster import TransformBroadcaster
from .transform_listener import TransformListener

__all__ = [
    "Buffer",
    "ConnectivityException",
    "ExtrapolationException",
    "InvalidArgumentException",
    "LookupException",
    "StaticTransformBroadcaster",
    "TimeoutException",
    "TransformBroadcaster",
    "TransformException",
    "TransformListener",
]
