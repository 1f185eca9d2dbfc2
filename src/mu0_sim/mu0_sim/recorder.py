"""Record demonstrations of the scripted expert as episodes, without ROS.

A series is one scene for each seed. What is there is not recorded again, so an interrupted series
goes on where it stopped. Scenes in which the expert fails leave nothing but a line in the summary.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mu0_core.config import option, validate
from mu0_core.episode_validator import validate_episode
from mu0_core.episode_writer import EpisodeOptions
from mu0_core.errors import TrajectoryError
from mu0_sim.demonstrations import go_astray, plan_demonstration, play
from mu0_sim.episode_recorder import EpisodeRecorder, PointBudget, write_demonstration
from mu0_sim.robot_control import Observer, RobotControl
from mu0_sim.robot_recorder import ROBOT_FOLDER, RobotRecorder
from mu0_sim.scripted_expert import LiftPlan, plan_lift
from mu0_sim.simulation import Simulation, SimulationConfig

_SKILLS = ("grasp", "lift")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderConfig:
    """Choose robot, task, scenes, pictures and what is written."""

    out: Path = option(description="Folder of the episodes; a series in it is resumed")
    robot: str = option("panda", description="panda, ur5e or iiwa")
    task: str = option("lift", description="lift or lift_named")
    episodes: int = option(20, description="Number of episodes", low=1)
    seed: int = option(0, description="Seed of the first scene; the next ones count up", low=0)
    astray: bool = option(
        False, description="Begin beside the target, as after a miss, instead of at home"
    )
    actions: bool = option(
        False,
        description="Keep joints, commands and a wrist camera too, to train action experts on",
    )
    bag: bool = option(False, description="Record a rosbag2 of each episode too")
    arc_step: float = option(
        0.01,
        description="Step of the traces, image fractions and metres in one norm",
        low=1e-4,
        high=1.0,
    )
    width: int = option(320, description="Width of pictures", unit="px", low=16)
    height: int = option(240, description="Height of pictures", unit="px", low=16)
    rate_hz: float = option(10.0, description="Pictures a second", unit="Hz", low=0.1, high=100.0)
    depth_noise: bool = option(False, description="Give depth the flaws of a RealSense")
    points: PointBudget = option(PointBudget(), description="How many points are tracked")

    def __post_init__(self) -> None:
        validate(self)
        self.simulation()

    def simulation(self) -> SimulationConfig:
        """Return the simulator to record in; raises a ConfigError where there is none like it."""
        return SimulationConfig(
            robot=self.robot,
            task=self.task,
            seed=self.seed,
            width=self.width,
            height=self.height,
            rate_hz=self.rate_hz,
            depth_noise=self.depth_noise,
        )


class Tape(Observer, Protocol):
    """Record a run beside the episode, such as in a bag, whole or not at all."""

    def keep(self) -> None:
        """Put the recording in its place."""

    def discard(self) -> None:
        """Leave nothing behind."""


TapeMaker = Callable[[Path, LiftPlan], Tape]
"""Make a tape for a path and the plan whose commands belong on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Hold what became of one scene.

    Attributes:
        seed: Of the scene.
        recorded: Whether its episode is there now.
        faults: What the validator says of it, or why there is none.
    """

    seed: int
    recorded: bool
    faults: tuple[str, ...] = ()


def record(config: RecorderConfig, make_tape: TapeMaker | None = None) -> Iterator[Outcome]:
    """Record a series, scene by scene.

    Args:
        config: What to record.
        make_tape: Makes bags, if they are wanted.

    Yields:
        The outcome of each seed, in order.
    """
    simulation = Simulation(config.simulation())
    try:
        for seed in range(config.seed, config.seed + config.episodes):
            yield _record_scene(simulation, config, seed, make_tape)
    finally:
        simulation.close()


def episode_path(config: RecorderConfig, seed: int) -> Path:
    """Return where the episode of a seed stands."""
    return config.out / f"{config.robot}_{config.task}_{seed:06d}"


def bag_path(config: RecorderConfig, seed: int) -> Path:
    """Return where the bag of a seed stands."""
    return config.out / "bags" / f"{config.robot}_{config.task}_{seed:06d}"


def summary(outcomes: Sequence[Outcome], started_s: float) -> dict[str, Any]:
    """Return the figures of a series, for a machine to read.

    Args:
        outcomes: Of all its seeds.
        started_s: When it began, by time.monotonic.
    """
    faulty = {str(o.seed): list(o.faults) for o in outcomes if o.faults}
    return {
        "episodes": len(outcomes),
        "successes": sum(o.recorded for o in outcomes),
        "faults": faulty,
        "seconds": round(time.monotonic() - started_s, 1),
    }


def _record_scene(
    simulation: Simulation, config: RecorderConfig, seed: int, make_tape: TapeMaker | None
) -> Outcome:
    path, bag = episode_path(config, seed), bag_path(config, seed)
    if _is_complete(path, config) and (make_tape is None or bag.exists()):
        return Outcome(seed=seed, recorded=True, faults=_faults(path))
    control = None
    try:
        if config.astray:
            control = go_astray(simulation, seed)
            plan = plan_lift(simulation, seed=seed)
        else:
            plan = plan_demonstration(simulation, seed)
    except TrajectoryError as error:
        return Outcome(seed=seed, recorded=False, faults=(f"no plan: {error}",))
    recorder = EpisodeRecorder(config.points)
    control = control or RobotControl(simulation.robot, simulation.home_command())
    robot = [RobotRecorder(control)] if config.actions else []
    tapes = [] if make_tape is None else [make_tape(bag, plan)]
    success = False
    try:
        success = play(simulation, plan, [recorder, *robot, *tapes], control)
    finally:
        for tape in tapes:
            tape.keep() if success else tape.discard()
    if not success:
        return Outcome(seed=seed, recorded=False, faults=("the object was not lifted",))
    if not path.exists():
        _write(path, simulation, recorder, config)
    for kept in robot:
        kept.write(path)
    return Outcome(seed=seed, recorded=True, faults=_faults(path))


def _is_complete(path: Path, config: RecorderConfig) -> bool:
    """Say whether an episode is there with all that is wanted of it."""
    return path.exists() and (not config.actions or (path / ROBOT_FOLDER).exists())


def _faults(path: Path) -> tuple[str, ...]:
    """Return what the validator says of an episode."""
    return tuple(str(fault) for fault in validate_episode(path))


def _write(
    path: Path, simulation: Simulation, recorder: EpisodeRecorder, config: RecorderConfig
) -> None:
    write_demonstration(
        path,
        recorder.recording(),
        simulation.instruction,
        # The recorder has chosen which resting points to track: all of them get rows.
        EpisodeOptions(arc_step=config.arc_step, static_share=1.0),
        skills=_SKILLS,
        provenance={
            "program": "mu0_sim record",
            "robot": config.robot,
            "task": config.task,
            "seed": simulation.seed,
            "policy": "scripted expert",
            "astray": config.astray,
            "depth_noise": config.depth_noise,
        },
    )
