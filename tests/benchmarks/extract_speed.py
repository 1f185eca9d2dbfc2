"""Measure how fast TraceExtract is and how much memory it takes on a long recording.

    python tests/benchmarks/extract_speed.py --out DIR --minutes 30

One simulated demonstration is recorded at 640x480 and 10 Hz, and played forwards and backwards for
as long as asked. Raw, 30 minutes fill 28 GB; --compressed keeps pictures as image_transport sends
them, 8 times smaller. The last line is JSON: realtime_factor, peak_memory_mb, seconds of each
stage.
"""

import argparse
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from extract_recordings import cases, record
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

CASE = cases(1)[0]
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
KINDS = (IMAGE, "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage")


def _with_stamp(raw, ns):
    """Return a serialised message whose first header has another stamp."""
    data = bytearray(raw)
    data[4:8] = (ns // 10**9).to_bytes(4, "little")
    data[8:12] = (ns % 10**9).to_bytes(4, "little")
    return bytes(data)


def _compressed(store, raw):
    """Return a serialised Image as a CompressedImage, and the ending of its topic."""
    image = store.deserialize_cdr(raw, IMAGE)
    if image.encoding == "rgb8":
        bgr = image.data.reshape(image.height, image.width, 3)[..., ::-1]
        form, header, picture = "rgb8; jpeg compressed bgr8", b"", (".jpg", bgr)
    else:
        depth_mm = image.data.view(np.uint16).reshape(image.height, image.width)
        form, header = "16UC1; compressedDepth png", struct.pack("<iff", 0, 0.0, 0.0)
        picture = (".png", depth_mm)
    data = np.frombuffer(header + cv2.imencode(*picture)[1].tobytes(), np.uint8)
    message = store.types[COMPRESSED](header=image.header, format=form, data=data)
    ending = "/compressedDepth" if header else "/compressed"
    return bytes(store.serialize_cdr(message, COMPRESSED)), ending


def lengthen(short, path, minutes, compressed):
    """Play a bag forwards and backwards into another one."""
    store = get_typestore(Stores.ROS2_JAZZY)
    with AnyReader([short], default_typestore=store) as reader:
        chosen = [c for c in reader.connections if c.msgtype in KINDS]
        messages = []
        for connection, ns, raw in reader.messages(chosen):
            topic, kind, data = connection.topic, connection.msgtype, bytes(raw)
            if compressed and kind == IMAGE:
                data, ending = _compressed(store, raw)
                topic, kind = topic + ending, COMPRESSED
            messages.append((topic, kind, ns, data))
    static = [m for m in messages if m[0] == "/tf_static"]
    moving = [m for m in messages if m[0] != "/tf_static"]
    begin, end = moving[0][2], moving[-1][2]
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = dict(m[:2] for m in messages)
        to = {t: writer.add_connection(t, kind, typestore=store) for t, kind in topics.items()}
        for topic, _, ns, raw in static:
            writer.write(to[topic], ns, raw)
        lap, at = 0, begin
        while at < begin + minutes * 60e9:
            for topic, kind, ns, raw in moving if lap % 2 == 0 else reversed(moving):
                now = at + (ns - begin if lap % 2 == 0 else end - ns)
                if topic == "/tf":
                    message = store.deserialize_cdr(raw, kind)
                    for row in message.transforms:
                        row.header.stamp.sec = now // 10**9
                        row.header.stamp.nanosec = now % 10**9
                    data = store.serialize_cdr(message, kind)
                else:
                    data = _with_stamp(raw, now)
                writer.write(to[topic], now, data)
            lap, at = lap + 1, at + (end - begin) + 100_000_000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--compressed", action="store_true", help="JPEG colour, PNG depth")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not record(CASE, given.out):
        sys.exit(1)
    form = "_compressed" if given.compressed else ""
    long = given.out / f"long_{given.minutes:g}min{form}"
    if not long.exists():
        lengthen(given.out / CASE.name, long, given.minutes, given.compressed)
    episodes = Path(f"{long}_episodes")
    if episodes.exists():
        shutil.rmtree(episodes)  # of an earlier run, and would be kept: nothing to measure
    command = [sys.executable, "-m", "mu0_perception.extract.cli", long, episodes]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    summary = json.loads(result.stdout.strip().splitlines()[-1])
    print(json.dumps(summary))
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
