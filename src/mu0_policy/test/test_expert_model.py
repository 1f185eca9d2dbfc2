"""The action expert on its own: what may depend on what, known heads, learning, saving."""

import importlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mu0_core import benchmark
from mu0_core.camera import Camera
from mu0_core.errors import CheckpointError, ConfigError, ShapeError, TrajectoryError
from mu0_core.traces import PointsFrom
from mu0_policy.action_expert import benchmark_policy, checkpoint, frozen
from mu0_policy.action_expert.benchmark_policy import BenchmarkPolicy, make
from mu0_policy.action_expert.card import ExpertCard, read_points
from mu0_policy.action_expert.checkpoint import Checkpoint
from mu0_policy.action_expert.config import ActionExpertConfig, DecoderConfig
from mu0_policy.action_expert.eyes import SIDE
from mu0_policy.action_expert.model import (
    ActionExpert,
    Observation,
    flow_loss,
)
from mu0_policy.action_expert.normaliser import Normaliser
from mu0_policy.action_expert.policy import ExpertPolicy, Moment
from mu0_policy.action_expert.released import load_released

CONFIG = ActionExpertConfig(
    context_width=16,
    trace_width=12,
    mixer_heads=2,
    cameras=("wrist", "side"),
    eye_width=16,
    eye_tokens=2,
    state_dim=4,
    action_dim=4,
    chunk_size=6,
    decoder=DecoderConfig(width=16, layers=2, mlp=24, heads=2, kv_heads=1, head_dim=8),
)
CARD = ExpertCard(
    robot="planar",
    joints=("j1", "j2", "j3"),
    gripper_joints=("jaw",),
    rate_hz=10.0,
    features="tiny 12ab, grid 4/2",
    cameras=("wrist", "side"),
    picture_sizes=("64x48", "64x48"),
    most_known=3,
)
NORMALISER = Normaliser(
    state_mean=(0.1, -0.2, 0.3, 0.5),
    state_std=(0.5, 0.6, 0.7, 0.4),
    action_mean=(0.2, 0.1, -0.3, 0.5),
    action_std=(0.5, 0.5, 0.5, 0.5),
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def random_expert(**changes):
    torch.manual_seed(0)
    expert = ActionExpert(replace(CONFIG, **changes)).double().eval()
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return expert


def observation(batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return Observation(
        context=normal(batch, 5, 16),
        context_valid=torch.ones(batch, 5, dtype=torch.bool),
        traces=normal(batch, 4, 12),
        language=normal(batch, 3, 16),
        language_valid=torch.ones(batch, 3, dtype=torch.bool),
        cameras={name: normal(batch, 3, SIDE, SIDE).sigmoid() for name in CONFIG.cameras},
        state=normal(batch, 4),
    )


def noise(batch=2):
    return torch.randn(batch, 6, 4, generator=torch.Generator().manual_seed(7)).double()


def test_padded_tokens_change_nothing():
    expert, seen = random_expert(), observation()
    padded = replace(
        seen,
        context=torch.cat([seen.context, 9.0 * torch.ones(2, 2, 16).double()], dim=1),
        context_valid=torch.cat([seen.context_valid, torch.zeros(2, 2).bool()], dim=1),
    )
    assert torch.allclose(expert.sample(seen, noise()), expert.sample(padded, noise()))


PLACED = {"trace_places": True, "trace_tokens": True, "context_places": 4}


def at_places(**changes):
    generator = torch.Generator().manual_seed(3)
    places = torch.rand(2, 4, 3, generator=generator).double()
    return replace(observation(), **({"places": places} | changes))


def test_places_count_and_points_that_are_padding_do_not():
    expert, seen = random_expert(**PLACED), at_places()
    ours = expert.sample(seen, noise())
    moved = replace(seen, places=seen.places + 0.02)
    assert not torch.allclose(expert.sample(moved, noise()), ours)
    padded = replace(
        seen,
        traces=torch.cat([seen.traces, 9.0 * torch.ones(2, 2, 12).double()], dim=1),
        places=torch.nn.functional.pad(seen.places, (0, 0, 0, 2)),
        traces_valid=torch.arange(6).expand(2, 6) < 4,
    )
    assert torch.allclose(expert.sample(padded, noise()), ours)
    order = torch.tensor([2, 0, 3, 1])
    without = random_expert(**{**PLACED, "trace_tokens": False})
    turned = replace(seen, traces=seen.traces[:, order], places=seen.places[:, order])
    assert torch.allclose(without.sample(turned, noise()), without.sample(seen, noise()))


def test_an_observation_without_points_is_as_one_of_padding_alone():
    expert, seen = random_expert(**PLACED), at_places()
    none = replace(seen, traces=seen.traces[:, :0], places=seen.places[:, :0])
    hidden = replace(seen, traces_valid=torch.zeros(2, 4, dtype=torch.bool))
    ours = expert.sample(none, noise())
    assert torch.isfinite(ours).all()
    assert torch.allclose(expert.sample(hidden, noise()), ours)
    assert not torch.allclose(expert.sample(seen, noise()), ours)


def test_places_that_are_missing_are_asked_for():
    expert = random_expert(**PLACED)
    with pytest.raises(ShapeError, match="places: expected those of the trace features"):
        expert.encode(observation())
    seen = at_places()
    short = replace(seen, context=seen.context[:, :3], context_valid=seen.context_valid[:, :3])
    with pytest.raises(ShapeError, match="at least 4 tokens of pictures, got 3"):
        expert.encode(short)


@pytest.mark.parametrize("part", ["context", "traces", "language", "state", "wrist", "side"])
def test_every_part_counts(part):
    expert, seen = random_expert(), observation()
    if part in seen.cameras:
        changed = replace(seen, cameras={**seen.cameras, part: 1.0 - seen.cameras[part]})
    else:
        changed = replace(seen, **{part: getattr(seen, part).flip(-1)})
    before, after = expert.sample(seen, noise()), expert.sample(changed, noise())
    assert (before - after).abs().max() > 1e-6


def test_context_is_read_once_unless_time_modulates_it():
    seen, time = observation(), torch.tensor([0.3, 0.9]).double()
    for timed in (False, True):
        expert = random_expert(timed_context=timed)
        assert (expert.encode(seen).memory is None) == timed
        expert.velocity(noise(), time, expert.encode(seen))


def test_known_actions_stand_at_the_head_and_steer_the_rest():
    expert, seen = random_expert(), observation()
    prefix = torch.full((2, 2, 4), 0.7).double()
    result = expert.sample(seen, noise(), prefix=prefix)
    assert torch.equal(result[:, :2], prefix)
    other = expert.sample(seen, noise(), prefix=-prefix)
    assert (result[:, 2:] - other[:, 2:]).abs().max() > 1e-6
    with pytest.raises(ShapeError, match="fewer than 6"):
        expert.sample(seen, noise(), prefix=noise())


def test_known_and_padded_actions_do_not_count_in_the_loss():
    expert, seen, actions = random_expert(), observation(), noise().flip(1)
    time, n_known = torch.tensor([0.4, 0.6]).double(), torch.tensor([2, 0])
    counted = torch.ones(2, 6, dtype=torch.bool)
    counted[:, 5] = False

    def loss(target, n=n_known):
        return flow_loss(
            expert, seen, target, noise=noise(), time=time, counted=counted, n_known=n
        )

    # A known action is shown without noise, so the noise at its place must not matter.
    changed = noise()
    changed[0, :2] += 3.0
    shifted = flow_loss(
        expert, seen, actions, noise=changed, time=time, counted=counted, n_known=n_known
    )
    assert torch.allclose(loss(actions), shifted)
    assert not torch.allclose(loss(actions), loss(actions, torch.zeros(2, dtype=torch.long)))


def test_exact_velocity_brings_noise_to_the_data():
    expert = random_expert()
    data = torch.full((2, 6, 4), 0.25).double()
    expert.velocity = lambda state, time, encoded: noise() - data
    for n in (1, 3, 10):
        assert torch.allclose(expert.sample(observation(), noise(), n_steps=n), data)


@pytest.mark.slow
def test_it_learns_two_moments_by_heart():
    torch.manual_seed(0)
    expert = ActionExpert(replace(CONFIG, chunk_size=4)).train()
    seen = observation()
    seen = Observation(
        **{
            name: getattr(seen, name)
            if name.endswith("valid")
            else {k: v.float() for k, v in seen.cameras.items()}
            if name == "cameras"
            else getattr(seen, name).float()
            for name in Observation.__dataclass_fields__
        }
    )
    actions = torch.randn(2, 4, 4)
    optimiser = torch.optim.AdamW(expert.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        time = 0.999 * torch.rand(2, generator=generator) + 0.001
        eps = torch.randn(2, 4, 4, generator=generator)
        loss = flow_loss(expert, seen, actions, noise=eps, time=time)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = expert.eval().sample(seen, torch.randn(2, 4, 4, generator=generator))
    assert (found - actions).abs().mean() < 0.15


def _checkpoint():
    return Checkpoint(expert=random_expert().float(), normaliser=NORMALISER, card=CARD)


def _moment(**changes):
    rng = np.random.default_rng(0)
    values = {
        "features": {
            "context": rng.standard_normal((5, 16)).astype(np.float16),
            "traces": rng.standard_normal((4, 12)).astype(np.float16),
            "language": rng.standard_normal((3, 16)).astype(np.float16),
        },
        "pictures": {n: rng.integers(0, 255, (48, 64, 3), np.uint8) for n in CONFIG.cameras},
        "q": np.array([0.1, 0.2, 0.3]),
        "gripper": 0.0,
    }
    return Moment(**(values | changes))


def test_a_folder_gives_back_the_same_policy(tmp_path):
    checkpoint.save(_checkpoint(), tmp_path / "expert")
    ours = ExpertPolicy(_checkpoint()).commands(_moment())
    policy = ExpertPolicy.from_pretrained(tmp_path / "expert")
    assert policy.card == CARD
    assert np.array_equal(policy.commands(_moment()), ours)
    assert ours.shape == (6, 4)
    assert "planar" in (tmp_path / "expert" / "README.md").read_text()


def test_the_same_moment_gives_the_same_commands_unless_no_seed_is_given():
    policy = ExpertPolicy(_checkpoint())
    policy.warm_up()
    assert np.array_equal(policy.commands(_moment()), policy.commands(_moment()))
    free = ExpertPolicy(_checkpoint(), seed=None)
    assert not np.array_equal(free.commands(_moment()), free.commands(_moment()))


def test_known_commands_come_back_unchanged():
    known = np.array([[0.1, 0.2, 0.3, 1.0], [0.2, 0.2, 0.3, 1.0]])
    policy = ExpertPolicy(_checkpoint())
    assert np.array_equal(policy.commands(_moment(), known)[:2], known)
    with pytest.raises(ShapeError, match="at most 3"):
        policy.commands(_moment(), np.zeros((4, 4)))


def test_what_is_missing_is_named():
    policy, moment = ExpertPolicy(_checkpoint()), _moment()
    with pytest.raises(ShapeError, match="side"):
        policy.commands(replace(moment, pictures={"wrist": moment.pictures["wrist"]}))
    with pytest.raises(ShapeError, match="language"):
        policy.commands(
            replace(moment, features={k: moment.features[k] for k in ("context", "traces")})
        )
    with pytest.raises(ShapeError, match="finite"):
        policy.commands(replace(moment, q=np.array([0.0, np.nan, 0.0])))
    other = {**moment.features, "traces": np.zeros((4, 13), np.float16)}
    with pytest.raises(ShapeError, match="another checkpoint"):
        policy.commands(replace(moment, features=other))


def test_broken_folders_are_refused(tmp_path):
    folder = tmp_path / "expert"
    with pytest.raises(CheckpointError, match=r"config\.json"):
        checkpoint.load(folder)
    checkpoint.save(_checkpoint(), folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(folder)
    weights.write_bytes(whole)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"chunk_size": 6', '"chunk_size": 0'))
    with pytest.raises(CheckpointError, match="chunk_size"):
        checkpoint.load(folder)
    (folder / "config.json").write_text(text.replace('"trace_width": 12', '"trace_width": 14'))
    with pytest.raises(CheckpointError, match="w_proj"):
        checkpoint.load(folder)
    (folder / "config.json").write_text(text)
    (folder / "statistics.json").write_text("{}")
    with pytest.raises(CheckpointError, match="state_mean"):
        checkpoint.load(folder)


class _Payload:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_a_released_file_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"model_state_dict": _Payload()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="run code"):
        load_released(tmp_path)
    assert capsys.readouterr().out == ""
    torch.save({"model_state_dict": {"a": torch.zeros(1)}}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="not the weights"):
        load_released(tmp_path)
    with pytest.raises(CheckpointError, match="no file"):
        load_released(tmp_path / "nowhere.pt")


def test_a_joint_that_does_not_move_is_not_blown_up():
    still = Normaliser.measured(np.zeros((9, 2)), np.zeros((9, 2)))
    assert still.action(torch.tensor([0.01, 0.0])).abs().max() <= 1.01


def test_answers_that_are_no_numbers_are_refused():
    policy, moment = ExpertPolicy(_checkpoint()), _moment()
    broken = {name: np.full_like(rows, np.nan) for name, rows in moment.features.items()}
    with pytest.raises(ShapeError, match="the expert's answer is no number"):
        policy.commands(replace(moment, features=broken))


def _benchmark_policy(**card):
    one = replace(_checkpoint(), card=replace(CARD, **card))
    asked = []

    def extract(rgb, instruction, depth, keypoints):
        assert keypoints is None
        asked.append(instruction)
        return _moment().features

    return BenchmarkPolicy(ExpertPolicy(one), extract, "tiny 12ab, grid 4/2"), asked


def _seen(**changes):
    rng = np.random.default_rng(0)
    names = ("front", *CONFIG.cameras)
    values = {
        "pictures": {n: rng.integers(0, 255, (48, 64, 3), np.uint8) for n in names},
        "depth_m": np.ones((48, 64), np.float32),
        "camera": Camera.from_fovy(0.7, 64, 48),
        "T_base_camera": np.eye(4),
        "q": np.array([0.1, 0.2, 0.3]),
        "gripper": 0.0,
        "joints": CARD.joints,
        "rate_hz": 10.0,
        "time_s": 0.0,
        "wrist_camera": Camera.from_fovy(1.2, 64, 48),
    }
    return benchmark.Observation(**(values | changes))


def test_in_a_benchmark_most_of_a_chunk_is_executed_before_the_next_is_asked():
    policy, asked = _benchmark_policy()
    policy.reset("take it")
    actions = [policy.act(_seen()) for _ in range(5)]
    assert asked == ["take it", "take it"]
    expected = ExpertPolicy(_checkpoint()).commands(
        replace(_moment(), pictures={k: v for k, v in _seen().pictures.items() if k != "front"})
    )
    assert np.array_equal(np.stack(actions[:4]), expected[:4])  # of 6
    assert np.array_equal(actions[4], expected[0])
    policy.act(_seen())
    policy.reset("put it")
    policy.act(_seen())
    assert asked[-1] == "put it" and len(asked) == 3


def test_in_a_benchmark_a_tool_out_of_reach_holds(monkeypatch):
    policy, asked = _benchmark_policy()
    policy.reset("take it")
    for _ in range(4):
        before = policy.act(_seen())

    def refuse(self, moment):
        raise TrajectoryError("tool0 cannot reach it")

    monkeypatch.setattr(ExpertPolicy, "commands", refuse)
    assert policy.act(_seen()).tolist() == [*_seen().q.tolist(), before[-1]]
    monkeypatch.undo()
    policy.act(_seen())
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rate_hz": 20.0}, "rate: trained with 10 actions a second, here are 20"),
        ({"joints": ("j2", "j1", "j3")}, "joints: trained with j1"),
        ({"pictures": {"front": np.zeros((48, 64, 3), np.uint8)}}, "wrist camera: nothing came"),
        ({"camera": Camera.from_fovy(0.9, 64, 48)}, "front camera: focal length 1.035"),
        (
            {"wrist_camera": Camera.from_fovy(0.7, 64, 48)},
            r"wrist camera: focal length 1\.370 .* trained with 0\.731",
        ),
        (
            {
                "pictures": {
                    name: np.zeros((48, 48 if name == "wrist" else 64, 3), np.uint8)
                    for name in ("front", "wrist", "side")
                }
            },
            "wrist camera: pictures of 48x48 px, trained with 64x48",
        ),
    ],
)
def test_a_benchmark_of_another_robot_is_refused(changes, says):
    policy, _ = _benchmark_policy(focal_lengths=(1.36984, 0.73087, 0.0))
    policy.reset("take it")
    policy.act(_seen())
    policy.reset("take it")
    with pytest.raises(ConfigError, match=says):
        policy.act(_seen(**changes))


def test_in_a_benchmark_keypoints_are_followed_through_every_picture(tmp_path, monkeypatch):
    card = replace(CARD, points=PointsFrom.KEYPOINTS)
    checkpoint.save(replace(_checkpoint(), card=card), tmp_path / "expert")
    assert read_points(tmp_path / "expert") is PointsFrom.KEYPOINTS
    assert read_points(tmp_path) is None
    followed, asked = [], []

    class Tracker:
        def reset(self):
            followed.append("reset")

        def update(self, observation):
            followed.append(observation.time_s)
            return np.full((2, 3), observation.time_s, np.float32)

    class Extractor:
        def __call__(self, rgb, instruction, depth, keypoints):
            asked.append(float(keypoints[0, 0]))
            return _moment().features

        def origin(self, *, depth):
            return CARD.features

    def load_served(world_model, points):
        assert points is PointsFrom.KEYPOINTS
        return Extractor()

    monkeypatch.setattr(benchmark_policy, "load_keypoint_tracker", lambda settings: Tracker())
    monkeypatch.setattr(frozen, "load_served", load_served)
    policy = make(benchmark.PolicySettings(checkpoint=tmp_path / "expert"))
    policy.reset("take it")
    for time_s in range(5):
        policy.act(_seen(time_s=float(time_s)))
    assert followed == ["reset", 0.0, 1.0, 2.0, 3.0, 4.0]
    assert asked == [0.0, 4.0]


def test_in_a_benchmark_features_have_to_be_those_of_the_training():
    with pytest.raises(ConfigError, match="the expert was trained with those of 'another"):
        _benchmark_policy(features="another 34cd, grid 4/2")
    with pytest.raises(ConfigError, match="the folder of an action expert"):
        make(benchmark.PolicySettings())


def test_the_benchmarks_find_the_action_expert_by_its_name():
    setup = (Path(__file__).parents[1] / "setup.py").read_text()
    module, factory = re.search(r'"action_expert = ([\w.]+):(\w+)"', setup).groups()
    assert f'"{benchmark.POLICY_GROUP}": [' in setup
    assert getattr(importlib.import_module(module), factory) is make
