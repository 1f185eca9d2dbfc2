"""tf2_ros: composition, interpolation, time, errors, and the way over the topics."""

import importlib.util
import math
import threading
import time

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.clock import ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from tf2_ros import (
    Buffer,
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    StaticTransformBroadcaster,
    TransformBroadcaster,
    TransformException,
    TransformListener,
)

REAL = importlib.util.find_spec("tf2_py") is not None


def transform(parent, child, xyz=(0.0, 0.0, 0.0), yaw=0.0, t_s=0.0):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = Time(nanoseconds=round(t_s * 1e9)).to_msg()
    message.transform.translation.x, message.transform.translation.y = xyz[0], xyz[1]
    message.transform.translation.z = xyz[2]
    message.transform.rotation.z, message.transform.rotation.w = (
        math.sin(yaw / 2),
        math.cos(yaw / 2),
    )
    return message


def at(t_s):
    return Time(nanoseconds=round(t_s * 1e9), clock_type=ClockType.ROS_TIME)


LATEST = Time()


def xyz(message):
    t = message.transform.translation
    return [t.x, t.y, t.z]


def yaw(message):
    return 2 * math.atan2(message.transform.rotation.z, message.transform.rotation.w)


def stamp_s(message):
    return Time.from_msg(message.header.stamp).nanoseconds * 1e-9


@pytest.fixture
def arm():
    """Provide world -> base (static) and base -> tool, x = 1 at 10 s to x = 3 at 12 s."""
    buffer = Buffer()
    buffer.set_transform_static(transform("world", "base", (0.0, 0.0, 1.0), math.pi / 2), "test")
    buffer.set_transform(transform("base", "tool", (1.0, 0.0, 0.0), 0.0, 10.0), "test")
    buffer.set_transform(transform("base", "tool", (3.0, 0.0, 0.0), math.pi / 2, 12.0), "test")
    buffer.set_transform_static(transform("base", "camera", (0.0, 0.5, 0.0)), "test")
    return buffer


def test_lookup_maps_source_points_into_the_target(arm):
    found = arm.lookup_transform("world", "tool", at(10.0))
    np.testing.assert_allclose(xyz(found), [0.0, 1.0, 1.0], atol=1e-12)
    assert yaw(found) == pytest.approx(math.pi / 2)
    assert (found.header.frame_id, found.child_frame_id) == ("world", "tool")
    assert stamp_s(found) == 10.0


def test_both_directions_are_inverse(arm):
    there = arm.lookup_transform("tool", "world", at(12.0))
    back = arm.lookup_transform("world", "tool", at(12.0))
    c, s = math.cos(yaw(there)), math.sin(yaw(there))
    x, y, z = xyz(back)
    np.testing.assert_allclose(
        [c * x - s * y, s * x + c * y, z], [-v for v in xyz(there)], atol=1e-12
    )


def test_positions_are_interpolated_linearly_and_rotations_on_the_sphere(arm):
    found = arm.lookup_transform("base", "tool", at(10.5))
    np.testing.assert_allclose(xyz(found), [1.5, 0.0, 0.0])
    assert yaw(found) == pytest.approx(math.pi / 8)


def test_branches_meet_at_their_common_parent(arm):
    found = arm.lookup_transform("camera", "tool", at(12.0))
    np.testing.assert_allclose(xyz(found), [3.0, -0.5, 0.0], atol=1e-12)


def test_time_zero_means_the_latest_common_time(arm):
    arm.set_transform(transform("tool", "finger", (0.1, 0.0, 0.0), 0.0, 11.0), "test")
    assert stamp_s(arm.lookup_transform("base", "tool", LATEST)) == 12.0
    assert stamp_s(arm.lookup_transform("world", "finger", LATEST)) == 11.0
    assert stamp_s(arm.lookup_transform("world", "camera", LATEST)) == 0.0


def test_static_transforms_hold_at_every_time(arm):
    for t_s in (0.5, 11.0, 1e6):
        np.testing.assert_allclose(
            xyz(arm.lookup_transform("base", "camera", at(t_s))), [0, 0.5, 0]
        )


