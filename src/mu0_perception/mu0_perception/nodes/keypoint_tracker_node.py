"""Track keypoints on objects and on the gripper in a live colour and depth stream."""

import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from tf2_ros import Buffer

from mu0_core.config import option, validate
from mu0_core.errors import Mu0Error
from mu0_core.ros.inbox import Latest
from mu0_core.ros.interfaces import create_publisher
from mu0_core.ros.lifecycle import Level, Mu0LifecycleNode, spin
from mu0_core.ros.messages import cloud_from_points, keypoints_message, stamp_from_ns
from mu0_perception.frame import RgbdFrame
from mu0_perception.live_tracker import LiveTracker, LiveTrackerConfig, Update
from mu0_perception.nodes.camera_input import CameraInput, Pair
from mu0_perception.pointcloud import organised_cloud, stride_for
from mu0_perception.selection import Source

_HEALTH_PERIOD_S = 1.0
_WAIT_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class KeypointTrackerConfig(LiveTrackerConfig):
    """Configure the node: what it subscribes to, and the live tracker."""

    compressed: bool = option(
        False,
        description="Take .../compressed colour and .../compressedDepth depth",
        read_only=True,
    )
    slop_s: float = option(
        0.02,
        description="Largest difference between the stamps of colour and depth",
        unit="s",
        low=0.001,
        read_only=True,
    )
    fixed_frame: str = option(
        "", description="Frame that a moving camera moves in; empty for a camera at rest"
    )
    tf_timeout_s: float = option(
        0.3, description="How long to wait for a picture's transforms", unit="s", low=0.0
    )
    cloud_width: int = option(
        160, description="Points per row of the published cloud", unit="px", low=1
    )

    def __post_init__(self) -> None:
        validate(self)


class KeypointTrackerNode(Mu0LifecycleNode[KeypointTrackerConfig]):
    """Subscribe to the camera, track on a thread of its own, and publish keypoints."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("keypoint_tracker", KeypointTrackerConfig, **arguments)
        self._tf = Buffer(node=self)  # for life: a clock keeps pointing at what hears its jumps
        self._input: CameraInput | None = None
        self._thread: threading.Thread | None = None
        self._failure: str | None = None

    def setup(self) -> None:
        """Build the tracker and the publishers."""
        self._tracker_config = self.config
        self._tracker = LiveTracker(self._tracker_config)
        self._keypoints = create_publisher(self, "mu0/keypoints")
        self._points = create_publisher(self, "mu0/points")

    def start(self) -> None:
        """Subscribe and start the thread that tracks."""
        self._inbox: Latest[Pair] = Latest()
        self._running = threading.Event()
        self._running.set()
        self._n_published = self._n_published_before = 0
        self._rate_hz = 0.0
        self._tracker.reset()
        self._input = CameraInput(
            self,
            self._tf,
            self._inbox.put,
            compressed=self.config.compressed,
            slop_s=self.config.slop_s,
        )
        wall_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_HEALTH_PERIOD_S, self._check_health, clock=wall_clock)
        self._thread = threading.Thread(
            target=self._work, args=(self._input,), name="tracker", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._running.clear()
            self._thread.join()
            self._thread = None
        if self._input is not None:
            self._input.close()
            self._input = None

    def teardown(self) -> None:
        """Let go of everything, also where `stop` did not run."""
        self.stop()

    # On the tracker's thread.

    def _work(self, source: CameraInput) -> None:
        try:
            while self._running.is_set():
                pair = self._inbox.take(_WAIT_S)
                if pair is not None:
                    self._track(source, pair)
        except Exception:
            self._failure = traceback.format_exc()

    def _track(self, source: CameraInput, pair: Pair) -> None:
        """Turn one pair of pictures into keypoints; bad input is reported and skipped."""
        started_s = time.perf_counter()
        config = self.config
        if config is not self._tracker_config:
            self.get_logger().info("parameters changed: keypoints start anew")
            self._tracker_config, self._tracker = config, LiveTracker(config)
        robot = Source.ROBOT in config.selection.sources
        try:
            frame = source.frame(
                pair,
                fixed_frame=config.fixed_frame,
                gripper_frame=config.gripper_keypoints.frame if robot else "",
                tf_timeout_s=config.tf_timeout_s,
            )
        except Mu0Error as error:
            self._complain(type(error).__name__, str(error))
            return
        converted_s = time.perf_counter()
        update = self._tracker.update(frame)
        self._keypoints.publish(keypoints_message(update.keypoints))
        self._n_published += 1
        tracked_s = time.perf_counter()
        self._publish_cloud(frame)
        self._show(
            frame,
            update,
            convert=1e3 * (converted_s - started_s),
            **update.timings_ms,
            cloud=1e3 * (time.perf_counter() - tracked_s),
        )

    def _publish_cloud(self, frame: RgbdFrame) -> None:
        """Publish the picture as a thinned cloud, if anybody looks."""
        if not self._points.get_subscription_count():
            return
        stride = stride_for(frame.camera, self.config.cloud_width)
        cloud = organised_cloud(frame.rgb, frame.depth_m, frame.camera, stride=stride)
        xyz, rgb = cloud.points()
        stamp = stamp_from_ns(frame.stamp_ns)
        self._points.publish(cloud_from_points(xyz, rgb, stamp=stamp, frame_id=frame.frame_id))

    def _show(self, frame: RgbdFrame, update: Update, **stages_ms: float) -> None:
        """Put warnings in the log (once, then throttled), and all figures on /diagnostics."""
        for trouble in update.warnings:
            self.warn_throttled(trouble.key, trouble.text)
        latency_ns = self.get_clock().now().nanoseconds - frame.stamp_ns
        self.report(
            Level.WARN if update.warnings else Level.OK,
            update.warnings[0].text if update.warnings else "tracking",
            keypoints=update.keypoints.n,
            visible=int(update.keypoints.visible.sum()),
            latency_ms=round(1e-6 * latency_ns, 1),
            rate_hz=round(self._rate_hz, 1),
            pairs_dropped=self._inbox.dropped,
            depth_share=round(float(np.isfinite(frame.depth_m[::8, ::8]).mean()), 3),
            **{f"{stage}_ms": round(ms, 2) for stage, ms in stages_ms.items()},
        )

    def _complain(self, key: str, text: str) -> None:
        """Say in the log (once, then throttled) and on /diagnostics why nothing comes out."""
        self.warn_throttled(key, text)
        self.report(Level.WARN, text)

    # On the executor's thread.

    def _check_health(self) -> None:
        """Say what does not come, and bring a failure of the thread to the surface."""
        if self._failure is not None:
            raise Mu0Error(f"the tracker stopped: {self._failure}")
        n_published = self._n_published
        self._rate_hz = (n_published - self._n_published_before) / _HEALTH_PERIOD_S
        if n_published == self._n_published_before and self._input is not None:
            silence = self._input.silence()
            if silence:
                self._complain("silent", silence)
        self._n_published_before = n_published


def main() -> int:
    """Run the node."""
    return spin(KeypointTrackerNode, threads=2)


if __name__ == "__main__":
    sys.exit(main())
