"""Command line of rollouts: `ros2 run mu0_sim rollouts --robot panda --policy expert`.

Runs seeded episodes through the real graph: simulator and policy are processes of their own, and
this one resets scenes and watches for success.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool
from tqdm import tqdm

from mu0_core.config import add_arguments, from_namespace
from mu0_core.errors import Mu0Error
from mu0_core.ros.interfaces import create_client, create_subscription
from mu0_core.ros.messages import seconds_from_stamp
from mu0_msgs.srv import ResetSimulation
from mu0_sim.rollouts import (
    POLICIES,
    EpisodeResult,
    Process,
    Results,
    RolloutConfig,
    SuccessWatch,
    simulator_process,
)

_START_TIMEOUT_S = 120.0
_SILENCE_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 10.0
_SPIN_S = 0.1


class Child:
    """Run a node as a child process, in the rollouts' own domain."""

    def __init__(self, process: Process, domain_id: int) -> None:
        self.name = process.module
        environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id)}
        self._popen = subprocess.Popen(
            [sys.executable, *process.arguments()],
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._popen.poll() is not None:
            return
        self._popen.send_signal(signal.SIGINT)
        try:
            self._popen.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()

    def failure(self) -> str | None:
        """Say that the process has failed, None while it runs and after a clean end."""
        code = self._popen.poll()
        return None if not code else f"{self.name} ended with exit code {code}"

    def ended(self) -> bool:
        """Tell whether the process has ended, however."""
        return self._popen.poll() is not None


class Graph:
    """Watch and reset the simulator from outside."""

    def __init__(self, domain_id: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node("rollouts", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._reset = create_client(self._node, "sim/reset")
        create_subscription(self._node, "/clock", self._on_clock)
        create_subscription(self._node, "sim/success", self._on_success)
        self.now_s: float | None = None
        self.success = False
        self._heard_s = time.monotonic()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def reset(self, task: str, seed: int, simulator: Child) -> str:
        """Start an episode and return its instruction.

        Raises:
            Mu0Error: The simulator refused, or did not answer.
        """
        self._wait(self._reset.service_is_ready, simulator)
        future = self._reset.call_async(ResetSimulation.Request(task=task, seed=seed))
        self._wait(future.done, simulator)
        response = future.result()
        if not response.success:
            raise Mu0Error(f"the simulator refused seed {seed}: {response.message}")
        self.now_s, self.success = None, False
        self._wait(lambda: self.now_s is not None, simulator)
        return response.instruction

    def spin(self) -> None:
        """Take what has arrived.

        Raises:
            Mu0Error: The simulator has been silent for too long.
        """
        self._executor.spin_once(timeout_sec=_SPIN_S)
        if time.monotonic() - self._heard_s > _SILENCE_TIMEOUT_S:
            raise Mu0Error(f"no clock from the simulator for {_SILENCE_TIMEOUT_S:.0f} s")

    def _wait(self, done: Callable[[], bool], simulator: Child) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not done():
            if simulator.ended() or time.monotonic() > deadline_s:
                why = simulator.failure() or f"no answer within {_START_TIMEOUT_S:.0f} s"
                raise Mu0Error(f"the simulator does not run: {why}; see its log above")
            self._executor.spin_once(timeout_sec=_SPIN_S)
        self._heard_s = time.monotonic()

    def _on_clock(self, message: Clock) -> None:
        self.now_s = seconds_from_stamp(message.clock)
        self._heard_s = time.monotonic()

    def _on_success(self, message: Bool) -> None:
        self.success = message.data


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
    domain_id = 1 + os.getpid() % 100
    with ExitStack() as stack:
        graph = Graph(domain_id)
        stack.callback(graph.close)
        simulator = stack.enter_context(Child(simulator_process(config), domain_id))
        for process in POLICIES[config.policy].of_series(config):
            stack.enter_context(Child(process, domain_id))
        for seed in seeds:
            result = _run_episode(config, seed, graph, simulator, domain_id)
            results.add(result)
            yield result


def _run_episode(
    config: RolloutConfig, seed: int, graph: Graph, simulator: Child, domain_id: int
) -> EpisodeResult:
    started_s = time.monotonic()
    instruction = graph.reset(config.task, seed, simulator)
    assert graph.now_s is not None
    start_s = graph.now_s
    watch = SuccessWatch(start_s=start_s, time_limit_s=config.time_limit_s, hold_s=config.hold_s)
    verdict, note = None, ""
    with _children(POLICIES[config.policy].of_episode(config, seed), domain_id) as children:
        while verdict is None:
            graph.spin()
            verdict = watch.update(graph.now_s, graph.success)
            failures = [text for child in children if (text := child.failure())]
            if failures:
                verdict, note = False, "; ".join(failures)
            if simulator.ended():
                raise Mu0Error(f"the simulator ended in the episode of seed {seed}")
    return EpisodeResult(
        seed=seed,
        instruction=instruction,
        success=verdict,
        simulated_s=round(graph.now_s - start_s, 2),
        wall_s=round(time.monotonic() - started_s, 2),
        note=note,
    )


@contextmanager
def _children(processes: Sequence[Process], domain_id: int) -> Iterator[list[Child]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Child(process, domain_id)) for process in processes]


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
                if result.note:
                    tqdm.write(f"seed {result.seed}: {result.note}", file=sys.stderr)
    except Mu0Error as error:
        parser.exit(2, f"rollouts: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "rollouts: stopped; the same command with --out goes on from here\n")
    sys.stdout.write(json.dumps(results.summary()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