def test_times_may_be_messages_and_durations(arm):
    for time_like in (at(11.0).to_msg(), Duration(seconds=11.0)):
        np.testing.assert_allclose(xyz(arm.lookup_transform("base", "tool", time_like)), [2, 0, 0])
    with pytest.raises(TypeError):
        arm.lookup_transform("base", "tool", 11.0)


@pytest.mark.parametrize(
    ("target", "source", "t_s", "error", "text"),
    [
        ("world", "hand", 0.0, LookupException, '"hand" passed to lookupTransform .*source_frame'),
        ("", "tool", 0.0, InvalidArgumentException, "cannot be empty"),
        ("/world", "tool", 0.0, InvalidArgumentException, "cannot start with a '/'"),
        ("island", "tool", 0.0, ConnectivityException, "not part of the same tree"),
        ("base", "tool", 12.5, ExtrapolationException, "into the future.*12.5.*12.0"),
        ("base", "tool", 9.5, ExtrapolationException, "into the past.*9.5.*10.0"),
        ("world", "lone", 6.0, ExtrapolationException, "only time 5.0"),
    ],
)
def test_what_cannot_be_looked_up_says_why(arm, target, source, t_s, error, text):
    arm.set_transform(transform("island", "rock", t_s=1.0), "test")
    arm.set_transform(transform("world", "lone", t_s=5.0), "test")
    assert not arm.can_transform(target, source, at(t_s))
    with pytest.raises(error, match=text) as raised:
        arm.lookup_transform(target, source, at(t_s))
    assert isinstance(raised.value, TransformException)


def test_can_transform_gives_a_reason_on_request(arm):
    assert arm.can_transform("base", "tool", LATEST)
    possible, reason = arm.can_transform("base", "hand", LATEST, return_debug_tuple=True)
    assert not possible
    assert "hand" in reason


def test_a_fixed_frame_joins_two_times(arm):
    found = arm.lookup_transform_full("tool", at(10.0), "tool", at(12.0), "base")
    np.testing.assert_allclose(xyz(found), [2.0, 0.0, 0.0], atol=1e-12)


def test_the_buffer_forgets_after_its_cache_time():
    buffer = Buffer(cache_time=Duration(seconds=2.0))
    for t_s in (1.0, 2.0, 3.0, 4.5):
        buffer.set_transform(transform("a", "b", (t_s, 0.0, 0.0), 0.0, t_s), "test")
    buffer.set_transform(transform("a", "b", (9.0, 0.0, 0.0), 0.0, 4.6), "test")
    with pytest.raises(ExtrapolationException, match="past"):
        buffer.lookup_transform("a", "b", at(2.2))
    buffer.set_transform(transform("a", "b", t_s=1.0), "test")  # too old: ignored
    np.testing.assert_allclose(xyz(buffer.lookup_transform("a", "b", at(3.0))), [3.0, 0.0, 0.0])


@pytest.mark.parametrize(
    "bad",
    [
        transform("a", "a"),
        transform("", "b"),
        transform("a", "b", (math.nan, 0.0, 0.0)),
        TransformStamped(child_frame_id="b"),
    ],
)
def test_unusable_transforms_are_ignored(bad):
    buffer = Buffer()
    buffer.set_transform(bad, "test")
    assert not buffer.can_transform("a", "b", LATEST)


def test_a_quaternion_that_is_not_unit_is_ignored():
    buffer, bad = Buffer(), transform("a", "b")
    bad.transform.rotation.w = 0.0
    buffer.set_transform_static(bad, "test")
    assert not buffer.can_transform("a", "b", LATEST)


def test_clear_forgets_moving_and_keeps_static(arm):
    arm.clear()
    assert arm.can_transform("world", "camera", LATEST)
    assert not arm.can_transform("base", "tool", LATEST)


