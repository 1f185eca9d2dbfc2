"""Let an action expert take part in benchmarks: its chunks, one action at a time, in step.

The simulator waits for each action, so nothing is asked in the background: the first half of a
chunk is executed, then the next one is computed from what is seen then. Keypoints are followed
through every picture, as live.
"""

import logging
from collections import deque

import numpy as np
from numpy.typing import NDArray

from mu0_core.benchmark import (
    FRONT,
    WRIST,
    ActionKind,
    KeypointTracker,
    Observation,
    PolicySettings,
    load_keypoint_tracker,
)
from mu0_core.errors import ConfigError, TrajectoryError
from mu0_core.kinematics import DifferentialIK, RobotModel
from mu0_core.traces import PointsFrom
from mu0_policy.action_expert.actions import ActionSpace
from mu0_policy.action_expert.asking import EXECUTED_SHARE
from mu0_policy.action_expert.card import PlacesIn
from mu0_policy.action_expert.checkpoint import load
from mu0_policy.action_expert.feature_cache import Extract
from mu0_policy.action_expert.policy import ExpertPolicy, Moment
from mu0_policy.action_expert.readiness import Stream, Timing, check_seen, features_fault

_RATE_TOLERANCE_HZ = 0.01
_logger = logging.getLogger(__name__)


class BenchmarkPolicy:
    """Execute an expert's chunks; a `mu0_core.benchmark.Policy`.

    Args:
        expert: The expert.
        extract: Makes features; the frozen world model.
        identity: What tells these features from others.
        depth: Whether they are made with depth.
        tracker: Gives the keypoints that they are made at; None for those on a grid.

    Raises:
        ConfigError: The expert was trained with other features.
    """

    action_kind = ActionKind.JOINTS

    def __init__(
        self,
        expert: ExpertPolicy,
        extract: Extract,
        identity: str,
        *,
        depth: bool = True,
        tracker: KeypointTracker | None = None,
    ) -> None:
        wrong = features_fault(expert.card, identity, {"context": 0, "traces": 0, "language": 0})
        if wrong:
            raise ConfigError(f"action expert: {wrong}")
        self._expert, self._extract, self._depth = expert, extract, depth
        self._tracker = tracker
        self._instruction = ""
        self._due: deque[NDArray[np.float64]] = deque()
        self._last = 0.0  # goal of the gripper

    def reset(self, instruction: str) -> None:
        """Begin an episode."""
        self._instruction = instruction
        self._due.clear()
        self._last = 0.0
        if self._tracker is not None:
            self._tracker.reset()

    def act(self, observation: Observation) -> NDArray[np.float64]:
        """Return the joints and the gripper's goal (j + 1,) for the next period.

        Raises:
            ConfigError: The expert was trained for other joints, cameras or rates.
        """
        ask = not self._due
        if ask:
            self._check(observation)
        keypoints = None if self._tracker is None else self._tracker.update(observation)
        if ask:
            moment = Moment(
                features=self._extract(
                    observation.pictures[FRONT],
                    self._instruction,
                    observation.depth_m if self._depth else None,
                    keypoints,
                ),
                pictures=observation.pictures,
                q=observation.q,
                gripper=observation.gripper,
                T_base_camera=observation.T_base_camera,
            )
            n = max(round(EXECUTED_SHARE * self._expert.chunk_size), 1)
            try:
                self._due.extend(self._expert.commands(moment)[:n])
            except TrajectoryError as error:  # hold, as on a robot
                _logger.warning("holds for a period: %s", error)
                self._due.append(np.append(observation.q, self._last))
        self._last = float(self._due[0][-1])
        return self._due.popleft()

    def _check(self, observation: Observation) -> None:
        card = self._expert.card
        faults = []
        if card.joints != observation.joints:
            faults.append(
                f"joints: trained with {', '.join(card.joints)}, here are "
                f"{', '.join(observation.joints)}"
            )
        if abs(card.rate_hz - observation.rate_hz) > _RATE_TOLERANCE_HZ:
            faults.append(
                f"rate: trained with {card.rate_hz:g} actions a second, here are "
                f"{observation.rate_hz:g}"
            )
        if faults:
            raise ConfigError("\n  ".join(["the action expert does not fit:", *faults]))
        cameras = {name: _stream(name, observation) for name in (FRONT, *card.cameras)}
        in_step = Timing(turns_hz=card.rate_hz, lead_s=0.0, max_picture_age_s=1.0 / card.rate_hz)
        check_seen(card, Stream("joints"), cameras, in_step)


def _stream(camera: str, observation: Observation) -> Stream:
    """Describe a camera as the check of a graph wants it."""
    picture = observation.pictures.get(camera)
    if picture is None:
        return Stream(camera)
    height, width = picture.shape[:2]
    lens = {FRONT: observation.camera, WRIST: observation.wrist_camera}.get(camera)
    focal_length = 0.0 if lens is None else float(lens.K[1, 1]) / lens.height
    return Stream(camera, size=(width, height), focal_length=focal_length)


def make(settings: PolicySettings) -> BenchmarkPolicy:
    """Load an expert and the world model whose features it reads.

    Raises:
        ConfigError: The checkpoint is not named or does not fit, or there is no tracker for it.
        CheckpointError: A checkpoint is missing or broken.
    """
    from mu0_policy.action_expert.frozen import load_served

    if settings.checkpoint is None:
        raise ConfigError("checkpoint: expected the folder of an action expert, got none")
    checkpoint = load(settings.checkpoint)
    tracker = None
    if checkpoint.card.points is PointsFrom.KEYPOINTS:
        tracker = load_keypoint_tracker(settings)
    ik = None
    by_tool = checkpoint.card.places is PlacesIn.TOOL
    if by_tool or checkpoint.card.space is ActionSpace.TOOL_DELTAS:
        locked = dict.fromkeys(checkpoint.card.gripper_joints, 0.0)
        model = RobotModel.from_urdf(settings.robot_description, locked=locked)
        ik = DifferentialIK(model, settings.tool_frame)
    extract = load_served(settings.world_model, checkpoint.card.points)
    depth = checkpoint.card.features != extract.origin(depth=False)
    expert = ExpertPolicy(checkpoint, ik=ik)
    identity = extract.origin(depth=depth)
    return BenchmarkPolicy(expert, extract, identity, depth=depth, tracker=tracker)
