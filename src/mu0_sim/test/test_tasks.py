import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu0_core.errors import ConfigError
from mu0_sim.tasks import EDGE_RANGE_M, LIFTED_M, TASK_NAMES, lifted_cubes, make_scene

seeds = st.integers(0, 2**32 - 1)
tasks = st.sampled_from(TASK_NAMES)


@given(task=tasks, seed=seeds)
def test_a_scene_is_a_function_of_task_and_seed(task, seed):
    assert make_scene(task, seed) == make_scene(task, seed)
    assert make_scene(task, seed).cubes != make_scene(task, seed + 1).cubes


@given(task=tasks, seed=seeds)
def test_cubes_stand_apart_within_reach_and_fit_every_gripper(task, seed):
    cubes = make_scene(task, seed).cubes
    for cube in cubes:
        assert EDGE_RANGE_M[0] <= cube.edge_m <= EDGE_RANGE_M[1]
        assert np.hypot(cube.xy[0] + 0.56, cube.xy[1]) < 0.70  # from the base
        assert all(0.0 <= value <= 1.0 for value in cube.rgb)
    for first, second in itertools.pairwise(cubes):
        apart = np.linalg.norm(np.subtract(first.xy, second.xy))
        assert apart > (first.edge_m + second.edge_m) / np.sqrt(2.0)


@given(seed=seeds)
def test_the_instruction_names_the_target(seed):
    scene = make_scene("lift_named", seed)
    assert {cube.name for cube in scene.cubes} == {"red_cube", "green_cube"}
    other = ({"red_cube", "green_cube"} - {scene.target}).pop()
    assert scene.target.replace("_", " ") in scene.instruction
    assert other.replace("_", " ") not in scene.instruction
    red = next(cube for cube in scene.cubes if cube.name == "red_cube")
    green = next(cube for cube in scene.cubes if cube.name == "green_cube")
    assert red.rgb[0] > 2 * red.rgb[1]
    assert green.rgb[1] > 2 * green.rgb[0]


def test_both_cubes_and_several_phrases_and_textures_occur():
    scenes = [make_scene("lift_named", seed) for seed in range(40)]
    assert {scene.target for scene in scenes} == {"red_cube", "green_cube"}
    assert len({scene.instruction for scene in scenes}) > 4
    assert len({scene.look.table_texture for scene in scenes}) > 4


def test_the_tasks_do_not_share_scenes():
    assert make_scene("lift", 3).look != make_scene("lift_named", 3).look


@pytest.mark.parametrize(
    ("task", "seed", "text"),
    [
        ("lft", 0, r"unknown task 'lft': known are lift, lift_named; did you mean 'lift'\?"),
        ("lift", -1, "seed: expected a whole number >= 0, got -1"),
        ("lift", 1.5, "seed: expected a whole number >= 0, got 1.5"),
    ],
)
def test_wrong_task_or_seed_is_refused(task, seed, text):
    with pytest.raises(ConfigError, match=text):
        make_scene(task, seed)


def test_a_cube_is_lifted_above_the_threshold_only():
    start = {"red_cube": 0.82, "green_cube": 0.82}
    now = {"red_cube": 0.82 + LIFTED_M + 1e-6, "green_cube": 0.82 + LIFTED_M - 1e-6}
    assert lifted_cubes(start, now) == ["red_cube"]
