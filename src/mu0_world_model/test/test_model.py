"""Laws that hold for any weights, checked on small random models in float64."""

from dataclasses import replace

import pytest
import torch

from mu0_core.errors import ShapeError
from mu0_world_model.attention import merge_heads, rms_norm, rotate, rotation, split_heads
from mu0_world_model.model import Mu0, Points, Scene
from mu0_world_model.relations import Relations

CLOSE = {"rtol": 0.0, "atol": 1e-9}


def scene(batch=2, **changes) -> Scene:
    g = torch.Generator().manual_seed(1)
    values = {
        "image": torch.rand(batch, 3, 32, 32, generator=g, dtype=torch.float64),
        "tokens": torch.randint(40, (batch, 6), generator=g),
        "token_valid": torch.arange(6) < torch.tensor([[4], [5]])[:batch],
        "depth": torch.rand(batch, 3, 32, 32, generator=g, dtype=torch.float64),
    }
    return Scene(**(values | changes))


def points(batch=2, n=3, **changes) -> Points:
    g = torch.Generator().manual_seed(2)
    values = {
        "anchor": torch.rand(batch, n, 3, generator=g, dtype=torch.float64) * 1.6 - 0.8,
        "valid": torch.ones(batch, n, dtype=torch.bool),
        "history": torch.randn(batch, n, 4, 3, generator=g, dtype=torch.float64),
    }
    return Points(**(values | changes))


def noise(batch=2, samples=1, n=3) -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    return torch.randn(batch, samples, n, 4, 3, generator=g, dtype=torch.float64)


def velocity(model: Mu0, scene: Scene, points: Points, state: torch.Tensor, time: float = 0.7):
    with torch.inference_mode():
        prefix = model.encode(scene)
        modulation = model.conditioning(torch.tensor([time], dtype=torch.float64))
        return model.velocity(state, modulation, prefix, model.query(prefix, points))


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_permuting_keypoints_permutes_the_answer(random_model):
    model, order = random_model(), torch.tensor([2, 0, 1])
    p = points()
    permuted = Points(p.anchor[:, order], p.valid, p.history[:, order])
    straight = velocity(model, scene(), p, noise())
    swapped = velocity(model, scene(), permuted, noise()[:, :, order])
    assert_same([t[:, :, order] for t in straight], swapped)


def test_padded_keypoints_are_inert(random_model):
    model, p, state = random_model(), points(n=5), noise(n=5)
    valid = torch.tensor([[True, True, True, False, False]] * 2)
    padded = velocity(model, scene(), replace(p, valid=valid), state)
    short = Points(p.anchor[:, :3], valid[:, :3], p.history[:, :3])
    alone = velocity(model, scene(), short, state[:, :, :3])
    assert_same([t[:, :, :3] for t in padded], alone)


def test_padded_keypoints_may_differ_between_samples(random_model):
    model, p = random_model(), points()
    valid = torch.tensor([[True, True, False], [True, True, True]])
    both = velocity(model, scene(), replace(p, valid=valid), noise())
    first = Points(p.anchor[:1, :2], valid[:1, :2], p.history[:1, :2])
    whole = scene()
    one = Scene(whole.image[:1], whole.tokens[:1], whole.token_valid[:1], whole.depth[:1])
    alone = velocity(model, one, first, noise()[:1, :, :2])
    assert_same([t[:1, :, :2] for t in both], alone)


def test_masked_depth_is_absent_depth(random_model):
    model = random_model()
    masked = velocity(model, scene(depth_valid=torch.tensor([False, False])), points(), noise())
    absent = velocity(model, scene(depth=None), points(), noise())
    assert_same(masked, absent)
    mixed = velocity(model, scene(depth_valid=torch.tensor([False, True])), points(), noise())
    present = velocity(model, scene(), points(), noise())
    assert_same([t[:1] for t in mixed], [t[:1] for t in absent])
    assert_same([t[1:] for t in mixed], [t[1:] for t in present])
    assert (present[0] - absent[0]).abs().max() > 1e-3


def test_masked_history_is_absent_history(random_model):
    model, p = random_model(), points()
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    masked = velocity(model, scene(), replace(p, history_valid=nothing), noise())
    absent = velocity(model, scene(), replace(p, history=None), noise())
    assert_same(masked, absent)
    first_only = torch.tensor([[True] * 3, [False] * 3])
    mixed = velocity(model, scene(), replace(p, history_valid=first_only), noise())
    present = velocity(model, scene(), p, noise())
    assert_same([t[:1] for t in mixed], [t[:1] for t in present])
    assert_same([t[1:] for t in mixed], [t[1:] for t in absent])
    assert (present[0] - absent[0]).abs().max() > 1e-3


def test_masked_history_of_a_keypoint_hides_it_from_all(random_model):
    model, p = random_model(), points()
    shown = torch.tensor([[True, False, True]] * 2)
    hidden = velocity(model, scene(), replace(p, history_valid=shown), noise())
    changed = p.history.clone()
    changed[:, 1] += 5.0
    other = velocity(model, scene(), replace(p, history=changed, history_valid=shown), noise())
    assert_same(hidden, other)


