"""The predictor and the baselines, through the same door."""

import numpy as np
import pytest
import torch

from mu0_core.bspline import render
from mu0_core.camera import Camera
from mu0_core.errors import CheckpointError, ConfigError, ResourceError
from mu0_core.traces import Keypoints
from mu0_world_model import checkpoint, execution
from mu0_world_model.baselines import Motion, NearestNeighbours, StraightLinePredictor
from mu0_world_model.loading import SharedPredictor
from mu0_world_model.memory import stored_mb
from mu0_world_model.predictor import Predictor


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
    """A checkpoint folder as a user has it: weights, configuration, statistics, tokenizer."""
    target = tmp_path_factory.mktemp("mu0")
    for source in (golden / "checkpoint", golden / "tiny_smolvlm"):
        for path in source.iterdir():
            if source.name == "checkpoint" or path.name.startswith("tokenizer"):
                (target / path.name).write_bytes(path.read_bytes())
    (target / "normalizer_stats.json").write_bytes((golden / "normalizer_stats.json").read_bytes())
    for name in ("tiny_smolvlm", "tiny_dinov2"):
        (target / name).mkdir()
        (target / name / "config.json").write_bytes((golden / name / "config.json").read_bytes())
    return target


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor.from_pretrained(folder)


def keypoints(n=4, arc_step=0.05, **changes) -> Keypoints:
    rng = np.random.default_rng(0)
    uvz = np.column_stack([rng.uniform(10, 38, (n, 2)), rng.uniform(0.5, 1.5, n)])
    back = np.arange(8, 0, -1)[:, None] * [-1.0, 0.5, 0.01]
    values = {
        "stamp_ns": 5,
        "frame_id": "camera",
        "camera": Camera.from_fovy(0.9, 80, 48),
        "arc_step": arc_step,
        "ids": np.arange(n, dtype=np.uint32),
        "cluster_ids": np.zeros(n, np.int32),
        "source": np.zeros(n, np.uint8),
        "uv": uvz[:, :2].astype(np.float32),
        "z": uvz[:, 2].astype(np.float32),
        "visible": np.ones(n, bool),
        "history_uvz": (uvz[:, None] + back).astype(np.float32),
        "history_valid": np.ones((n, 8), bool),
    }
    return Keypoints(**(values | changes))


def picture(seed=0):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 255, (48, 80, 3), dtype=np.uint8)
    return rgb, rng.uniform(0.4, 2.0, (48, 80)).astype(np.float32)


def test_prediction_has_the_input_s_identity(predictor):
    rgb, depth = picture()
    traces = predictor.predict(rgb, keypoints(), "open the drawer", depth=depth, samples=3, seed=1)
    assert traces.xyz.shape == (3, 4, 32, 3) and traces.control_uvz.shape == (3, 4, 10, 3)
    assert (traces.stamp_ns, traces.frame_id, traces.instruction) == (
        5,
        "camera",
        "open the drawer",
    )
    assert traces.model == predictor.name
    assert traces.stage_names == (
        *("preprocess", "image_tower", "depth_tower", "prefix", "dino", "denoise", "decode"),
    )
    assert (traces.stage_seconds > 0).all()
    uvz, path = keypoints().camera.project(traces.xyz), render(traces.control_uvz, 32)
    ahead = path[..., 2] > 1e-3  # random weights also send points behind the camera
    assert 100 < ahead.sum() < ahead.size
    np.testing.assert_allclose(np.asarray(uvz)[ahead], path[ahead], rtol=1e-3, atol=0.05)
    assert np.isnan(traces.xyz[path[..., 2] < -1e-3]).all()


def test_seed_decides_and_samples_differ(predictor):
    rgb, _ = picture()
    first = predictor.predict(rgb, keypoints(), "", samples=2, seed=1)
    again = predictor.predict(rgb, keypoints(), "", samples=2, seed=1)
    other = predictor.predict(rgb, keypoints(), "", samples=2, seed=2)
    np.testing.assert_array_equal(first.xyz, again.xyz)
    assert not np.allclose(first.xyz, other.xyz)
    assert not np.allclose(first.xyz[0], first.xyz[1])
    unseeded = [predictor.predict(rgb, keypoints(), "").xyz for _ in range(2)]
    assert not np.allclose(*unseeded)


