import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from mu0_core.errors import ConfigError
from mu0_sim.command_log import CommandLog
from mu0_sim.controllers import JointTrajectory
from mu0_sim.robots import load_robot
from mu0_sim.rollout_processes import node, of_episode, of_series, simulator
from mu0_sim.rollouts import (
    EpisodeResult,
    PolicyName,
    PredictorName,
    Results,
    RolloutConfig,
    SuccessWatch,
)
from mu0_sim.simulation import Simulation, SimulationConfig

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def embodiment_file():
    return ROOT / "src/mu0_policy/config/embodiments/panda.yaml"


def make_result(seed, success=True):
    return EpisodeResult(
        seed=seed, instruction="lift the cube", success=success, simulated_s=8.0, wall_s=4.0
    )


def test_success_counts_only_after_it_lasted():
    watch = SuccessWatch(start_s=10.0, time_limit_s=20.0, hold_s=1.0)
    assert watch.update(11.0, True) is None
    assert watch.update(11.9, False) is None
    assert watch.update(12.0, True) is None
    assert watch.update(12.9, True) is None
    assert watch.update(13.0, True) is True


def test_an_episode_fails_at_its_limit_also_when_success_came_too_late():
    watch = SuccessWatch(start_s=10.0, time_limit_s=20.0, hold_s=1.0)
    assert watch.update(29.5, True) is None
    assert watch.update(30.0, True) is False


def test_a_series_goes_on_where_it_stopped(tmp_path):
    config = RolloutConfig(episodes=3, seed=7, out=tmp_path / "series")
    results = Results(config)
    assert results.missing_seeds() == [7, 8, 9]
    results.add(make_result(8))
    results.add(make_result(7, success=False))
    again = Results(config)
    assert again.missing_seeds() == [9]
    assert again.successes() == 1
    assert again.summary()["failed_seeds"] == [7]
    longer = Results(RolloutConfig(episodes=5, seed=7, out=tmp_path / "series"))
    assert longer.missing_seeds() == [9, 10, 11]


def test_another_series_in_the_folder_is_not_mixed_in(tmp_path):
    Results(RolloutConfig(out=tmp_path))
    with pytest.raises(ConfigError, match="task: the series in .* has 'lift', got 'lift_named'"):
        Results(RolloutConfig(out=tmp_path, task="lift_named"))


def test_a_torn_line_is_named(tmp_path):
    config = RolloutConfig(episodes=2, out=tmp_path)
    Results(config).add(make_result(5000))
    with (tmp_path / "episodes.jsonl").open("a") as file:
        file.write('{"seed": 50')
    with pytest.raises(ConfigError, match=r"episodes.jsonl, line 2: not a result"):
        Results(config)


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = Results(RolloutConfig(episodes=1))
    results.add(make_result(5000))
    assert results.summary()["successes"] == 1
    assert list(tmp_path.iterdir()) == []


def test_summary_is_json():
    summary = Results(RolloutConfig()).summary()
    assert json.loads(json.dumps(summary))["settings"]["policy"] == "trace_follower"


def test_unknown_robots_and_tasks_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'ur5e'"):
        RolloutConfig(robot="ur5")
    with pytest.raises(ConfigError, match="unknown task 'stack'"):
        RolloutConfig(task="stack")


def test_the_summary_counts_what_was_lifted_and_what_was_named():
    results = Results(RolloutConfig(episodes=3, task="lift_named"))
    for seed, lifted, named in ((5000, ("red_cube",), True), (5001, ("green_cube",), False)):
        results.add(replace(make_result(seed, named), lifted=lifted, named=named))
    results.add(replace(make_result(5002, False), limit_violations=2, handover_velocity_jump=0.1))
    results.note_timing(real_time_factor=0.5)
    summary = results.summary()
    assert (summary["lifted_named"], summary["lifted_any"], summary["successes"]) == (1, 2, 1)
    assert summary["limit_violations"] == 2
    assert summary["handover_velocity_jump"] == 0.1
    assert summary["real_time_factor"] == 0.5
    assert summary["failed_seeds"] == [5001, 5002]


