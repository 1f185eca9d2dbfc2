"""Agreement with numbers recorded from the published implementation, in float32 on one thread."""

from dataclasses import replace

import pytest
import torch

from mu0_world_model import checkpoint
from mu0_world_model.config import read_config
from mu0_world_model.images import read_at
from mu0_world_model.losses import HidingDraws, Targets, flow_losses, hide
from mu0_world_model.model import Points, Scene
from mu0_world_model.suffix import fourier, sinusoid

TOLERANCE = 1e-4  # relative to the largest recorded value; the agreement found is about 2e-6

INFERENCE = ("depth_hist", "depth_nohist", "rgb_hist", "rgb_nohist", "maskeddepth_nohist")
TRAINING = (
    "eval_depth",
    "eval_rgb",
    "train_histmasked_depth",
    "train_histmasked_rgb",
    "train_depthdropped",
    "train_recipe_dropout",
)


@pytest.fixture(scope="module")
def model(golden):
    return checkpoint.load(golden / "checkpoint", dtype=torch.float32)


@pytest.fixture(scope="module")
def inputs(golden_arrays):
    return golden_arrays("inputs")


@pytest.fixture(scope="module")
def outputs(golden_arrays):
    return golden_arrays("outputs")


def assert_close(actual, recorded, where=None):
    """Compare relative to the largest recorded value, where a mask says so."""
    actual, recorded = actual.detach().to(torch.float64), recorded.to(torch.float64)
    if where is not None:
        actual, recorded = actual[where], recorded[where]
    assert actual.shape == recorded.shape
    error = (actual - recorded).abs().max() / recorded.abs().max()
    assert error <= TOLERANCE


def scene_of(inputs, *, depth):
    return Scene(
        image=inputs["observation.images.cam_front"],
        tokens=inputs["observation.language.tokens"],
        token_valid=inputs["observation.language.attention_mask"],
        depth=inputs["observation.images.cam_front_depth"] if depth else None,
    )


def points_of(inputs, *, history):
    return Points(
        anchor=inputs["current_kp"],
        valid=inputs["key_pad_mask"],
        history=inputs["traj_history"] if history else None,
    )


def inference_case(inputs, case):
    scene = scene_of(inputs, depth=case.startswith("depth"))
    if case.startswith("maskeddepth"):
        blank = torch.zeros_like(scene.image)
        scene = replace(scene, depth=blank, depth_valid=torch.zeros(len(blank), dtype=torch.bool))
    return scene, points_of(inputs, history=case.endswith("_hist"))


@pytest.mark.parametrize("case", INFERENCE)
def test_prefix(model, inputs, outputs, case):
    scene, points = inference_case(inputs, case)
    recorded = {k.split("/")[2]: v for k, v in outputs.items() if k.startswith(f"infer/{case}/")}
    with torch.inference_mode():
        prefix = model.encode(scene)
        passed = model.vlm(prefix.embeddings, prefix.valid, n_layers=4)
        dino = read_at(prefix.pixel_features, points.anchor[..., :2], points.valid)
    used = recorded["prefix_pad_mask"].any(0)  # tokens that no sample uses are left out here
    assert torch.equal(prefix.valid, recorded["prefix_pad_mask"][:, used])
    assert_close(prefix.embeddings, recorded["prefix_embs"][:, used], prefix.valid)
    for layer in range(4):
        for name, ours in (("k", passed.keys), ("v", passed.values)):
            wanted = recorded[f"prefix_{name}_layer{layer}"][:, used]
            assert_close(ours[layer].transpose(1, 2), wanted, prefix.valid)
    assert_close(dino, recorded["dino_feat"], points.valid)