def test_the_prefix_is_encoded_once_per_image_and_instruction(predictor, monkeypatch):
    calls = []
    encode = predictor.model.encode
    monkeypatch.setattr(
        predictor.model, "encode", lambda scene, **k: calls.append(1) or encode(scene, **k)
    )
    rgb, depth = picture(seed=9)
    fresh = predictor.predict(rgb, keypoints(), "a", depth=depth, seed=1)
    kept = predictor.predict(rgb.copy(), keypoints(), "a", depth=depth.copy(), seed=1)
    np.testing.assert_array_equal(fresh.xyz, kept.xyz)
    assert len(calls) == 1
    predictor.predict(rgb, keypoints(n=2), "a", depth=depth)
    assert len(calls) == 1
    predictor.predict(rgb, keypoints(), "b", depth=depth)
    predictor.predict(rgb, keypoints(), "b")
    brighter = rgb.copy()
    brighter[0, 0, 0] ^= 1
    predictor.predict(brighter, keypoints(), "b")
    assert len(calls) == 4
    predictor.forget()
    predictor.predict(brighter, keypoints(), "b")
    assert len(calls) == 5


def test_lower_precisions_stay_near_float32(folder, predictor):
    rgb, depth = picture()
    exact = predictor.predict(rgb, keypoints(), "x", depth=depth, seed=1).control_uvz
    limits = {"bfloat16": 0.05, "int8": 0.1}
    for precision, limit in limits.items():
        low = Predictor.from_pretrained(folder, precision=precision)
        assert low.model.heads.velocity.weight.dtype == torch.float32
        near = low.predict(rgb, keypoints(), "x", depth=depth, seed=1).control_uvz
        assert 0 < np.abs(near - exact).max() < limit * np.abs(exact).max(), precision
    low = Predictor.from_pretrained(folder, precision="bfloat16")
    assert low.model.expert.norm.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_packed_layers_predict_as_plain_ones_do(folder, monkeypatch, precision):
    if precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor's kernels cannot pack bfloat16")
    rgb, depth = picture()
    plain = Predictor.from_pretrained(folder, precision=precision)
    monkeypatch.setattr(execution, "_PACKED_FROM", 1)
    packed = Predictor.from_pretrained(folder, precision=precision)
    kinds = {type(layer) for layer in packed.model.expert.layers[0].mlp.children()}
    assert execution.PackedLinear in kinds
    assert stored_mb(packed.model) == pytest.approx(stored_mb(plain.model))
    expected, found = (
        p.predict(rgb, keypoints(), "x", depth=depth, samples=2, seed=1).control_uvz
        for p in (plain, packed)
    )
    limit = {"float32": 1e-4, "bfloat16": 0.05}[precision]
    np.testing.assert_allclose(found, expected, atol=limit * np.abs(expected).max())


def test_bfloat16_is_not_packed_where_the_processor_cannot(folder, monkeypatch):
    monkeypatch.setattr(execution, "_PACKED_FROM", 1)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    for precision, packed in (("bfloat16", False), ("float32", True)):
        model = Predictor.from_pretrained(folder, precision=precision).model
        assert any(isinstance(m, execution.PackedLinear) for m in model.modules()) == packed


def test_impossible_ways_to_run_are_refused(folder):
    with pytest.raises(ConfigError, match="unknown format 'int4': known are bfloat16, float32, i"):
        Predictor.from_pretrained(folder, precision="int4")
    with pytest.raises(ConfigError, match="device: expected one that torch can use here"):
        Predictor.from_pretrained(folder, device="nowhere")
    with pytest.raises(ConfigError, match="precision: int8 needs the device cpu, got 'meta'"):
        Predictor.from_pretrained(folder, device="meta", precision="int8")


def compiled_and_not(folder, keypoints):
    """Predict with both for several numbers of keypoints and words."""
    rgb, depth = picture()
    plain, compiled = (Predictor.from_pretrained(folder, compiled=c) for c in (False, True))
    assert compiled.compiled and not plain.compiled
    for n, words, given in ((4, "a", depth), (6, "open the drawer", None), (5, "x", depth)):
        for past in (True, False):
            asked = keypoints(n=n, history_valid=np.full((n, 8), past))
            exact, found = (
                p.predict(rgb, asked, words, depth=given, samples=2, seed=1).control_uvz
                for p in (plain, compiled)
            )
            np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())


def test_compiled_layers_are_used_for_all_layers(folder, monkeypatch):
    used = []

    def compiled(function):
        return lambda *args, **kwargs: used.append(function.__name__) or function(*args, **kwargs)

    monkeypatch.setattr(torch, "compile", compiled)
    compiled_and_not(folder, keypoints)
    assert {name: used.count(name) for name in set(used)} == {
        "_tower_layer": 2 * (2 + 1 + 2),  # depth is not always there
        "_text_layer": 4 * 3,
        "_layer": 4 * 4 * 6,
    }


@pytest.mark.slow
def test_compiled_layers_give_the_same(folder):
    compiled_and_not(folder, keypoints)


def test_compiling_needs_a_compiler(folder, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="compile: needs a C\\+\\+ compiler, found none"):
        Predictor.from_pretrained(folder, compiled=True)


