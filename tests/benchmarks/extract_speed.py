"""Measure how fast TraceExtract is and how much memory it takes on a long recording.

    python tests/benchmarks/extract_speed.py --out DIR --minutes 30

One simulated demonstration is recorded at 640x480 and 10 Hz, and played forwards and backwards for
as long as asked. The last line is JSON: realtime_factor, peak_memory_mb, seconds of each stage.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from extract_recordings import cases, record
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

CASE = cases(1)[0]
KINDS = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage")


def _with_stamp(raw, ns):
    """Return a serialised message whose first header has another stamp."""
    data = bytearray(raw)
    data[4:8] = (ns // 10**9).to_bytes(4, "little")
    data[8:12] = (ns % 10**9).to_bytes(4, "little")
    return bytes(data)


def lengthen(short, path, minutes):
    """Play a bag forwards and backwards into another one."""
    store = get_typestore(Stores.ROS2_JAZZY)
    with AnyReader([short], default_typestore=store) as reader:
        chosen = [c for c in reader.connections if c.msgtype in KINDS]
        messages = [(c, ns, bytes(raw)) for c, ns, raw in reader.messages(chosen)]
    static = [m for m in messages if m[0].topic == "/tf_static"]
    moving = [m for m in messages if m[0].topic != "/tf_static"]
    begin, end = moving[0][1], moving[-1][1]
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        to = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=store) for c in chosen}
        for connection, ns, raw in static:
            writer.write(to[connection.topic], ns, raw)
        lap, at = 0, begin
        while at < begin + minutes * 60e9:
            for connection, ns, raw in moving if lap % 2 == 0 else reversed(moving):
                now = at + (ns - begin if lap % 2 == 0 else end - ns)
                if connection.topic == "/tf":
                    message = store.deserialize_cdr(raw, connection.msgtype)
                    for row in message.transforms:
                        row.header.stamp.sec = now // 10**9
                        row.header.stamp.nanosec = now % 10**9
                    data = store.serialize_cdr(message, connection.msgtype)
                else:
                    data = _with_stamp(raw, now)
                writer.write(to[connection.topic], now, data)
            lap, at = lap + 1, at + (end - begin) + 100_000_000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not record(CASE, given.out):
        sys.exit(1)
    long = given.out / f"long_{given.minutes:g}min"
    if not long.exists():
        lengthen(given.out / CASE.name, long, given.minutes)
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
