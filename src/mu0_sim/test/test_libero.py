"""LIBERO itself, where it is installed: its suites, an episode, what is recorded of it."""

import json

import numpy as np
import pytest

pytest.importorskip("libero", reason="requirements/libero.txt is not installed")

from mu0_core.benchmark import FRONT, WRIST, ActionKind
from mu0_core.episode import read_episode
from mu0_core.episode_validator import validate_episode
from mu0_core.errors import ConfigError
from mu0_sim.libero.drivers import PolicyDriver, ScriptedDriver, ToolCommands
from mu0_sim.libero.environment import LiberoEnvironment
from mu0_sim.libero.scripted import TaskRefusedError, plan_of
from mu0_sim.libero.series import LiberoConfig
from mu0_sim.libero.suites import load_suite, suite_names
from mu0_sim.nodes.libero import main


@pytest.fixture
def environment():
    made = []

    def make(suite, index, size=64):
        made.append(LiberoEnvironment(load_suite(suite)[index], size=size))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_suites_have_their_tasks_states_and_words():
    tasks = load_suite("libero_object")
    assert len(tasks) == 10 and tasks[0].initial_states.shape[0] == 50
    assert tasks[0].instruction == "pick up the alphabet soup and place it in the basket"
    assert load_suite("libero_object_lan")[0].instruction.startswith("grab alphabet soup")
    assert "cream cheese" in load_suite("libero_object_task")[0].instruction
    assert "libero_goal_swap" in suite_names()


def test_suites_that_cannot_be_run_are_named():
    with pytest.raises(ConfigError, match="did you mean 'libero_object'"):
        load_suite("libero_objects")
    with pytest.raises(ConfigError, match="not in the package"):
        load_suite("libero_object_env")


@pytest.mark.slow
def test_the_scene_is_seen_upright_and_measured(environment):
    running = environment("libero_object", 0)
    running.reset(0)
    seen = running.observe()
    assert seen.pictures[FRONT].shape == seen.pictures[WRIST].shape == (64, 64, 3)
    # The robot stands far away at the top of the picture, the floor is near at its bottom.
    assert np.nanmean(seen.depth_m[:8]) > np.nanmean(seen.depth_m[-8:]) + 0.2
    arm = ToolCommands()
    assert np.allclose(running.T_world_base @ arm.forward(seen.q), running.T_world_tool, atol=1e-3)
    official = running.state()
    running.reset(0)
    assert np.array_equal(running.state(), official)
    drawn = []
    for seed in (1, 2):
        running.reset(None, seed=seed)
        drawn.append((running.q, running.things()["basket_1"].T_world_thing[:2, 3]))
    (q_one, basket_one), (q_two, basket_two) = drawn
    assert 1e-3 < np.abs(q_one - q_two).max() < 0.2
    assert 1e-4 < np.linalg.norm(basket_one - basket_two) < 0.05


@pytest.mark.slow
def test_tasks_beyond_the_scripted_expert_are_refused(environment):
    for index, says in ((0, "also asks for open"), (3, "covered"), (5, "no free grip")):
        running = environment("libero_goal", index)
        running.reset(0)
        with pytest.raises(TaskRefusedError, match=says):
            plan_of(running)


@pytest.mark.slow
def test_a_recorded_demonstration_can_be_played_from_its_joint_commands(tmp_path, environment):
    words = "--suite libero_object --tasks 6 --episodes-per-task 1 --image-size 64 --json"
    assert main([*words.split(), "--record", str(tmp_path)]) == 0
    path = tmp_path / "libero_object_06_official_000000"
    assert validate_episode(path) == []
    assert read_episode(path).description.strip().endswith("place it in the basket")
    with np.load(path / "robot" / "states.npz") as file:
        states = dict(file)
    closes = states["command_gripper"] < 0.02
    rows = iter(np.column_stack([states["command_q"], closes])[1:])

    class Playing:
        action_kind = ActionKind.JOINTS

        def reset(self, instruction):
            pass

        def act(self, observation):
            return next(rows)

    running, driver = environment("libero_object", 6), PolicyDriver(Playing())
    running.reset(0)
    driver.begin(running, 0)
    assert any(running.step(driver.action(running)) for _ in range(len(closes) - 1))


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "index"), [("libero_object", 0), ("libero_spatial", 4)])
def test_the_scripted_expert_does_its_tasks(suite, index, environment):
    running, driver = environment(suite, index), ScriptedDriver()
    running.reset(0)
    driver.begin(running, 0)
    assert any(running.step(driver.action(running)) for _ in range(250)), driver.note()


@pytest.mark.slow
def test_the_scripted_expert_mends_a_miss(environment):
    running, driver = environment("libero_object", 1), ScriptedDriver(astray=True)
    closed = []
    for seed in range(4):
        running.reset(None, seed)
        place_xyz = running.things()["cream_cheese_1"].T_world_thing[:3, 3]
        assert np.linalg.norm(running.T_world_tool[:3, 3] - place_xyz) > 0.25
        driver.begin(running, seed)
        assert np.linalg.norm(running.T_world_tool[:3, 3] - place_xyz) < 0.25
        closed.append(running.finger_m < 0.01)
        assert any(running.step(driver.action(running)) for _ in range(250)), driver.note()
    assert 0 < sum(closed) < 4


@pytest.mark.slow
def test_without_a_place_beside_the_target_nothing_is_done(environment, monkeypatch):
    running, driver = environment("libero_object", 1), ScriptedDriver(astray=True)
    running.reset(None, 0)
    monkeypatch.setattr("mu0_sim.libero.scripted._clear", lambda T, points: False)
    driver.begin(running, 0)
    assert driver.note() == "cream_cheese_1: no place beside it is free for the hand"
    assert not driver.action(running)[:6].any()


def test_only_the_scripted_expert_goes_astray():
    with pytest.raises(ConfigError, match="astray: only the scripted expert"):
        LiberoConfig(policy="action_expert", astray=True)


@pytest.mark.slow
@pytest.mark.ros
def test_an_episode_goes_the_same_way_over_topics(sighted, monkeypatch, capsys):
    pytest.importorskip("rclpy")
    words = f"--policy {sighted} --tasks 0 --episodes-per-task 1 --max-steps 4 --image-size 32"
    states, close = [], LiberoEnvironment.close

    def watched(self):
        states.append(self.state())
        close(self)

    monkeypatch.setattr(LiberoEnvironment, "close", watched)
    for extra in ([], ["--via-ros"]):
        assert main([*words.split(), "--json", *extra]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["episodes"] == 1
    assert np.array_equal(states[0], states[1])
