"""Turn the predicted traces of points into motions of the bodies that carry them.

A prediction is one scene at one instant, with traces by arc length: step i of all points is the
same instant. Points fixed to the gripper give the tool's motion, the points of one cluster give
an object's. Rigid fits forgive noise of single points, not an error that all points share.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from mu0_core import se3
from mu0_core.errors import ShapeError, TrajectoryError
from mu0_core.traces import KeypointSource, Traces

FloatArray = NDArray[np.float64]

_MODE_M = 0.05  # samples this far from the most central one show another future
_VALID = 0.5
_TRIALS = 48  # with four points in ten wrong, all trials fail once in 100 000 steps
_TURN_SIGMA = 3.0  # steps over which rotations are smoothed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """Hold one prediction in the robot's base frame, the samples reduced to one.

    Attributes:
        stamp_s: Time of the image.
        T_base_tool: (4, 4) pose of the tool at that time.
        instruction: As given to the model.
        current_xyz: (n, 3) m, where the points were.
        xyz: (n, horizon, 3) m, where they are predicted to go.
        valid_prob: (n, horizon) probability that the motion still goes on.
        on_gripper: (n,) bool, fixed to the gripper.
        cluster_ids: (n,) entity of the other points, -1 = none.
        spread_m: Mean distance between samples and their centre at the last step, m.
    """

    stamp_s: float
    T_base_tool: FloatArray
    instruction: str
    current_xyz: FloatArray
    xyz: FloatArray
    valid_prob: FloatArray
    on_gripper: NDArray[np.bool_]
    cluster_ids: NDArray[np.int32]
    spread_m: float

    @property
    def horizon(self) -> int:
        """Number of predicted steps."""
        return self.xyz.shape[1]

    def n_valid(self, points: NDArray[np.bool_]) -> int:
        """Return for how many steps the motion of these points (n,) still goes on."""
        going_on = self.valid_prob[points].mean(axis=0) >= _VALID
        return self.horizon if going_on.all() else int(np.argmin(going_on))


def prediction_in_base(
    traces: Traces, T_base_camera: FloatArray, T_base_tool: FloatArray
) -> Prediction:
    """Bring traces to the base frame and reduce their samples to the most central future.

    Args:
        traces: As predicted, in the camera's frame.
        T_base_camera: (4, 4) at the time of the image.
        T_base_tool: (4, 4) at the time of the image.

    Raises:
        ShapeError: There are no traces, or too few finite ones on the gripper.
    """
    if traces.s == 0 or traces.horizon == 0:
        raise ShapeError("traces: expected at least one sample and one step, got none")
    known_now = np.isfinite(traces.current_xyz).all(axis=-1)
    usable = np.asarray(known_now & np.isfinite(traces.xyz).all(axis=(0, 2, 3)))
    kept = traces.selected(usable)
    on_gripper = kept.source == KeypointSource.ROBOT
    if on_gripper.sum() < 3:
        total = int((traces.source == KeypointSource.ROBOT).sum())
        raise ShapeError(
            f"traces: expected at least 3 finite ones of points fixed to the gripper, got "
            f"{int(on_gripper.sum())} of {total}; select the source 'robot' in the tracker"
        )
    samples = se3.transform_points(T_base_camera, kept.xyz)
    central, spread_m = _central_samples(samples)
    return Prediction(
        stamp_s=traces.stamp_ns * 1e-9,
        T_base_tool=np.asarray(T_base_tool, dtype=np.float64),
        instruction=traces.instruction,
        current_xyz=se3.transform_points(T_base_camera, kept.current_xyz),
        xyz=samples[central].mean(axis=0),
        valid_prob=kept.valid_prob[central].mean(axis=0, dtype=np.float64),
        on_gripper=on_gripper,
        cluster_ids=kept.cluster_ids,
        spread_m=spread_m,
    )


def body_motions(current_xyz: FloatArray, xyz: FloatArray, *, inlier_m: float) -> FloatArray:
    """Find the rigid motion of a body along the traces of its points.

    Each step gets a robust rigid fit of its own. Points that lie close together show a turn
    badly, and far from them a small turn is a large shift; but bodies turn slowly. So rotations
    are smoothed along the steps, and the shift of each step is then taken from its points anew.
    Fewer than three points, or points on one line, show no rotation.

    Args:
        current_xyz: (n, 3) m.
        xyz: (n, h, 3) m.
        inlier_m: How far a point may be off, m.

    Returns:
        (h, 4, 4) motions from now to each step, in the frame of the points.
    """
    fits = np.tile(np.eye(4), (xyz.shape[1], 1, 1))
    fitted = np.zeros(len(fits), dtype=bool)
    for step in range(len(fits) if len(current_xyz) >= 3 else 0):
        try:
            fits[step] = se3.robust_rigid_fit(
                current_xyz, xyz[:, step], inlier_m=inlier_m, n_trials=_TRIALS
            ).T
        except TrajectoryError:
            continue  # this step has the rotation of its neighbours
        fitted[step] = True
    R = _smoothed_rotations(fits[:, :3, :3], fitted)
    turned = np.einsum("hij,nj->nhi", R, current_xyz)
    return se3.make_transform(R, np.median(xyz - turned, axis=0))


def shifts(current_xyz: FloatArray, xyz: FloatArray) -> FloatArray:
    """Return how far the middle of points (n, 3) has moved at each step of (n, h, 3): (h,) m."""
    return np.linalg.norm(np.median(xyz - current_xyz[:, None], axis=0), axis=-1)


def smoothed(poses: FloatArray, sigma: float = 1.0) -> FloatArray:
    """Smooth the places of poses (k, 4, 4) along their path, in steps; the last one stays."""
    if len(poses) < 3:
        return poses
    result = poses.copy()
    result[:-1, :3, 3] = gaussian_filter1d(poses[:, :3, 3], sigma, axis=0, mode="nearest")[:-1]
    return result


def _smoothed_rotations(R: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    """Smooth rotations (h, 3, 3) of successive steps; before the first one there is none."""
    steps = np.concatenate([[-1], np.flatnonzero(known)])
    rotations = Rotation.from_matrix(np.concatenate([np.eye(3)[None], R[known]]))
    result = np.empty_like(R)
    for step in range(len(R)):
        weights = np.exp(-0.5 * ((steps - step) / _TURN_SIGMA) ** 2)
        if weights.max() < 1e-6:
            weights = (steps == steps[np.argmin(np.abs(steps - step))]).astype(np.float64)
        result[step] = rotations.mean(weights).as_matrix()
    return result


def _central_samples(samples: FloatArray) -> tuple[NDArray[np.bool_], float]:
    """Pick the samples (s,) around the most central of (s, n, h, 3), and tell their spread."""
    difference = samples[:, None] - samples[None]
    apart = np.linalg.norm(difference, axis=-1).mean(axis=(2, 3))
    medoid = int(np.argmin(apart.sum(axis=1)))
    central = apart[medoid] <= _MODE_M
    ends = samples[:, :, -1]
    return central, float(np.linalg.norm(ends - ends.mean(axis=0), axis=-1).mean())
