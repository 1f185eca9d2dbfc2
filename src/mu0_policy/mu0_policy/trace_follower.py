"""Own the rule by which a gripper follows predicted traces: approach, close, carry, done.

The traces of points fixed to the gripper give tool poses, those of an object its motion
(`trace_motions`). Nothing moves while fingers close, so a path by arc length has no step for the
grasp: it lies between the step before the object starts to move and that one. The rule:

1. The object is the cluster of points that moves farthest in the prediction and does not ride on
   the gripper (`companions`). Its first moved step m is the first from which on its middle stays
   `moved_m` or more away from where it is.
2. From m on, gripper and object move as one. Carried back by the object's motion, the gripper's
   predicted points all show the same pose relative to the object: their weighted mean over the
   steps gives the grasp.
3. Approach along the tool poses before m, then to the grasp. Within `grasp_m` of it: close.
4. Wait until the fingers stand still. Fully shut means nothing is held: open, and begin anew.
5. Carry along the tool poses of predictions made after the grasp. Where the object stays behind
   at rest while the gripper goes on, let go there, and follow the rest with open fingers.
6. Done when the tool has come to the end of its path and several predictions in a row say that
   no motion goes on, or next to none while carrying.

docs/trace_follower.md tells the reasons and what accuracy the rule needs.
"""

from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from mu0_core import se3
from mu0_policy.companions import Companions
from mu0_policy.joint_path import JointPath
from mu0_policy.progress import Progress
from mu0_policy.trace_motions import Prediction, shifts, smoothed
from mu0_policy.trace_reading import (
    FollowerConfig,
    Reading,
    held,
    read_approach,
    read_carry,
    tool_poses,
)

FloatArray = NDArray[np.float64]
_NOWHERE = np.full(3, np.inf)


class Phase(Enum):
    """Say what the follower is about."""

    WAIT = "wait"
    APPROACH = "approach"
    CLOSE = "close"
    CARRY = "carry"
    OPEN = "open"
    RETREAT = "retreat"
    ACT = "act"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RobotState:
    """Hold what the follower has to know of the robot.

    Attributes:
        now_s: Time on the clock of the predictions.
        T_base_tool: (4, 4) pose that is measured.
        T_base_tool_ahead: (4, 4) pose that is commanded for when a new path can begin.
        gripper_share: Where the fingers are: 0 = open, 1 = closed with nothing between.
        gripper_at_rest: Whether the fingers stand still.
        path_ended: Whether the tool has come to the end of the path it was given.
        lag_rad: How far a joint is behind its command, beyond what a delay explains, at most.
    """

    now_s: float
    T_base_tool: FloatArray
    T_base_tool_ahead: FloatArray
    gripper_share: float
    gripper_at_rest: bool
    path_ended: bool
    lag_rad: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToolPlan:
    """Hold what the robot shall do from now on.

    Attributes:
        phase: What this is for.
        reason: Why, in one sentence.
        poses: (k, 4, 4) tool poses to pass, the last one to stop at; none = stay; None = go on
            as before.
        close: Whether the fingers shall be closed.
        path: Joints over time instead of poses.
        careful: Whether the poses end in a contact, to be met slowly.
    """

    phase: Phase
    reason: str
    poses: FloatArray | None
    close: bool
    path: JointPath | None = None
    careful: bool = False


