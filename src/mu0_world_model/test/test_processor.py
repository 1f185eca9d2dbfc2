"""Pictures, text and keypoints in the model's units, against recorded numbers and back again."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from mu0_core.camera import Camera
from mu0_core.errors import CheckpointError, ShapeError
from mu0_core.traces import Keypoints
from mu0_world_model.config import PositionRounding, read_config
from mu0_world_model.images import prepare, resize_with_pad
from mu0_world_model.model import Samples
from mu0_world_model.processor import Processor, load_tokenizer
from mu0_world_model.statistics import Statistics, read_statistics
from mu0_world_model.vlm import position_ids


@pytest.fixture(scope="module")
def recorded(golden_arrays):
    return golden_arrays("preprocess")


@pytest.fixture(scope="module")
def processor(golden):
    config = read_config(golden / "checkpoint")
    return Processor(
        config, read_statistics(golden), load_tokenizer(golden / "checkpoint", config)
    )


@pytest.mark.parametrize("case", ["wide", "tall", "same", "small"])
def test_letterboxing(recorded, case):
    image = recorded[f"resize_with_pad/{case}/in"]
    padded = resize_with_pad(image, 64, 64)
    torch.testing.assert_close(padded, recorded[f"resize_with_pad/{case}/out_pad0"])
    torch.testing.assert_close(prepare(image, 64, 64), recorded[f"prepare_images/{case}/out"])


def test_tokens(recorded, processor):
    tokens, valid = processor.text([str(text) for text in recorded["tokenize/texts"]])
    assert torch.equal(tokens, recorded["tokenize/input_ids"])
    assert torch.equal(valid, recorded["tokenize/attention_mask"])


@pytest.mark.parametrize("rounding", list(PositionRounding))
@pytest.mark.parametrize("image, patch, table", [(64, 7, 42), (512, 14, 384), (512, 16, 512)])
def test_position_indices(recorded, rounding, image, patch, table):
    geometry = "tiny_64" if image == 64 else str(image)
    wanted = recorded[f"vision_position_ids/{geometry}_p{patch}_s{table}/{rounding}"]
    assert torch.equal(position_ids(image // patch, table // patch, rounding), wanted)


def keypoints(**changes) -> Keypoints:
    rng = np.random.default_rng(0)
    n, h = 3, 8
    values = {
        "stamp_ns": 5,
        "frame_id": "camera",
        "camera": Camera.from_fovy(0.9, 80, 48),
        "arc_step": 0.05,
        "ids": np.arange(n, dtype=np.uint32),
        "cluster_ids": np.zeros(n, np.int32),
        "source": np.zeros(n, np.uint8),
        "uv": rng.uniform(5, 40, (n, 2)).astype(np.float32),
        "z": np.array([0.5, 1.0, 2.0], np.float32),
        "visible": np.ones(n, bool),
        "history_uvz": rng.uniform(5, 40, (n, h, 3)).astype(np.float32),
        "history_valid": np.ones((n, h), bool),
    }
    return Keypoints(**(values | changes))


def test_keypoints_become_points(processor):
    kp = keypoints()
    points = processor.points(kp)
    np.testing.assert_allclose(points.anchor[0, 0, 0], 2 * kp.uv[0, 0] / 80 - 1, rtol=1e-6)
    np.testing.assert_allclose(points.anchor[0, 0, 1], 2 * kp.uv[0, 1] / 48 - 1, rtol=1e-6)
    np.testing.assert_allclose(points.anchor[0, :, 2], kp.z)
    step = (kp.history_uvz[1, 2] - [*kp.uv[1], kp.z[1]]) * [2 / 80, 2 / 48, 1]
    np.testing.assert_allclose(points.history[0, 1, 2], step, rtol=1e-5)
    assert points.history_valid.all()


def test_unknown_history_is_hidden_and_partly_known_is_zero(processor):
    valid = np.ones((3, 8), bool)
    valid[0] = False
    valid[1, :5] = False
    past = keypoints().history_uvz.copy()
    past[~valid] = np.nan
    points = processor.points(keypoints(history_uvz=past, history_valid=valid))
    assert points.history_valid.tolist() == [[False, True, True]]
    assert (points.history[0, 0] == 0).all() and (points.history[0, 1, :5] == 0).all()
    assert (points.history[0, 1, 5:] != 0).all()
    assert torch.isfinite(points.history).all()


def test_unknown_depth_hides_history_and_gives_no_position(processor):
    kp = keypoints(z=np.array([np.nan, 1.0, 2.0], np.float32))
    points = processor.points(kp)
    assert torch.isfinite(points.anchor).all()
    assert points.history_valid.tolist() == [[False, True, True]]
    traces = processor.traces(samples(), kp, instruction="", model="m")
    assert np.isnan(traces.xyz[:, 0]).all() and np.isfinite(traces.xyz[:, 1:]).all()


def samples() -> Samples:
    g = torch.Generator().manual_seed(0)
    control = torch.randn(1, 2, 3, 10, 3, generator=g) * 0.1
    return Samples(
        control, torch.randn(1, 2, 3, 32, 3, generator=g) * 0.1, torch.rand(1, 2, 3, 32)
    )


def test_samples_become_metric_traces(processor):
    kp, predicted = keypoints(), samples()
    traces = processor.traces(predicted, kp, instruction="go", model="m")
    assert traces.xyz.shape == (2, 3, 32, 3) and traces.control_uvz.shape == (2, 3, 10, 3)
    uvz = kp.camera.project(traces.xyz[1, 2, 7])
    delta = predicted.traces[0, 1, 2, 7].numpy() * processor.statistics.delta_scale
    wanted = [*kp.uv[2], kp.z[2]] + delta * [40, 24, 1]
    np.testing.assert_allclose(uvz, wanted, rtol=1e-4)
    assert traces.arc_step == 0.05 and traces.instruction == "go"
    np.testing.assert_array_equal(traces.valid_prob, predicted.valid_prob[0].numpy())


def test_still_samples_stay_where_the_keypoints_are(processor):
    kp = keypoints()
    still = Samples(torch.zeros(1, 1, 3, 10, 3), torch.zeros(1, 1, 3, 32, 3), None)
    traces = processor.traces(still, kp, instruction="", model="m")
    np.testing.assert_allclose(traces.xyz[0], np.repeat(kp.xyz()[:, None], 32, 1), atol=1e-5)
    assert (traces.valid_prob == 1).all()


def test_pictures(processor):
    rgb = np.zeros((48, 80, 3), np.uint8)
    rgb[..., 0] = 255
    scene = processor.scene(rgb, "go", np.full((48, 80), 1.0, np.float32))
    assert scene.image.shape == scene.depth.shape == (1, 3, 64, 64)
    torch.testing.assert_close(scene.image[0, :, 5, 5], torch.tensor([1.0, 0.0, 0.0]))


def test_every_fault_of_keypoints_is_told(processor):
    uv = keypoints().uv.copy()
    uv[1] = [90.0, 3.0]
    bad = keypoints(
        uv=uv,
        arc_step=0.01,
        history_uvz=np.zeros((3, 4, 3), np.float32),
        history_valid=np.ones((3, 4), bool),
    )
    with pytest.raises(ShapeError) as error:
        processor.points(bad)
    text = str(error.value)
    assert "history: expected 8 steps, got 4" in text
    assert "arc_step: expected 0.05 as this checkpoint was trained, got 0.01" in text
    assert "uv: 1 keypoints lie outside the 80 x 48 px image, the first at [90.0, 3.0] px" in text
    none = keypoints().selected(np.zeros(3, bool))
    with pytest.raises(ShapeError, match="expected at least one keypoint, got none"):
        processor.points(none)


def test_wrong_pictures_are_told(processor):
    rgb = np.zeros((48, 80, 3), np.uint8)
    with pytest.raises(ShapeError, match=r"image: expected uint8 \(H, W, 3\), got float32"):
        processor.image(rgb.astype(np.float32))
    with pytest.raises(ShapeError, match=r"depth: expected the image's size \(48, 80\), got"):
        processor.scene(rgb, "", np.zeros((24, 40), np.float32))
    with pytest.raises(ShapeError, match=r"depth: expected floats \(H, W\) in m, got uint16"):
        processor.depth(np.zeros((48, 80), np.uint16))


def test_depth_needs_a_checkpoint_with_depth(golden, processor):
    blind = dataclasses.replace(processor.statistics, depth_log_min=None, depth_log_max=None)
    plain = Processor(processor.config, blind, processor.tokenizer)
    with pytest.raises(CheckpointError, match="trained without; leave depth out"):
        plain.depth(np.zeros((4, 4), np.float32))


def test_statistics_of_another_checkpoint_are_refused(processor):
    other = dataclasses.replace(processor.statistics, future_len=16, delta_scale=(1.0, 1.0, 1.0))
    with pytest.raises(CheckpointError) as error:
        Processor(processor.config, other, processor.tokenizer)
    assert "delta_scale: config.json has" in str(error.value)
    assert "future_len: config.json has 32, the statistics have 16" in str(error.value)


def test_faults_of_statistics_files(golden, tmp_path):
    text = (golden / "normalizer_stats.json").read_text()
    with pytest.raises(CheckpointError, match="no statistics of a trace model"):
        Statistics.from_json("{}", where="x")
    with pytest.raises(CheckpointError, match="target_kind: expected 'anchor', got 'world'"):
        Statistics.from_json(text.replace('"anchor"', '"world"'), where="x")
    with pytest.raises(CheckpointError, match="older version"):
        Statistics.from_json(text.replace('"depth_', '"d_'), where="x")
    with pytest.raises(CheckpointError, match=r"expected normalizer_stats.json"):
        read_statistics(tmp_path)
    with pytest.raises(CheckpointError, match="no statistics of a trace model: OverflowError"):
        Statistics.from_json(json.dumps(json.loads(text) | {"history_len": 1e999}), where="x")


def test_wrong_values_of_a_statistics_file_are_told_with_its_path(golden, tmp_path):
    path = tmp_path / "normalizer_stats.json"
    good = json.loads((golden / "normalizer_stats.json").read_text())
    faults = {
        "depth_log_min: expected a finite number, got 'x'": {"depth_log_min": "x"},
        "depth_log_max: expected above depth_log_min = 1.0": {
            "depth_log_min": 1.0,
            "depth_log_max": 0.5,
        },
        "depth_log_max: expected both depth limits": {"depth_log_max": None},
        "delta_scale: expected at least 1e-09": {"delta_scale_y": 0.0},
    }
    for fault, values in faults.items():
        path.write_text(json.dumps(good | values))
        with pytest.raises(CheckpointError) as error:
            read_statistics(tmp_path)
        assert str(path) in str(error.value) and fault in str(error.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"normalizer_stats.json: cannot be read: .*utf-8"):
        read_statistics(tmp_path)


def test_a_tokenizer_of_another_checkpoint_is_refused(processor):
    sizes = dataclasses.replace(processor.config.vlm, vocab_size=20)
    small = dataclasses.replace(processor.config, vlm=sizes)
    mixed = Processor(small, processor.statistics, processor.tokenizer)
    with pytest.raises(CheckpointError, match=r"got token \d+, config.json has a vocab_size"):
        mixed.text(["open the drawer"])


def test_a_broken_tokenizer_is_told(processor, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer: the files in .* cannot be read"):
        load_tokenizer(tmp_path, processor.config)


def test_a_tokenizer_that_cannot_be_had_is_told(processor, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    elsewhere = dataclasses.replace(processor.config, vlm_model_name="nobody/nothing")
    with pytest.raises(CheckpointError, match=r"'nobody/nothing' cannot be had from the hub"):
        load_tokenizer(tmp_path, elsewhere)


def test_a_missing_tokenizer_is_told(processor, tmp_path):
    nameless = dataclasses.replace(processor.config, vlm_model_name="")
    with pytest.raises(CheckpointError, match=r"tokenizer: no tokenizer.json in"):
        load_tokenizer(tmp_path, nameless)
