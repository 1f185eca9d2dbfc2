"""Reading episodes as samples: recorded numbers, determinism, rules, faults."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mu0_core.errors import ConfigError, EpisodeError
from mu0_world_model import statistics
from mu0_world_model.config import read_config
from mu0_world_model.dataset import TraceDataset, collate, epoch_keys, jitter, mirrored
from mu0_world_model.losses import flow_losses
from mu0_world_model.model import Mu0
from mu0_world_model.processor import Processor, load_tokenizer
from mu0_world_model.samples import RULES, SampleIndex, SampleRules, sample_rules
from mu0_world_model.statistics import measure, read_statistics

POINT_KEYS = ("anchor", "history", "future", "control")


@pytest.fixture(scope="module")
def processor(golden):
    config = read_config(golden / "checkpoint")
    return Processor(
        config, read_statistics(golden), load_tokenizer(golden / "checkpoint", config)
    )


@pytest.fixture(scope="module")
def released(golden, processor):
    return TraceDataset([golden / "episode"], processor, RULES["released"], augment=False)


@pytest.mark.parametrize("item", [0, 1, 2])
def test_samples_agree_with_the_recorded_ones(released, golden_arrays, processor, item):
    recorded = {
        k.split("/", 1)[1]: v
        for k, v in golden_arrays("dataset").items()
        if k.startswith(f"item{item}/")
    }
    assert len(released) == 3
    taken = SampleRules(
        min_future_steps=10,
        moving_only=True,
        hide_empty_history=False,
        n_min=len(recorded["valid_kp"]),
    )
    dataset = TraceDataset(released.index.episodes, processor, taken, augment=False)
    slots = [int(s) for s in dataset.index.slots]
    example = dataset[0, slots.index(int(recorded["slot"]))]
    theirs = recorded["rows_in_slot"].numpy()
    assert sorted(example.rows) == sorted(theirs)
    order = [list(example.rows).index(row) for row in theirs]
    names = {
        "traj_history": "history",
        "valid_history": "history_valid",
        "traj_future": "future",
        "valid_future": "future_valid",
        "current_kp": "anchor",
        "cluster_ids": "cluster_ids",
        "ctrl_pts_future": "control",
        "valid_kp": "control_valid",
    }
    for theirs_name, ours_name in names.items():
        ours = np.asarray(getattr(example, ours_name))[order]
        np.testing.assert_allclose(
            ours, recorded[theirs_name].numpy(), atol=2e-5, err_msg=ours_name
        )
    image, depth = "observation.images.cam_front", "observation.images.cam_front_depth"
    torch.testing.assert_close(example.image, recorded[image], rtol=0, atol=1e-6)
    torch.testing.assert_close(example.depth, recorded[depth], rtol=0, atol=1e-6)
    assert example.task == str(recorded["task"]) or item == 2


def test_captions_of_a_frame_are_all_drawn(released):
    tasks = {released[epoch, 2].task for epoch in range(20)}
    assert tasks == {"open the drawer", "push the blue block to the left"}


def test_samples_follow_from_seed_epoch_and_index_alone(golden, processor):
    first = TraceDataset([golden / "episode"], processor, RULES["all"], seed=3)
    copy = pickle.loads(pickle.dumps(first))  # as a worker process gets it
    for key in [(0, 1), (1, 1), (0, 0)]:
        a, b = first[key], copy[key]
        assert torch.equal(a.image, b.image) and torch.equal(a.depth, b.depth)
        assert a.task == b.task and np.array_equal(a.rows, b.rows)
    assert not torch.equal(first[0, 1].image, first[1, 1].image)
    other = TraceDataset([golden / "episode"], processor, RULES["all"], seed=4)
    assert not torch.equal(first[0, 1].image, other[0, 1].image)


def test_our_rules_take_short_tails_and_points_at_rest(golden, processor, released):
    ours = TraceDataset([golden / "episode"], processor, RULES["all"], augment=False)
    assert len(ours) == 4  # also the slot in which nothing moves
    examples = [ours[epoch, i] for i in range(4) for epoch in range(8)]
    steps = np.concatenate([example.future_valid.sum(1) for example in examples])
    assert steps.min() < 10
    assert not np.concatenate([example.moving for example in examples]).all()
    assert all(example.control_valid.all() for example in examples)
    for i in range(3):
        assert released[0, i].moving.all()
        assert (released[0, i].future_valid.sum(1) >= 10).all()


def test_epochs_are_permutations():
    keys = [list(epoch_keys(6, epoch=e, seed=0)) for e in (0, 1)]
    assert sorted(index for _, index in keys[0]) == list(range(6))
    assert keys[0] != [(0, i) for _, i in keys[1]]
    assert keys[0] == list(epoch_keys(6, epoch=0, seed=0))


def test_a_batch_pads_points_and_trains(released, processor):
    rules = RULES["all"]
    dataset = TraceDataset(released.index.episodes, processor, rules)
    examples = [dataset[0, i] for i in range(4)]
    batch = collate(examples, processor, rules)
    counts = [len(example.anchor) for example in examples]
    assert batch.points.valid.sum(1).tolist() == counts
    assert batch.scene.tokens.shape == (4, 48)
    assert (batch.targets.cluster_ids[~batch.points.valid] == -1).all()
    assert (batch.points.history[~batch.points.valid] == 0).all()
    n = max(counts)
    noise, time = torch.randn(4, 2, n, 10, 3), torch.rand(4, 2)
    model = Mu0(processor.config)
    losses = flow_losses(model, batch.scene, batch.points, batch.targets, noise=noise, time=time)
    losses.total(model.config).backward()
    assert torch.isfinite(losses.total(model.config))
    assert losses.counted.shape == (8, n)


def test_colour_variation_keeps_range_and_shape():
    image = torch.rand(3, 8, 9)
    varied = jitter(image, np.random.default_rng(0), strength=0.3, hue=0.15)
    assert varied.shape == image.shape and varied.dtype == torch.float32
    assert varied.min() >= 0.0 and varied.max() <= 1.0
    assert not torch.allclose(varied, image)
    torch.testing.assert_close(
        jitter(image, np.random.default_rng(0), strength=0.0, hue=0.0), image, atol=2e-3, rtol=0
    )


def test_a_mirror_shows_the_same_points(released):
    example = released[0, 0]
    width = example.image.shape[-1]  # here the model's picture stands for the original
    seen = mirrored(example, width)
    u, u_seen = (((e.anchor[:, 0] + 1.0) / 2.0 * width) for e in (example, seen))
    np.testing.assert_allclose(u + u_seen, width - 1, atol=1e-3)
    column = int(np.rint(u[0]))
    assert torch.equal(example.image[:, :, column], seen.image[:, :, width - 1 - column])
    np.testing.assert_array_equal(example.future[..., 0], -seen.future[..., 0])
    np.testing.assert_array_equal(example.future[..., 1:], seen.future[..., 1:])
    again = mirrored(seen, width)
    for name in POINT_KEYS:
        np.testing.assert_allclose(getattr(again, name), getattr(example, name), atol=1e-6)


def test_broken_and_empty_episodes_are_named_and_skipped(golden, processor, tmp_path):
    broken, empty = tmp_path / "broken", tmp_path / "empty"
    shutil.copytree(golden / "episode", broken)
    broken.chmod(0o755)
    (broken / "samples").chmod(0o755)
    (broken / "samples" / "traj.npy").unlink()
    empty.mkdir()
    dataset = TraceDataset([broken, golden / "episode", empty], processor, RULES["all"])
    assert set(dataset.index.skipped) == {broken, empty}
    assert "traj.npy" in dataset.index.skipped[broken]
    with pytest.raises(EpisodeError, match="none of 2 episodes has a sample"):
        TraceDataset([broken, empty], processor, RULES["all"])
    dataset.index.save(tmp_path / "samples.npz")
    stored = SampleIndex.load(tmp_path / "samples.npz")
    again = TraceDataset(stored, processor, RULES["all"])
    assert stored.skipped == dataset.index.skipped
    assert [again.episode_of(i) for i in range(len(again))] == [golden / "episode"] * 4
    assert np.array_equal(stored.slots, dataset.index.slots)
    (tmp_path / "samples.npz").write_bytes(b"cut off")
    with pytest.raises(EpisodeError, match=r"samples.npz: not a whole"):
        SampleIndex.load(tmp_path / "samples.npz")


def test_a_stride_thins_each_episode_from_its_first_frame_on():
    index = SampleIndex(
        episodes=(Path("a"), Path("b")),
        episode_numbers=np.array([0, 0, 0, 1, 1], np.int32),
        slots=np.array([4, 5, 9, 0, 1], np.int32),
        skipped={},
    )
    thinned = index.every(2)
    assert thinned.episode_numbers.tolist() == [0, 0, 1]
    assert thinned.slots.tolist() == [4, 9, 0]
    assert index.every(1).slots.tolist() == index.slots.tolist()


def test_an_episode_of_another_arc_step_is_not_mixed_in(golden, processor):
    changed = replace(processor.statistics, arc_step=0.01)
    other = Processor(processor.config, changed, processor.tokenizer)
    with pytest.raises(
        EpisodeError, match=r"arc step 0.05, the model's is 0.01; .*new_statistics"
    ):
        TraceDataset([golden / "episode"], other, RULES["all"])


def test_unknown_rules_name_the_known():
    assert sample_rules("all").min_future_steps == 1
    with pytest.raises(ConfigError, match="known are all, released"):
        sample_rules("everything")


def test_statistics_agree_with_the_recorded_ones(golden):
    recorded = read_statistics(golden)
    ours = measure([golden / "episode"], history_len=8, future_len=32)
    np.testing.assert_allclose(ours.delta_scale, recorded.delta_scale, rtol=1e-5)
    assert ours.depth_log_min == pytest.approx(recorded.depth_log_min, rel=1e-5)
    assert ours.depth_log_max == pytest.approx(recorded.depth_log_max, rel=1e-5)
    assert ours.num_samples == recorded.num_samples
    again = type(ours).from_json(ours.to_json(), where="here")
    assert again == ours


def test_statistics_of_many_episodes_stay_in_bounds(golden, monkeypatch):
    few = measure([golden / "episode"], history_len=8, future_len=32)
    monkeypatch.setattr(statistics, "_MAX_PAIRS", few.num_samples)
    monkeypatch.setattr(statistics, "_MAX_DEPTHS", 1000)
    many = measure([golden / "episode"] * 5, history_len=8, future_len=32)
    assert 0.9 * few.num_samples <= many.num_samples <= few.num_samples
    np.testing.assert_allclose(many.delta_scale, few.delta_scale, rtol=0.3)
    assert many.depth_log_max == pytest.approx(few.depth_log_max, abs=0.05)