@pytest.mark.parametrize("case", INFERENCE)
def test_suffix_tokens_and_modulation(model, inputs, outputs, case):
    scene, points = inference_case(inputs, case)
    with torch.inference_mode():
        prefix = model.encode(scene)
        # The recorded run embeds history tokens even where they are masked.
        queries = model.query(prefix, replace(points, history=inputs["traj_history"]))
        control = model.suffix.control(inputs["infer_noise"][:, None], queries.features)
        modulation = model.conditioning(torch.tensor([1.0]))
    tokens = torch.cat([queries.history, control[:, 0]], dim=1)  # (B, groups, n, E)
    recorded = outputs[f"infer/{case}/suffix_embs_step0"].unflatten(1, (5, 2)).transpose(1, 2)
    assert_close(tokens.transpose(1, 2), recorded.transpose(1, 2), points.valid)
    assert_close(modulation.expand(2, -1, -1, -1), outputs[f"infer/{case}/adaln_step0"])


@pytest.mark.parametrize("case", INFERENCE)
def test_velocity_at_each_step(model, inputs, outputs, case):
    scene, points = inference_case(inputs, case)
    recorded = {k.split("/")[2]: v for k, v in outputs.items() if k.startswith(f"infer/{case}/")}
    with torch.inference_mode():
        prefix = model.encode(scene)
        queries = model.query(prefix, points)
        modulation = model.conditioning(torch.tensor([1.0, 0.75, 0.5, 0.25]))
        for step in range(4):
            state = recorded["x_t"][step][:, None]
            velocity, logits = model.velocity(state, modulation[step : step + 1], prefix, queries)
            assert_close(velocity[:, 0], recorded["v_t"][step], points.valid)
            assert_close(logits[:, 0], recorded["done_logits_per_step"][step], points.valid)


@pytest.mark.parametrize("case", INFERENCE)
def test_samples(model, inputs, outputs, case):
    scene, points = inference_case(inputs, case)
    recorded = {k.split("/")[2]: v for k, v in outputs.items() if k.startswith(f"infer/{case}/")}
    with torch.inference_mode():
        samples = model.sample(model.encode(scene), points, inputs["infer_noise"][:, None])
    assert_close(samples.control[:, 0], recorded["ctrl_pts"], points.valid)
    assert_close(samples.traces[:, 0], recorded["traces"], points.valid)
    assert_close(samples.valid_prob[:, 0], recorded["done_prob"], points.valid)


def test_image_and_text_tokens(model, inputs, outputs):
    scene = scene_of(inputs, depth=True)
    with torch.inference_mode():
        rgb, depth = scene.image * 2 - 1, scene.depth * 2 - 1
        assert_close(model.vlm.embed_image(rgb), outputs["vision/rgb_tokens"])
        assert_close(model.vlm.embed_image(depth, depth=True), outputs["vision/depth_tokens"])
        crossed = model.vlm.embed_image(rgb, depth=True)
        assert_close(crossed, outputs["vision/rgb_through_depth_path"])
        assert_close(model.vlm.embed_text(scene.tokens), outputs["lang/raw_embeds"])


@pytest.mark.parametrize("time", [1.0, 0.75, 0.5, 0.25, 0.31])
def test_flow_time(model, outputs, time):
    features = sinusoid(torch.tensor([time], dtype=torch.float64), 256, 4e-3, 4.0)
    assert_close(features, outputs[f"time/sincos_{time}"])
    assert_close(model.conditioning.embed(torch.tensor([time])), outputs[f"time/t_cond_{time}"])


def test_pixel_features_and_basis(model, inputs, outputs):
    assert_close(fourier(inputs["current_kp"][..., :2], 8), outputs["uv/fourier"])
    assert_close(model.render_basis, outputs["render_basis"])


