"""The spaces that actions are learned in."""

import numpy as np
import pytest

from mu0_core.embodiment import Box
from mu0_core.errors import ConfigError, TrajectoryError
from mu0_core.kinematics import DifferentialIK
from mu0_policy.action_expert.actions import ActionSpace, Translator, gripper_goals


@pytest.mark.parametrize("space", list(ActionSpace))
def test_actions_turn_back_into_commands(space, model, embodiment):
    ik = DifferentialIK(model, embodiment.tool_frame)
    translator = Translator(space, ik)
    q = np.array([0.9, -1.4, 0.6])
    line = q + np.linspace(0.0, 0.15, 5)[:, None] * np.array([1.0, -0.5, 0.5])
    commands = np.concatenate([line, [[0.0], [0.0], [1.0], [1.0], [1.0]]], axis=1)
    actions = translator.actions(commands, q)
    back = translator.commands(actions, q)
    reach = np.stack([model.forward(row[:3], "tool0") for row in back])
    wanted = np.stack([model.forward(row, "tool0") for row in line])
    assert np.abs(reach - wanted).max() < 2e-3
    assert np.array_equal(back[:, 3], commands[:, 3])
    if space is not ActionSpace.JOINTS:
        assert np.abs(actions[0, :3]).max() < 1e-9


def test_tool_deltas_do_not_lead_out_of_the_workspace(model):
    q = np.array([0.9, -1.4, 0.6])
    x, y, z = model.forward(q, "tool0")[:3, 3]
    box = Box(lower=(x - 0.01, y - 1.0, z - 1.0), upper=(x + 1.0, y + 1.0, z + 1.0))
    translator = Translator(ActionSpace.TOOL_DELTAS, DifferentialIK(model, "tool0"), box)
    T_tool_base = model.forward(q, "tool0")[:3, :3].T
    far = T_tool_base @ [-0.05, 0.0, 0.0]
    (command,) = translator.commands(np.array([[*far, 0.0, 0.0, 0.0, 1.0]]), q)
    assert model.forward(command[:3], "tool0")[0, 3] == pytest.approx(x - 0.01, abs=2e-3)
    assert command[3] == 1.0


def test_a_motion_out_of_reach_ends_where_the_tool_can_still_be(model):
    q = np.array([0.3, -0.9, 0.4])
    translator = Translator(ActionSpace.TOOL_DELTAS, DifferentialIK(model, "tool0"))
    reach = model.forward(q, "tool0")[:3, :3].T @ [1.0, 0.0, 0.0]
    actions = np.zeros((4, 7))
    actions[:, :3] = np.array([0.01, 0.02, 2.0, 0.03])[:, None] * reach
    commands = translator.commands(actions, q)
    assert np.abs(np.diff(commands[1:, :3], axis=0)).max() == 0.0
    assert np.abs(commands[1, :3] - commands[0, :3]).max() > 1e-4
    with pytest.raises(TrajectoryError, match="cannot reach"):
        translator.commands(actions[2:], q)


def test_tool_deltas_need_kinematics():
    with pytest.raises(ConfigError, match="embodiment"):
        Translator(ActionSpace.TOOL_DELTAS)


def test_gripper_goals_are_the_end_that_it_moves_to():
    shares = np.array([0.0, 0.0, 0.2, 0.9, 1.0, 1.0, 0.6, 0.0])
    assert gripper_goals(shares).tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