def test_parameters_reach_a_node_with_their_types():
    parameters = {"robot": "ur5e", "seed": 3, "lock": True, "factor": 0.0}
    words = node("some.node", parameters).words
    assert words[:3] == ("-m", "some.node", "--ros-args")
    pairs = dict(word.split(":=") for word in words[4::2])
    assert {name: yaml.safe_load(value) for name, value in pairs.items()} == parameters
    assert isinstance(yaml.safe_load(pairs["factor"]), float)


@pytest.mark.parametrize("policy", list(PolicyName))
@pytest.mark.parametrize("predictor", list(PredictorName))
def test_every_policy_names_nodes_that_exist(policy, predictor):
    pytest.importorskip("rclpy")
    acts = policy is PolicyName.ACTION_EXPERT
    if acts and predictor is not PredictorName.MODEL:
        pytest.skip("an action expert needs the model")
    expert = "some/expert" if acts else ""
    config = RolloutConfig(policy=policy, predictor=predictor, expert=expert)
    processes = [simulator(config), *of_series(config), *of_episode(config, 5000)]
    for process in processes:
        if process.python:
            __import__(process.name)
            assert callable(sys.modules[process.name].main)
        else:
            assert process.words[:3] == ("ros2", "launch", "mu0_bringup")
    words = [word for process in processes for word in process.words]
    assert ("expert:=some/expert" in words) == acts
    truths = [process.name for process in processes if "oracle" in process.name]
    follows = policy is PolicyName.TRACE_FOLLOWER
    assert bool(truths) == (follows and predictor is PredictorName.ORACLE)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, "expected the folder"),
        ({"expert": "x/", "predictor": PredictorName.ORACLE}, "needs the model"),
    ],
)
def test_an_action_expert_needs_its_folder_and_the_model(changes, what):
    with pytest.raises(ConfigError, match=what):
        RolloutConfig(policy=PolicyName.ACTION_EXPERT, **changes)


def straight(start_s, q, qd, speed, seconds=0.5):
    """One joint of a Panda speeds up and comes to rest; the others stand still."""
    times_s = np.array([0.0, seconds / 2, seconds])
    qs, qds = np.tile(q, (3, 1)), np.zeros((3, len(q)))
    qds[0] = qd
    qs[1:, 0] += speed * seconds * np.array([0.25, 0.5])
    qds[1, 0] = speed
    names = load_robot("panda").arm_joints
    return JointTrajectory(joint_names=names, times_s=times_s, q=qs, qd=qds, start_s=start_s)


def test_commands_are_checked_as_the_controller_follows_them(embodiment_file):
    log = CommandLog(Simulation(SimulationConfig()), str(embodiment_file))
    assert log.violations() == 0
    home = load_robot("panda").home_q
    rest = np.zeros(len(home))
    log.add(straight(10.0, home, rest, speed=0.005))
    assert log.violations() == 0
    log.begin()
    log.add(straight(10.0, home, rest, speed=1.9))
    assert log.violations() > 10  # accelerates at once
    assert log.velocity_jump() == 0.0
    log.begin()
    log.add(straight(10.0, home, rest, speed=0.1))
    log.add(straight(10.3, home + 0.01, rest, speed=0.005))
    assert log.violations() >= 1  # goes on elsewhere, and with another velocity
    assert log.velocity_jump() > 0.01
    log.begin()
    assert log.violations() == 0


@pytest.mark.ros
@pytest.mark.slow
def test_the_expert_lifts_through_the_real_graph(tmp_path, capsys):
    from mu0_sim.nodes import rollouts as command

    words = ["--policy", "expert", "--episodes", "2", "--out", str(tmp_path)]
    assert command.main(words) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["successes"] == summary["episodes"] == 2


@pytest.mark.ros
@pytest.mark.slow
def test_exact_traces_lift_through_the_real_graph(tmp_path, capsys):
    from mu0_sim.nodes import rollouts as command

    words = ["--predictor", "oracle", "--episodes", "2", "--out", str(tmp_path)]
    assert command.main(words) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["lifted_named"] == summary["lifted_any"]
    assert summary["successes"] >= 1
    assert summary["limit_violations"] == 0