def test_waiting_ends_when_the_transform_arrives_or_time_is_up():
    buffer = Buffer()
    threading.Timer(
        0.2, lambda: buffer.set_transform(transform("a", "b", t_s=1.0), "test")
    ).start()
    start = time.monotonic()
    assert stamp_s(buffer.lookup_transform("a", "b", LATEST, Duration(seconds=10.0))) == 1.0
    assert time.monotonic() - start < 5.0
    start = time.monotonic()
    with pytest.raises(LookupException):
        buffer.lookup_transform("a", "c", LATEST, Duration(seconds=0.2))
    assert 0.15 < time.monotonic() - start < 3.0


@pytest.mark.ros
def test_broadcasts_reach_a_listener_also_a_late_one(ros2, make_node):
    sender, receiver = make_node("sender"), make_node("receiver")
    static, moving = StaticTransformBroadcaster(sender), TransformBroadcaster(sender)
    static.sendTransform([transform("world", "base"), transform("base", "camera")])
    static.sendTransform(transform("base", "marker", (0.0, 0.0, 2.0)))
    buffer = Buffer(node=receiver)
    listener = TransformListener(buffer, receiver)
    assert ros2.wait_until(lambda: buffer.can_transform("world", "marker", LATEST))
    assert buffer.can_transform("world", "camera", LATEST)

    def moved():
        moving.sendTransform(transform("base", "tool", (1.0, 2.0, 3.0), t_s=7.0))
        return buffer.can_transform("world", "tool", at(7.0))

    assert ros2.wait_until(moved)
    assert xyz(buffer.lookup_transform("world", "tool", at(7.0))) == [1.0, 2.0, 3.0]
    listener.unregister()


@pytest.mark.ros
def test_waiting_inside_a_callback_does_not_hang_a_single_threaded_executor(ros_context):
    node, outcome = Node("waiting", context=ros_context), []
    buffer = Buffer(node=node)
    listener = TransformListener(buffer, node)

    def look():
        timer.cancel()
        outcome.append(buffer.can_transform("a", "never", LATEST, Duration(seconds=0.2)))

    timer = node.create_timer(0.01, look)
    executor = SingleThreadedExecutor(context=ros_context)
    executor.add_node(node)
    deadline = time.monotonic() + 10.0
    while not outcome and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.1)
    assert outcome == [False]
    listener.unregister()
    node.destroy_node()


@pytest.mark.ros
def test_a_listener_can_spin_its_node_itself(domain_id, ros2, make_node):
    static = StaticTransformBroadcaster(make_node("another_sender"))
    static.sendTransform(transform("map", "odom"))
    rclpy.init(args=[], domain_id=domain_id)  # the thread of the real class needs the default one
    try:
        node = Node("self_spinning")
        buffer = Buffer(node=node)
        listener = TransformListener(buffer, node, spin_thread=True)
        assert buffer.can_transform("map", "odom", LATEST, Duration(seconds=20.0))
        listener.executor.shutdown()
        listener.dedicated_listener_thread.join(timeout=5.0)
        assert not listener.dedicated_listener_thread.is_alive()
    finally:
        rclpy.shutdown()


@pytest.mark.ros
@pytest.mark.skipif(REAL, reason="tf2_ros_py 0.36.4 raises in its own handler of time jumps")
def test_simulated_time_that_jumps_back_clears_the_buffer(ros2, make_node):
    node = make_node("simulated", parameter_overrides=[Parameter("use_sim_time", value=True)])
    clock = node.create_publisher(Clock, "/clock", 10)
    buffer = Buffer(node=node)

    def tell(t_s):
        def arrived():
            clock.publish(Clock(clock=at(t_s).to_msg()))
            return node.get_clock().now().nanoseconds == at(t_s).nanoseconds

        assert ros2.wait_until(arrived)

    tell(20.0)
    buffer.set_transform(transform("a", "b", t_s=20.0), "test")
    tell(21.0)
    assert buffer.can_transform("a", "b", LATEST)
    tell(5.0)
    assert ros2.wait_until(lambda: not buffer.can_transform("a", "b", LATEST))
