import json
import sys

import pytest
import yaml

from mu0_core.errors import ConfigError
from mu0_sim.rollouts import (
    POLICIES,
    EpisodeResult,
    PolicyName,
    Process,
    Results,
    RolloutConfig,
    SuccessWatch,
    simulator_process,
)


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
    assert json.loads(json.dumps(summary))["settings"]["policy"] == "expert"


def test_unknown_robots_and_tasks_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'ur5e'"):
        RolloutConfig(robot="ur5")
    with pytest.raises(ConfigError, match="unknown task 'stack'"):
        RolloutConfig(task="stack")


def test_parameters_reach_a_node_with_their_types():
    process = Process(
        module="some.node", parameters={"robot": "ur5e", "seed": 3, "lock": True, "factor": 0.0}
    )
    words = process.arguments()
    assert words[:3] == ["-m", "some.node", "--ros-args"]
    pairs = dict(word.split(":=") for word in words[4::2])
    assert {name: yaml.safe_load(value) for name, value in pairs.items()} == process.parameters
    assert isinstance(yaml.safe_load(pairs["factor"]), float)


@pytest.mark.parametrize("policy", list(PolicyName))
def test_every_policy_names_nodes_that_exist(policy):
    config = RolloutConfig(policy=policy)
    entry = POLICIES[policy]
    processes = [
        simulator_process(config),
        *entry.of_series(config),
        *entry.of_episode(config, 5000),
    ]
    for process in processes:
        pytest.importorskip("rclpy")
        __import__(process.module)
        assert callable(sys.modules[process.module].main)


@pytest.mark.ros
@pytest.mark.slow
def test_the_expert_lifts_through_the_real_graph(tmp_path, capsys):
    from mu0_sim.nodes import rollouts as command

    words = ["--robot", "panda", "--episodes", "2", "--out", str(tmp_path)]
    assert command.main(words) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["successes"] == summary["episodes"] == 2
