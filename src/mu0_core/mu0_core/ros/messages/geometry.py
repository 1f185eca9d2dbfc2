"""Convert stamps and rigid transforms."""

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Transform, TransformStamped, Vector3
from numpy.typing import ArrayLike, NDArray

from mu0_core.se3 import quat_xyzw_from_transform, transform_from_quat_xyzw

NS_PER_S = 1_000_000_000


def stamp_from_ns(stamp_ns: int) -> Time:
    """Make a stamp from nanoseconds since the epoch of the clock."""
    sec, nanosec = divmod(int(stamp_ns), NS_PER_S)
    return Time(sec=sec, nanosec=nanosec)


def ns_from_stamp(stamp: Time) -> int:
    """Return a stamp in nanoseconds, exactly."""
    return stamp.sec * NS_PER_S + stamp.nanosec


def stamp_from_seconds(t_s: float) -> Time:
    """Make a stamp from seconds, rounded to a nanosecond."""
    return stamp_from_ns(round(t_s * NS_PER_S))


def seconds_from_stamp(stamp: Time) -> float:
    """Return a stamp in seconds; of today's wall clock that is exact to about 0.2 us."""
    return ns_from_stamp(stamp) / NS_PER_S


def transform_message(T: ArrayLike) -> Transform:
    """Make a message from a transform (4, 4)."""
    t, quat_xyzw = _parts(T)
    return Transform(translation=Vector3(x=t[0], y=t[1], z=t[2]), rotation=_quaternion(quat_xyzw))


def transform_from_message(message: Transform) -> NDArray[np.float64]:
    """Return a transform (4, 4).

    Raises:
        CalibrationError: The quaternion is zero or not finite.
    """
    return _joined(message.translation, message.rotation)


def transform_stamped(
    T_parent_child: ArrayLike, *, parent: str, child: str, stamp: Time
) -> TransformStamped:
    """Make the message that TF carries from a transform (4, 4), child -> parent."""
    message = TransformStamped(child_frame_id=child, transform=transform_message(T_parent_child))
    message.header.frame_id = parent
    message.header.stamp = stamp
    return message


def pose_from_transform(T: ArrayLike) -> Pose:
    """Make a pose message from a transform (4, 4)."""
    t, quat_xyzw = _parts(T)
    return Pose(position=Point(x=t[0], y=t[1], z=t[2]), orientation=_quaternion(quat_xyzw))


def transform_from_pose(message: Pose) -> NDArray[np.float64]:
    """Return a transform (4, 4); raises as `transform_from_message`."""
    return _joined(message.position, message.orientation)


def _parts(T: ArrayLike) -> tuple[list[float], list[float]]:
    T = np.asarray(T, dtype=np.float64)
    return T[:3, 3].tolist(), quat_xyzw_from_transform(T).tolist()


def _quaternion(quat_xyzw: list[float]) -> Quaternion:
    x, y, z, w = quat_xyzw
    return Quaternion(x=x, y=y, z=z, w=w)


def _joined(t: Vector3 | Point, q: Quaternion) -> NDArray[np.float64]:
    return transform_from_quat_xyzw([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])
