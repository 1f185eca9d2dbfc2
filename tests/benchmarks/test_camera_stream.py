"""Camera pictures cross from one process to another nearly without loss."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PROFILE = HERE.parents[1] / "launch" / "config" / "fastdds_profile.xml"
FRAMES, RATE_HZ = 240, 30.0


@pytest.mark.ros
def test_camera_pairs_arrive_between_processes(capsys):
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(100 + os.getpid() % 100),
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(PROFILE),
    }
    command = [sys.executable, str(HERE / "camera_stream.py")]
    arguments = [str(FRAMES), str(RATE_HZ)]
    subscriber = subprocess.Popen(
        [*command, "subscribe", *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        subprocess.run([*command, "publish", *arguments], env=environment, check=True, timeout=60)
        output, _ = subscriber.communicate(timeout=60)
    finally:
        subscriber.kill()
    figures = json.loads(output)
    with capsys.disabled():
        print(f"\n640x480 colour and depth at {RATE_HZ:.0f} Hz, two processes: {output.strip()}")
    assert figures["share"] >= 0.98
