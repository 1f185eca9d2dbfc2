"""Measures against recorded numbers and by hand."""

import numpy as np
import pytest

from mu0_world_model.metrics import (
    AXES,
    done_accuracy,
    done_end_step_error,
    l1_errors,
    per_trace,
    smoothness,
    summarise,
)


@pytest.fixture(scope="module")
def recorded(golden_arrays):
    return {k: v.numpy() for k, v in golden_arrays("metrics").items()}


@pytest.fixture(scope="module")
def scenes(recorded):
    """Absolute predictions (B, S, K, H, 3), truth (B, K, H, 3) and validity (B, K, H)."""
    anchor, scale = recorded["current_kp"][:, :, None], recorded["delta_scale"]
    truth = recorded["traj_future"] * scale + anchor
    valid = recorded["valid_future"] & recorded["key_pad_mask"][..., None]
    return (recorded["traces_S"] * scale + anchor[:, None]), truth, valid


@pytest.mark.parametrize("axes", AXES)
def test_each_trace_agrees_with_the_recorded_one(recorded, scenes, axes):
    predicted, truth, valid = scenes
    part = AXES[axes]
    for b in range(len(truth)):
        ours = per_trace(predicted[b][..., part], truth[b][..., part], valid[b])
        for name in ("ade", "fde", "dtw", "frechet"):
            np.testing.assert_allclose(
                ours[name][0], recorded[f"per_traj/{axes}/{name}"][b], rtol=1e-5
            )
            best = recorded[f"per_traj/{axes}/min{name}"][b]
            np.testing.assert_allclose(ours[name].min(0), best, rtol=1e-5)
        np.testing.assert_allclose(
            ours["smooth_gt"], recorded[f"per_traj/{axes}/smooth_gt"][b], rtol=1e-5
        )


@pytest.mark.parametrize("horizon", [1, 8, 16, 32])
def test_tables_agree_with_the_recorded_ones(recorded, scenes, horizon):
    predicted, truth, valid = scenes
    samples = predicted.shape[1]
    flat = predicted.transpose(1, 0, 2, 3, 4).reshape(samples, -1, 32, 3)[:, :, :horizon]
    truth, valid = truth.reshape(-1, 32, 3)[:, :horizon], valid.reshape(-1, 32)[:, :horizon]
    scene = np.repeat([0, 1], 6)
    means = {}
    for axes, part in AXES.items():
        means |= summarise(per_trace(flat[..., part], truth[..., part], valid), axes, scene)
    means |= l1_errors(flat[0], truth, valid, recorded["delta_scale"])
    known = {k.split("/")[1]: v for k, v in recorded.items() if k.startswith(f"H{horizon}/")}
    assert len(known) == 34
    for name, value in known.items():
        if np.isfinite(means[name]):
            assert means[name] == pytest.approx(float(value), rel=1e-5), name
        else:  # a horizon too short for a bend: nothing counted
            assert horizon < 3 and name.startswith("smooth") and not value > 0, name


def test_l1_by_hand():
    truth = np.array([[[0.0, 0, 0], [1, 2, 3], [np.nan, 9, 9]]])
    valid = np.array([[True, True, False]])
    errors = l1_errors(np.zeros((1, 3, 3)), truth, valid, np.array([0.5, 1.0, 2.0]))
    assert errors == {"l1_abs": 3.0, "l1_uv": 1.5, "l1_depth": 1.5, "l1_delta": 2.75}
    none = l1_errors(np.zeros((1, 3, 3)), truth, valid & False, np.ones(3))
    assert np.isnan(list(none.values())).all()


def test_validity_agrees_with_the_recorded_one(recorded):
    prob, threshold = recorded["done/done_prob"], float(recorded["done/threshold"])
    valid, real = recorded["valid_future"], recorded["key_pad_mask"]
    prob, valid, real = prob.reshape(-1, 32), valid.reshape(-1, 32), real.reshape(-1)
    accuracy = done_accuracy(prob, valid, real, threshold)
    error, not_prefix = done_end_step_error(prob, valid, real, threshold)
    assert accuracy == pytest.approx(float(recorded["done/done_acc"]), rel=1e-6)
    assert error == pytest.approx(float(recorded["done/done_end_step_mae"]), rel=1e-6)
    assert not_prefix == pytest.approx(float(recorded["done/done_nonmono_frac"]), rel=1e-6)


def test_by_hand():
    truth = np.array([[[0.0, 0, 0], [1, 0, 0], [9, 9, 9], [2, 0, 0]]])
    valid = np.array([[True, True, False, True]])
    predicted = np.zeros((1, 1, 4, 3))
    ours = per_trace(predicted, truth, valid)
    assert ours["ade"][0, 0] == 1.0
    assert ours["fde"][0, 0] == 2.0
    assert ours["dtw"][0, 0] == 1.0
    assert ours["frechet"][0, 0] == 2.0
    assert np.isnan(ours["smooth_gt"][0])
    bent = np.array([[[0.0], [1.0], [0.0]]])
    assert smoothness(bent, np.ones((1, 3), bool))[0] == 2.0


def test_a_trace_without_valid_steps_does_not_count():
    valid = np.array([[False, False], [True, True]])
    measured = per_trace(np.ones((2, 2, 2, 2)), np.zeros((2, 2, 2)), valid)
    means = summarise(measured, "uv", np.zeros(2, int))
    assert means["ade_uv"] == pytest.approx(2**0.5)
    assert np.isnan(summarise(measured, "uv", np.zeros(2, int), valid[:, 0] & False)["ade_uv"])


def test_joint_minimum_is_over_whole_scenes():
    predicted = np.zeros((2, 3, 1, 1))
    predicted[0, 0], predicted[1, 1] = 4.0, 2.0  # each sample is right about one trace
    predicted[:, 2] = 5.0  # a scene of its own
    measured = per_trace(predicted, np.zeros((3, 1, 1)), np.ones((3, 1), bool))
    means = summarise(measured, "depth", np.array([0, 0, 1]))
    assert means["minADE_2_depth"] == pytest.approx(5 / 3)
    assert means["jointADE_2_depth"] == pytest.approx((1.0 + 5.0) / 2)
    kept = summarise(measured, "depth", np.array([0, 0, 1]), np.array([True, False, False]))
    assert kept["jointADE_2_depth"] == kept["minADE_2_depth"] == 0.0