def dense_reference(model: Mu0, prefix, queries, state, modulation):
    """Run the expert as one masked attention per layer over [prefix; suffix], keypoint-major.

    Written from the released description alone: an explicit mask, no caches, no reordering.
    """
    expert, d = model.expert, model.expert.head_dim
    batch, n = state.shape[0], state.shape[2]
    passed = model.vlm(prefix.embeddings, prefix.valid, n_layers=expert.vlm_layers)
    control = model.suffix.control(state, queries.features)[:, 0]
    x = torch.cat([queries.history, control], dim=1)  # (B, groups, n, E)
    groups, n_history = x.shape[1], queries.history.shape[1]
    x = x.transpose(1, 2).flatten(1, 2)  # keypoint-major
    rank = torch.arange(groups).clamp(max=n_history).repeat(n)
    suffix_sees = rank[:, None] >= rank[None, :]
    position = rotation(prefix.valid.sum(1, keepdim=True), d)
    for i, layer in enumerate(expert.layers):
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation[:, i, :, None].unbind(1)
        attention = layer.self_attn
        a = rms_norm(layer.input_layernorm, x) * (1 + scale1) + shift1
        q = split_heads(attention.q_proj(a), d)
        pk, pv = passed.keys[i * expert.stride], passed.values[i * expert.stride]
        allowed = prefix.valid[:, None, :].expand(batch, groups * n, -1)
        if expert.joint[i]:
            q = rotate(q, position)
            k = rotate(split_heads(attention.k_proj(a), d), position)
            pk = torch.cat([pk, k], 2)
            pv = torch.cat([pv, split_heads(attention.v_proj(a), d)], 2)
            allowed = torch.cat([allowed, suffix_sees.expand(batch, -1, -1)], 2)
        else:
            pk = split_heads(attention.k_proj(merge_heads(pk)), d)
            pv = split_heads(attention.v_proj(merge_heads(pv)), d)
        pk, pv = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (pk, pv))
        scores = q @ pk.transpose(2, 3) * d**-0.5
        weights = scores.masked_fill(~allowed[:, None], -torch.inf).softmax(-1)
        x = x + gate1 * attention.o_proj(merge_heads(weights @ pv))
        b = rms_norm(layer.post_attention_layernorm, x) * (1 + scale2) + shift2
        x = x + gate2 * layer.mlp(b)
    tokens = rms_norm(expert.norm, x).unflatten(1, (n, groups))[:, :, n_history:].transpose(1, 2)
    return model.heads(tokens[:, None])


@pytest.mark.parametrize("changes", [{}, {"num_expert_layers": 2}, {"trace_group_horizon": 1}])
def test_cached_expert_equals_one_masked_attention(random_model, changes):
    model, state = random_model(**changes), noise()
    with torch.inference_mode():
        prefix = model.encode(scene())
        queries = model.query(prefix, points())
        modulation = model.conditioning(torch.tensor([0.7], dtype=torch.float64))
        reference = dense_reference(model, prefix, queries, state, modulation)
        assert_same(model.velocity(state, modulation, prefix, queries), reference)


@pytest.mark.parametrize("history", [True, False])
def test_samples_that_share_a_prefix_equal_single_ones(random_model, history):
    model, state = random_model(), noise(samples=3)
    valid = torch.tensor([[True, True, False], [True, True, True]])
    asked = points(valid=valid) if history else points(valid=valid, history=None)
    with torch.inference_mode():
        prefix = model.encode(scene())
        together = model.sample(prefix, asked, state, n_steps=2)
        for s in range(3):
            alone = model.sample(prefix, asked, state[:, s : s + 1], n_steps=2)
            torch.testing.assert_close(
                together.control[:, s][valid], alone.control[:, 0][valid], **CLOSE
            )
            torch.testing.assert_close(
                together.traces[:, s][valid], alone.traces[:, 0][valid], **CLOSE
            )


def test_a_prefix_is_not_changed_by_its_use(random_model):
    model = random_model()
    with torch.inference_mode():
        prefix = model.encode(scene())
        before = [k.clone() for k in prefix.memory.keys]
        first = model.sample(prefix, points(), noise(samples=2))
        again = model.sample(prefix, points(), noise(samples=2))
    assert all(torch.equal(a, b) for a, b in zip(before, prefix.memory.keys, strict=True))
    assert torch.equal(first.control, again.control)


def test_without_modulation_the_expert_passes_tokens_through(random_model):
    model, state = random_model(), noise()
    with torch.inference_mode():
        for head in model.conditioning.modulation:
            head.weight.zero_()
            head.bias.zero_()
        prefix = model.encode(scene())
        queries = model.query(prefix, points())
        modulation = model.conditioning(torch.tensor([0.3], dtype=torch.float64))
        tokens = rms_norm(model.expert.norm, model.suffix.control(state, queries.features))
        assert_same(model.velocity(state, modulation, prefix, queries), model.heads(tokens))


