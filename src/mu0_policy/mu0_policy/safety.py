"""Own the one filter that every command passes on its way to the robot.

It judges what comes in (age, finiteness), what shall go out (limits of the joints at 500 Hz, the
workspace) and whether the arm does what it is told. Faults are sentences that name joint or axis,
value and limit. A bad input or command means hold; an arm that does not follow means a fault that
stays until somebody clears it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, validate
from mu0_core.embodiment import Box, JointLimits
from mu0_policy.chunk import Chunk, JointMotion, violations

FloatArray = NDArray[np.float64]

_BOX_TOLERANCE_M = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyConfig:
    """Configure what counts as safe."""

    max_traces_age_s: float = option(
        1.0, description="Age of the image behind the traces, at most", unit="s", low=0.01
    )
    max_joints_age_s: float = option(
        0.2, description="Age of the joint states, at most", unit="s", low=0.01
    )
    following_tolerance_rad: float = option(
        0.15, description="Distance of a joint from its command, at most", unit="rad", low=1e-3
    )
    following_time_s: float = option(
        0.3, description="How long it may be farther before that is a fault", unit="s", low=0.0
    )
    engage_s: float = option(
        1.0,
        description="Time after the start in which speed limits grow to full",
        unit="s",
        low=0.0,
    )
    engage_share: float = option(
        0.2, description="Share of the speed limits at the start", low=0.01, high=1.0
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(slots=True)
class SafetyFilter:
    """Judge inputs, commands and how the arm follows them.

    Args:
        config: Ages, tolerances, engaging.
        limits: Of the arm's joints.
        workspace: Where the tool may be.
        tool_place: Gives the tool's place (3,) in the base frame, m, for q (j,).
    """

    config: SafetyConfig
    limits: JointLimits
    workspace: Box
    tool_place: Callable[[FloatArray], FloatArray]
    latched: str = ""
    """The fault that stays until it is cleared; empty = none."""
    _apart_since_s: float | None = field(default=None, init=False)

    def clear(self) -> None:
        """Forget the latched fault."""
        self.latched, self._apart_since_s = "", None

    def joints_fault(self, stamp_s: float | None, q: FloatArray | None, now_s: float) -> str:
        """Say what is wrong with the newest joint state; empty = nothing.

        Args:
            stamp_s: Time of measurement, None if there never was one.
            q: (j,) rad.
            now_s: Now, on the same clock.
        """
        if stamp_s is None or q is None:
            return "no joint states yet; check the topic joint_states"
        if not np.isfinite(q).all():
            joint = int(np.argmin(np.isfinite(q)))
            return f"{self.limits.joint_names[joint]}: measured position {q[joint]} is no number"
        return _age_fault("joint states", now_s - stamp_s, self.config.max_joints_age_s)

    def traces_fault(
        self, stamp_s: float | None, now_s: float, what: str = "traces", topic: str = "mu0/traces"
    ) -> str:
        """Say what is wrong with the age of the newest traces; empty = nothing.

        Args:
            stamp_s: Of the image behind them, None if none came.
            now_s: Now, on the same clock.
            what: What came in their place, for other policies.
            topic: Where that comes from.
        """
        if stamp_s is None:
            return f"no {what} yet; check the topic {topic}"
        return _age_fault(what, now_s - stamp_s, self.config.max_traces_age_s)

    def watch(self, commanded: JointMotion, q: FloatArray, now_s: float) -> str:
        """Compare the measured joints with the command; latch a fault if they stay apart.

        Returns:
            The latched fault, new or old; empty = none.
        """
        apart = np.abs(q - commanded.q)
        joint = int(apart.argmax())
        if apart[joint] <= self.config.following_tolerance_rad:
            self._apart_since_s = None
        elif self._apart_since_s is None:
            self._apart_since_s = now_s
        if self._apart_since_s is None or self.latched:
            return self.latched
        if now_s - self._apart_since_s >= self.config.following_time_s:
            self.latched = (
                f"{self.limits.joint_names[joint]} does not follow: {apart[joint]:.3f} rad from "
                f"its command for {now_s - self._apart_since_s:.2f} s, limit "
                f"{self.config.following_tolerance_rad:g} rad; clear the fault when the cause is "
                "gone"
            )
        return self.latched

    def speed_share(self, times_s: FloatArray, engaged_s: float) -> FloatArray:
        """Return which share of the velocity limits may be used at times (m,)."""
        first = self.config.engage_share
        passed = (times_s - engaged_s) / max(1e-9, self.config.engage_s)
        return np.clip(first + (1.0 - first) * passed, first, 1.0)

    def command_faults(self, chunk: Chunk) -> list[str]:
        """Say what is wrong with a chunk that shall be sent; empty = nothing.

        Joints are sampled at 500 Hz, the tool's place at the knots. A tool that is outside the
        workspace already may come back, but not go farther out.
        """
        faults = violations(chunk, self.limits)
        places = np.stack([self.tool_place(q) for q in chunk.q])
        lower, upper = np.array(self.workspace.lower), np.array(self.workspace.upper)
        outside = np.maximum(lower - places, places - upper)
        allowed = np.maximum(outside[0], 0.0) + _BOX_TOLERANCE_M
        for axis in np.flatnonzero((~(outside <= allowed)).any(axis=0)):
            worst = places[int(np.argmax(outside[:, axis])), axis]
            faults.append(
                f"tool: {'xyz'[axis]} = {worst:.3f} m is outside the workspace "
                f"[{lower[axis]:.3f}, {upper[axis]:.3f}]"
            )
        return faults

    def into_workspace(self, poses: FloatArray) -> tuple[FloatArray, str]:
        """Bring tool poses (k, 4, 4) into the workspace.

        Returns:
            The poses, and what was changed; empty = nothing.
        """
        places = poses[:, :3, 3]
        inside = np.clip(places, self.workspace.lower, self.workspace.upper)
        moved = np.abs(inside - places)
        if not moved.size or moved.max() == 0.0:
            return poses, ""
        step, axis = np.unravel_index(int(moved.argmax()), moved.shape)
        result = poses.copy()
        result[:, :3, 3] = inside
        return result, (
            f"the path leaves the workspace: {'xyz'[axis]} = {places[step, axis]:.3f} m, limits "
            f"[{self.workspace.lower[axis]:.3f}, {self.workspace.upper[axis]:.3f}]; kept inside"
        )


def _age_fault(what: str, age_s: float, most_s: float) -> str:
    if age_s <= most_s:
        return ""
    return f"{what} are {age_s:.2f} s old, limit {most_s:g} s"