def test_a_compiled_model_is_warmed_up_in_all_ways(predictor, monkeypatch):
    asked = []
    shared = SharedPredictor(predictor)
    monkeypatch.setattr(predictor, "predict", lambda *args, **k: asked.append((*args, k)))
    shared.warm_up(3)
    monkeypatch.setattr(predictor.model.expert, "compiled_layer", print)
    assert len(asked) == 1
    shared.warm_up(3)
    pasts = [(bool(points.history_valid.any()), points.n) for _, points, _, _ in asked]
    assert pasts == [(False, 64), (False, 64), (True, 64), (True, 48), (False, 48)]
    assert {options["samples"] for *_, options in asked} == {3}


def test_without_the_memory_the_error_says_what_to_lower(folder, predictor, monkeypatch):
    with pytest.raises(ResourceError, match=r"out of memory: 10{13} samples of 4 keypoints do no"):
        predictor.predict(picture()[0], keypoints(), "", samples=10**13)
    with monkeypatch.context() as patched:

        def full(*args, **kwargs):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

        patched.setattr(predictor.model, "sample", full)
        with pytest.raises(ResourceError, match="lower the number of either, or take a lower pr"):
            predictor.predict(picture()[0], keypoints(), "", samples=2)
        for sign in ("CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory"):
            with pytest.raises(ResourceError), execution.memory_errors("lower something"):
                raise RuntimeError(f"{sign} and more")
        patched.setattr(checkpoint, "load", full)
        with pytest.raises(
            ResourceError, match="weights of .* do not fit; take a lower precision"
        ):
            Predictor.from_pretrained(folder)
        patched.setattr(predictor.model, "sample", lambda *a, **k: int("x"))
        with pytest.raises(ValueError, match="invalid literal"):
            predictor.predict(picture()[0], keypoints(), "", samples=2)
    assert predictor.predict(picture()[0], keypoints(), "").n == 4


def test_a_folder_without_statistics_is_refused(golden, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((golden / "checkpoint" / name).read_bytes())
    for name in ("tiny_smolvlm", "tiny_dinov2"):
        (tmp_path / name).symlink_to(golden / name)
    with pytest.raises(CheckpointError, match="expected normalizer_stats.json"):
        Predictor.from_pretrained(tmp_path)


def test_static_predictor_stands_still():
    kp = keypoints()
    static = StraightLinePredictor(motion=Motion.STATIC, arc_step=0.05)
    traces = static.predict(picture()[0], kp, "go", samples=2)
    assert traces.model == "static" and traces.xyz.shape == (2, 4, 32, 3)
    np.testing.assert_allclose(traces.xyz[1], np.repeat(kp.xyz()[:, None], 32, 1), atol=1e-5)


def test_constant_velocity_goes_on():
    kp = keypoints()
    moving = StraightLinePredictor(motion=Motion.CONSTANT_VELOCITY, arc_step=0.05)
    traces = moving.predict(picture()[0], kp, "go")
    uvz = np.asarray(kp.camera.project(traces.xyz[0]))
    step = np.array([1.0, -0.5, -0.01])
    wanted = np.column_stack([kp.uv, kp.z])[:, None] + np.arange(1, 33)[:, None] * step
    np.testing.assert_allclose(uvz, wanted, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(render(traces.control_uvz[0], 32), wanted, rtol=1e-4, atol=1e-3)
    unknown = keypoints(history_valid=np.zeros((4, 8), bool))
    still = moving.predict(picture()[0], unknown, "go")
    np.testing.assert_allclose(still.xyz[0, :, -1], unknown.xyz(), atol=1e-5)


def test_nearest_neighbours_share_instruction_anchor_and_history():
    anchors = np.array([[0, 0, 1], [0.5, 0, 1], [0, 0, 1]], np.float32)
    histories = np.zeros((3, 2, 3), np.float32)
    futures = np.arange(3, dtype=np.float16)[:, None, None] * np.ones((3, 4, 3), np.float16)
    valid = np.ones((3, 4), bool)
    valid[1, 2:] = False
    futures[1, 2:] = 99.0
    nearest = NearestNeighbours(["a", "a", "b"], anchors, histories, futures, valid)
    found = nearest.predict("a", anchors[1:2], histories[1:2], samples=3)
    assert found.shape == (3, 1, 4, 3)
    np.testing.assert_array_equal(
        found[0, 0, :, 0], [1, 1, 1, 1]
    )  # held after its last valid step
    np.testing.assert_array_equal(found[1:, 0, :, 0], 0.0)  # the other of "a", then again
    assert nearest.predict("b", anchors[1:2], histories[1:2], samples=1)[0, 0, 0, 0] == 2.0
    unseen = nearest.predict("c", anchors[1:2], histories[1:2], samples=1)
    assert unseen[0, 0, 0, 0] == 1.0
