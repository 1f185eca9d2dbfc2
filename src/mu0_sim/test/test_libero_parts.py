"""The parts of the LIBERO command that need no LIBERO."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu0_core import se3
from mu0_core.benchmark import (
    FRONT,
    WRIST,
    ActionKind,
    Observation,
    PolicySettings,
    load_policy,
)
from mu0_core.camera import Camera
from mu0_core.errors import ConfigError, Mu0Error, ShapeError, TrajectoryError
from mu0_sim.libero import suites
from mu0_sim.libero.drivers import PolicyDriver, ToolCommands, goal_pose, tool_action
from mu0_sim.libero.environment import JOINTS, NS_PER_S, RATE_HZ, gripper_share
from mu0_sim.libero.grasp import find_grasp, free
from mu0_sim.libero.scripted import TaskRefusedError
from mu0_sim.libero.series import LiberoConfig, LiberoResult, LiberoResults, run
from mu0_sim.libero.surfaces import box_points
from mu0_sim.nodes.libero import main

T_WORLD_TOOL = se3.make_transform(np.diag([1.0, -1.0, -1.0]), [0.0, 0.0, 0.4])
BASE = np.array([-0.6, 0.0, 0.0])


def box(size, at):
    return box_points(np.array(size) / 2.0, 0.006) + at


class FakeEnvironment:
    """A task that is done after some steps."""

    def __init__(self, task, done_after=3):
        self.task, self.done_after, self.closed = task, done_after, False

    def reset(self, state, seed):
        self.began, self.steps = (state, seed), 0

    def state(self):
        return np.array([float(self.steps)])

    def step(self, action):
        self.steps += 1
        return self.steps >= self.done_after

    def picture_of(self, state):
        return np.full((32, 32, 3), int(state[0]), np.uint8)

    def close(self):
        self.closed = True


class FakeDriver:
    def begin(self, environment, seed):
        pass

    def action(self, environment):
        return np.zeros(7)

    def note(self):
        return ""


def tasks_of(n, suite="libero_object"):
    return [
        SimpleNamespace(
            suite=suite,
            index=i,
            name=f"task_{i}",
            instruction=f"do {i}",
            initial_states=np.zeros((50, 3)),
        )
        for i in range(n)
    ]


def test_a_box_is_gripped_across_its_narrow_side_and_above_its_floor():
    target = box((0.16, 0.04, 0.06), (0.1, 0.2, 0.03))
    grasp = find_grasp(target, np.zeros((0, 3)), T_WORLD_TOOL, BASE)
    across = grasp.T_world_tool[:3, 1]
    assert abs(across[1]) > 0.9 and np.allclose(grasp.T_world_tool[:3, 2], [0.0, 0.0, -1.0])
    assert abs(grasp.T_world_tool[1, 3] - 0.2) < 0.005
    assert 0.01 < grasp.T_world_tool[2, 3] < 0.06


def test_a_neighbour_moves_the_grip_and_nothing_is_hit():
    target = box((0.05, 0.05, 0.06), (0.0, 0.0, 0.03))
    wall = box((0.2, 0.02, 0.1), (0.0, 0.045, 0.05))
    freely = find_grasp(target, np.zeros((0, 3)), T_WORLD_TOOL, BASE).T_world_tool
    beside = find_grasp(target, wall, T_WORLD_TOOL, BASE).T_world_tool
    assert not free(se3.transform_points(se3.inverse(freely), wall))
    assert free(se3.transform_points(se3.inverse(beside), wall))


def test_a_bowl_is_gripped_at_its_rim():
    angle = np.linspace(0.0, 2.0 * np.pi, 90, endpoint=False)
    heights = np.linspace(0.0, 0.06, 11)
    a, z = np.meshgrid(angle, heights)
    bowl = np.stack([0.07 * np.cos(a), 0.07 * np.sin(a), z], axis=-1).reshape(-1, 3)
    at = find_grasp(bowl, np.zeros((0, 3)), T_WORLD_TOOL, BASE).T_world_tool[:2, 3]
    assert 0.05 < np.linalg.norm(at) < 0.09


def test_what_is_too_wide_is_refused_with_its_size():
    with pytest.raises(TrajectoryError, match=r"\[0\.2, 0\.2, 0\.1\] m"):
        find_grasp(box((0.2, 0.2, 0.1), (0, 0, 0.05)), np.zeros((0, 3)), T_WORLD_TOOL, BASE)


@given(st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=6), st.sampled_from([-1.0, 1.0]))
def test_an_action_is_found_again_in_the_pose_it_leads_to(move, gripper):
    action = np.array([*move, gripper])
    T = se3.exp([0.3, -0.1, 0.4, 0.5, -2.0, 1.0])
    assert np.allclose(tool_action(T, goal_pose(T, action), gripper), action, atol=1e-6)


def test_joint_commands_lead_the_tool_where_the_action_did():
    arm = ToolCommands()
    q = np.array([0.0, -0.16, 0.0, -2.44, 0.0, 2.23, 0.79])
    action = np.array([0.5, -0.6, 0.4, 0.1, 0.2, -0.5, 1.0])
    command = np.append(arm.joints_for(action, q), 1.0)
    assert np.abs(command[:-1] - q).max() > 0.05
    again = arm.libero_action(command, ActionKind.JOINTS, q)
    assert np.allclose(again, action, atol=5e-3)
    assert np.array_equal(arm.libero_action(action, ActionKind.LIBERO, q), action)


@pytest.mark.parametrize("answer", [np.zeros(6), np.full(8, np.nan)])
def test_an_answer_that_is_no_action_is_refused(answer):
    with pytest.raises(ShapeError, match="8 finite numbers"):
        ToolCommands().libero_action(answer, ActionKind.JOINTS, np.zeros(7))


def test_a_policy_is_told_the_task_and_asked_about_what_is_seen():
    class Policy:
        action_kind = ActionKind.LIBERO

        def reset(self, instruction):
            self.told = instruction

        def act(self, observation):
            return np.full(7, observation.q[0])

    policy = Policy()
    environment = FakeEnvironment(tasks_of(1)[0])
    environment.observe = lambda: SimpleNamespace(q=np.full(7, 0.25))
    driver = PolicyDriver(policy)
    driver.begin(environment, 0)
    assert policy.told == "do 0"
    assert np.array_equal(driver.action(environment), np.full(7, 0.25))


def test_a_series_goes_on_where_it_stopped_and_sums_up(tmp_path):
    config = LiberoConfig(episodes_per_task=2, out=tmp_path / "out", max_steps=5)
    tasks = tasks_of(2)
    results = LiberoResults(config, tasks)
    built = []

    def build(task):
        built.append(FakeEnvironment(task, done_after=3 if task.index == 0 else 9))
        return built[-1]

    first = next(iter(run(config, tasks, results, build, FakeDriver())))
    assert (first.success, first.steps) == (True, 3)
    again = LiberoResults(config, tasks)
    assert again.missing(tasks[0]) == [1]
    assert len(list(run(config, tasks, again, build, FakeDriver()))) == 3
    assert built[1].began == (1, 1) and all(environment.closed for environment in built[1:])
    summary = again.summary()
    assert (summary["episodes"], summary["successes"]) == (4, 2)
    assert summary["per_task"]["1"] == {"instruction": "do 1", "episodes": 2, "successes": 0}
    assert [failure["task"] for failure in summary["failures"]] == [1, 1]
    assert json.loads(json.dumps(summary))["settings"]["suite"] == "libero_object"
    assert sorted(p.name for p in (tmp_path / "out" / "failures").iterdir()) == [
        "task1_0000.mp4",
        "task1_0001.mp4",
    ]
    with pytest.raises(ConfigError, match="seed: the series in"):
        LiberoResults(LiberoConfig(out=tmp_path / "out", seed=3), tasks)


def test_drawn_states_follow_the_seed():
    config = LiberoConfig(episodes_per_task=1, drawn=True, seed=7)
    tasks, built = tasks_of(1), []

    def build(task):
        built.append(FakeEnvironment(task))
        return built[-1]

    list(run(config, tasks, LiberoResults(config, tasks), build, FakeDriver()))
    assert built[0].began == (None, 7)


def test_a_refused_task_is_no_failure():
    class Refusing(FakeDriver):
        def begin(self, environment, seed):
            raise TaskRefusedError("only picks and places")

    config, tasks = LiberoConfig(episodes_per_task=2), tasks_of(1)
    results = LiberoResults(config, tasks)
    assert list(run(config, tasks, results, FakeEnvironment, Refusing())) == []
    summary = results.summary()
    assert summary["episodes"] == 0 and summary["success_rate"] is None
    assert summary["per_task"]["0"]["refused"] == "only picks and places"


def test_results_of_other_tasks_and_further_episodes_do_not_count():
    config = LiberoConfig(episodes_per_task=1, tasks=(1,))
    results = LiberoResults(config, tasks_of(2))
    for task, episode in ((0, 0), (1, 0), (1, 1)):
        results.add(
            LiberoResult(
                task=task, episode=episode, instruction="", success=True, steps=1, wall_s=1.0
            )
        )
    assert results.summary()["episodes"] == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"via_ros": True}, "reads what only the simulator knows"),
        ({"image_size": 129}, "even"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        LiberoConfig(**changes)


def test_the_steps_of_an_episode_are_the_suites(monkeypatch):
    assert suites.step_limit("libero_object") == suites.step_limit("libero_object_lan") == 280
    assert suites.step_limit("libero_10_swap") == 520
    assert LiberoConfig(max_steps=7).steps == 7
    with pytest.raises(ConfigError, match="0 to 1, got 5"):
        LiberoConfig(tasks=(5,)).chosen(tasks_of(2))


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.split(".")[0] == "libero"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "libero", None)
    with pytest.raises(SystemExit) as ended:
        main(["--suite", "libero_object", "--episodes-per-task", "1", "--json"])
    assert ended.value.code == 2
    assert "requirements/libero.txt" in capsys.readouterr().err


class SeenEnvironment(FakeEnvironment):
    """Random pictures and joints, the same for the same seed."""

    def __init__(self, seed):
        super().__init__(tasks_of(1)[0])
        self.rng = np.random.default_rng(seed)
        self.stamp_ns = -50_000_000

    def observe(self):
        self.stamp_ns += 50_000_000
        self.finger_m = self.rng.uniform(0.0, 0.04)
        depth = self.rng.uniform(0.1, 3.0, (24, 24)).astype(np.float32)
        depth[0, :3] = np.nan
        return Observation(
            pictures={
                name: self.rng.integers(0, 255, (24, 24, 3), np.uint8) for name in (FRONT, WRIST)
            },
            depth_m=depth,
            camera=Camera.from_fovy(0.7, 24, 24),
            T_base_camera=se3.exp(self.rng.uniform(-1.0, 1.0, 6)),
            q=self.rng.uniform(-1.0, 1.0, 7),
            gripper=gripper_share(self.finger_m),
            joints=JOINTS,
            rate_hz=RATE_HZ,
            time_s=self.stamp_ns / NS_PER_S,
            wrist_camera=Camera.from_fovy(self.rng.uniform(0.6, 1.3), 24, 24),
        )


@pytest.mark.ros
def test_the_same_observations_get_the_same_actions_over_topics(sighted):
    pytest.importorskip("rclpy")
    from mu0_sim.nodes.libero_link import RosDriver

    settings = PolicySettings()
    here = PolicyDriver(load_policy(sighted, settings))
    there = RosDriver(sighted, settings, domain_id=1 + os.getpid() % 100)
    try:
        for seed in range(2):
            near, far = SeenEnvironment(seed), SeenEnvironment(seed)
            here.begin(near, 0)
            there.begin(far, 0)
            for _ in range(3):
                action = here.action(near)
                assert np.ptp(action) > 0.1
                assert np.array_equal(there.action(far), action)
    finally:
        there.close()


@pytest.mark.ros
def test_a_policy_whose_process_ends_is_no_endless_wait():
    pytest.importorskip("rclpy")
    from mu0_sim.nodes.libero_link import RosDriver

    driver = RosDriver("nobodys", PolicySettings(), domain_id=1 + os.getpid() % 100)
    try:
        with pytest.raises(Mu0Error, match="has ended"):
            driver.begin(SeenEnvironment(0), 0)
    finally:
        driver.close()
