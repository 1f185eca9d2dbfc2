"""One end of a camera stream: `camera_stream.py publish|subscribe FRAMES RATE_HZ`."""

import array
import json
import sys
import time

import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

WIDTH, HEIGHT = 640, 480
TOPICS = {"color": ("rgb8", 3), "depth": ("32FC1", 4)}


def publish(node, frames, rate_hz):
    """Send pairs of pictures with equal stamps once a subscriber is there."""
    publishers = {
        name: node.create_publisher(Image, name, qos_profile_sensor_data) for name in TOPICS
    }
    while any(p.get_subscription_count() == 0 for p in publishers.values()):
        time.sleep(0.05)
    time.sleep(0.5)
    start = time.monotonic()
    for frame in range(frames):
        time.sleep(max(0.0, start + frame / rate_hz - time.monotonic()))
        stamp = node.get_clock().now().to_msg()
        for name, (encoding, bytes_per_pixel) in TOPICS.items():
            message = Image(width=WIDTH, height=HEIGHT, encoding=encoding)
            message.header.stamp = stamp
            message.step = WIDTH * bytes_per_pixel
            message.data = array.array("B", bytes(HEIGHT * message.step))
            publishers[name].publish(message)
    time.sleep(0.5)


def subscribe(node, frames, rate_hz):
    """Count pairs and print the share that came and the latencies as JSON."""
    stamps = {name: set() for name in TOPICS}
    latencies = []

    def receive(name, message):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        stamps[name].add(stamp)
        latencies.append((node.get_clock().now().nanoseconds - stamp) / 1e6)

    for name in TOPICS:
        node.create_subscription(
            Image, name, lambda message, name=name: receive(name, message), qos_profile_sensor_data
        )
    deadline = time.monotonic() + 15 + frames / rate_hz
    last, quiet_since = 0, time.monotonic()
    while time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.05)
        if len(latencies) != last:
            last, quiet_since = len(latencies), time.monotonic()
        elif last and time.monotonic() - quiet_since > 2.0:
            break
    pairs = len(stamps["color"] & stamps["depth"])
    latencies = sorted(latencies) or [float("nan")]
    figures = {
        "pairs_sent": frames,
        "pairs_received": pairs,
        "share": pairs / frames,
        "latency_ms_p50": latencies[len(latencies) // 2],
        "latency_ms_p95": latencies[int(len(latencies) * 0.95)],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    rclpy.init()
    role = {"publish": publish, "subscribe": subscribe}[sys.argv[1]]
    role(rclpy.create_node(f"stream_{sys.argv[1]}"), int(sys.argv[2]), float(sys.argv[3]))
    rclpy.shutdown()
