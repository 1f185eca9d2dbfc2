"""Messages have to cost little beside a picture: built, sent and read as whole arrays."""

import time

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message

from mu0_core.ros.messages import traces_from_message, traces_message
from mu0_core.traces import Traces
from mu0_msgs.msg import TraceArray

pytestmark = pytest.mark.ros
KEYPOINTS, SAMPLES, HORIZON, CONTROL_POINTS = 256, 5, 32, 10
BATCHES, ROUNDS = 15, 40
BUDGET_MS = 2.0
STAGES = ("build", "serialise", "deserialise", "read")


def predicted() -> Traces:
    rng = np.random.default_rng(0)
    n, s = KEYPOINTS, SAMPLES
    return Traces(
        stamp_ns=1,
        frame_id="camera_color_optical_frame",
        instruction="lift the red cube",
        model="benchmark",
        arc_step=0.01,
        ids=np.arange(n, dtype=np.uint32),
        cluster_ids=np.zeros(n, np.int32),
        source=np.zeros(n, np.uint8),
        current_xyz=rng.random((n, 3), dtype=np.float32),
        xyz=rng.random((s, n, HORIZON, 3), dtype=np.float32),
        control_uvz=rng.random((s, n, CONTROL_POINTS, 3), dtype=np.float32),
        valid_prob=rng.random((s, n, HORIZON), dtype=np.float32),
        stage_names=("prefix", "expert"),
        stage_seconds=np.array([0.2, 0.1], np.float32),
    )


def round_trip_ms(traces: Traces) -> np.ndarray:
    """Take the time of each stage on this thread's core, so that other programs count little."""
    times = [time.thread_time()]
    message = traces_message(traces)
    times.append(time.thread_time())
    data = serialize_message(message)
    times.append(time.thread_time())
    received = deserialize_message(data, TraceArray)
    times.append(time.thread_time())
    back = traces_from_message(received)
    times.append(time.thread_time())
    assert back.xyz[-1, -1, -1, -1] == traces.xyz[-1, -1, -1, -1]
    return 1e3 * np.diff(times)


def test_a_large_trace_array_costs_under_two_milliseconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    traces = predicted()
    batches = [[round_trip_ms(traces) for _ in range(ROUNDS)] for _ in range(BATCHES)]
    medians = np.median(batches, axis=1)
    # Other programs slow the caches down too: the batch that they disturbed least counts.
    best = medians[medians.sum(axis=1).argmin()]
    figures = ", ".join(f"{name} {ms:.2f}" for name, ms in zip(STAGES, best, strict=True))
    with capsys.disabled():
        print(
            f"\nTraceArray of {KEYPOINTS} keypoints x {SAMPLES} samples x {HORIZON} points, "
            f"best of {BATCHES} medians of {ROUNDS} rounds, ms of one core: {figures}; "
            f"all {best.sum():.2f} of {BUDGET_MS}"
        )
    assert best.sum() < BUDGET_MS
