"""Where an expert is told that points are: in the picture, or seen from the tool."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mu0_core import se3
from mu0_core.errors import ConfigError, ShapeError
from mu0_core.kinematics import DifferentialIK
from mu0_policy.action_expert.actions import ActionSpace, Translator
from mu0_policy.action_expert.card import ExpertCard, PlacesIn, place_fields
from mu0_policy.action_expert.checkpoint import Checkpoint
from mu0_policy.action_expert.config import ActionExpertConfig, DecoderConfig
from mu0_policy.action_expert.model import ActionExpert, place_features
from mu0_policy.action_expert.normaliser import Normaliser
from mu0_policy.action_expert.places import ToolView, placed, tool_view
from mu0_policy.action_expert.policy import ExpertPolicy, Moment
from mu0_policy.camera_places import CameraPlace, Mount

Q = np.array([0.9, -1.4, 0.6])
T_BASE_CAMERA = se3.make_transform(
    Rotation.from_euler("xyz", [3.0, 0.1, 0.4]).as_matrix(), [0.6, -0.2, 0.9]
)
CARD = ExpertCard(
    robot="planar",
    joints=("j1", "j2", "j3"),
    gripper_joints=("jaw",),
    rate_hz=10.0,
    features="tiny",
    places=PlacesIn.TOOL,
    front_size="64x48",
    focal_lengths=(1.25,),
    **place_fields([CameraPlace(mount=Mount.BASE, T_mount_camera=T_BASE_CAMERA)]),
)


def pictured(xyz_base, T_base_camera=T_BASE_CAMERA, focal_px=60.0, width=64, height=48):
    """Project points (n, 3) to u and v in [-1, 1] and depth."""
    x, y, z = se3.transform_points(se3.inverse(T_base_camera), xyz_base).T
    uv = np.stack([focal_px * x / z / (width / 2), focal_px * y / z / (height / 2)], axis=1)
    return np.concatenate([uv, z[:, None]], axis=1)


def test_points_are_seen_from_the_tool(model):
    view = tool_view(CARD, DifferentialIK(model, "tool0"))
    xyz_tool = np.array([[0.02, -0.05, 0.1], [0.0, 0.0, 0.0], [0.1, 0.2, -0.1]])
    for q in (Q, Q + np.array([0.3, -0.2, 0.1])):
        xyz_base = se3.transform_points(model.forward(q, "tool0"), xyz_tool)
        for T in (T_BASE_CAMERA, se3.make_transform(np.eye(3), [0.5, 0.0, -1.0])):
            found = view(pictured(xyz_base, T), q, T)
            assert np.abs(found - xyz_tool).max() < 1e-5
            assert found.dtype == np.float32


def test_what_is_not_known_is_no_number(model):
    places = np.array([[0.1, 0.2, 0.8], [0.1, 0.2, 0.0]], np.float16)
    view = ToolView(DifferentialIK(model, "tool0"), 1.25, 4 / 3)
    found = view(places, Q, T_BASE_CAMERA)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()
    told = placed(None, places, Q, T_BASE_CAMERA)
    assert np.isfinite(told[0]).all()
    assert np.isfinite(told[1]).tolist() == [True, True, False]
    assert np.isfinite(places).all()  # the caller's own stay as they are


def test_unknown_depth_is_told_from_a_depth():
    one, other = place_features(torch.tensor([[0.1, 0.2, torch.nan], [0.1, 0.2, 0.3]]))
    assert torch.equal(one[:22], other[:22])
    assert not one[22:].any()
    assert other[-1] == 1.0


def test_what_it_takes_to_see_from_the_tool_is_told(model):
    ik = DifferentialIK(model, "tool0")
    assert tool_view(replace(CARD, places=PlacesIn.PICTURE), None) is None
    on_tool = place_fields([CameraPlace(mount=Mount.TOOL, T_mount_camera=np.eye(4))])
    for card, given, missing in (
        (CARD, None, "the robot's kinematics"),
        (replace(CARD, **on_tool), ik, "the front camera's place on the base"),
        (replace(CARD, **place_fields([])), ik, "the front camera's place on the base"),
        (replace(CARD, focal_lengths=()), ik, "its focal length"),
        (replace(CARD, front_size=""), ik, "its pictures' size"),
    ):
        with pytest.raises(ConfigError, match=f"{missing}.* must be known; --places picture"):
            tool_view(card, given)


def test_new_commands_go_on_from_those_that_stand(model):
    """Joints that were commanded are kept as they are; the next ones start from them."""
    translator = Translator(ActionSpace.TOOL_DELTAS, DifferentialIK(model, "tool0"))
    line = Q + np.linspace(0.01, 0.15, 6)[:, None]
    commands = np.concatenate([line, np.zeros((6, 1))], axis=1)
    actions = translator.actions(commands, Q)
    known = commands[:2] + 1e-3  # as really sent
    found = translator.commands(actions, Q, known)
    assert np.array_equal(found[:2], known)
    assert np.abs(found[2:] - commands[2:]).max() < 5e-3
    assert translator.commands(actions[:2], Q, known).shape == (2, 4)


def test_an_expert_that_sees_from_the_tool_is_told_where_the_camera_is(model):
    """Where the camera stands makes no difference, if it is told."""
    xyz_base = se3.transform_points(
        model.forward(Q, "tool0"), np.array([[0.02, -0.05, 0.1], [0.1, 0.2, -0.1]])
    )
    policy = ExpertPolicy(_checkpoint(), ik=DifferentialIK(model, "tool0"))
    policy.warm_up()
    found = []
    for T in (T_BASE_CAMERA, se3.make_transform(np.eye(3), [0.5, 0.0, -1.0])):
        moment = Moment(
            features={
                "context": np.ones((3, 16)),
                "traces": np.ones((2, 24)),
                "places": pictured(xyz_base, T),
                "language": np.ones((2, 16)),
            },
            pictures={},
            q=Q,
            gripper=0.0,
            T_base_camera=T,
        )
        found.append(policy.commands(moment))
    assert np.abs(found[0] - found[1]).max() < 1e-4
    with pytest.raises(ShapeError, match="T_base_camera: expected the front camera's pose"):
        policy.commands(replace(moment, T_base_camera=None))


def _checkpoint():
    torch.manual_seed(0)
    config = ActionExpertConfig(
        context_width=16,
        trace_width=24,
        mixer_heads=4,
        trace_places=True,
        trace_tokens=True,
        context_summary=2,
        state_dim=4,
        action_dim=4,
        chunk_size=6,
        decoder=DecoderConfig(width=16, layers=1, mlp=24, heads=2, kv_heads=1, head_dim=8),
    )
    ones = (1.0,) * 4
    normaliser = Normaliser(
        state_mean=(0.0,) * 4, state_std=ones, action_mean=(0.0,) * 4, action_std=ones
    )
    card = replace(CARD, space=ActionSpace.JOINT_DELTAS)
    return Checkpoint(expert=ActionExpert(config).eval(), normaliser=normaliser, card=card)
