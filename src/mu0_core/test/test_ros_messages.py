"""Messages and arrays: exact values both ways, no shared memory, every refusal by its text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, PointField

from mu0_core.camera import Camera
from mu0_core.errors import CalibrationError, ShapeError, TrajectoryError
from mu0_core.ros import messages
from mu0_core.ros.messages import JointPath, stamp_from_ns
from mu0_core.se3 import exp
from mu0_core.traces import Keypoints, Traces

pytestmark = pytest.mark.ros
STAMP = stamp_from_ns(12_000_000_034)
HEAD = {"stamp": STAMP, "frame_id": "camera"}


def sent(message):
    """Return the message as a subscriber would get it."""
    return deserialize_message(serialize_message(message), type(message))


# Stamps.


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_are_exact(stamp_ns: int) -> None:
    assert messages.ns_from_stamp(stamp_from_ns(stamp_ns)) == stamp_ns


def test_stamps_in_seconds() -> None:
    assert messages.seconds_from_stamp(stamp_from_ns(1_500_000_000)) == 1.5
    stamp = messages.stamp_from_seconds(2.000000001)
    assert (stamp.sec, stamp.nanosec) == (2, 1)


# Images.

IMAGES = [
    ("rgb8", np.uint8, (3,)),
    ("bgr8", np.uint8, (3,)),
    ("mono8", np.uint8, ()),
    ("16UC1", np.uint16, ()),
    ("32FC1", np.float32, ()),
]


@pytest.mark.parametrize(("encoding", "dtype", "tail"), IMAGES)
def test_images_come_back(encoding: str, dtype: type, tail: tuple[int, ...]) -> None:
    pixels = (np.arange(4 * 5 * int(np.prod(tail))) * 3).astype(dtype).reshape(4, 5, *tail)
    message = sent(messages.image_from_array(pixels, encoding, **HEAD))
    assert (message.height, message.width, message.encoding) == (4, 5, encoding)
    assert message.step * message.height == len(message.data) == pixels.nbytes
    assert message.header.stamp == STAMP
    assert message.header.frame_id == "camera"
    back = messages.array_from_image(message)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, pixels)


def test_image_of_a_view_that_is_not_contiguous() -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    message = messages.image_from_array(pixels[::2, ::-1, ::-1], "rgb8", **HEAD)
    np.testing.assert_array_equal(messages.array_from_image(message), pixels[::2, ::-1, ::-1])


def test_image_honours_step_and_byte_order() -> None:
    rows = np.array([[1, 2, 9], [3, 4, 9]], dtype=">u2")
    message = Image(height=2, width=2, encoding="16UC1", is_bigendian=1, step=6)
    message.data = messages.flat(rows.view(np.uint8))
    np.testing.assert_array_equal(messages.array_from_image(message), [[1, 2], [3, 4]])


def test_image_and_array_share_nothing() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    message = messages.image_from_array(pixels, "mono8", **HEAD)
    pixels[:] = 7
    back = messages.array_from_image(message)
    back[:] = 9
    assert list(message.data) == [0, 0, 0, 0]


def test_colour_is_rgb_and_depth_is_metres() -> None:
    bgr = np.array([[[1, 2, 3]]], np.uint8)
    message = messages.image_from_array(bgr, "bgr8", **HEAD)
    np.testing.assert_array_equal(messages.rgb_from_image(message), [[[3, 2, 1]]])
    depth = messages.image_from_array(np.array([[1500, 0]], np.uint16), "16UC1", **HEAD)
    np.testing.assert_allclose(messages.depth_from_image(depth), [[1.5, np.nan]], rtol=1e-6)


def test_images_are_refused() -> None:
    grey = np.zeros((2, 3), np.uint8)
    with pytest.raises(ShapeError, match=r"expected \(H, W, 3\) uint8, got \(2, 3\) uint8"):
        messages.image_from_array(grey, "rgb8", **HEAD)
    with pytest.raises(ShapeError, match=r"expected \(H, W\) uint16, got \(2, 3\) uint8"):
        messages.image_from_array(grey, "16UC1", **HEAD)
    with pytest.raises(ShapeError, match="unknown image encoding 'rgb88'.*did you mean 'rgb8'"):
        messages.image_from_array(grey, "rgb88", **HEAD)
    message = messages.image_from_array(grey, "mono8", **HEAD)
    with pytest.raises(ShapeError, match="expected encoding rgb8 or bgr8, got 'mono8'"):
        messages.rgb_from_image(message)
    with pytest.raises(ShapeError, match="expected encoding 16UC1 .* got 'mono8'"):
        messages.depth_from_image(message)
    message.height = 4
    with pytest.raises(ShapeError, match="got step 3 and 6 bytes in all"):
        messages.array_from_image(message)
    message.height, message.step = 2, 2
    with pytest.raises(ShapeError, match="rows of at least 3 bytes, got step 2"):
        messages.array_from_image(message)


# Cameras.

CAMERA = Camera(np.array([[300.0, 0.0, 160.5], [0.0, 310.0, 119.5], [0.0, 0.0, 1.0]]), 320, 240)


def test_cameras_come_back() -> None:
    info = sent(messages.camera_info_message(CAMERA, **HEAD))
    back = messages.camera_from_info(info)
    np.testing.assert_array_equal(back.K, CAMERA.K)
    assert (back.width, back.height) == (320, 240)
    np.testing.assert_array_equal(info.p.reshape(3, 4)[:, 3], 0.0)


def test_distortion_needs_rectified_images() -> None:
    info = messages.camera_info_message(CAMERA, **HEAD)
    info.d = [0.1, 0.0, 0.0, 0.0, 0.0]
    info.p[0] = 280.0
    with pytest.raises(CalibrationError, match=r"frame 'camera'.*D = \[0.1, .*rectify it"):
        messages.camera_from_info(info)
    assert messages.camera_from_info(info, rectified=True).K[0, 0] == 280.0


def test_cameras_are_refused() -> None:
    info = messages.camera_info_message(CAMERA, **HEAD)
    info.binning_x = 2
    with pytest.raises(CalibrationError, match="got binning 2x0"):
        messages.camera_from_info(info)
    info = messages.camera_info_message(CAMERA, **HEAD)
    info.roi.width = 100
    with pytest.raises(CalibrationError, match="a window of 100x0 px"):
        messages.camera_from_info(info)
    info.k = np.zeros(9)
    with pytest.raises(CalibrationError, match="not calibrated"):
        messages.camera_from_info(info)


# Point clouds.


def test_clouds_come_back() -> None:
    xyz = np.array([[1, 2, 3], [4, 5, np.nan]], np.float32)
    rgb = np.array([[255, 128, 1], [0, 0, 254]], np.uint8)
    message = sent(messages.cloud_from_points(xyz, rgb, **HEAD))
    assert (message.point_step, message.is_dense) == (16, False)
    back_xyz, back_rgb = messages.points_from_cloud(message)
    np.testing.assert_array_equal(back_xyz, xyz)
    np.testing.assert_array_equal(back_rgb, rgb)
    plain = messages.cloud_from_points(xyz[:1], **HEAD)
    assert (plain.point_step, plain.is_dense) == (12, True)
    back_xyz, back_rgb = messages.points_from_cloud(plain)
    np.testing.assert_array_equal(back_xyz, xyz[:1])
    assert back_rgb is None


def test_cloud_of_a_driver_with_padding_rows_and_big_endian() -> None:
    table = np.zeros((2, 2, 5), ">f4")
    table[..., 1:4] = np.arange(12).reshape(2, 2, 3)
    message = messages.cloud_from_points(np.zeros((1, 3), np.float32), **HEAD)
    message.height, message.width, message.is_bigendian = 2, 2, True
    message.point_step, message.row_step = 20, 44
    message.fields = [
        PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
        for name, offset in (("z", 12), ("x", 4), ("y", 8), ("intensity", 16))
    ]
    rows = np.zeros((2, 44), np.uint8)
    rows[:, :40] = table.reshape(2, -1).view(np.uint8)
    message.data = messages.flat(rows)
    xyz, rgb = messages.points_from_cloud(message)
    np.testing.assert_array_equal(xyz, np.arange(12, dtype=np.float32).reshape(4, 3))
    assert rgb is None


def test_clouds_are_refused() -> None:
    xyz = np.zeros((2, 3), np.float32)
    with pytest.raises(ShapeError, match=r"got \(2, 2\), None"):
        messages.cloud_from_points(xyz[:, :2], **HEAD)
    with pytest.raises(ShapeError, match=r"rgb \(n, 3\) uint8, got \(2, 3\), \(\(1, 3\)"):
        messages.cloud_from_points(xyz, np.zeros((1, 3), np.uint8), **HEAD)
    message = messages.cloud_from_points(xyz, **HEAD)
    message.width = 3
    with pytest.raises(ShapeError, match="1 rows of 36 bytes, got row_step 24"):
        messages.points_from_cloud(message)
    message.fields = message.fields[:2]
    with pytest.raises(ShapeError, match=r"float32 fields x, y and z, got \['x', 'y'\]"):
        messages.points_from_cloud(message)


# Transforms.


@given(hnp.arrays(np.float64, 6, elements=st.floats(-1.5, 1.5)))
def test_transforms_come_back(twist: np.ndarray) -> None:
    T = exp(twist)
    message = messages.transform_stamped(T, parent="world", child="tool0", stamp=STAMP)
    assert (message.header.frame_id, message.child_frame_id) == ("world", "tool0")
    np.testing.assert_allclose(messages.transform_from_message(message.transform), T, atol=1e-9)
    pose = messages.pose_from_transform(T)
    np.testing.assert_allclose(messages.transform_from_pose(pose), T, atol=1e-9)


def test_a_quarter_turn_about_z() -> None:
    T = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], float)
    message = messages.transform_message(T)
    q, t = message.rotation, message.translation
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [0, 0, 0.5**0.5, 0.5**0.5], atol=1e-12)
    assert [t.x, t.y, t.z] == [1.0, 2.0, 3.0]


def test_an_unset_quaternion_is_refused() -> None:
    message = messages.transform_message(np.eye(4))
    message.rotation.w = 0.0
    with pytest.raises(CalibrationError, match="unit quaternions"):
        messages.transform_from_message(message)


# Joints.


def test_joints_are_matched_by_name() -> None:
    message = sent(
        messages.joint_state_message(
            ["a", "b", "c"], np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]), stamp=STAMP
        )
    )
    values = messages.joint_values_from_message(message, ["c", "a"])
    assert values.stamp_ns == 12_000_000_034
    np.testing.assert_array_equal(values.q, [3.0, 1.0])
    np.testing.assert_array_equal(values.qd, [6.0, 4.0])
    assert values.tau is None


def test_joint_states_are_refused() -> None:
    message = messages.joint_state_message(["a", "b"], np.zeros(2), stamp=STAMP)
    with pytest.raises(ShapeError, match="expected joint c, d, got only a, b"):
        messages.joint_values_from_message(message, ["a", "c", "d"])
    message.velocity = [0.0]
    with pytest.raises(ShapeError, match="velocity: expected 2 values, one for each joint, got 1"):
        messages.joint_values_from_message(message, ["a"])
    message.velocity, message.position = [], []
    with pytest.raises(ShapeError, match="position: expected a value for each joint, got none"):
        messages.joint_values_from_message(message, ["a"])
    message.name = ["a", "a"]
    with pytest.raises(ShapeError, match="expected each joint once, got a twice"):
        messages.joint_values_from_message(message, ["a"])
    with pytest.raises(ShapeError, match=r"position: expected shape \(2,\), got \(3,\)"):
        messages.joint_state_message(["a", "b"], np.zeros(3), stamp=STAMP)


def path() -> JointPath:
    return JointPath(
        start_ns=5_000_000_001,
        t_s=np.array([0.5, 1.25]),
        q=np.array([[1.0, 2.0], [3.0, 4.0]]),
        qd=np.array([[0.1, 0.2], [0.0, 0.0]]),
    )


def test_trajectories_come_back_in_the_order_asked_for() -> None:
    message = sent(messages.trajectory_message(["a", "b"], path()))
    back = messages.joint_path_from_message(message, ["b", "a"])
    assert back.start_ns == 5_000_000_001
    np.testing.assert_array_equal(back.t_s, [0.5, 1.25])
    np.testing.assert_array_equal(back.q, [[2.0, 1.0], [4.0, 3.0]])
    np.testing.assert_array_equal(back.qd, [[0.2, 0.1], [0.0, 0.0]])
    assert back.qdd is None


def test_trajectories_are_refused() -> None:
    message = messages.trajectory_message(["a", "b"], path())
    with pytest.raises(TrajectoryError, match="expected joint c, got only a, b"):
        messages.joint_path_from_message(message, ["a", "b", "c"])
    with pytest.raises(TrajectoryError, match="unknown joint 'b': known are a"):
        messages.joint_path_from_message(message, ["a"])
    message.points[1].velocities = []
    with pytest.raises(TrajectoryError, match="velocities of point 1: expected 2 values.* got 0"):
        messages.joint_path_from_message(message, ["a", "b"])
    for point in message.points:
        point.positions = []
    with pytest.raises(TrajectoryError, match="expected positions in every point, got none"):
        messages.joint_path_from_message(message, ["a", "b"])
    message.points = []
    with pytest.raises(TrajectoryError, match="expected at least one point"):
        messages.joint_path_from_message(message, ["a", "b"])
    with pytest.raises(ShapeError, match=r"positions: expected shape \(2, 3\), got \(2, 2\)"):
        messages.trajectory_message(["a", "b", "c"], path())


# Keypoints and traces.


def keypoints(n: int = 3, h: int = 4) -> Keypoints:
    rng = np.random.default_rng(1)
    z = rng.random(n, dtype=np.float32)
    z[0] = np.nan
    return Keypoints(
        stamp_ns=12_000_000_034,
        frame_id="camera",
        camera=CAMERA,
        arc_step=0.25,
        ids=np.arange(n, dtype=np.uint32) + 7,
        cluster_ids=np.arange(n, dtype=np.int32) - 1,
        source=np.arange(n, dtype=np.uint8),
        uv=rng.random((n, 2), dtype=np.float32),
        z=z,
        visible=np.arange(n) % 2 == 0,
        history_uvz=rng.random((n, h, 3), dtype=np.float32),
        history_valid=rng.random((n, h)) < 0.5,
    )


def traces(n: int = 3, s: int = 2, horizon: int = 5, d: int = 4) -> Traces:
    rng = np.random.default_rng(2)
    return Traces(
        stamp_ns=12_000_000_034,
        frame_id="camera",
        instruction="lift the red cube",
        model="test",
        arc_step=0.25,
        ids=np.arange(n, dtype=np.uint32),
        cluster_ids=np.arange(n, dtype=np.int32) - 1,
        source=np.arange(n, dtype=np.uint8),
        current_xyz=rng.random((n, 3), dtype=np.float32),
        xyz=rng.random((s, n, horizon, 3), dtype=np.float32),
        control_uvz=rng.random((s, n, d, 3), dtype=np.float32),
        valid_prob=rng.random((s, n, horizon), dtype=np.float32),
        stage_names=("text", "expert"),
        stage_seconds=np.array([0.5, 0.25], np.float32),
    )


def assert_same(first, second) -> None:
    for name in type(first).__dataclass_fields__:
        left, right = getattr(first, name), getattr(second, name)
        if isinstance(left, Camera):
            np.testing.assert_array_equal(left.K, right.K)
            assert (left.width, left.height) == (right.width, right.height)
        else:
            np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.mark.parametrize("n", [0, 3])
def test_keypoints_come_back(n: int) -> None:
    before = keypoints(n) if n else keypoints(1).selected(np.array([False]))
    message = sent(messages.keypoints_message(before))
    assert (message.n, message.history_length, message.height) == (n, 4, 240)
    assert_same(messages.keypoints_from_message(message), before)


@pytest.mark.parametrize("n", [0, 3])
def test_traces_come_back(n: int) -> None:
    before = traces(n)
    message = sent(messages.traces_message(before))
    assert (message.n, message.s, message.horizon, message.d) == (n, 2, 5, 4)
    assert_same(messages.traces_from_message(message), before)


def test_traces_and_message_share_nothing() -> None:
    message = messages.traces_message(traces())
    back = messages.traces_from_message(message)
    message.xyz[0] = -1.0
    assert back.xyz[0, 0, 0, 0] == traces().xyz[0, 0, 0, 0]


def test_sizes_that_do_not_fit_are_refused() -> None:
    message = messages.traces_message(traces())
    message.horizon = 6
    with pytest.raises(ShapeError, match=r"xyz: expected 108 values for shape \(2, 3, 6, 3\)"):
        messages.traces_from_message(message)
    message = messages.keypoints_message(keypoints())
    message.uv = message.uv[:-1]
    with pytest.raises(ShapeError, match=r"uv: expected 6 values for shape \(3, 2\), got 5"):
        messages.keypoints_from_message(message)


def test_flat_refuses_what_a_message_cannot_hold() -> None:
    with pytest.raises(ShapeError, match="native integers or floats, got bool"):
        messages.flat(np.zeros(2, bool))
    with pytest.raises(ShapeError, match="got >f4"):
        messages.flat(np.zeros(2, ">f4"))
