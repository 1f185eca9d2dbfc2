"""The benchmark command: its table, its errors, its memory."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mu0_core.errors import ConfigError
from mu0_world_model import benchmarking
from mu0_world_model.benchmark import BenchmarkConfig, main
from mu0_world_model.benchmarking import Case, measure, row
from mu0_world_model.execution import Precision
from mu0_world_model.memory import growth_mb, stored_mb
from mu0_world_model.presets import PRESETS
from mu0_world_model.untrained import untrained_model, untrained_predictor
from mu0_world_model.yardstick import Yardstick

CASE = Case(keypoints=3, samples=2, steps=4, history=True, depth=True)


@pytest.fixture
def sizes(readable_config):
    return readable_config()


@pytest.fixture
def predictor(sizes):
    """Make small predictors with random weights."""

    def make(precision=Precision.FLOAT32):
        return untrained_predictor(sizes, name="small", precision=precision, device="cpu")

    return make


def test_the_command_prints_a_row_for_each_combination(sizes, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "tiny", sizes)
    arguments = "--preset tiny --json --repeats 1 --keypoints 2 5 --samples 1 3 --threads 1"
    main([*arguments.split(), "--precision", "float32", "bfloat16", "int8"])
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    results = report["results"]
    assert len(results) == 3 * 2 * 2 * 2 * 2 and len(lines) == len(results) + 2
    keys = {"keypoints", "samples", "history", "depth", "dtype", "yardsticks", "seconds"}
    for result in results:
        assert keys | {"peak_memory_mb", "steps", "again_seconds"} <= set(result)
        assert result["yardsticks"] > 0 and result["seconds"] > 0 < result["again_seconds"]
        stages = {"image_tower", "prefix", "dino", "denoise", "decode", "preprocess"}
        stages |= {"depth_tower"} if result["depth"] else set()
        assert set(result["stages"]) == stages
        if result["dtype"] == "float32":
            assert result["error_max"] is None
        else:
            assert 1e-5 < result["error_rms"] < 0.2 and result["error_max"] < 1.0
    assert report["parameters_millions"] == pytest.approx(0.1, abs=0.1)
    assert report["weights_mb"]["float32"] > report["weights_mb"]["bfloat16"]
    assert report["machine"]["threads"] == 1 and report["settings"]["preset"] == "tiny"


def test_compiled_layers_are_measured_and_forgotten(sizes, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "tiny", sizes)
    done = []
    monkeypatch.setattr(torch, "compile", lambda layer: done.append("compile") or layer)
    monkeypatch.setattr(torch.compiler, "reset", lambda: done.append("reset"))
    arguments = "--preset tiny --json --repeats 1 --keypoints 2 --samples 1 --no-yardstick"
    main([*arguments.split(), "--precision", "float32", "bfloat16", "--compile"])
    assert done == 2 * [*3 * ["compile"], "reset"]
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["settings"]["compile"]
    done.clear()
    main([*arguments.split(), "--history", "false", "--depth", "false"])
    assert not done


def test_a_model_without_depth_path_is_not_asked_for_it(readable_config, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "tiny", readable_config(use_depth=False))
    arguments = "--preset tiny --json --repeats 1 --keypoints 2 --samples 1 --no-yardstick"
    main(arguments.split())
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [r["depth"] for r in report["results"]] == [False, False]
    assert all(r["yardsticks"] is None for r in report["results"])


def test_wrong_choices_are_told(capsys):
    with pytest.raises(ConfigError, match="keypoints: expected at least one value"):
        BenchmarkConfig(keypoints=())
    with pytest.raises(ConfigError, match="preset: expected no checkpoint beside it"):
        BenchmarkConfig(preset="tiny", checkpoint="mu0-tiny")
    with pytest.raises(SystemExit):
        main(["--preset", "tinny"])
    assert "unknown preset 'tinny'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--device", "nowhere"])
    assert "device: expected one that torch can use here" in capsys.readouterr().err


def test_a_case_is_measured_in_its_neighbouring_yardsticks(predictor, monkeypatch):
    """Yardsticks of 2 s and then 4 s; predictions of 3 s, and 1 s where the picture is known."""
    asked, clock, warming_up = predictor(), [0.0], iter([100.0])
    monkeypatch.setattr(benchmarking, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(benchmarking, "growth_mb", lambda *_: 2.0)
    predict = asked.predict

    def slow(*args, **kwargs):
        clock[0] += next(warming_up, 0.0)
        clock[0] += 1.0 if asked._kept is not None else 3.0
        return predict(*args, **kwargs)

    monkeypatch.setattr(asked, "predict", slow)
    lengths = iter([2.0, 4.0, 4.0])

    def yardstick():
        clock[0] += next(lengths)

    figures = measure(asked, CASE, yardstick, repeats=2)
    assert (figures.seconds, figures.again_seconds) == (3.0, 1.0)
    assert figures.yardsticks == pytest.approx((3 / 3 + 3 / 4) / 2)
    assert figures.peak_memory_mb == pytest.approx(stored_mb(asked.model) + 2.0)


def test_errors_are_relative_to_float32(predictor):
    figures = measure(predictor(), CASE, None, repeats=1)
    wrong = replace(figures, offsets=figures.offsets * np.float32(1.01))
    told = row(CASE, "bfloat16", wrong, figures)
    assert told["error_rms"] == pytest.approx(0.01, rel=0.01)
    assert told["error_max"] == pytest.approx(0.01, rel=0.01)


def test_the_yardstick_runs_the_configuration_s_backbone(sizes):
    yardstick = Yardstick(sizes, "cpu")
    seen = {"text": 0, "tower": 0}
    for layer in yardstick._text.layers:
        layer.register_forward_hook(lambda *_: seen.__setitem__("text", seen["text"] + 1))
    for layer in yardstick._tower.encoder.layers:
        layer.register_forward_hook(lambda *_: seen.__setitem__("tower", seen["tower"] + 1))
    yardstick()
    assert seen == {"text": 4, "tower": 2}
    assert {p.dtype for p in yardstick._text.parameters()} == {torch.float32}
    assert yardstick._tokens.shape == (1, 192) and yardstick._image.shape == (1, 3, 32, 32)


@pytest.mark.parametrize("precision", list(Precision))
def test_random_weights_move_something_and_repeat(predictor, precision):
    first, second = (measure(predictor(precision), CASE, None, 1).offsets for _ in range(2))
    assert np.isfinite(first).all() and np.ptp(first[..., 0]) > 1.0
    np.testing.assert_array_equal(first, second)


def test_stored_size_counts_every_weight(sizes, predictor):
    exact = untrained_model(sizes, Precision.FLOAT32)
    n = sum(p.numel() for p in exact.parameters())
    buffers = sum(b.numel() * b.element_size() for b in exact.buffers())
    assert stored_mb(exact) == pytest.approx((4 * n + buffers) / 1e6)
    half = untrained_model(sizes, Precision.BFLOAT16)
    large = sum(p.numel() for p in [*half.vlm.parameters(), *half.expert.parameters()])
    large += sum(p.numel() for p in half.dino.parameters())
    assert stored_mb(half) == pytest.approx((4 * n - 2 * large + buffers) / 1e6)
    quantised = predictor(Precision.INT8).model
    assert 0.25 * stored_mb(exact) < stored_mb(quantised) < stored_mb(exact)


def test_growth_of_memory_is_seen():
    grown = growth_mb(torch.device("cpu"), lambda: torch.ones(50_000_000 // 4))
    if grown is None:
        pytest.skip("this kernel does not let a process reset its peak memory")
    assert grown == pytest.approx(50.0, abs=8.0)
