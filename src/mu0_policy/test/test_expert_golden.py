"""Agreement with numbers recorded from the published policy, in float32 on one thread."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mu0_policy.action_expert.config import RELEASED
from mu0_policy.action_expert.model import Observation, flow_loss
from mu0_policy.action_expert.released import load_released, released_name, released_shapes

GOLDEN = Path(__file__).resolve().parents[3].parent / "shared" / "golden"
TOLERANCE = 1e-4  # relative to the largest recorded value
CASES = ("trace", "no_trace")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def golden():
    if not (GOLDEN / "mu0_policy_tiny").is_dir():
        pytest.skip("golden data missing: expected shared/golden beside the repository")
    return GOLDEN / "mu0_policy_tiny"


def _arrays(path):
    with np.load(path) as file:
        return {
            key: value if value.dtype.kind == "U" else torch.from_numpy(np.asarray(value))
            for key, value in file.items()
        }


@pytest.fixture(scope="module")
def inputs(golden):
    return _arrays(golden / "inputs.npz")


@pytest.fixture(scope="module")
def outputs(golden):
    return _arrays(golden / "outputs.npz")


@pytest.fixture(scope="module")
def world_model(golden):
    from mu0_world_model import checkpoint

    return checkpoint.load(golden.parent / "mu0_tiny" / "checkpoint", dtype=torch.float32)


@pytest.fixture(scope="module")
def found(world_model, inputs):
    """Features of the frozen model for the recorded pictures."""
    from mu0_world_model.features import FeatureConfig, features
    from mu0_world_model.model import Scene

    scene = Scene(
        image=inputs["third_view_image"],
        tokens=inputs["observation.language.tokens"],
        token_valid=inputs["observation.language.attention_mask"],
    )
    return features(world_model, scene, FeatureConfig(), noise=inputs["trace_noise"][:, None])


@pytest.fixture(scope="module")
def seen(world_model, inputs, found):
    with torch.no_grad():
        maps = world_model.dino(inputs["gripper_image"] * 2.0 - 1.0)
    return Observation(
        context=found.context,
        context_valid=found.context_valid,
        traces=found.traces,
        language=found.language,
        language_valid=found.language_valid,
        cameras={"gripper": maps},
        state=inputs["state"],
    )


def assert_close(actual, recorded, where=None, tolerance=TOLERANCE):
    actual, recorded = actual.detach().double(), recorded.double()
    if where is not None:
        actual, recorded = actual[where], recorded[where]
    assert actual.shape == recorded.shape
    error = (actual - recorded).abs().max() / recorded.abs().max()
    assert error <= tolerance


def test_features(found, inputs, outputs):
    valid = ~outputs["trace/vlm_key_padding_mask"]
    used = valid.any(0)  # tokens that no sample uses are left out here
    assert torch.equal(found.context_valid, valid[:, used])
    recorded = outputs["trace/vlm_last_pre_norm"][:, used]
    assert_close(found.context, recorded, found.context_valid)
    assert_close(found.traces, outputs["trace/expert_reduced"])
    text = inputs["observation.language.attention_mask"]
    assert_close(
        found.language, outputs["trace/language_tokens"][:, text.any(0)], found.language_valid
    )


@pytest.mark.parametrize("case", CASES)
def test_what_the_decoder_reads(golden, seen, outputs, case):
    expert = load_released(golden / "step_00005000", use_traces=case == "trace")
    with torch.no_grad():
        encoded = expert.encode(seen)
    valid = outputs[f"{case}/decoder_prefix_pad_mask"]
    used = valid.any(0)
    assert torch.equal(encoded.valid, valid[:, used])
    assert_close(encoded.tokens, outputs[f"{case}/decoder_prefix"][:, used], encoded.valid)
    with torch.no_grad():
        condition = expert.decoder.condition(torch.ones(2))
    assert_close(condition, outputs[f"{case}/adarms_cond_step0"])


@pytest.mark.parametrize("case", CASES)
def test_actions(golden, seen, inputs, outputs, case):
    expert = load_released(golden / "step_00005000", use_traces=case == "trace")
    with torch.no_grad():
        encoded = expert.encode(seen)
        for state, velocity, time in zip(
            *(outputs[f"{case}/{name}"] for name in ("x_t", "v_t", "t")), strict=True
        ):
            assert_close(expert.velocity(state, time, encoded), velocity)
    assert_close(expert.sample(seen, inputs["action_noise"]), outputs[f"{case}/actions"])


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients(golden, seen, inputs, outputs, case):
    expert = load_released(golden / "step_00005000", use_traces=case == "trace")
    time = 0.999 * inputs["loss_beta_sample"] + 0.001
    loss = flow_loss(expert, seen, inputs["actions"], noise=inputs["loss_noise"], time=time)
    assert_close(loss, outputs[f"{case}/loss"])
    loss.backward()
    norms = {
        key.removeprefix(f"{case}/grad_norm/"): value.item()
        for key, value in outputs.items()
        if key.startswith(f"{case}/grad_norm/")
    }
    ours = {released_name(name): p.grad for name, p in expert.named_parameters()}
    trained = {name for name, norm in norms.items() if norm >= 0}
    assert {name for name, gradient in ours.items() if gradient is not None} == trained
    for name in trained:
        assert abs(ours[name].norm().item() - norms[name]) <= 3e-4 * max(norms.values()), name
        full = outputs.get(f"{case}/grad/{name}")
        if full is not None:
            assert_close(ours[name], full, tolerance=3e-4)


def test_every_stored_weight_is_accounted_for(golden):
    stored = torch.load(golden / "step_00005000" / "checkpoint.pt", weights_only=True)
    found = {key: tuple(value.shape) for key, value in stored["model_state_dict"].items()}
    assert released_shapes(load_released(golden / "step_00005000").config) == found


def test_the_published_sizes():
    shapes = released_shapes(RELEASED)
    assert shapes["gated_mixer.ca.in_proj_weight"] == (6144, 2048)
    assert shapes["gripper_spatial_pos_embed"] == (64, 2048)
    stack = "action_decoder.gemma_expert.model."
    assert shapes[stack + "layers.17.self_attn.k_proj.weight"] == (256, 1024)
    assert shapes[stack + "layers.0.mlp.down_proj.weight"] == (1024, 4096)
    assert shapes[stack + "norm.dense.weight"] == (3072, 1024)
    assert shapes["action_decoder.visual_proj.weight"] == (1024, 2048)
    assert shapes["action_decoder.action_out_proj.weight"] == (32, 1024)
    n = {k: int(np.prod(v)) for k, v in shapes.items()}
    decoder = sum(v for k, v in n.items() if k.startswith("action_decoder."))
    mixer = sum(v for k, v in n.items() if k.startswith("gated_mixer."))
    assert 433e6 < decoder < 439e6
    assert 18.8e6 < mixer < 19.0e6
