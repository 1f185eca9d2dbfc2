"""Own what a series of rollouts is: its settings, its policies and its results.

Results stand in one JSON line an episode, so that an interrupted series goes on where it stopped.
What is started is said in `mu0_sim.rollout_processes`; starting it and talking to it is left to
`mu0_sim.nodes.rollouts`.
"""

import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mu0_core.config import option, to_dict, validate
from mu0_sim.series_folder import claim_folder, read_results
from mu0_sim.simulation import SimulationConfig

_RESULTS_FILE = "episodes.jsonl"
_MAY_CHANGE = ("episodes", "out", "json")


class PolicyName(Enum):
    """Name what drives the robot."""

    TRACE_FOLLOWER = "trace_follower"
    ACTION_EXPERT = "action_expert"
    EXPERT = "expert"


class PredictorName(Enum):
    """Name what predicts the traces that are followed."""

    MODEL = "model"
    STATIC = "static"
    CONSTANT_VELOCITY = "constant_velocity"
    ORACLE = "oracle"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """Choose robot, task, policy and episodes of a series."""

    robot: str = option("panda", description="panda, ur5e or iiwa")
    task: str = option("lift", description="lift or lift_named")
    episodes: int = option(20, description="Number of episodes", low=1)
    seed: int = option(5000, description="Seed of the first scene; the next ones count up", low=0)
    policy: PolicyName = option(PolicyName.TRACE_FOLLOWER, description="What drives the robot")
    predictor: PredictorName = option(
        PredictorName.MODEL,
        description="Whose traces are followed; oracle: exact ones, which only a simulator has",
    )
    checkpoint: str = option("mu0-tiny", description="Of the model: shipped name or folder")
    expert: str = option("", description="Folder of the action expert, where that is the policy")
    free_running: bool = option(
        False,
        description="Let simulated time run without waiting for traces, at most in real time",
    )
    time_limit_s: float = option(
        30.0, description="Simulated time of an episode, at most", unit="s", low=1.0
    )
    hold_s: float = option(
        1.0, description="How long success must last", unit="s of simulated time", low=0.0
    )
    out: Path | None = option(None, description="Folder of results; a series in it is resumed")
    json: bool = option(False, description="Show no progress, only the JSON line at the end")

    def __post_init__(self) -> None:
        acts = self.policy is PolicyName.ACTION_EXPERT
        predicts = self.predictor is PredictorName.MODEL
        validate(
            self,
            "expert: expected the folder of an action expert"
            if acts and not self.expert
            else None,
            "predictor: an action expert needs the model" if acts and not predicts else None,
        )
        SimulationConfig(robot=self.robot, task=self.task, seed=self.seed)  # says what is wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """Hold how one episode went.

    Attributes:
        seed: Of its scene.
        instruction: The task in words.
        success: Whether the task was done, and stayed done for `hold_s`.
        simulated_s: Simulated time until success or the limit.
        wall_s: Time it took, s.
        lifted: Names of the cubes that were lifted at some time.
        named: Whether the one that the instruction means is among them.
        limit_violations: Samples at 500 Hz of the commanded motion that break a limit.
        handover_velocity_jump: Largest, as a share of the joint's velocity limit.
        refused_trajectories: Commands that the simulated controllers refused.
        note: How the task ended, or why the episode ended early.
    """

    seed: int
    instruction: str
    success: bool
    simulated_s: float
    wall_s: float
    lifted: tuple[str, ...] = ()
    named: bool = False
    limit_violations: int = 0
    handover_velocity_jump: float = 0.0
    refused_trajectories: int = 0
    note: str = ""


class SuccessWatch:
    """Decide when an episode is over, from what the simulator says about success."""

    def __init__(self, *, start_s: float, time_limit_s: float, hold_s: float) -> None:
        self._start_s = start_s
        self._end_s = start_s + time_limit_s
        self._hold_s = hold_s
        self._since_s: float | None = None

    def update(self, now_s: float, success: bool) -> bool | None:
        """Take the state at a simulated time; return the verdict, None while there is none."""
        if not success:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        if self._since_s is not None and now_s - self._since_s >= self._hold_s:
            return True
        return False if now_s >= self._end_s else None


class Results:
    """Keep the results of a series, in memory and in a folder if there is one.

    Raises:
        ConfigError: The folder holds a series with other settings.
    """

    def __init__(self, config: RolloutConfig) -> None:
        self._config = config
        self._path = config.out / _RESULTS_FILE if config.out else None
        self._results: dict[int, EpisodeResult] = {}
        self._timing: dict[str, Any] = {}
        if config.out is not None:
            claim_folder(config.out, to_dict(config), _MAY_CHANGE)
        if self._path is not None and self._path.exists():
            self._results = {r.seed: r for r in read_results(self._path, EpisodeResult)}

    def missing_seeds(self) -> list[int]:
        """Return the seeds of the series that have no result yet."""
        return [seed for seed in self._seeds() if seed not in self._results]

    def add(self, result: EpisodeResult) -> None:
        """Keep a result."""
        self._results[result.seed] = result
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")

    def note_timing(self, **figures: Any) -> None:
        """Keep figures of the whole series: latencies, how fast simulated time ran."""
        self._timing |= figures

    def successes(self) -> int:
        """Return how many episodes of the series succeeded so far."""
        return sum(self._results[seed].success for seed in self._seeds() if seed in self._results)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the series, for a machine to read."""
        done = [self._results[seed] for seed in self._seeds() if seed in self._results]
        return {
            "episodes": len(done),
            "successes": self.successes(),
            "lifted_named": sum(result.named for result in done),
            "lifted_any": sum(bool(result.lifted) for result in done),
            "limit_violations": sum(result.limit_violations for result in done),
            "handover_velocity_jump": max((r.handover_velocity_jump for r in done), default=0.0),
            "refused_trajectories": sum(result.refused_trajectories for result in done),
            **self._timing,
            "failed_seeds": [result.seed for result in done if not result.success],
            "wall_s": round(sum(result.wall_s for result in done), 1),
            "settings": to_dict(self._config),
        }

    def _seeds(self) -> range:
        return range(self._config.seed, self._config.seed + self._config.episodes)
