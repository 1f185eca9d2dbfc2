"""The node on real topics: its own context and domain, messages published by hand."""

import os
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_ros import StaticTransformBroadcaster

from mu0_core.camera import depth_to_millimetres
from mu0_core.errors import ConfigError
from mu0_core.ros.interfaces import Qos
from mu0_core.ros.messages import (
    camera_info_message,
    image_from_array,
    keypoints_from_message,
    points_from_cloud,
    stamp_from_ns,
    transform_stamped,
)
from mu0_core.se3 import make_transform
from mu0_core.traces import KeypointSource
from mu0_msgs.msg import KeypointArray
from mu0_perception.nodes.keypoint_tracker_node import KeypointTrackerNode

pytestmark = pytest.mark.ros
FRAME = "camera_color_optical_frame"
DEPTH = "camera/aligned_depth_to_color/image_raw"
GRIPPER = {"gripper_keypoints.frame": "tool0", "gripper_keypoints.xyz": [0.0, 0.0, 0.0]}


class Rig:
    """A node under test, and beside it a camera that publishes what a test wants."""

    def __init__(self, context):
        self._context = context
        self._executor = SingleThreadedExecutor(context=context)
        self._peer = Node("camera", context=context)
        self._executor.add_node(self._peer)
        self._stamp_ns = 10**9
        self.node, self.keypoints, self.clouds, self.statuses = None, [], [], []
        sensor = Qos.SENSOR.profile
        publish = self._peer.create_publisher
        self._colour = publish(Image, "camera/color/image_raw", sensor)
        self._depth = publish(Image, DEPTH, sensor)
        self._info = publish(CameraInfo, "camera/color/camera_info", sensor)
        self._click = publish(PointStamped, "/clicked_point", 10)
        self._mask = publish(Image, "mu0/mask", 10)
        self._tf = StaticTransformBroadcaster(self._peer)
        subscribe = self._peer.create_subscription
        subscribe(KeypointArray, "mu0/keypoints", self.keypoints.append, 10)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def start(self, **parameters):
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = KeypointTrackerNode(context=self._context, parameter_overrides=overrides)
        self._executor.add_node(self.node)
        self.node.trigger_configure()
        self.node.trigger_activate()
        assert self.node.state == "active"
        self.until(lambda: self._colour.get_subscription_count() == 1)
        self.until(lambda: self._depth.get_subscription_count() == 1)
        self.until(lambda: self._info.get_subscription_count() == 1)

    def watch_cloud(self):
        self._peer.create_subscription(
            PointCloud2, "mu0/points", self.clouds.append, Qos.SENSOR.profile
        )

    def until(self, predicate, deadline_s=15.0):
        end = time.monotonic() + deadline_s
        while not predicate():
            assert time.monotonic() < end, f"not in {deadline_s} s; diagnostics: {self.statuses}"
            self.spin()

    def spin(self, duration_s=0.05):
        """Run callbacks; spin_once runs a single one."""
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.01)

    def publish(self, frame, *, depth=None, info=True, stamp_ns=None):
        """Publish one picture, 33 ms after the one before unless a stamp is given."""
        self._stamp_ns = self._stamp_ns + 33_333_333 if stamp_ns is None else stamp_ns
        header = {"stamp": stamp_from_ns(self._stamp_ns), "frame_id": FRAME}
        if info:
            self._info.publish(camera_info_message(frame.camera, **header))
        self._colour.publish(image_from_array(frame.rgb, "rgb8", **header))
        if depth is not False:
            pixels = depth_to_millimetres(frame.depth_m) if depth is None else depth
            encoding = "16UC1" if pixels.dtype == np.uint16 else "32FC1"
            self._depth.publish(image_from_array(pixels, encoding, **header))

    def keypoints_of(self, frame, until=lambda keypoints: True, **details):
        """Publish until keypoints come that fit; the time-stamped newest ones."""

        def come():
            self.publish(frame, **details)
            self.spin()
            return self.keypoints and until(keypoints_from_message(self.keypoints[-1]))

        self.keypoints.clear()
        self.until(come)
        return keypoints_from_message(self.keypoints[-1])

    def complaint(self, text, frame=None, **details):
        """Publish a picture again and again until diagnostics say something."""

        def told():
            if frame is not None:
                self.publish(frame, **details)
            self.spin()
            return any(text in status.message for status in self.statuses)

        self.until(told)
        status = next(status for status in self.statuses if text in status.message)
        assert status.level == b"\x01"
        return status

    def transform(self, parent, child, T):
        stamp = stamp_from_ns(10**9)
        self._tf.sendTransform(transform_stamped(T, parent=parent, child=child, stamp=stamp))

    def click(self, frame_id, xyz):
        message = PointStamped()
        message.header.frame_id = frame_id
        message.point.x, message.point.y, message.point.z = xyz
        self.until(lambda: self._click.get_subscription_count() == 1)
        self._click.publish(message)

    def mask(self, mask):
        pixels = mask.astype(np.uint8) * 255
        self.until(lambda: self._mask.get_subscription_count() == 1)
        stamp = stamp_from_ns(self._stamp_ns)
        self._mask.publish(image_from_array(pixels, "mono8", stamp=stamp, frame_id=FRAME))

    def close(self):
        if self.node is not None:
            self.node.trigger_shutdown()
            self.node.destroy_node()
        self._peer.destroy_node()
        self._executor.shutdown()

    def _on_diagnostics(self, message):
        self.statuses += message.status


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Let nodes say how they are ten times a second, which tests wait for."""
    monkeypatch.setattr("mu0_core.ros.lifecycle.DIAGNOSTICS_PERIOD_S", 0.1)
    monkeypatch.setattr("mu0_perception.nodes.keypoint_tracker_node._HEALTH_PERIOD_S", 0.3)


@pytest.fixture
def rig():
    context = Context()
    context.init(domain_id=20 + os.getpid() % 70)
    rig = Rig(context)
    yield rig
    rig.close()
    context.shutdown()


def test_keypoints_carry_stamp_frame_and_camera_of_the_picture(rig, scene):
    rig.watch_cloud()
    rig.start()
    frame = scene.frame(0)
    keypoints = rig.keypoints_of(frame)
    assert keypoints.n == 24 and keypoints.frame_id == FRAME
    np.testing.assert_allclose(keypoints.camera.K, frame.camera.K)
    assert 10**9 < keypoints.stamp_ns <= rig._stamp_ns
    rig.until(lambda: rig.clouds or rig.publish(frame))
    xyz, rgb = points_from_cloud(rig.clouds[0])
    assert len(xyz) == len(rgb) > 1000 and rig.clouds[0].header.frame_id == FRAME
    # The same picture moved by hand, so ids stay and nothing is proposed anew.
    again = rig.keypoints_of(frame)
    np.testing.assert_array_equal(again.ids, keypoints.ids)
    rig.until(lambda: any(status.message == "tracking" for status in rig.statuses))
    figures = {v.key for v in next(s for s in rig.statuses if s.message == "tracking").values}
    assert {"latency_ms", "pairs_dropped", "track_ms", "keypoints", "rate_hz"} <= figures


def test_gripper_and_clicked_points_come_through_tf(rig, scene):
    rig.transform(FRAME, "tool0", make_transform(np.eye(3), (0.01, -0.05, 0.5)))
    rig.transform("world", FRAME, scene.T_world_camera)
    rig.start(**GRIPPER)
    frame = scene.frame(0)
    has_gripper = lambda k: KeypointSource.ROBOT in k.source  # noqa: E731
    keypoints = rig.keypoints_of(frame, has_gripper)
    robot = keypoints.of_source(KeypointSource.ROBOT)
    np.testing.assert_allclose(robot.xyz(), [[0.01, -0.05, 0.5]], atol=1e-6)
    rig.click("world", (0.0, -0.1, 0.0))
    keypoints = rig.keypoints_of(frame, lambda k: KeypointSource.CLICKED in k.source)
    clicked = keypoints.of_source(KeypointSource.CLICKED).xyz()[0]
    in_world = scene.T_world_camera @ np.append(clicked, 1.0)
    np.testing.assert_allclose(in_world[:3], (0.0, -0.1, 0.0), atol=0.004)


def test_a_missing_gripper_transform_is_told_and_tracking_goes_on(rig, scene):
    rig.start(**GRIPPER, tf_timeout_s=0.0)
    status = rig.complaint("no transform from 'tool0'", scene.frame(0))
    assert FRAME in status.message
    assert keypoints_from_message(rig.keypoints[-1]).n == 24


def test_a_moving_camera_needs_its_fixed_frame(rig, scene):
    rig.start(fixed_frame="world", tf_timeout_s=0.0)
    frame = scene.frame(0)
    rig.complaint(f"no transform from '{FRAME}' to 'world'", frame)
    assert not rig.keypoints
    rig.transform("world", FRAME, scene.T_world_camera)
    assert rig.keypoints_of(frame).n == 24


def test_a_mask_gives_points(rig, scene):
    rig.start(**{"selection.sources": ["mask"]})
    mask = np.zeros((240, 320), np.bool_)
    mask[20:60, 30:90] = True
    rig.mask(mask)
    keypoints = rig.keypoints_of(scene.frame(0), lambda k: k.n > 0)
    assert keypoints.n == 16 and set(keypoints.source) == {KeypointSource.MASK}


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({"info": False}, "no camera_info on /camera/color/camera_info"),
        ({"depth": np.zeros((120, 160), np.uint16)}, "got 160x120 px"),
        ({"depth": np.full((240, 320), np.nan, np.float32)}, "0 % of the picture has depth"),
        ({"depth": False}, "colour images without depth: nothing on /camera/aligned_depth"),
    ],
    ids=["no camera_info", "depth of another size", "no depth anywhere", "no depth image"],
)
def test_bad_input_is_told_and_good_input_goes_on(rig, scene, details, text):
    rig.start()
    rig.complaint(text, scene.frame(0), **details)
    assert rig.keypoints_of(scene.frame(0), lambda k: k.n == 24).visible.all()


def test_a_wrong_encoding_is_told(rig, scene):
    rig.start()
    frame = scene.frame(0)

    def wrong():
        header = {"stamp": stamp_from_ns(rig._stamp_ns), "frame_id": FRAME}
        rig.publish(frame, depth=False)
        header["stamp"] = stamp_from_ns(rig._stamp_ns)
        rig._depth.publish(image_from_array(frame.rgb, "rgb8", **header))
        rig.spin()
        return any(
            "expected encoding 16UC1 (mm) or 32FC1 (m), got 'rgb8'" in s.message
            for s in rig.statuses
        )

    rig.until(wrong)
    assert rig.keypoints_of(frame, lambda k: k.n == 24).n == 24


def test_a_clock_that_jumps_back_starts_anew(rig, scene):
    rig.start()
    frame = scene.frame(0)
    first = rig.keypoints_of(frame, stamp_ns=90 * 10**9)
    rig._stamp_ns = 10**9
    later = rig.keypoints_of(frame, lambda k: k.stamp_ns < 80 * 10**9)
    assert later.n == 24 and not np.isin(later.ids, first.ids).any()


def test_silence_names_the_topic(rig):
    rig.start()
    rig.complaint("no colour images on /camera/color/image_raw")


def test_it_can_be_deactivated_and_activated_again(rig, scene):
    rig.start()
    frame = scene.frame(0)
    assert rig.keypoints_of(frame).n == 24
    rig.node.trigger_deactivate()
    assert rig.node.state == "inactive"
    rig.node.trigger_activate()
    rig.until(lambda: rig._colour.get_subscription_count() == 1)
    assert rig.keypoints_of(frame).n == 24


def test_wrong_parameters_are_refused_with_all_faults(rig):
    with pytest.raises(ConfigError) as error:
        rig.start(**{"selection.sources": ["entety"], "gripper_keypoints.xyz": [1.0, 2.0]})
    rig.node = None
    assert "did you mean 'entity'" in str(error.value)
    assert "gripper_keypoints.xyz: expected x, y, z of each point, got 2" in str(error.value)
