"""Own the predictors that need no learning: stand still, constant velocity, nearest neighbours.

They are what a learned model has to beat, and stand-ins for it in the node. Units are the model's
(u, v in [-1, 1], z in m) as offsets from the anchor, not scaled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mu0_core.traces import Keypoints, Traces
from mu0_world_model.processor import from_model_units, lift, to_model_units


class Motion(StrEnum):
    """Name the predictors that draw straight lines."""

    STATIC = "static"
    CONSTANT_VELOCITY = "constant_velocity"


def step_velocity(
    motion: Motion, history: NDArray[np.floating], history_valid: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the offset (n, 3) that each keypoint makes in one step.

    Args:
        motion: Standing still, or as in the last step of the history.
        history: (n, h, 3) offsets of the past from the anchor, oldest first.
        history_valid: (n, h); without a valid last step a keypoint stands still.
    """
    last = -np.asarray(history[:, -1], dtype=np.float64)
    moves = history_valid[:, -1:] & (motion is Motion.CONSTANT_VELOCITY)
    return np.where(moves, last, 0.0)


def straight_future(velocity: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
    """Return the offsets (n, horizon, 3) of a constant step (n, 3)."""
    return velocity[:, None] * np.arange(1, horizon + 1)[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StraightLinePredictor:
    """Predict straight lines through the same door as the model (`predictor.Predictor`).

    Attributes:
        motion: Standing still or constant velocity.
        arc_step: As the keypoints must have it.
        horizon: Steps H of a trace.
        n_ctrl: Control points D of a trace.
    """

    motion: Motion
    arc_step: float
    horizon: int = 32
    n_ctrl: int = 10

    @property
    def name(self) -> str:
        """What the traces say they were made by."""
        return str(self.motion)

    def predict(
        self,
        rgb: NDArray[np.uint8],
        keypoints: Keypoints,
        instruction: str,
        *,
        depth: NDArray[np.floating] | None = None,
        samples: int = 1,
        seed: int | None = None,
    ) -> Traces:
        """Predict from the keypoints alone; all samples are the same."""
        started = perf_counter()
        camera = keypoints.camera
        size = (camera.width, camera.height)
        uvz = np.concatenate([keypoints.uv, keypoints.z[:, None]], axis=1)
        anchor = to_model_units(uvz, *size)
        history = to_model_units(keypoints.history_uvz, *size) - anchor[:, None]
        known = keypoints.history_valid & np.isfinite(history).all(-1)
        velocity = step_velocity(self.motion, np.nan_to_num(history), known)
        future = anchor[:, None] + straight_future(velocity, self.horizon)
        share = np.linspace(0.0, 1.0, self.n_ctrl)[:, None]
        control = anchor[:, None] + velocity[:, None] * (share * self.horizon)
        path = lift(camera, from_model_units(future, *size)).astype(np.float32)
        points = from_model_units(control, *size).astype(np.float32)
        return Traces(
            stamp_ns=keypoints.stamp_ns,
            frame_id=keypoints.frame_id,
            instruction=instruction,
            model=self.name,
            arc_step=self.arc_step,
            ids=keypoints.ids,
            cluster_ids=keypoints.cluster_ids,
            source=keypoints.source,
            current_xyz=keypoints.xyz(),
            xyz=np.repeat(path[None], samples, axis=0),
            control_uvz=np.repeat(points[None], samples, axis=0),
            valid_prob=np.ones((samples, keypoints.n, self.horizon), np.float32),
            stage_names=("decode",),
            stage_seconds=np.array([perf_counter() - started], np.float32),
        )


class NearestNeighbours:
    """Copy the futures of the training points nearest in anchor, history and instruction."""

    def __init__(
        self,
        tasks: Sequence[str],
        anchors: NDArray[np.float32],
        histories: NDArray[np.float32],
        futures: NDArray[np.float16],
        future_valid: NDArray[np.bool_],
    ) -> None:
        """Index training points; instructions are compared as they are written.

        Args:
            tasks: Instruction of each of R points.
            anchors: (R, 3).
            histories: (R, h, 3), 0 where unknown.
            futures: (R, H, 3).
            future_valid: (R, H); after the last valid step a future stays where it is.
        """
        features = self._features(anchors, histories)
        self._scale = np.maximum(features.std(0), 1e-6)
        self._futures = _held(futures, future_valid)
        names = np.asarray(tasks)
        self._trees = {}
        for task in {*tasks, None}:
            rows = np.arange(len(names)) if task is None else np.flatnonzero(names == task)
            self._trees[task] = (cKDTree(features[rows] / self._scale), rows)

    def predict(
        self,
        task: str,
        anchors: NDArray[np.floating],
        histories: NDArray[np.floating],
        samples: int,
    ) -> NDArray[np.float64]:
        """Return futures (samples, n, H, 3) of n points, the nearest first.

        An instruction that was never seen is compared with all.
        """
        tree, rows = self._trees.get(task, self._trees[None])
        query = self._features(anchors, histories) / self._scale
        count = min(samples, len(rows))
        _, nearest = tree.query(query, k=np.arange(1, count + 1))
        order = np.minimum(np.arange(samples), count - 1)
        found = rows[nearest[:, order]]  # (n, samples)
        return self._futures[found].transpose(1, 0, 2, 3).astype(np.float64)

    @staticmethod
    def _features(
        anchors: NDArray[np.floating], histories: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        flat = histories.reshape(len(histories), -1)
        return np.concatenate([anchors, flat], axis=1).astype(np.float64)


def _held(futures: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.float16]:
    """Let futures (R, H, 3) stay at the last valid step before each invalid one, 0 before any."""
    steps = np.arange(1, valid.shape[1] + 1)
    latest = np.maximum.accumulate(np.where(valid, steps, 0), axis=1)
    padded = np.concatenate([np.zeros_like(futures[:, :1]), futures], axis=1)
    return np.take_along_axis(padded, latest[..., None], axis=1).astype(np.float16)
