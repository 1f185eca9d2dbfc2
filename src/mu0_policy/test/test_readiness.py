import numpy as np
import pytest

from mu0_core.errors import ConfigError, ShapeError
from mu0_core.traces import Traces
from mu0_policy.readiness import TracesConfig, check_robot

NAMES = ["jaw", "j1", "j2", "j3"]
POSITIONS = [0.04, 1.2, -2.0, 0.8]


def refusal(*arguments):
    with pytest.raises(ConfigError) as caught:
        check_robot(*arguments)
    return str(caught.value)


def test_a_robot_that_everybody_describes_alike_is_ready(embodiment, urdf, model):
    T = model.forward(POSITIONS[1:], "tool0")
    assert check_robot(embodiment, urdf, NAMES, POSITIONS, T).joint_names == ("j1", "j2", "j3")


def test_all_that_is_missing_is_named(embodiment, urdf):
    text = refusal(embodiment, urdf, None, [], None)
    assert "the robot is not ready for embodiment 'planar':" in text
    assert "joint_states: none came; is joint_state_broadcaster running?" in text
    assert "TF: no transform from 'tool0' to 'base_link' came" in text


def test_joints_that_are_not_published_are_named(embodiment, urdf):
    text = refusal(embodiment, urdf, ["j1", "j3"], [0.0, 0.0], np.eye(4))
    assert "joint_states: expected j2, jaw, got only j1, j3" in text


def test_positions_must_be_numbers_within_the_limits(embodiment, urdf, model):
    T = model.forward(POSITIONS[1:], "tool0")
    text = refusal(embodiment, urdf, NAMES, [0.04, np.nan, 0.0, 0.0], T)
    assert "joint_states: position of j1 is nan" in text
    text = refusal(embodiment, urdf, NAMES, [0.04, 1.2, -2.7, 0.8], T)
    assert "joint_states: j2: position -2.7000 rad, limits [-2.5000, 2.5000]" in text


def test_tf_must_agree_with_joints_and_description(embodiment, urdf, model):
    T = model.forward([1.2, -2.0, 1.0], "tool0")
    text = refusal(embodiment, urdf, NAMES, POSITIONS, T)
    assert "TF puts 'tool0' at [" in text and "0.20 rad apart, limits" in text


def traces(**changes):
    n, s, horizon = 1, 1, 32
    values = {
        "stamp_ns": 0,
        "frame_id": "camera",
        "instruction": "",
        "model": "other",
        "arc_step": 0.01,
        "ids": np.zeros(n, np.uint32),
        "cluster_ids": np.zeros(n, np.int32),
        "source": np.zeros(n, np.uint8),
        "current_xyz": np.zeros((n, 3), np.float32),
        "xyz": np.zeros((s, n, horizon, 3), np.float32),
        "control_uvz": np.zeros((s, n, 4, 3), np.float32),
        "valid_prob": np.ones((s, n, horizon), np.float32),
        "stage_names": (),
        "stage_seconds": np.zeros(0, np.float32),
    }
    return Traces(**(values | changes))


def test_traces_must_be_those_of_the_card():
    card = TracesConfig(arc_step=0.01, horizon=32, robots=("panda", "ur5e"))
    card.check(traces())
    TracesConfig().check(traces(arc_step=0.05))  # a card that says nothing
    with pytest.raises(ShapeError, match="expected arc step 0.01 .* got 0.05; is another world"):
        card.check(traces(arc_step=0.05))
    with pytest.raises(ShapeError, match="expected steps 48 .* got 32"):
        TracesConfig(horizon=48).check(traces())
    assert card.doubt("panda") == ""
    assert "trained on panda, ur5e, not on mine" in card.doubt("mine")


def test_a_card_of_coarse_traces_is_refused():
    with pytest.raises(ConfigError, match="arc_step: expected below 0.08, got 0.1"):
        TracesConfig(arc_step=0.1)
