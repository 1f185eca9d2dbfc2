"""Examples for an action expert: chunks, draws, batches, features that are kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mu0_policy.action_expert import train
from mu0_policy.action_expert.actions import ActionSpace, Translator
from mu0_policy.action_expert.config import ActionExpertConfig, DecoderConfig
from mu0_policy.action_expert.feature_cache import prepare
from mu0_policy.action_expert.model import ActionExpert
from mu0_policy.action_expert.training_data import ExampleRules, ExpertDataset, collate

RULES = ExampleRules(chunk_size=4, most_known=2, known_share=0.5, shift_px=2, noises=1, seed=0)


@pytest.fixture
def dataset(tmp_path, fake_extract):
    def make(shown, **changes):
        prepared = [prepare(one, ("wrist",), fake_extract, "fake", tmp_path) for one in shown]
        return ExpertDataset(prepared, Translator(ActionSpace.JOINTS), replace(RULES, **changes))

    return make


def test_a_chunk_is_what_follows_the_moment(dataset, made):
    data = dataset([made(n=6), made(seed=1, n=5)])
    assert len(data) == 11
    commands, counted = data.chunk(4)  # the last but one of the first demonstration
    assert np.array_equal(commands[:2], made(n=6).commands[4:6])
    assert np.array_equal(commands[2:], np.tile(commands[1], (2, 1)))  # not of the next one
    assert counted.tolist() == [True, True, False, False]


def test_examples_follow_from_seed_and_key(dataset, made):
    data = dataset([made()])
    one, again, other = data[3, 2], data[3, 2], data[4, 2]
    assert torch.equal(one["noise"], again["noise"])
    assert torch.equal(one["pictures"]["wrist"], again["pictures"]["wrist"])
    assert not torch.equal(one["noise"], other["noise"])
    known = [int(data[e, 2]["n_known"][0]) for e in range(60)]
    assert set(known) == {0, 1, 2}
    assert all(int(data.quiet()[e, 2]["n_known"][0]) == 0 for e in range(10))


def test_several_draws_of_noise_are_as_several_examples(dataset, made):
    shown = [made(), made(seed=1)]
    batch = collate([dataset(shown, noises=3)[0, i] for i in (2, 12)])
    assert batch.noise.shape == (6, 4, 4)
    assert not torch.equal(batch.noise[0], batch.noise[1])
    decoder = DecoderConfig(width=16, layers=2, mlp=24, heads=2, kv_heads=1, head_dim=8)
    expert = ActionExpert(
        ActionExpertConfig(
            context_width=16,
            trace_width=24,
            cameras=("wrist",),
            state_dim=4,
            action_dim=4,
            chunk_size=4,
            decoder=decoder,
        )
    )
    whole = replace(batch, counted=torch.ones_like(batch.counted))
    apart = [
        replace(whole, **{name: getattr(batch, name)[k::3] for name in ("noise", "time")})
        for k in range(3)
    ]
    losses = [
        train.Objective(expert)(replace(one, n_known=torch.zeros(len(one.time)))).item()
        for one in (whole, *apart)
    ]
    assert losses[0] == pytest.approx(np.mean(losses[1:]))


def test_instructions_of_different_length_go_side_by_side(dataset, made):
    data = dataset([made(), made(seed=1, instruction="take it up")])
    batch = collate([data[0, 0], data[0, 12]])
    lengths = batch.seen.language_valid.sum(1).tolist()
    assert len(set(lengths)) == 2
    assert batch.seen.language.shape[1] == max(lengths)


def test_points_come_and_go(dataset, with_keypoints):
    data = dataset([with_keypoints()])
    batch = collate([data[0, 1], data[0, 2], data[0, 3]])
    assert batch.seen.traces.shape == (3, 3, 24)
    assert batch.seen.traces_valid.sum(1).tolist() == [0, 2, 3]
    assert batch.seen.places[1].tolist() == [[0.5] * 3] * 2 + [[0.0] * 3]
    assert collate([data[0, 1]]).seen.traces.shape == (1, 0, 24)


def test_features_are_computed_once(tmp_path, made, fake_extract):
    calls = []

    def counting(*args):
        calls.append(args)
        return fake_extract(*args)

    for identity, n in (("a", 10), ("a", 10), ("b", 20)):
        found = prepare(made(), ("wrist",), counting, identity, tmp_path)
        assert len(calls) == n
        assert found.features["context"].dtype == np.float16
        assert found.pictures["wrist"].shape == (10, 96, 96, 3)
    prepare(made(seed=1), ("wrist",), counting, "a", tmp_path)
    assert len(calls) == 30


def test_two_trainings_may_fill_one_cache(tmp_path, made, fake_extract):
    def slower(*args):
        if not any(tmp_path.iterdir()):
            prepare(made(), ("wrist",), fake_extract, "a", tmp_path)
        return fake_extract(*args)

    found = prepare(made(), ("wrist",), slower, "a", tmp_path)
    assert len(found) == 10
    assert len(list(tmp_path.iterdir())) == 1
