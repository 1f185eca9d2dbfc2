"""Command line of LIBERO: `ros2 run mu0_sim libero --suite libero_object --policy scripted`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from tqdm import tqdm

from mu0_core.benchmark import load_policy
from mu0_core.config import add_arguments, from_namespace
from mu0_core.errors import Mu0Error
from mu0_sim.libero.drivers import (
    SCRIPTED,
    Driver,
    PolicyDriver,
    ScriptedDriver,
    policy_settings,
)
from mu0_sim.libero.environment import LiberoEnvironment
from mu0_sim.libero.series import LiberoConfig, LiberoResults, run
from mu0_sim.libero.suites import LiberoTask, load_suite


def make_driver(config: LiberoConfig, stack: ExitStack) -> Driver:
    """Make what drives the robot; what it needs to end is left on the stack.

    Raises:
        Mu0Error: There is no such policy, or it does not start.
    """
    if config.policy == SCRIPTED:
        return ScriptedDriver(astray=config.astray)
    settings = policy_settings(config.checkpoint, config.world_model)
    if not config.via_ros:
        return PolicyDriver(load_policy(config.policy, settings))
    from mu0_sim.nodes.libero_link import RosDriver

    driver = RosDriver(config.policy, settings, domain_id=1 + os.getpid() % 100)
    stack.callback(driver.close)
    return driver


def _run(config: LiberoConfig) -> LiberoResults:
    """Run a series with its progress."""

    def build(task: LiberoTask) -> LiberoEnvironment:
        return LiberoEnvironment(task, size=config.image_size)

    tasks = load_suite(config.suite)
    results = LiberoResults(config, tasks)
    total = len(config.chosen(tasks)) * config.episodes_per_task
    with (
        ExitStack() as stack,
        tqdm(total=total, initial=len(results.done()), unit="episode", disable=config.json) as bar,
    ):
        driver = make_driver(config, stack)
        for result in run(config, tasks, results, build, driver):
            bar.update()
            bar.set_postfix(successes=results.successes())
            if not result.success or result.note:
                where = f"task {result.task}, episode {result.episode}"
                tqdm.write(f"{where}: {result.note or 'time-out'}", file=sys.stderr)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a series; the last line of the output is its summary as JSON."""
    parser = argparse.ArgumentParser(prog="libero", description=__doc__)
    add_arguments(parser, LiberoConfig)
    try:
        words = sys.argv[1:] if arguments is None else arguments
        config = from_namespace(LiberoConfig, parser.parse_args([_spelled(w) for w in words]))
        summary = _run(config).summary()
    except Mu0Error as error:
        parser.exit(2, f"libero: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "libero: stopped; the same command with --out goes on from here\n")
    for task in summary["per_task"].values():
        if "refused" in task:
            sys.stderr.write(f"refused: {task['refused']}\n")
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0


def _spelled(word: str) -> str:
    """Accept hyphens for underscores in the names of options."""
    if not word.startswith("--"):
        return word
    prefix = "--no-" if word.startswith("--no-") else "--"
    name, equals, value = word.removeprefix(prefix).partition("=")
    return prefix + name.replace("-", "_") + equals + value


if __name__ == "__main__":
    sys.exit(main())
