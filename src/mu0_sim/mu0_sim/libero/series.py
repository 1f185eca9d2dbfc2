"""Own a series of LIBERO episodes: its settings, what it runs, its results.

Results stand in one JSON line an episode, so that an interrupted series goes on where it stopped.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core.config import option, to_dict, validate
from mu0_core.errors import ConfigError, Mu0Error
from mu0_core.video import write_video
from mu0_sim.libero.drivers import SCRIPTED, Driver
from mu0_sim.libero.environment import RATE_HZ, LiberoEnvironment
from mu0_sim.libero.recording import LiberoRecorder
from mu0_sim.libero.scripted import TaskRefusedError
from mu0_sim.libero.suites import LiberoTask, step_limit
from mu0_sim.robot_recorder import ROBOT_FOLDER
from mu0_sim.series_folder import claim_folder, read_results

_RESULTS_FILE = "episodes.jsonl"
_MAY_CHANGE = ("episodes_per_task", "out", "json", "record")
_VIDEO_STRIDE = 2  # every so many-th picture of a failure


@dataclass(frozen=True, slots=True, kw_only=True)
class LiberoConfig:
    """Choose suite, policy and episodes."""

    suite: str = option("libero_object", description="Suite of LIBERO or LIBERO-PRO")
    tasks: tuple[int, ...] = option((), description="Numbers of its tasks; none: all", low=0)
    policy: str = option(
        SCRIPTED, description="scripted, action_expert, or module:factory of another policy"
    )
    checkpoint: Path | None = option(None, description="Folder of the policy")
    world_model: str = option("mu0-tiny", description="That it reads: shipped name or folder")
    episodes_per_task: int = option(10, description="Episodes of each task", low=1)
    drawn: bool = option(
        False, description="Draw initial states instead of the official ones, to train on"
    )
    astray: bool = option(
        False, description="Begin beside the target, as after a miss; only the scripted expert"
    )
    seed: int = option(0, description="Of drawn states and of the scripted expert", low=0)
    image_size: int = option(256, description="Width and height of pictures", unit="px", low=32)
    max_steps: int = option(
        0, description="Steps of an episode, 0.05 s each; 0: as published for the suite", low=0
    )
    via_ros: bool = option(
        False, description="Run the policy as a node, with observations and actions as topics"
    )
    record: Path | None = option(None, description="Folder for episodes that succeeded")
    out: Path | None = option(None, description="Folder of results; a series in it is resumed")
    json: bool = option(False, description="Show no progress, only the JSON line at the end")

    def __post_init__(self) -> None:
        privileged = None
        if self.via_ros and self.policy == SCRIPTED:
            privileged = (
                "via_ros: the scripted expert reads what only the simulator knows, which no topic "
                "carries; choose a policy that sees"
            )
        lost = None
        if self.astray and self.policy != SCRIPTED:
            lost = f"astray: only the scripted expert knows the target, got policy {self.policy!r}"
        odd = f"image_size: expected an even number, got {self.image_size}"
        validate(self, privileged, lost, odd if self.image_size % 2 else None)

    @property
    def steps(self) -> int:
        """Return how many steps an episode has, at most."""
        return self.max_steps or step_limit(self.suite)

    def chosen(self, tasks: list[LiberoTask]) -> list[LiberoTask]:
        """Return the tasks that are run.

        Raises:
            ConfigError: There is no task of such a number.
        """
        wrong = [i for i in self.tasks if i >= len(tasks)]
        if wrong:
            raise ConfigError(f"tasks: {self.suite} has 0 to {len(tasks) - 1}, got {wrong[0]}")
        return [tasks[i] for i in self.tasks] if self.tasks else tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class LiberoResult:
    """Hold how one episode went.

    Attributes:
        task: Number in the suite.
        episode: Number in the task; that of the initial state, if it is an official one.
        instruction: The task in words.
        success: Whether the package says that the task was done.
        steps: Steps until then, or all.
        wall_s: Time it took, s.
        note: What was remarkable.
    """

    task: int
    episode: int
    instruction: str
    success: bool
    steps: int
    wall_s: float
    note: str = ""


class LiberoResults:
    """Keep the results of a series, in memory and in a folder if there is one.

    Raises:
        ConfigError: The folder holds a series with other settings.
    """

    def __init__(self, config: LiberoConfig, tasks: list[LiberoTask]) -> None:
        self._config, self._tasks = config, config.chosen(tasks)
        self._path = config.out / _RESULTS_FILE if config.out else None
        self._results: dict[tuple[int, int], LiberoResult] = {}
        self._refused: dict[int, str] = {}
        if config.out is not None:
            claim_folder(config.out, to_dict(config), _MAY_CHANGE)
        if self._path is not None and self._path.exists():
            for result in read_results(self._path, LiberoResult):
                self._results[result.task, result.episode] = result

    def missing(self, task: LiberoTask) -> list[int]:
        """Return the episodes of a task that have no result yet."""
        wanted = range(self._config.episodes_per_task)
        return [episode for episode in wanted if (task.index, episode) not in self._results]

    def add(self, result: LiberoResult) -> None:
        """Keep a result."""
        self._results[result.task, result.episode] = result
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")

    def refuse(self, task: LiberoTask, reason: str) -> None:
        """Keep why a task is not run."""
        self._refused[task.index] = reason

    def done(self) -> list[LiberoResult]:
        """Return the results of the series so far."""
        wanted = self._config.episodes_per_task
        indices = {task.index for task in self._tasks}
        return [
            result
            for (task, episode), result in sorted(self._results.items())
            if task in indices and episode < wanted
        ]

    def successes(self) -> int:
        """Return how many episodes succeeded so far."""
        return sum(result.success for result in self.done())

    def summary(self) -> dict[str, Any]:
        """Return the figures of the series, for a machine to read."""
        done = self.done()
        per_task: dict[str, Any] = {}
        for task in self._tasks:
            own = [result for result in done if result.task == task.index]
            per_task[str(task.index)] = {
                "instruction": task.instruction,
                "episodes": len(own),
                "successes": sum(result.success for result in own),
                **({"refused": r} if (r := self._refused.get(task.index)) else {}),
            }
        n_steps = sum(result.steps for result in done)
        wall_s = sum(result.wall_s for result in done)
        return {
            "suite": self._config.suite,
            "policy": self._config.policy,
            "episodes": len(done),
            "successes": self.successes(),
            "success_rate": round(self.successes() / len(done), 4) if done else None,
            "per_task": per_task,
            "failures": [
                {"task": r.task, "episode": r.episode, "note": r.note}
                for r in done
                if not r.success
            ],
            "wall_s": round(wall_s, 1),
            "s_per_step": round(wall_s / n_steps, 4) if n_steps else None,
            "max_steps": self._config.steps,
            "settings": to_dict(self._config),
        }


def run(
    config: LiberoConfig,
    tasks: list[LiberoTask],
    results: LiberoResults,
    make_environment: Callable[[LiberoTask], LiberoEnvironment],
    driver: Driver,
) -> Iterator[LiberoResult]:
    """Run the episodes that have no result yet, task by task, and add theirs.

    Yields:
        Each result once it is kept.
    """
    for task in config.chosen(tasks):
        missing = results.missing(task)
        if not missing:
            continue
        environment = make_environment(task)
        try:
            for episode in missing:
                result = _run_episode(config, environment, driver, episode)
                results.add(result)
                yield result
        except TaskRefusedError as error:
            results.refuse(task, str(error))
        finally:
            environment.close()


def _run_episode(
    config: LiberoConfig, environment: LiberoEnvironment, driver: Driver, episode: int
) -> LiberoResult:
    """Run one episode to success or to its last step."""
    started_s = time.monotonic()
    seed = config.seed + episode
    environment.reset(None if config.drawn else episode, seed)
    driver.begin(environment, seed)
    recorder = LiberoRecorder(environment) if config.record else None
    states: list[NDArray[np.float64]] = []
    success, steps, fault = False, 0, ""
    while not success and steps < config.steps:
        states.append(environment.state())
        action = driver.action(environment)
        if recorder is not None:
            try:
                recorder.take(action)
            except Mu0Error as error:
                recorder, fault = None, f"not recorded: {error}"
        success = environment.step(action)
        steps += 1
    if success and recorder is not None and config.record is not None:
        _write(config, environment, recorder, config.record, episode)
    note = "; ".join(text for text in (driver.note(), fault) if text)
    if not success and config.out is not None:
        path = config.out / "failures" / f"task{environment.task.index}_{episode:04d}.mp4"
        pictures = (environment.picture_of(state) for state in states[::_VIDEO_STRIDE])
        write_video(path, pictures, RATE_HZ / _VIDEO_STRIDE)
    return LiberoResult(
        task=environment.task.index,
        episode=episode,
        instruction=environment.task.instruction,
        success=success,
        steps=steps,
        wall_s=round(time.monotonic() - started_s, 2),
        note=note,
    )


def _write(
    config: LiberoConfig,
    environment: LiberoEnvironment,
    recorder: LiberoRecorder,
    folder: Path,
    episode: int,
) -> None:
    """Write a demonstration, unless all of it is there."""
    kind, number = ("drawn", config.seed + episode) if config.drawn else ("official", episode)
    task = environment.task
    path = folder / f"{task.suite}_{task.index:02d}_{kind}_{number:06d}"
    if (path / ROBOT_FOLDER).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    recorder.write(
        path,
        {
            "suite": task.suite,
            "task": task.name,
            "initial_state": f"{kind} {number}",
            "policy": config.policy,
            "astray": config.astray,
        },
    )