@dataclass(slots=True)
class TraceFollower:
    """Decide tool path and fingers from predictions; `reset` before each new task."""

    source = "traces", "mu0/traces"
    """What it decides from, and the topic that this comes on."""

    config: FollowerConfig
    gripper_s: float
    """Time that the fingers take from open to closed."""
    phase: Phase = Phase.WAIT
    reason: str = "no prediction yet"
    valid_prob: float = 1.0
    """Probability that the motion still goes on, by the latest prediction."""
    _reading: Reading | None = field(default=None, init=False)
    _since_s: float = field(default=-np.inf, init=False)
    _n_done: int = field(default=0, init=False)
    _companions: Companions = field(default_factory=Companions, init=False)
    _progress: Progress = field(init=False)
    _grasped_at: FloatArray | None = field(default=None, init=False)
    _pushes: bool = field(default=False, init=False)
    _backed_to: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self._progress = Progress(self.config.stuck_m, self.config.stuck_s)
        self._backed_to = _NOWHERE

    def reset(self) -> None:
        """Forget the task."""
        self.phase, self.reason, self.valid_prob = Phase.WAIT, "no prediction yet", 1.0
        self._reading, self._since_s, self._n_done = None, -np.inf, 0
        self._companions.forget()
        self._progress.forget()
        self._grasped_at, self._pushes, self._backed_to = None, False, _NOWHERE

    def step(self, state: RobotState, prediction: Prediction | None) -> ToolPlan | None:
        """Take a new prediction, if there is one, and decide.

        Returns:
            What to do from now on, None to go on as before.
        """
        if self._is_stuck(state):
            return self._begin_anew(state, "does not get on: opens, goes back and plans anew")
        if self._is_blocked(state):
            return self._begin_anew(state, "runs into something: goes back and plans anew")
        plan = self._on_turn(state)
        if plan is None and prediction is not None and prediction.stamp_s >= self._since_s:
            plan = self._on_prediction(state, prediction)
        return plan

    # Decisions.

    def _on_turn(self, state: RobotState) -> ToolPlan | None:
        """Decide what needs no new prediction."""
        if self.phase is Phase.APPROACH:
            return self._close_if_there(state)
        if self.phase is Phase.CLOSE:
            return self._judge_grasp(state)
        if self.phase is Phase.CARRY:
            return self._watch_load(state)
        if self.phase is Phase.OPEN and self._fingers_done(state):
            self._since_s = state.now_s
            return self._enter(Phase.RETREAT, "the fingers are open", close=False)
        if self._is_over(state):
            return self._enter(Phase.DONE, "the path is finished and no motion goes on")
        return None

    def _on_prediction(self, state: RobotState, prediction: Prediction) -> ToolPlan | None:
        config = self.config
        holding = self.phase is Phase.CARRY
        if self.phase in (Phase.WAIT, Phase.APPROACH):
            self._companions.see(prediction)
        target = held(prediction, config) if holding else self._moving(prediction)
        points = prediction.on_gripper if target is None else prediction.on_gripper | target
        self.valid_prob = float(prediction.valid_prob[points, 0].mean())
        n_valid = prediction.n_valid(points)
        self._n_done = self._n_done + 1 if self._says_done(prediction, n_valid) else 0
        if self.phase in (Phase.CLOSE, Phase.OPEN, Phase.DONE):
            return None
        if self._is_over(state):
            return self._enter(Phase.DONE, "the path is finished and no motion goes on")
        if n_valid == 0:
            return None
        if holding:
            return self._carry(state, read_carry(prediction, target, n_valid, config))
        if self.phase is Phase.RETREAT:
            reading = Reading(tool=tool_poses(prediction, prediction.on_gripper, n_valid, config))
            return self._follow(state, reading.tool, Phase.RETREAT, "follows the gripper's traces")
        return self._approach(state, read_approach(prediction, target, n_valid, config))

    def _approach(self, state: RobotState, reading: Reading) -> ToolPlan | None:
        self._reading = reading
        if reading.grasp is None:
            why = "follows the gripper's traces; no object moves in them yet"
            return self._follow(state, reading.tool, Phase.APPROACH, why)
        close = self._close_if_there(state)
        if close is not None:
            return close
        poses = np.concatenate([reading.tool[: reading.n_before], reading.grasp[None]])
        why = f"goes to the grasp: the object moves from step {reading.n_before} on"
        return replace(self._follow(state, poses, Phase.APPROACH, why), careful=True)

    def _close_if_there(self, state: RobotState) -> ToolPlan | None:
        if self._reading is None or self._reading.grasp is None:
            return None
        distance_m, angle_rad = _apart(state.T_base_tool, self._reading.grasp)
        if distance_m > self.config.grasp_m or angle_rad > self.config.grasp_rad:
            return None
        self._since_s = state.now_s
        self.phase = Phase.CLOSE
        self.reason = f"closes {1e3 * distance_m:.0f} mm from the grasp"
        grasp = self._reading.grasp[None]
        return ToolPlan(
            phase=self.phase, reason=self.reason, poses=grasp, close=True, careful=True
        )

    def _judge_grasp(self, state: RobotState) -> ToolPlan | None:
        if not self._fingers_done(state):
            return None
        self._since_s = state.now_s
        if state.gripper_share >= self.config.shut_share:
            return self._begin_anew(state, "the fingers closed on nothing: opens and plans anew")
        self._reading, self._n_done = None, 0
        self._grasped_at = state.T_base_tool[:3, 3].copy()
        return self._enter(Phase.CARRY, "the fingers hold something", close=True)

    def _watch_load(self, state: RobotState) -> ToolPlan | None:
        if state.gripper_share >= self.config.shut_share:
            return self._begin_anew(state, "what was held is lost: opens and plans anew")
        if self._reading is not None and self._reading.release is not None and state.path_ended:
            self._since_s = state.now_s
            return self._enter(Phase.OPEN, "lets go where the object stays behind", close=False)
        if self._is_over(state):
            return self._enter(Phase.DONE, "the path is finished and no motion goes on")
        return None

    def _carry(self, state: RobotState, reading: Reading) -> ToolPlan | None:
        self._reading = reading
        if reading.release is None:
            why = "follows gripper and object as one"
            return self._follow(state, reading.tool, Phase.CARRY, why)
        why = f"brings the object to where it stays behind, step {reading.release}"
        return self._follow(state, reading.tool[: reading.release + 1], Phase.CARRY, why)

    def _begin_anew(self, state: RobotState, reason: str) -> ToolPlan:
        """Open, and look again from a little back: from here the same would come once more."""
        self._reading, self._n_done, self._grasped_at = None, 0, None
        self._progress.forget()
        self._since_s = state.now_s + self.gripper_s
        self.phase, self.reason = Phase.APPROACH, reason
        back = state.T_base_tool_ahead.copy()
        back[:3, 3] -= self.config.step_back_m * back[:3, 2]
        self._backed_to = back[:3, 3]
        return ToolPlan(phase=self.phase, reason=reason, poses=back[None], close=False)

    # Helpers.

    def _moving(self, prediction: Prediction) -> NDArray[np.bool_] | None:
        """Return the points (n,) of the thing that moves farthest, None if none moves."""
        best, farthest_m = None, 2.0 * self.config.moved_m
        for cluster in np.unique(prediction.cluster_ids[~prediction.on_gripper]):
            points = ~prediction.on_gripper & (prediction.cluster_ids == cluster)
            n_valid = prediction.n_valid(points)
            if n_valid == 0 or self._companions.ride(prediction, points, n_valid):
                continue
            moved = shifts(prediction.current_xyz[points], prediction.xyz[points, :n_valid])
            if moved[-1] > farthest_m:
                best, farthest_m = points, float(moved[-1])
        return best

    def _follow(self, state: RobotState, poses: FloatArray, phase: Phase, reason: str) -> ToolPlan:
        self.phase, self.reason = phase, reason
        ahead = _ahead(smoothed(poses), state.T_base_tool_ahead)
        return ToolPlan(phase=phase, reason=reason, poses=ahead, close=phase is Phase.CARRY)

    def _enter(self, phase: Phase, reason: str, close: bool | None = None) -> ToolPlan:
        """Change the phase; the tool comes to its end of path, or stays."""
        if close is None:
            close = self.phase is Phase.CARRY
        self.phase, self.reason = phase, reason
        poses = None if phase is Phase.DONE else np.empty((0, 4, 4))
        return ToolPlan(phase=phase, reason=reason, poses=poses, close=close)

    def _fingers_done(self, state: RobotState) -> bool:
        waited_s = state.now_s - self._since_s
        return (waited_s > 0.5 * self.gripper_s and state.gripper_at_rest) or (
            waited_s > 2.0 * self.gripper_s
        )

    def _says_done(self, prediction: Prediction, n_valid: int) -> bool:
        """Say whether hardly any motion of the gripper is left."""
        gripper = prediction.on_gripper
        left = shifts(prediction.current_xyz[gripper], prediction.xyz[gripper, :n_valid])
        return n_valid == 0 or (self.phase is Phase.CARRY and left[-1] < self.config.done_m)

    def _is_blocked(self, state: RobotState) -> bool:
        """Say whether the arm has run into something; once, until it is free of it."""
        before, self._pushes = self._pushes, state.lag_rad > self.config.blocked_rad
        return self._pushes and not before and self.phase is Phase.APPROACH

    def _is_stuck(self, state: RobotState) -> bool:
        """Say whether the tool stays where it is though the motion should go on.

        What has been carried away from its place is never let go for that; and from where the
        last step back has led, no further one would show more.
        """
        place = state.T_base_tool[:3, 3]
        carries = self.phase is Phase.CARRY and self._grasped_at is not None
        backed = np.linalg.norm(place - self._backed_to) < 0.5 * self.config.step_back_m
        if backed and not carries:
            return False
        if not (self.phase is Phase.APPROACH or carries):
            self._progress.forget()
            return False
        stuck = self._progress.stuck(state.now_s, place) and self._n_done == 0
        if stuck and carries:
            assert self._grasped_at is not None
            return bool(np.linalg.norm(place - self._grasped_at) < self.config.stuck_m)
        return stuck

    def _is_over(self, state: RobotState) -> bool:
        return state.path_ended and self._n_done >= self.config.done_predictions


def _ahead(poses: FloatArray, T_base_tool: FloatArray) -> FloatArray:
    """Leave out the poses that the tool has passed since the image was taken."""
    distances_m = np.linalg.norm(poses[:, :3, 3] - T_base_tool[:3, 3], axis=-1)
    return poses[min(int(np.argmin(distances_m)) + 1, len(poses) - 1) :]


def _apart(T_a: FloatArray, T_b: FloatArray) -> tuple[float, float]:
    """Return the distance (m) and the angle (rad) between two poses."""
    twist = se3.log(se3.inverse(T_a) @ T_b)
    return float(np.linalg.norm(T_a[:3, 3] - T_b[:3, 3])), float(np.linalg.norm(twist[3:]))
