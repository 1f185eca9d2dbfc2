"""Convert between messages and arrays, with no cost per element.

Bulk data is copied once, from the buffer of a message to an array or back, so that nothing shares
memory with a message. Lists and arrays assigned to a message are checked element by element by
rclpy, `array.array` is not: see `flat`.
"""

from mu0_core.ros.messages.buffers import flat
from mu0_core.ros.messages.features import (
    NamedFeatures,
    features_from_message,
    features_message,
)
from mu0_core.ros.messages.geometry import (
    ns_from_stamp,
    pose_from_transform,
    seconds_from_stamp,
    stamp_from_ns,
    stamp_from_seconds,
    transform_from_message,
    transform_from_pose,
    transform_message,
    transform_stamped,
)
from mu0_core.ros.messages.images import (
    array_from_image,
    camera_from_info,
    camera_info_message,
    cloud_from_points,
    depth_from_image,
    image_from_array,
    points_from_cloud,
    rgb_from_image,
)
from mu0_core.ros.messages.joints import (
    JointPath,
    JointValues,
    joint_path_from_message,
    joint_state_message,
    joint_values_from_message,
    trajectory_message,
)
from mu0_core.ros.messages.traces import (
    keypoints_from_message,
    keypoints_message,
    traces_from_message,
    traces_message,
)

__all__ = [
    "JointPath",
    "JointValues",
    "NamedFeatures",
    "array_from_image",
    "camera_from_info",
    "camera_info_message",
    "cloud_from_points",
    "depth_from_image",
    "features_from_message",
    "features_message",
    "flat",
    "image_from_array",
    "joint_path_from_message",
    "joint_state_message",
    "joint_values_from_message",
    "keypoints_from_message",
    "keypoints_message",
    "ns_from_stamp",
    "points_from_cloud",
    "pose_from_transform",
    "rgb_from_image",
    "seconds_from_stamp",
    "stamp_from_ns",
    "stamp_from_seconds",
    "traces_from_message",
    "traces_message",
    "trajectory_message",
    "transform_from_message",
    "transform_from_pose",
    "transform_message",
    "transform_stamped",
]
