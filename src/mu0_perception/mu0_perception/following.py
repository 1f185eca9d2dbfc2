"""Own what becomes of a keypoint from one picture to the next.

A tracker says where the picture of a point went; depth and colour say whether that is still the
point. Entities that move as one body hold their points together; points out of sight ride along
or stay where they were, and count as seen again when depth and colour agree there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate
from mu0_core.errors import TrajectoryError
from mu0_core.se3 import RigidFit, inverse, rigid_fit, robust_rigid_fit, transform_points
from mu0_perception.frame import RgbdFrame
from mu0_perception.points import of
from mu0_perception.selection import Source
from mu0_perception.tracking import Tracker, colour_change, depth_at, inside

NS_PER_S = 1_000_000_000
_MIN_POINTS = 4
_BODY_TRIALS = 60
_BODY_SHARE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowConfig:
    """Say when a point is still the same point."""

    max_speed_mps: float = option(
        0.5, description="Fastest motion along the optical axis", unit="m/s", low=0.0
    )
    depth_noise_m: float = option(
        0.008, description="Noise of depth at 1 m; grows with its square", unit="m", low=0.0
    )
    max_colour_change: float = option(
        22.0, description="Change of a point's colour (CIE Lab)", low=0.0
    )
    body_m: float = option(
        0.008,
        description="Deviation of points that move as one body, per picture",
        unit="m",
        low=0.0005,
    )
    own_motion: float = option(
        0.1,
        description="Share of its own motion that a point keeps beside that of its entity",
        low=0.0,
        high=1.0,
    )
    lost_after_s: float = option(
        0.7, description="Time after which a point out of sight is given up", unit="s", low=0.0
    )

    def __post_init__(self) -> None:
        validate(self)

    def depth_tolerance(self, z: NDArray, dt_s: float) -> NDArray[np.float32]:
        """Return the depth change (n,) m that motion and noise explain within a time."""
        noise = self.depth_noise_m * np.square(z)
        return np.asarray(noise + self.max_speed_mps * dt_s + 0.002, np.float32)


def follow(
    points: NDArray[np.void],
    frame: RgbdFrame,
    tracker: Tracker,
    config: FollowConfig,
    *,
    dt_s: float,
) -> NDArray[np.void]:
    """Move keypoints to a new picture, and leave out those that were out of sight too long.

    Args:
        points: Table of the keypoints in the picture before, without robot points.
        frame: The new picture.
        tracker: What finds points in pictures; must have seen the picture before.
        config: When a point is still the same point.
        dt_s: Time since the picture before, s.

    Returns:
        A new table.
    """
    expected = _project(points["xyz"] + dt_s * points["velocity"], frame)
    expected_uv = np.where(np.isfinite(expected[:, :2]), expected[:, :2], points["uv"])
    tracked = tracker.track(frame.rgb, points["id"], points["uv"], expected_uv.astype(np.float32))
    tolerance = config.depth_tolerance(expected[:, 2], min(dt_s, 0.2))
    z, other = depth_at(frame.depth_m, tracked.uv, expected[:, 2].astype(np.float32), tolerance)
    same_colour = colour_change(frame.rgb, tracked.uv, points["colour"]) < config.max_colour_change
    followed = tracked.found & ~other & same_colour & points["visible"]

    moved = points.copy()
    # In a hole of the depth image a point keeps its depth for a while.
    depth = np.where(np.isfinite(z), z, expected[:, 2])
    xyz = frame.camera.unproject(np.column_stack([tracked.uv, depth])[followed])
    moved["xyz"][followed] = transform_points(frame.T_fixed_camera, xyz)
    measured = followed & np.isfinite(z)
    moved["seen_ns"][measured] = frame.stamp_ns
    moved["visible"] = followed
    _hold_together(points, moved, measured, config)
    _look(moved, frame, config)
    step = np.where(moved["visible"][:, None], moved["xyz"] - points["xyz"], 0.0)
    moved["velocity"] = step / dt_s if dt_s > 0.0 else 0.0
    kept = frame.stamp_ns - moved["seen_ns"] <= round(config.lost_after_s * NS_PER_S)
    return moved[kept & inside(moved["uv"], frame.depth_m)]


def place_robot_points(
    points: NDArray[np.void],
    gripper_xyz: NDArray[np.float64],
    frame: RgbdFrame,
    config: FollowConfig,
) -> None:
    """Put the robot's rows of a table, in order, where the gripper's pose says they are.

    They are visible where nothing nearer is seen. With the pose unknown they have no place (NaN).

    Args:
        points: The table; its robot rows are changed.
        gripper_xyz: (n, 3) m in the gripper's frame, one for each robot row.
        frame: The picture.
        config: Tolerances.
    """
    rows = of(points, Source.ROBOT)
    if frame.T_camera_gripper is None:
        for name in ("uv", "z", "xyz"):
            points[name][rows] = np.nan
        points["visible"][rows] = False
        return
    xyz = transform_points(frame.T_camera_gripper, gripper_xyz)
    uvz = frame.camera.project(xyz).astype(np.float32)
    points["uv"][rows], points["z"][rows] = uvz[:, :2], uvz[:, 2]
    points["xyz"][rows] = transform_points(frame.T_fixed_camera, xyz)
    in_view = inside(uvz[:, :2], frame.depth_m)
    column, row = np.where(in_view[:, None], np.rint(uvz[:, :2]), 0.0).astype(np.int64).T
    slack = config.depth_tolerance(uvz[:, 2], 0.0) + 0.01
    hidden = frame.depth_m[row, column] < uvz[:, 2] - slack
    points["visible"][rows] = in_view & ~hidden
    points["seen_ns"][rows] = frame.stamp_ns


def _project(xyz_fixed: NDArray[np.float64], frame: RgbdFrame) -> NDArray[np.float64]:
    """Return uvz (n, 3) of points of the fixed frame."""
    return frame.camera.project(transform_points(inverse(frame.T_fixed_camera), xyz_fixed))


def _hold_together(
    before: NDArray[np.void],
    now: NDArray[np.void],
    measured: NDArray[np.bool_],
    config: FollowConfig,
) -> None:
    """Let each entity that moves as one body keep its shape.

    Points out of sight ride along, points in sight are pulled towards the common motion, which
    averages what drives single points astray, and points that break away slipped off: they count
    as out of sight from here on. Entities that move as several bodies are left as they are.
    """
    for cluster in np.unique(now["cluster"]):
        members = now["cluster"] == cluster
        sure = members & measured
        if cluster < 0 or np.count_nonzero(sure) < _MIN_POINTS:
            continue
        motion = _body_motion(before["xyz"][sure], now["xyz"][sure], config.body_m)
        if motion is None:
            continue
        slipped = np.zeros_like(sure)
        slipped[sure] = ~motion.inliers
        now["visible"] &= ~slipped
        along = transform_points(motion.T, before["xyz"])
        seen = members & now["visible"]
        now["xyz"][seen] = along[seen] + config.own_motion * (now["xyz"][seen] - along[seen])
        unseen = members & ~now["visible"]
        now["xyz"][unseen] = along[unseen]


def _body_motion(
    before: NDArray[np.float64], now: NDArray[np.float64], body_m: float
) -> RigidFit | None:
    """Fit the motion that nearly all points (n, 3) share; None if there is none."""
    try:
        T = rigid_fit(before, now)
        distance = np.linalg.norm(transform_points(T, before) - now, axis=1)
        if distance.max() < body_m:
            rms_m = float(np.sqrt(np.mean(np.square(distance))))
            return RigidFit(T, np.ones(len(now), np.bool_), rms_m)
        fit = robust_rigid_fit(before, now, inlier_m=body_m, n_trials=_BODY_TRIALS)
    except TrajectoryError:
        return None
    return fit if np.count_nonzero(fit.inliers) >= _BODY_SHARE * len(now) else None


def _look(points: NDArray[np.void], frame: RgbdFrame, config: FollowConfig) -> None:
    """Write where all points are in the picture, and find those again that were out of sight.

    What has the depth and the colour of a point where it must be is that point.
    """
    uvz = _project(points["xyz"], frame).astype(np.float32)
    points["uv"], points["z"] = uvz[:, :2], uvz[:, 2]
    lost = ~points["visible"]
    if not lost.any():
        return
    tolerance = config.depth_tolerance(uvz[:, 2], 0.0)
    z, _ = depth_at(frame.depth_m, uvz[:, :2], uvz[:, 2], tolerance)
    change = colour_change(frame.rgb, uvz[:, :2], points["colour"])
    again = lost & np.isfinite(z) & (change < config.max_colour_change)
    points["visible"][again] = True
    points["seen_ns"][again] = frame.stamp_ns
