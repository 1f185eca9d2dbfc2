"""Features for action experts: the same each time, and of what is seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mu0_core.errors import ConfigError, ShapeError
from mu0_core.traces import PointsFrom
from mu0_world_model.features import FeatureConfig, FeatureExtractor, features, grid_uv
from mu0_world_model.presets import TINY
from mu0_world_model.processor import Processor
from mu0_world_model.statistics import Statistics
from mu0_world_model.text import train_tokenizer


@pytest.fixture(scope="module")
def parts():
    from mu0_world_model.model import Mu0

    sizes = replace(
        TINY, num_vlm_layers=2, num_expert_layers=2, vlm=replace(TINY.vlm, vision_layers=1)
    )
    statistics = Statistics(
        delta_scale=sizes.delta_scale,
        arc_step=0.01,
        history_len=sizes.history_len,
        future_len=sizes.future_len,
        depth_log_min=-1.0,
        depth_log_max=1.0,
    )
    torch.manual_seed(0)
    model = Mu0(sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.1)
    tokenizer = train_tokenizer(["Task: lift the cube\n"], sizes.vlm.vocab_size)
    return model, Processor(sizes, statistics, tokenizer)


@pytest.fixture
def make(parts):
    def build(**changes):
        return FeatureExtractor(*parts, FeatureConfig(**changes), identity="tiny 12ab")

    return build


RGB = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
DEPTH = np.full((60, 80), 0.8, np.float32)


def test_shapes_and_names(make):
    found = make(grid=8, pool=2)(RGB, "lift the cube", DEPTH)
    assert {name: value.dtype for name, value in found.items()} == dict.fromkeys(
        ("context", "traces", "places", "language"), np.float16
    )
    n_text = len(found["language"])
    assert found["context"].shape == (64 + 64 + n_text, 128)
    assert found["traces"].shape == (16, 192)
    u = [-1 + 1 / 7, -1 + 5 / 7, 1 - 5 / 7, 1 - 1 / 7]
    assert np.allclose(found["places"][:4, 0], u, atol=1e-3)
    assert np.allclose(found["places"][:, 1], np.repeat(u, 4), atol=1e-3)
    assert not found["places"][:, 2].any()
    assert 0 < n_text < TINY.tokenizer_max_length  # padding is left out


def test_the_same_picture_gives_the_same_features(make):
    first, second = make(grid=4), make(grid=4)
    one, other = first(RGB, "lift", DEPTH), second(RGB, "lift", DEPTH)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert first.identity == second.identity
    another = make(grid=4, seed=1)
    assert not np.array_equal(another(RGB, "lift", DEPTH)["traces"], one["traces"])
    assert another.identity != first.identity


def test_features_with_depth_are_told_from_those_without(make):
    extract = make(grid=4)
    assert extract.origin(depth=True) == f"{extract.identity}, with depth"
    assert extract.origin(depth=False) == f"{extract.identity}, without depth"


def test_picture_depth_and_words_count(make):
    extract = make(grid=4)
    base = extract(RGB, "lift", DEPTH)
    for changed in (
        extract(RGB[::-1].copy(), "lift", DEPTH),
        extract(RGB, "put it down", DEPTH),
        extract(RGB, "lift", DEPTH * 1.5),
        extract(RGB, "lift", None),
    ):
        assert not np.allclose(changed["traces"], base["traces"])
    nowhere = np.full_like(DEPTH, np.nan)
    assert np.isfinite(extract(RGB, "lift", nowhere)["traces"]).all()


def test_several_draws_are_averaged(parts, make):
    model, processor = parts
    scene = processor.scene(RGB, "lift", DEPTH)
    noise = torch.randn(1, 3, 16, 10, 3, generator=torch.Generator().manual_seed(0))
    config = FeatureConfig(grid=4, pool=1, draws=3)
    together = features(model, scene, config, noise=noise).traces
    single = [features(model, scene, config, noise=noise[:, i : i + 1]).traces for i in range(3)]
    assert torch.allclose(together, torch.stack(single).mean(0), atol=1e-5)


def test_more_of_the_flow_can_be_run(parts):
    model, processor = parts
    scene = processor.scene(RGB, "lift", DEPTH)
    noise = torch.randn(1, 1, 16, 10, 3, generator=torch.Generator().manual_seed(0))
    one, two = (
        features(model, scene, FeatureConfig(grid=4, executed=n), noise=noise).traces
        for n in (1, 2)
    )
    assert not torch.allclose(one, two)


KEYPOINTS = np.array(
    [[40.0, 30.0, 0.7], [20.0, 45.0, np.nan], [80.0, 0.0, 0.0], [90.0, 5.0, 0.5], [np.nan, 5.0, 1]]
)


def test_features_at_keypoints_tell_where_they_are(make):
    extract = make(points=PointsFrom.KEYPOINTS, max_points=4)
    found = extract(RGB, "lift", DEPTH, KEYPOINTS)
    places = [[0.0, 0.0, 0.7], [-0.5, 0.5, 0.0], [1.0, -1.0, 0.0]]  # two are not in the picture
    assert np.allclose(found["places"], places, atol=1e-3)
    assert found["traces"].shape == (3, 192)
    again = extract(RGB, "lift", DEPTH, KEYPOINTS[:1])
    assert np.array_equal(again["places"], found["places"][:1])
    moved = extract(RGB, "lift", DEPTH, KEYPOINTS[:3] - [10.0, 0.0, 0.0])
    assert not np.allclose(moved["traces"], found["traces"])
    assert np.array_equal(moved["context"], found["context"])
    with pytest.raises(ShapeError, match="expected keypoints"):
        extract(RGB, "lift", DEPTH)


def test_keypoints_may_be_none_or_too_many(make):
    extract = make(points=PointsFrom.KEYPOINTS, max_points=4)
    assert extract(RGB, "lift", DEPTH, KEYPOINTS[:0])["traces"].shape == (0, 192)
    many = np.column_stack([np.linspace(0.0, 80.0, 10), np.full(10, 30.0), np.ones(10)])
    u = extract(RGB, "lift", DEPTH, many)["places"][:, 0]
    assert np.allclose(u, [-1, -1 / 3, 1 / 3, 1], atol=1e-3)


def test_settings_tell_features_apart():
    grid, points = FeatureConfig(), FeatureConfig(points=PointsFrom.KEYPOINTS)
    assert str(grid) == "grid 20/2, draws 1, seed 0, steps 1/4"  # as checkpoints have it
    assert str(points) == "keypoints 32, draws 1, seed 0, steps 1/4"


def test_grid_goes_row_by_row():
    grid = grid_uv(3)
    assert grid[:4].tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 0]]


@pytest.mark.parametrize("wrong", [{"grid": 5, "pool": 2}, {"executed": 5}, {"draws": 0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError):
        FeatureConfig(**wrong)
