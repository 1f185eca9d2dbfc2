"""Own the live tracker in benchmarks, where it gives the keypoints that recordings are given.

It sees what `track_episodes` would see if the episode were recorded, so that a policy is shown
the keypoints that it was trained with.
"""

import numpy as np
from numpy.typing import NDArray

from mu0_core.benchmark import FRONT, Observation, PolicySettings
from mu0_core.embodiment import arm_model, load_embodiment
from mu0_core.kinematics import RobotModel
from mu0_core.se3 import inverse
from mu0_core.shipped_robots import embodiment_file
from mu0_perception.following import NS_PER_S
from mu0_perception.frame import RgbdFrame
from mu0_perception.live_tracker import GripperKeypoints, LiveTracker, LiveTrackerConfig


class BenchmarkTracker:
    """Follow keypoints through observations; a `mu0_core.benchmark.KeypointTracker`.

    Args:
        gripper: Points on the gripper.
        model: Says from the arm's joints where their frame is; None where there are no points.
    """

    def __init__(
        self, gripper: GripperKeypoints | None = None, model: RobotModel | None = None
    ) -> None:
        self._config = LiveTrackerConfig(gripper_keypoints=gripper or GripperKeypoints())
        self._model = model
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        self._tracker = LiveTracker(self._config)

    def update(self, observation: Observation) -> NDArray[np.float32]:
        """Return the keypoints (n, 3) px, px, m in the front picture, NaN = unknown.

        Raises:
            TrajectoryError: A joint of the arm is not among those observed.
        """
        frame = RgbdFrame(
            stamp_ns=round(observation.time_s * NS_PER_S),
            frame_id="camera",
            rgb=np.ascontiguousarray(observation.pictures[FRONT]),
            depth_m=observation.depth_m.astype(np.float16).astype(np.float32),  # as recorded
            camera=observation.camera,
            T_fixed_camera=observation.T_base_camera,
            T_camera_gripper=self._gripper_pose(observation),
        )
        return self._tracker.update(frame).keypoints.uvz()

    def _gripper_pose(self, observation: Observation) -> NDArray[np.float64] | None:
        """Return T_camera_gripper (4, 4) by forward kinematics; None without points there."""
        if self._model is None:
            return None
        q = self._model.reorder(observation.joints, observation.q)
        T_base_gripper = self._model.forward(q, self._config.gripper_keypoints.frame)
        return inverse(observation.T_base_camera) @ T_base_gripper


def make(settings: PolicySettings) -> BenchmarkTracker:
    """Make a tracker of things, and of the robot's gripper if it is told which.

    Raises:
        ConfigError: The robot is not known, or its description does not fit.
    """
    chosen = embodiment_file(settings.robot)
    if chosen is None:
        return BenchmarkTracker()
    body = load_embodiment(chosen)
    model = arm_model(body, settings.robot_description)
    return BenchmarkTracker(GripperKeypoints.of(body.keypoints), model)