def training_case(model, inputs, outputs, case):
    """Evaluate the objective of one recorded case."""
    scene = scene_of(inputs, depth="rgb" not in case)
    points = points_of(inputs, history=True)
    batch, n = points.valid.shape
    keep, drop = torch.ones, torch.zeros
    chances = {}
    if case == "train_recipe_dropout":
        draws = HidingDraws(*(outputs[f"train/{case}/rand_draw{i}"] for i in range(3)))
    else:
        depth = drop if case == "train_depthdropped" else keep
        history = drop if "histmasked" in case else keep
        draws = HidingDraws(depth(batch), history(batch), keep(batch, n))
        chances = {"depth_dropout_prob": 0.5, "trace_history_kp_dropout_prob": 0.0}
    scene, points = hide(replace(model.config, **chances), scene, points, draws)
    targets = Targets(
        control=inputs["train/ctrl_pts_future"],
        control_valid=inputs["train/valid_kp"],
        future_valid=inputs["valid_future"],
        cluster_ids=inputs["cluster_ids"],
    )
    noise, time = inputs["train_noise"][:, None], inputs["train_time"][:, None]
    return flow_losses(model, scene, points, targets, noise=noise, time=time), points.valid


@pytest.mark.parametrize("case", TRAINING)
def test_losses(model, inputs, outputs, case):
    losses, valid = training_case(model, inputs, outputs, case)
    recorded = {k.split("/")[2]: v for k, v in outputs.items() if k.startswith(f"train/{case}/")}
    assert_close(losses.velocity, recorded["v_t"], valid)
    assert_close(losses.done_logits, recorded["done_logits"], valid)
    assert_close(losses.squared_error, recorded["fm_per_elem"], valid)
    assert_close(losses.flow.mean, recorded["loss_fm"])
    assert_close(losses.done.mean, recorded["loss_done"])
    assert_close(losses.rigidity.mean, recorded["loss_rigidity"])
    assert_close(losses.flow_per_axis(), recorded["loss_per_dim"])
    assert_close(losses.total(model.config), recorded["total"])
    if "per_sample_reduction_none" in recorded:
        assert_close(losses.flow_per_sample(), recorded["per_sample_reduction_none"])


@pytest.mark.parametrize("case", ["eval_depth", "train_recipe_dropout"])
def test_gradients(model, inputs, outputs, golden_arrays, case):
    recorded = golden_arrays("grads")
    model.zero_grad()
    losses, _ = training_case(model, inputs, outputs, case)
    losses.total(model.config).backward()
    ours = {
        checkpoint.released_name(name, adapted=True): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    norms = {k.removeprefix(f"{case}/norm/"): v for k, v in recorded.items() if "/norm/" in k}
    norms = {k: v for k, v in norms.items() if not k.startswith(("eval_", "train_"))}
    without_gradient = {name for name, norm in norms.items() if norm < 0}
    assert without_gradient == {n for n in checkpoint.unused_shapes(model.config) if "mlp" in n}
    assert set(ours) == set(norms) - without_gradient
    largest = max(norm.item() for norm in norms.values())
    for name, gradient in ours.items():
        assert abs(gradient.norm() - norms[name]) <= 3e-4 * max(norms[name], 1e-4 * largest), name
        if f"{case}/grad/{name}" in recorded:
            assert_close(gradient, recorded[f"{case}/grad/{name}"])


def test_every_stored_weight_is_accounted_for(golden):
    config = read_config(golden / "checkpoint")
    from safetensors import safe_open

    with safe_open(golden / "checkpoint" / "model.safetensors", framework="pt") as file:
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    assert checkpoint.released_shapes(config) == found


@pytest.mark.parametrize("case", ["depth_hist", "rgb_nohist"])
def test_stored_number_formats_stay_near(golden, golden_arrays, inputs, case):
    """The weights as stored, most in bfloat16; the recorded run rounds at other places."""
    model = checkpoint.load(golden / "checkpoint")
    assert model.vlm.embed_tokens.weight.dtype == torch.bfloat16
    assert model.expert.layers[1].self_attn.k_proj.weight.dtype == torch.float32
    scene, points = inference_case(inputs, case)
    samples = model.sample(model.encode(scene), points, inputs["infer_noise"][:, None])
    recorded = golden_arrays("outputs_native_dtypes")[f"training_build/infer/{case}/ctrl_pts"]
    error = (samples.control[:, 0] - recorded)[points.valid].abs().max() / recorded.abs().max()
    assert error < 0.05
