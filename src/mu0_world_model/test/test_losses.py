"""The objective in small numbers: rigidity, counts, hiding, terms."""

from dataclasses import replace

import pytest
import torch

from mu0_world_model.losses import (
    HidingDraws,
    Targets,
    flow_losses,
    hide,
    loss_counts,
    rigidity,
)
from mu0_world_model.model import Points, Scene


def batch(model, n=4):
    g = torch.Generator().manual_seed(0)
    config = model.config

    def randn(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    scene = Scene(
        image=torch.rand(2, 3, 32, 32, generator=g, dtype=torch.float64),
        tokens=torch.ones(2, 6, dtype=torch.int64),
        token_valid=torch.ones(2, 6, dtype=torch.bool),
        depth=torch.rand(2, 3, 32, 32, generator=g, dtype=torch.float64),
    )
    valid = torch.tensor([[True] * n, [True] * (n - 1) + [False]])
    points = Points(randn(2, n, 3).tanh(), valid, randn(2, n, config.history_len, 3))
    targets = Targets(
        control=randn(2, n, 4, 3),
        control_valid=torch.tensor([[True, True, False, True], [True] * 4]),
        future_valid=torch.ones(2, n, config.future_len, dtype=torch.bool),
        cluster_ids=torch.tensor([[0, 0, 0, 1], [2, 2, 2, -1]]),
    )
    return scene, points, targets, randn


def test_rigidity_is_the_variance_of_distances():
    clean = torch.zeros(1, 3, 2, 3)
    clean[0, 1, :, 0] = torch.tensor([1.0, 3.0])  # distance to point 0: 1, then 3
    clean[0, 2, :, 1] = 5.0
    ids, counted = torch.tensor([[7, 7, -1]]), torch.ones(1, 3, dtype=torch.bool)
    term = rigidity(clean, ids, counted)
    assert (term.total.item(), term.count.item()) == (1.0, 1.0)
    all_three = rigidity(clean, torch.tensor([[7, 7, 7]]), counted)
    by_hand = (
        torch.stack(
            [torch.tensor([1.0, 3.0]), torch.tensor([5.0, 5.0]), torch.tensor([26.0, 34.0]).sqrt()]
        )
        .var(dim=1, correction=0)
        .mean()
    )
    torch.testing.assert_close(all_three.mean, by_hand)
    alone = rigidity(clean, torch.tensor([[7, 8, 9]]), counted)
    assert alone.mean.item() == 0.0 and alone.count.item() == 0.0


def test_rigidity_has_finite_gradients_where_points_meet():
    clean = torch.zeros(1, 2, 3, 3, requires_grad=True)
    rigidity(clean, torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)).mean.backward()
    assert torch.isfinite(clean.grad).all()


def test_counts_are_known_before_the_forward_pass(random_model):
    model = random_model()
    scene, points, targets, randn = batch(model)
    noise, time = randn(2, 3, 4, 4, 3), torch.full((2, 3), 0.5, dtype=torch.float64)
    losses = flow_losses(model, scene, points, targets, noise=noise, time=time)
    counts = loss_counts(model.config, points, targets, 3)
    found = [losses.flow.count, losses.done.count, losses.rigidity.count]
    assert counts.tolist() == [float(count) for count in found]
    assert counts.tolist() == [18.0, 7 * 8 * 3.0, 6.0]
    torch.testing.assert_close(losses.total(model.config), losses.total(model.config, counts))
    doubled = losses.total(model.config, 2 * counts)
    torch.testing.assert_close(2 * doubled, losses.total(model.config))


def test_draws_of_one_scene_equal_scenes_of_their_own(random_model):
    model = random_model()
    scene, points, targets, randn = batch(model)
    noise, time = randn(2, 2, 4, 4, 3), torch.tensor([[0.2, 0.9], [0.5, 0.4]]).double()
    both = flow_losses(model, scene, points, targets, noise=noise, time=time)
    for r in range(2):
        one = flow_losses(
            model, scene, points, targets, noise=noise[:, r : r + 1], time=time[:, r : r + 1]
        )
        torch.testing.assert_close(both.velocity[r::2], one.velocity)


def test_flow_is_divided_by_keypoints_not_by_elements(random_model):
    model = random_model()
    scene, points, targets, randn = batch(model)
    noise, time = randn(2, 1, 4, 4, 3), torch.full((2, 1), 0.5, dtype=torch.float64)
    losses = flow_losses(model, scene, points, targets, noise=noise, time=time)
    elements = losses.squared_error[losses.counted].mean() * 4 * 3
    torch.testing.assert_close(losses.flow.mean.detach(), elements)
    torch.testing.assert_close(losses.flow_per_axis().sum(), losses.flow.mean.detach())


def test_what_is_hidden_follows_from_the_draws(random_model):
    model = random_model()
    scene, points, _, _ = batch(model)
    config = replace(
        model.config,
        depth_dropout_prob=0.7,
        trace_history_full_mask_prob=0.5,
        trace_history_kp_dropout_prob=0.3,
    )
    draws = HidingDraws(
        depth=torch.tensor([0.69, 0.7]),
        history=torch.tensor([0.5, 0.4]),
        point_history=torch.tensor([[0.2, 0.3, 0.9, 0.9], [0.9] * 4]),
    )
    hidden_scene, hidden_points = hide(config, scene, points, draws)
    assert hidden_scene.depth_valid.tolist() == [False, True]
    assert hidden_points.history_valid.tolist() == [[False, True, True, True], [False] * 4]
    known = replace(points, history_valid=torch.tensor([[True, False, True, True], [True] * 4]))
    _, again = hide(config, scene, known, draws)
    assert again.history_valid.tolist() == [[False, False, True, True], [False] * 4]
    assert scene.depth_valid is None and points.history_valid is None


@pytest.mark.parametrize("done", [True, False])
def test_a_model_without_validity_head_has_no_such_term(random_model, done):
    model = random_model(trace_done_head=done)
    scene, points, targets, randn = batch(model)
    noise, time = randn(2, 1, 4, 4, 3), torch.full((2, 1), 0.5, dtype=torch.float64)
    losses = flow_losses(model, scene, points, targets, noise=noise, time=time)
    assert (losses.done.mean > 0) == done
    assert (losses.done_logits is not None) == done