@pytest.mark.parametrize("n_steps", [1, 3, 4, 10])
def test_exact_velocity_leads_from_noise_to_data(random_model, monkeypatch, n_steps):
    model, start = random_model(), noise(samples=2)
    target = torch.randn(start.shape, dtype=torch.float64)
    monkeypatch.setattr(model, "velocity", lambda *_: (start - target, None))
    with torch.inference_mode():
        samples = model.sample(model.encode(scene()), points(), start, n_steps=n_steps)
    torch.testing.assert_close(samples.control, target, rtol=0, atol=1e-5)
    torch.testing.assert_close(samples.traces, model.render_basis @ target, rtol=0, atol=1e-5)


def test_initial_noise_is_repeatable_and_a_fresh_model_stands_as_documented(random_model):
    model, p = random_model(), points()
    first = model.initial_noise(p, 4, torch.Generator().manual_seed(7))
    assert first.shape == (2, 4, 3, 4, 3)
    assert torch.equal(first, model.initial_noise(p, 4, torch.Generator().manual_seed(7)))
    fresh = Mu0(model.config).double().eval()
    _, logits = velocity(fresh, scene(), p, noise())
    torch.testing.assert_close(logits, torch.full_like(logits, 3.0))


def test_wrong_shapes_are_named(random_model):
    model = random_model()
    with pytest.raises(ShapeError, match=r"image: expected \(B, 3, H, W\), got \(2, 32, 32\)"):
        model.encode(scene(image=torch.zeros(2, 32, 32)))
    with pytest.raises(ShapeError, match=r"depth: expected \(2, 3, H, W\)"):
        model.encode(scene(depth=torch.zeros(2, 1, 32, 32)))
    with pytest.raises(ShapeError, match=r"tokens: expected \(2, T\)"):
        model.encode(scene(tokens=torch.zeros(1, 6, dtype=torch.int64)))
    prefix = model.encode(scene())
    with pytest.raises(ShapeError, match=r"history: expected \(2, 3, 4, 3\), got \(2, 3, 5, 3\)"):
        model.query(prefix, points(history=torch.zeros(2, 3, 5, 3)))
    with pytest.raises(ValueError, match="n_steps: expected at least 1, got 0"):
        model.sample(prefix, points(), noise(), n_steps=0)


def test_frozen_parts_follow_the_configuration(random_model):
    model = random_model()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"vlm", "expert", "suffix", "conditioning", "heads"}
    vlm = {name for name, p in model.vlm.named_parameters() if p.requires_grad}
    assert vlm and all(name.startswith("depth.") for name in vlm)
    whole = random_model(freeze_vision_encoder=False, train_expert_only=False)
    assert all(p.requires_grad for p in whole.vlm.parameters())
    assert not any(p.requires_grad for p in whole.dino.parameters())


def test_recomputed_activations_give_the_same_gradients(random_model):
    model = random_model()
    gradients = []
    for enabled in (False, True):
        model.checkpoint_activations(enabled)
        model.zero_grad()
        prefix = model.encode(scene())
        modulation = model.conditioning(torch.tensor([0.5], dtype=torch.float64))
        answer, _ = model.velocity(noise(), modulation, prefix, model.query(prefix, points()))
        answer.square().sum().backward()
        gradients.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_keypoints_with_appearance_see_their_own_depth_and_colour(random_model):
    model, p, state = random_model(use_appearance=True), points(), noise()
    known = replace(p, anchor=p.anchor.abs())
    nearer = known.anchor.clone()
    nearer[:, 0, 2] += 0.1
    first = velocity(model, scene(), known, state)[0]
    assert (velocity(model, scene(), replace(p, anchor=nearer), state)[0] - first).abs().max() > 0
    hidden = [known.anchor * torch.tensor([1.0, 1.0, z]) for z in (0.0, -1.0)]
    assert_same(*(velocity(model, scene(), replace(p, anchor=a), state) for a in hidden))
    plain = random_model()
    assert_same(*(velocity(plain, scene(), replace(p, anchor=a), state) for a in hidden))
    assert_same(
        *(velocity(plain, scene(), replace(p, anchor=a), state) for a in (nearer, known.anchor))
    )


def test_relations_move_with_the_scene_and_see_no_padding():
    """Relative places do not change when all keypoints shift; padding is looked at by none."""
    relations = Relations(8).double()
    torch.nn.init.normal_(relations.output.weight)
    g = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 2, 4, 8, generator=g, dtype=torch.float64)
    places = torch.randn(1, 4, 3, generator=g, dtype=torch.float64)
    seen = relations(tokens, places, None)
    shift = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    torch.testing.assert_close(relations(tokens, places + shift, None), seen, **CLOSE)
    valid = torch.tensor([[True, True, True, False]])
    short = relations(tokens[:, :, :3], places[:, :3], None)
    torch.testing.assert_close(relations(tokens, places, valid)[:, :, :3], short, **CLOSE)
    assert not Relations(8)(tokens.float(), places.float(), None).any()
