"""Convert joint states and joint trajectories; joints are always matched by name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Duration, Time
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from mu0_core.errors import ShapeError, TrajectoryError, unknown_name_message
from mu0_core.ros.messages.buffers import flat
from mu0_core.ros.messages.geometry import NS_PER_S, ns_from_stamp


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointValues:
    """Hold what a JointState says of some joints.

    Attributes:
        stamp_ns: Time of measurement, ns.
        q: (j,) rad or m.
        qd: (j,) rad/s or m/s; None if the message has none.
        tau: (j,) N m or N; None if the message has none.
    """

    stamp_ns: int
    q: NDArray[np.float64]
    qd: NDArray[np.float64] | None
    tau: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointPath:
    """Hold the points of a JointTrajectory.

    Attributes:
        start_ns: The header's stamp, ns; 0 = start on arrival.
        t_s: (k,) s after the start.
        q: (k, j) rad or m.
        qd: (k, j) rad/s or m/s; None if no point has velocities.
        qdd: (k, j) rad/s^2 or m/s^2; None if no point has accelerations.
    """

    start_ns: int
    t_s: NDArray[np.float64]
    q: NDArray[np.float64]
    qd: NDArray[np.float64] | None = None
    qdd: NDArray[np.float64] | None = None


def joint_state_message(
    joint_names: Sequence[str],
    q: NDArray[np.float64],
    qd: NDArray[np.float64] | None = None,
    tau: NDArray[np.float64] | None = None,
    *,
    stamp: Time,
) -> JointState:
    """Make a joint state.

    Args:
        joint_names: Names in the order of the arrays.
        q: (j,) rad or m.
        qd: (j,) rad/s or m/s.
        tau: (j,) N m or N.
        stamp: Time of measurement.
    """
    message = JointState(name=list(joint_names))
    message.header.stamp = stamp
    for field, values in (("position", q), ("velocity", qd), ("effort", tau)):
        if values is None:
            continue
        if values.shape != (len(joint_names),):
            raise ShapeError(
                f"joint state, {field}: expected shape ({len(joint_names)},), got {values.shape}"
            )
        setattr(message, field, flat(values.astype(np.float64)))
    return message


def joint_values_from_message(message: JointState, joint_names: Sequence[str]) -> JointValues:
    """Pick some joints from a joint state, in the order given.

    Raises:
        ShapeError: A joint is missing, or the arrays do not fit the names.
    """
    index = _index(message.name, joint_names, "joint state", ShapeError)
    q = _values(message, "position", index)
    if q is None:
        raise ShapeError("joint state, position: expected a value for each joint, got none")
    return JointValues(
        stamp_ns=ns_from_stamp(message.header.stamp),
        q=q,
        qd=_values(message, "velocity", index),
        tau=_values(message, "effort", index),
    )


def trajectory_message(joint_names: Sequence[str], path: JointPath) -> JointTrajectory:
    """Make a joint trajectory.

    Args:
        joint_names: Names in the order of the path's columns.
        path: Its points.
    """
    wanted = (len(path.t_s), len(joint_names))
    rows = {"positions": path.q, "velocities": path.qd, "accelerations": path.qdd}
    for field, values in rows.items():
        if values is not None and values.shape != wanted:
            raise ShapeError(f"trajectory, {field}: expected shape {wanted}, got {values.shape}")
    message = JointTrajectory(joint_names=list(joint_names))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(path.start_ns, NS_PER_S)
    for i, t_s in enumerate(path.t_s):
        point = JointTrajectoryPoint(time_from_start=_duration(float(t_s)))
        for field, values in rows.items():
            if values is not None:
                setattr(point, field, flat(values[i].astype(np.float64)))
        message.points.append(point)
    return message


def joint_path_from_message(message: JointTrajectory, joint_names: Sequence[str]) -> JointPath:
    """Read a joint trajectory with its columns in the order given.

    Whether its values and times make sense is for the one who executes it to say.

    Raises:
        TrajectoryError: There are no points; a joint is missing, unknown or there twice; or a
            point has another number of values.
    """
    index = _index(message.joint_names, joint_names, "trajectory", TrajectoryError)
    unknown = [name for name in message.joint_names if name not in joint_names]
    if unknown:
        raise TrajectoryError(
            f"trajectory: {unknown_name_message('joint', unknown[0], joint_names)}"
        )
    if not message.points:
        raise TrajectoryError("trajectory: expected at least one point, got none")
    times = [point.time_from_start for point in message.points]
    q = _rows(message, "positions", index)
    if q is None:
        raise TrajectoryError("trajectory: expected positions in every point, got none")
    return JointPath(
        start_ns=ns_from_stamp(message.header.stamp),
        t_s=np.array([time.sec + time.nanosec / NS_PER_S for time in times]),
        q=q,
        qd=_rows(message, "velocities", index),
        qdd=_rows(message, "accelerations", index),
    )


def _values(
    message: JointState, field: str, index: NDArray[np.intp]
) -> NDArray[np.float64] | None:
    """Return one field of a joint state, reordered; None if the message has none."""
    values = np.array(getattr(message, field), dtype=np.float64)
    if values.size not in (0, len(message.name)):
        raise ShapeError(
            f"joint state, {field}: expected {len(message.name)} values, one for each joint, "
            f"got {values.size}"
        )
    return values[index] if values.size else None


def _rows(
    message: JointTrajectory, field: str, index: NDArray[np.intp]
) -> NDArray[np.float64] | None:
    """Stack one field of all points (k, j), reordered; None if no point has it."""
    rows = [getattr(point, field) for point in message.points]
    if not any(len(row) for row in rows):
        return None
    for i, row in enumerate(rows):
        if len(row) != len(message.joint_names):
            raise TrajectoryError(
                f"trajectory, {field} of point {i}: expected {len(message.joint_names)} values, "
                f"one for each joint, got {len(row)}"
            )
    return np.array(rows, dtype=np.float64)[:, index]


def _index(
    names: Sequence[str], wanted: Sequence[str], what: str, error: type[Exception]
) -> NDArray[np.intp]:
    """Return where the wanted joints stand in `names`."""
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise error(f"{what}: expected each joint once, got {', '.join(doubled)} twice")
    missing = [name for name in wanted if name not in names]
    if missing:
        raise error(
            f"{what}: expected joint {', '.join(missing)}, got only {', '.join(names) or 'none'}"
        )
    return np.array([names.index(name) for name in wanted], dtype=np.intp)


def _duration(t_s: float) -> Duration:
    sec, nanosec = divmod(round(t_s * NS_PER_S), NS_PER_S)
    return Duration(sec=sec, nanosec=nanosec)
