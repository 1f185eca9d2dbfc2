"""Convert keypoints and traces; the messages and the containers have the same fields."""

import numpy as np

from mu0_core.camera import Camera
from mu0_core.ros.messages.buffers import fill, shaped
from mu0_core.ros.messages.geometry import ns_from_stamp, stamp_from_ns
from mu0_core.traces import Keypoints, Traces
from mu0_msgs.msg import KeypointArray, TraceArray


def keypoints_message(keypoints: Keypoints) -> KeypointArray:
    """Make the message of keypoints."""
    message = KeypointArray(
        height=keypoints.camera.height,
        width=keypoints.camera.width,
        k=keypoints.camera.K.ravel(),
        n=keypoints.n,
        history_length=keypoints.history_length,
        arc_step=float(keypoints.arc_step),
        visible=keypoints.visible.tolist(),
        history_valid=keypoints.history_valid.ravel().tolist(),
    )
    fill(message, keypoints, ("ids", "cluster_ids", "source", "uv", "z", "history_uvz"))
    message.header.stamp = stamp_from_ns(keypoints.stamp_ns)
    message.header.frame_id = keypoints.frame_id
    return message


def keypoints_from_message(message: KeypointArray) -> Keypoints:
    """Return the keypoints of a message.

    Raises:
        ShapeError: A field has not the number of values that n and history_length ask for.
        CalibrationError: The intrinsics are impossible.
    """
    n, h = message.n, message.history_length
    return Keypoints(
        stamp_ns=ns_from_stamp(message.header.stamp),
        frame_id=message.header.frame_id,
        camera=Camera(message.k.reshape(3, 3), message.width, message.height),
        arc_step=message.arc_step,
        ids=shaped(message.ids, np.uint32, (n,), "ids"),
        cluster_ids=shaped(message.cluster_ids, np.int32, (n,), "cluster_ids"),
        source=shaped(message.source, np.uint8, (n,), "source"),
        uv=shaped(message.uv, np.float32, (n, 2), "uv"),
        z=shaped(message.z, np.float32, (n,), "z"),
        visible=shaped(message.visible, np.bool_, (n,), "visible"),
        history_uvz=shaped(message.history_uvz, np.float32, (n, h, 3), "history_uvz"),
        history_valid=shaped(message.history_valid, np.bool_, (n, h), "history_valid"),
    )


def traces_message(traces: Traces) -> TraceArray:
    """Make the message of predicted traces."""
    message = TraceArray(
        instruction=traces.instruction,
        model=traces.model,
        n=traces.n,
        s=traces.s,
        horizon=traces.horizon,
        d=traces.d,
        arc_step=float(traces.arc_step),
        stage_names=list(traces.stage_names),
    )
    fill(message, traces, ("ids", "cluster_ids", "source", "current_xyz", "stage_seconds"))
    fill(message, traces, ("xyz", "control_uvz", "valid_prob"))
    message.header.stamp = stamp_from_ns(traces.stamp_ns)
    message.header.frame_id = traces.frame_id
    return message


def traces_from_message(message: TraceArray) -> Traces:
    """Return the traces of a message.

    Raises:
        ShapeError: A field has not the number of values that n, s, horizon and d ask for.
    """
    n, s, horizon, d = message.n, message.s, message.horizon, message.d
    stages = len(message.stage_names)
    return Traces(
        stamp_ns=ns_from_stamp(message.header.stamp),
        frame_id=message.header.frame_id,
        instruction=message.instruction,
        model=message.model,
        arc_step=message.arc_step,
        ids=shaped(message.ids, np.uint32, (n,), "ids"),
        cluster_ids=shaped(message.cluster_ids, np.int32, (n,), "cluster_ids"),
        source=shaped(message.source, np.uint8, (n,), "source"),
        current_xyz=shaped(message.current_xyz, np.float32, (n, 3), "current_xyz"),
        xyz=shaped(message.xyz, np.float32, (s, n, horizon, 3), "xyz"),
        control_uvz=shaped(message.control_uvz, np.float32, (s, n, d, 3), "control_uvz"),
        valid_prob=shaped(message.valid_prob, np.float32, (s, n, horizon), "valid_prob"),
        stage_names=tuple(message.stage_names),
        stage_seconds=shaped(message.stage_seconds, np.float32, (stages,), "stage_seconds"),
    )
