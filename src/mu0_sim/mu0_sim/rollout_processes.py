"""Own which processes a series of rollouts starts: the simulator, and what drives the robot.

A policy that follows traces is started by the launch file that starts it on a real robot.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mu0_sim.rollouts import PolicyName, PredictorName, RolloutConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Describe a process to start.

    Attributes:
        name: For messages.
        words: The command line.
        python: Whether the command line is one of this Python's.
    """

    name: str
    words: tuple[str, ...]
    python: bool = False


def node(module: str, parameters: Mapping[str, Any]) -> Process:
    """Describe a node of this package: its module and its parameters."""
    values = {name: json.dumps(value) for name, value in parameters.items()}
    settings = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    return Process(name=module, words=("-m", module, "--ros-args", *settings), python=True)


def launch(file: str, arguments: Mapping[str, str]) -> Process:
    """Describe a launch file of mu0_bringup."""
    values = [f"{name}:={value}" for name, value in arguments.items()]
    return Process(name=file, words=("ros2", "launch", "mu0_bringup", file, *values))


def simulator(config: RolloutConfig) -> Process:
    """Return the simulator of a series.

    In step-lock it never outruns whoever answers its pictures; the expert answers none.
    """
    follows = config.policy is not PolicyName.EXPERT
    return node(
        "mu0_sim.nodes.sim_node",
        {
            "robot": config.robot,
            "task": config.task,
            "seed": config.seed,
            "step_lock": follows and not config.free_running,
            "max_real_time_factor": 1.0 if follows else 0.0,
        },
    )


def of_series(config: RolloutConfig) -> list[Process]:
    """Return what drives the robot and lives as long as the series."""
    if config.policy is PolicyName.EXPERT:
        return []
    oracle = config.predictor is PredictorName.ORACLE
    mu0 = launch(
        "mu0.launch.py",
        {
            "robot": config.robot,
            "predictor": "none" if oracle else config.predictor.value,
            "checkpoint": config.checkpoint,
            "policy": config.policy.value,
            **({"expert": config.expert} if config.expert else {}),
            "use_sim_time": "true",
            "log_level": "warn",
        },
    )
    return [mu0]


def of_episode(config: RolloutConfig, seed: int) -> list[Process]:
    """Return what drives the robot and is started anew for each scene."""
    scene = {"robot": config.robot, "task": config.task, "seed": seed}
    if config.policy is PolicyName.EXPERT:
        return [node("mu0_sim.nodes.scripted_expert_node", scene)]
    if config.predictor is PredictorName.ORACLE:
        return [node("mu0_sim.nodes.oracle_node", {**scene, "use_sim_time": True})]
    return []
