"""Command line of rollouts: `ros2 run mu0_sim rollouts --robot panda --task lift`.

Runs seeded episodes through the real graph: simulator and policy are processes of their own, and
this one resets scenes, asks for the task and watches for success.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean

from ament_index_python.packages import get_package_share_directory
from tqdm import tqdm

from mu0_core.config import add_arguments, from_namespace
from mu0_core.errors import Mu0Error
from mu0_sim.command_log import CommandLog
from mu0_sim.nodes.child import Child
from mu0_sim.nodes.rollout_graph import RolloutGraph
from mu0_sim.rollout_processes import of_episode, of_series, simulator
from mu0_sim.rollouts import EpisodeResult, PolicyName, Results, RolloutConfig, SuccessWatch
from mu0_sim.simulation import Simulation, SimulationConfig
from mu0_sim.tasks import make_scene


class Series:
    """Hold the graph of a series while its episodes run."""

    def __init__(self, config: RolloutConfig, stack: ExitStack) -> None:
        self._config = config
        self._domain_id = 1 + os.getpid() % 100
        self._commands = _command_log(config)
        self.graph = RolloutGraph(self._domain_id, self._commands)
        stack.callback(self.graph.close)
        self._simulator = stack.enter_context(Child(simulator(config), self._domain_id))
        self._drivers = [
            stack.enter_context(Child(process, self._domain_id)) for process in of_series(config)
        ]

    def run(self, seed: int) -> EpisodeResult:
        """Run one episode.

        Raises:
            Mu0Error: The graph does not run.
        """
        config, graph = self._config, self.graph
        started_s = time.monotonic()
        instruction = graph.reset(config.task, seed, self._simulator)
        with ExitStack() as stack:
            children = list(self._drivers)
            for process in of_episode(config, seed):
                children.append(stack.enter_context(Child(process, self._domain_id)))
            if self._drivers:
                graph.begin(instruction, config.time_limit_s, self._drivers[0])
            start_s = graph.now_s or 0.0
            success, note = self._watch(start_s, children)
            graph.end()
        target = make_scene(config.task, seed).target
        lifted, commands = graph.lifted(), self._commands
        return EpisodeResult(
            seed=seed,
            instruction=instruction,
            success=success,
            simulated_s=round((graph.now_s or 0.0) - start_s, 2),
            wall_s=round(time.monotonic() - started_s, 2),
            lifted=lifted,
            named=target in lifted,
            limit_violations=0 if commands is None else commands.violations(),
            handover_velocity_jump=0.0 if commands is None else commands.velocity_jump(),
            refused_trajectories=graph.refused(),
            note=note,
        )

    def _watch(self, start_s: float, children: Sequence[Child]) -> tuple[bool, str]:
        """Wait for the end of an episode; returns whether it succeeded, and a note."""
        config, graph = self._config, self.graph
        watch = SuccessWatch(
            start_s=start_s, time_limit_s=config.time_limit_s, hold_s=config.hold_s
        )
        verdict, note = None, ""
        while verdict is None:
            graph.spin()
            verdict = watch.update(graph.now_s or 0.0, graph.success)
            note = graph.outcome()
            if note and not graph.success:
                verdict = False
            failures = [text for child in children if (text := child.failure())]
            if failures:
                return False, "; ".join(failures)
            if self._simulator.ended():
                raise Mu0Error("the simulator ended in the middle of an episode")
        return verdict, note


def run(config: RolloutConfig, results: Results) -> Iterator[EpisodeResult]:
    """Run the episodes that have no result yet, and add theirs.

    Yields:
        Each result once it is kept.

    Raises:
        Mu0Error: The graph does not run.
    """
    seeds = results.missing_seeds()
    if not seeds:
        return
    with ExitStack() as stack:
        series = Series(config, stack)
        for seed in seeds:
            result = series.run(seed)
            results.add(result)
            yield result
        figures, factors = series.graph.figures, series.graph.factors
        results.note_timing(
            command_latency_ms={
                name: figures.get(f"command_latency_{name}_ms") for name in ("p50", "p95")
            },
            real_time_factor=round(mean(factors), 2) if factors else None,
        )


def _command_log(config: RolloutConfig) -> CommandLog | None:
    """Return what checks commands against the embodiment file, where a policy has one."""
    if config.policy is PolicyName.EXPERT:
        return None
    share = Path(get_package_share_directory("mu0_policy"))
    simulation = Simulation(SimulationConfig(robot=config.robot))
    file = share / "config" / "embodiments" / f"{config.robot}.yaml"
    return CommandLog(simulation, str(file))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a series; the last line of the output is its summary as JSON."""
    parser = argparse.ArgumentParser(prog="rollouts", description=__doc__)
    add_arguments(parser, RolloutConfig)
    try:
        config = from_namespace(RolloutConfig, parser.parse_args(arguments))
        results = Results(config)
        n_done = config.episodes - len(results.missing_seeds())
        with tqdm(
            total=config.episodes, initial=n_done, unit="episode", disable=config.json
        ) as bar:
            bar.set_postfix(successes=results.successes())
            for result in run(config, results):
                bar.update()
                bar.set_postfix(successes=results.successes())
                if not result.success:
                    tqdm.write(f"seed {result.seed}: {result.note or 'time-out'}", file=sys.stderr)
    except Mu0Error as error:
        parser.exit(2, f"rollouts: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "rollouts: stopped; the same command with --out goes on from here\n")
    sys.stdout.write(json.dumps(results.summary()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
