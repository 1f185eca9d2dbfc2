"""Put policy, inverse kinematics, chunks and safety together, without ROS.

`PolicyCore` is what a node, a rollout or a test holds. Time comes in as an argument, on one clock
that may stand still but does not go back. One turn is three calls, so that slow planning does not
use up the time that a chunk has to reach the controller:

    core.plan(now_s, traces...)     take predictions, let the policy decide
    chunk = core.command(now_s)     what to send, None = nothing new
    core.sent(chunk, now_s)         it goes out now; None if it is too late and must not
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate
from mu0_core.embodiment import Embodiment, arm_limits
from mu0_core.errors import Mu0Error, StaleInputError, TrajectoryError
from mu0_core.kinematics import DifferentialIK, RobotModel
from mu0_core.traces import Traces
from mu0_policy import chunk as chunks
from mu0_policy.chunk import Chunk, HandOver
from mu0_policy.joint_path import JointPath, plan_joint_path, staying
from mu0_policy.safety import SafetyConfig, SafetyFilter
from mu0_policy.trace_follower import Phase, RobotState, ToolPlan
from mu0_policy.trace_motions import Prediction, prediction_in_base

FloatArray = NDArray[np.float64]

_HISTORY_S = 2.0  # of joint states, beyond the age at which traces are refused
_STANDSTILL_RAD_S = 0.1
_SAME_PLACE_RAD = 0.05
_SLOW_FINGERS = 0.05  # share of their way in a second that still counts as rest
_LONGEST_LEAD_S = 0.3
_KEPT_KNOTS = 5  # of a chunk that runs, before it brakes
_CATCHING_UP_S = 0.2  # in which a chunk comes to its path
_DELAY_S = 0.05  # of the arm behind its command that is no sign of an obstacle
_N_SENT = 100  # seconds, at any rate


class End(Enum):
    """Say why a task has ended; the numbers are those of ExecuteInstruction.action."""

    DONE = 0
    TIMEOUT = 1
    SAFETY = 2
    CANCELLED = 3
    REFUSED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionConfig:
    """Configure how commands are timed."""

    lead_s: float = option(
        0.1,
        description="Time that a chunk has to reach the controller",
        unit="s",
        low=0.02,
        high=_LONGEST_LEAD_S,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """Hold one joint state.

    Attributes:
        stamp_s: Time of measurement.
        q: (j,) rad of the arm's joints.
        qd: (j,) rad/s; zero if not measured.
        gripper_q: (g,) rad or m of the gripper's driving joints.
        gripper_qd: (g,) of these, per second; zero if not measured.
    """

    stamp_s: float
    q: FloatArray
    qd: FloatArray
    gripper_q: FloatArray
    gripper_qd: FloatArray


class Stamped(Protocol):
    """Be what a policy decides from."""

    @property
    def stamp_s(self) -> float:
        """Time of the picture behind it."""


class Policy(Protocol):
    """Decide where to go and what the fingers do.

    Attributes:
        source: What it decides from, and the topic that this comes on.
        phase: What it is about.
        reason: Why, in one sentence.
        valid_prob: Probability that the motion still goes on.
    """

    source: tuple[str, str]
    phase: Phase
    reason: str
    valid_prob: float

    def reset(self) -> None:
        """Forget the task."""

    def step(self, state: RobotState, prediction: Any, /) -> ToolPlan | None:
        """Take a new prediction, if there is one, and decide; None = go on as before."""


class PolicyCore:
    """Turn joint states and traces into chunks and gripper commands.

    Attributes:
        limits: Of the arm's joints.
        safety: The filter; its latched fault and settings.
        policy: What decides.
        closed: Whether the fingers shall be closed; None = as they are.
        hold: Why the arm holds although it is engaged; empty = it does not.
        warning: What else is to be said; empty = nothing.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        model: RobotModel,
        policy: Policy,
        safety: SafetyConfig | None = None,
        execution: ExecutionConfig | None = None,
    ) -> None:
        self._embodiment, self._gripper = embodiment, embodiment.gripper
        self._model = model
        self._execution = execution or ExecutionConfig()
        self.policy = policy
        self.limits = arm_limits(embodiment, model)
        self._ik = DifferentialIK(
            model, embodiment.tool_frame, q_nominal=np.array(embodiment.arm.home_q)
        )
        self.safety = SafetyFilter(
            safety or SafetyConfig(),
            self.limits,
            embodiment.workspace,
            lambda q: model.forward(q, embodiment.tool_frame)[:3, 3],
        )
        self.closed: bool | None = None
        self.hold = self.warning = ""
        self._history: deque[Measured] = deque()
        self._running: Chunk | None = None
        self._path: JointPath | None = None
        self._traces_stamp_s: float | None = None
        self._engaged_s: float | None = None
        self._stopped = False
        self._sent: deque[Chunk] = deque(maxlen=_N_SENT)
        self._brake_chunk: Chunk | None = None
        self._branch = 0
        self._lead_s = self._execution.lead_s

    # State.

    @property
    def engaged(self) -> bool:
        """Whether the arm may move."""
        return self._engaged_s is not None

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called and `resume` was not."""
        return self._stopped

    @property
    def running(self) -> Chunk | None:
        """What was sent last, None before the first engagement."""
        return self._running

    @property
    def lead_s(self) -> float:
        """Time that the next chunk has to reach the controller."""
        return self._lead_s

    @property
    def at_rest(self) -> bool:
        """Whether nothing that was sent still moves."""
        return self._running is None or (
            bool(self._history) and self._running.end_s <= self._history[-1].stamp_s
        )

    @property
    def ended(self) -> End | None:
        """Why the task has ended by itself, None if it has not."""
        if self.safety.latched:
            return End.SAFETY
        return End.DONE if self.engaged and self.policy.phase is Phase.DONE else None

    # Inputs.

    def measure(self, measured: Measured) -> None:
        """Take a joint state; after a jump back in time, the older ones are forgotten."""
        if self._history and measured.stamp_s < self._history[-1].stamp_s:
            self._history.clear()
        self._history.append(measured)
        oldest_s = measured.stamp_s - self.safety.config.max_traces_age_s - _HISTORY_S
        while self._history[0].stamp_s < oldest_s:
            self._history.popleft()

    def tool_pose_at(self, stamp_s: float) -> FloatArray:
        """Return the tool's pose (4, 4) at a time, from the joint states around it.

        Raises:
            StaleInputError: There are no joint states of that time.
        """
        times = np.array([m.stamp_s for m in self._history])
        slack_s = self.safety.config.max_joints_age_s
        if not len(times) or not times[0] - slack_s <= stamp_s <= times[-1] + slack_s:
            known = f"known are {times[0]:.3f} to {times[-1]:.3f} s" if len(times) else "none came"
            raise StaleInputError(f"no joint states at {stamp_s:.3f} s; {known}")
        after = int(np.clip(np.searchsorted(times, stamp_s), 0, len(times) - 1))
        before = max(0, after - 1)
        span_s = times[after] - times[before]
        alpha = 1.0 if span_s <= 0.0 else np.clip((stamp_s - times[before]) / span_s, 0.0, 1.0)
        q = (1.0 - alpha) * self._history[before].q + alpha * self._history[after].q
        return self._model.forward(q, self._embodiment.tool_frame)

    def measured_at(self, stamp_s: float) -> Measured:
        """Return the newest joint state that was measured at a time or before it.

        Raises:
            StaleInputError: There is none, or it is too old.
        """
        known = [m for m in self._history if m.stamp_s <= stamp_s + 1e-6]
        oldest_s = self.safety.config.max_joints_age_s
        if not known or stamp_s - known[-1].stamp_s > oldest_s:
            when = f"the last before is of {known[-1].stamp_s:.3f} s" if known else "none before"
            raise StaleInputError(f"no joint states at {stamp_s:.3f} s; {when}")
        return known[-1]

    def commanded(self, times_s: FloatArray) -> FloatArray:
        """Return the joints (m, j) that are commanded at times (m,), rad.

        Near times are as sent. What runs brakes after that, since every chunk ends at rest, but
        will be replaced: there it is the path that tells where the joints will be.
        """
        if self._running is None:
            raise StaleInputError("nothing is commanded yet")
        sent = np.stack([self._chunk_at(float(t)).state(float(t)).q for t in times_s])
        if self._path is None:
            return sent
        until_s = (self._branch + _KEPT_KNOTS) * chunks.KNOT_S
        behind = self._running.state(until_s).q - self._path.positions(np.array([until_s]))[0]
        left = np.exp(-np.maximum(times_s - until_s, 0.0) / _CATCHING_UP_S)
        ahead = self._path.positions(times_s) + left[:, None] * behind
        return np.where(times_s[:, None] <= until_s, sent, ahead)

    def gripper_share(self, gripper_q: FloatArray) -> float:
        """Return where the fingers are: 0 = open, 1 = closed with nothing between."""
        opened, closed = (np.array(x) for x in (self._gripper.open, self._gripper.closed))
        return float(((gripper_q - opened) / (closed - opened)).mean())

    # Control.

    def engage(self, now_s: float) -> str:
        """Let the arm move from now on; returns why not, empty if it may."""
        newest = self._history[-1] if self._history else None
        refusal = self.safety.latched and f"fault: {self.safety.latched}"
        if not refusal and self._stopped:
            refusal = "stopped; call resume first"
        if not refusal:
            refusal = self.safety.joints_fault(
                newest.stamp_s if newest else None, newest.q if newest else None, now_s
            )
        if refusal or newest is None:
            return refusal
        fastest = int(np.abs(newest.qd).argmax())
        if abs(newest.qd[fastest]) > _STANDSTILL_RAD_S and self.at_rest:
            return (
                f"{self.limits.joint_names[fastest]} moves at {newest.qd[fastest]:.2f} rad/s "
                f"without a command, limit {_STANDSTILL_RAD_S}: something else moves the arm"
            )
        outside = self.limits.violations(newest.q, tolerance=0.01)
        if outside:
            return "outside the limits: " + "; ".join(outside)
        self._begin(newest, now_s)
        return ""

    def _begin(self, newest: Measured, now_s: float) -> None:
        running = self._running
        known = running is not None and running.first_knot <= now_s / chunks.KNOT_S + 1
        if (
            running is None
            or not known
            or (np.abs(running.state(now_s).q - newest.q).max() > _SAME_PLACE_RAD)
        ):
            self.stay_here(now_s)
        self.policy.reset()
        self._engaged_s, self._path, self._traces_stamp_s = now_s, None, None
        self.closed, self.hold, self.warning = None, "", ""

    def disengage(self) -> None:
        """Let the arm come to rest and stay there; the fingers stay as they are."""
        self._engaged_s = self._path = None

    def stay_here(self, now_s: float) -> None:
        """Take the measured joints for what is commanded, as when nothing is really sent."""
        self._running = chunks.resting(self._inside(self._history[-1].q), now_s)
        self._sent.clear()
        self._sent.append(self._running)

    def _inside(self, q: FloatArray) -> FloatArray:
        return np.clip(q, self.limits.position_lower, self.limits.position_upper)

    def stop(self) -> None:
        """Hold until `resume`; the task stays."""
        self._stopped = True

    def resume(self) -> None:
        """End a stop."""
        self._stopped = False

    def forget(self) -> None:
        """Forget joint states and what was sent: the clock has jumped back."""
        self._history.clear()
        self._running = self._path = self._engaged_s = self._traces_stamp_s = None

    # One turn.

    def read(self, traces: Traces, T_base_camera: FloatArray) -> Prediction:
        """Bring traces to the base frame; raises a Mu0Error that says what is wrong with them."""
        return prediction_in_base(traces, T_base_camera, self.tool_pose_at(traces.stamp_ns * 1e-9))

    def plan(self, now_s: float, prediction: Stamped | None = None, *, hold: str = "") -> None:
        """Judge the inputs, and let the policy decide where to go and what the fingers do.

        Args:
            now_s: Now.
            prediction: A new one, if there is.
            hold: Why the arm must hold, if the caller knows of a reason.
        """
        if not self.engaged or self._running is None:
            return
        if prediction is not None:
            self._traces_stamp_s = prediction.stamp_s
        self.hold = self._why_hold(now_s) or hold
        if self.hold:
            self._path = None
            return
        branch = chunks.branch_knot(now_s, self._lead_s)
        ahead = self._running.knot(branch)
        state = self._robot_state(now_s, ahead.q)
        plan = self.policy.step(state, prediction)
        if plan is None:
            return
        self.closed = plan.close
        if plan.path is not None:
            self._path = plan.path
        elif plan.poses is not None:
            self._path = self._joint_path(plan, branch, ahead)

    def command(self, now_s: float) -> Chunk | None:
        """Return the chunk to send now, None if what runs need not change."""
        running = self._running
        if running is None:
            return None
        self._branch = chunks.branch_knot(now_s, self._lead_s)
        if self._path is None or not self.engaged:
            return self._brake(running, now_s)
        times = chunks.knot_times(now_s, self._lead_s)
        assert self._engaged_s is not None
        try:
            chunk = chunks.follow(
                running,
                self._path.positions(times),
                self.limits,
                now_s,
                lead_s=self._lead_s,
                speed_share=self.safety.speed_share(times, self._engaged_s),
            )
        except TrajectoryError as error:
            self.hold = str(error)
            return None
        faults = self.safety.command_faults(chunk)
        if faults:
            self.hold, self._path = "; ".join(faults), None
            return self._brake(running, now_s)
        return None if _same(running, chunk) else chunk

    def sent(self, chunk: Chunk, now_s: float) -> HandOver | None:
        """Take over a chunk that goes out now, and measure the hand-over.

        Returns:
            The measurement; None if the knot from which the chunk differs has passed: it must
            not go out, and the next one gets more time.
        """
        assert self._running is not None
        result = chunks.hand_over(self._running, chunk, self.limits, self._branch, now_s)
        if result.late_s > 0.0:
            self._lead_s = min(_LONGEST_LEAD_S, self._lead_s + result.late_s + chunks.KNOT_S)
            return None
        self._lead_s = max(self._execution.lead_s, 0.95 * self._lead_s)
        self._running = chunk
        self._sent.append(chunk)
        return result

    def _why_hold(self, now_s: float) -> str:
        """Say why the arm must hold; empty if it need not."""
        newest = self._history[-1] if self._history else None
        fault = self.safety.joints_fault(
            newest.stamp_s if newest else None, newest.q if newest else None, now_s
        )
        if not fault and newest is not None and self._running is not None:
            then_s = newest.stamp_s
            fault = self.safety.watch(self._chunk_at(then_s).state(then_s), newest.q, then_s)
        if not fault and self._stopped:
            fault = "stopped on request"
        return fault or self.safety.traces_fault(self._traces_stamp_s, now_s, *self.policy.source)

    def _chunk_at(self, t_s: float) -> Chunk:
        """Return the chunk that says what was commanded at a time of the last seconds."""
        return next((c for c in reversed(self._sent) if c.start_s <= t_s), self._sent[0])

    def _robot_state(self, now_s: float, q_ahead: FloatArray) -> RobotState:
        newest, gripper = self._history[-1], self._embodiment.gripper
        opened, closed = np.array(gripper.open), np.array(gripper.closed)
        speed = newest.gripper_qd / (closed - opened)
        path, commanded = self._path, self._chunk_at(newest.stamp_s)
        return RobotState(
            now_s=now_s,
            T_base_tool=self._model.forward(newest.q, self._embodiment.tool_frame),
            T_base_tool_ahead=self._model.forward(q_ahead, self._embodiment.tool_frame),
            gripper_share=self.gripper_share(newest.gripper_q),
            gripper_at_rest=bool(np.abs(speed).max() < _SLOW_FINGERS),
            path_ended=path is None or now_s >= path.start_s + path.duration_s,
            lag_rad=_lag(newest.q, commanded.state(newest.stamp_s)),
        )

    def _joint_path(self, plan: ToolPlan, branch: int, ahead: chunks.JointMotion) -> JointPath:
        assert plan.poses is not None
        start_s = branch * chunks.KNOT_S
        poses, self.warning = self.safety.into_workspace(plan.poses)
        try:
            path = plan_joint_path(
                self._ik,
                poses,
                self.limits,
                self._embodiment.speeds,
                q=ahead.q,
                qd=ahead.qd,
                start_s=start_s,
                careful=plan.careful,
            )
        except Mu0Error as error:
            self.warning = str(error)
            return staying(ahead.q, start_s)
        self.warning = path.shortfall or self.warning
        return path

    def _brake(self, running: Chunk, now_s: float) -> Chunk | None:
        """Return the chunk that comes to rest, None if the running one does so anyway."""
        if running is self._brake_chunk or running.end_s <= now_s + self._lead_s:
            return None
        try:
            self._brake_chunk = chunks.braked(running, self.limits, now_s, lead_s=self._lead_s)
        except TrajectoryError:
            return None  # the running chunk ends at rest too, only later
        return self._brake_chunk


def _lag(q: FloatArray, commanded: chunks.JointMotion) -> float:
    """Return how far a joint is from its command, beyond what a delay explains, rad, at most."""
    explained = _DELAY_S * np.abs(commanded.qd)
    return float(np.maximum(np.abs(q - commanded.q) - explained, 0.0).max())


def _same(running: Chunk, chunk: Chunk) -> bool:
    """Say whether a chunk only repeats the rest at which the running one ends."""
    at_rest = running.last_knot <= chunk.first_knot
    return at_rest and bool(np.abs(chunk.q - running.q[-1]).max() < 1e-6)
