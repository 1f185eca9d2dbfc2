import dataclasses
from typing import Any

import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_core.errors import ShapeError
from mu0_core.traces import Keypoints, KeypointSource, Traces

CAMERA = Camera(np.array([[100.0, 0, 31.5], [0, 100.0, 23.5], [0, 0, 1]]), 64, 48)


def keypoint_fields(n: int = 3, h: int = 2) -> dict[str, Any]:
    return {
        "stamp_ns": 5,
        "frame_id": "camera_color_optical_frame",
        "camera": CAMERA,
        "arc_step": 0.01,
        "ids": np.arange(10, 10 + n, dtype=np.uint32),
        "cluster_ids": np.full(n, -1, np.int32),
        "source": np.array([KeypointSource.ROBOT] + [KeypointSource.ENTITY] * (n - 1), np.uint8),
        "uv": np.tile(np.float32([41.5, 13.5]), (n, 1)),
        "z": np.full(n, 2.0, np.float32),
        "visible": np.full(n, True),
        "history_uvz": np.zeros((n, h, 3), np.float32),
        "history_valid": np.full((n, h), False),
    }


def trace_fields(n: int = 3, s: int = 2, horizon: int = 5, d: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "stamp_ns": 5,
        "frame_id": "camera_color_optical_frame",
        "instruction": "lift the cube",
        "model": "tiny",
        "arc_step": 0.01,
        "ids": np.arange(10, 10 + n, dtype=np.uint32),
        "cluster_ids": np.arange(n, dtype=np.int32),
        "source": np.array([KeypointSource.ROBOT] + [KeypointSource.ENTITY] * (n - 1), np.uint8),
        "current_xyz": rng.normal(size=(n, 3)).astype(np.float32),
        "xyz": rng.normal(size=(s, n, horizon, 3)).astype(np.float32),
        "control_uvz": rng.normal(size=(s, n, d, 3)).astype(np.float32),
        "valid_prob": rng.uniform(size=(s, n, horizon)).astype(np.float32),
        "stage_names": ("prefix", "denoise"),
        "stage_seconds": np.array([0.2, 0.1], np.float32),
    }


CASES = [(Keypoints, keypoint_fields), (Traces, trace_fields)]


def array_names(fields: dict[str, Any]) -> list[str]:
    return [name for name, value in fields.items() if isinstance(value, np.ndarray)]


def test_sizes():
    keypoints, traces = Keypoints(**keypoint_fields()), Traces(**trace_fields())
    assert (keypoints.n, keypoints.history_length) == (3, 2)
    assert (traces.n, traces.s, traces.horizon, traces.d) == (3, 2, 5, 4)


@pytest.mark.parametrize(("container", "make_fields"), CASES)
def test_no_keypoints_is_a_valid_answer(container, make_fields):
    assert container(**{**make_fields(n=1), **make_empty(make_fields)}).n == 0


def make_empty(make_fields) -> dict[str, np.ndarray]:
    full = make_fields(n=1)
    per_sample = ("xyz", "control_uvz", "valid_prob")
    return {
        name: full[name][:, :0] if name in per_sample else full[name][:0]
        for name in array_names(full)
        if name != "stage_seconds"
    }


@pytest.mark.parametrize(("container", "make_fields"), CASES)
def test_arrays_are_copied_and_read_only(container, make_fields):
    fields = make_fields()
    made = container(**fields)
    for name in array_names(fields):
        before = getattr(made, name).copy()
        fields[name][:] = 0
        np.testing.assert_array_equal(getattr(made, name), before)
        with pytest.raises(ValueError, match="read-only"):
            getattr(made, name)[:] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.frame_id = "other"


@pytest.mark.parametrize(("container", "make_fields"), CASES)
def test_wrong_arrays_are_refused_by_name(container, make_fields):
    for name in array_names(make_fields()):
        fields = make_fields()
        good = fields[name]
        for bad in (good.astype(np.float64), good[..., :-1], good[None], good.tolist()):
            # ids come first and say what n is: when they are short, the next field differs.
            named = r"(ids|cluster_ids)" if name == "ids" else name
            with pytest.raises(ShapeError, match=rf"^{container.__name__}\.{named}: expected"):
                container(**{**fields, name: bad})


def test_message_says_expected_and_given():
    fields = keypoint_fields()
    with pytest.raises(ShapeError) as error:
        Keypoints(**{**fields, "uv": fields["uv"].astype(np.float64)})
    assert str(error.value) == "Keypoints.uv: expected float32 (n=3, 2), got float64 (3, 2)"
    with pytest.raises(ShapeError) as error:
        Keypoints(**{**fields, "history_valid": np.full((3, 4), False)})
    text = "Keypoints.history_valid: expected bool (n=3, h=2), got bool (3, 4)"
    assert str(error.value) == text
    with pytest.raises(ShapeError) as error:
        Keypoints(**{**fields, "z": [1.0, 2.0, 3.0]})
    assert str(error.value) == "Keypoints.z: expected an array float32 (n=3), got list"


@pytest.mark.parametrize(("container", "make_fields"), CASES)
def test_impossible_values_are_refused(container, make_fields):
    fields, kind = make_fields(), container.__name__
    with pytest.raises(ShapeError, match=f"{kind}.ids: expected unique ids, got .7, 7, 8"):
        container(**{**fields, "ids": np.array([7, 7, 8], np.uint32)})
    with pytest.raises(ShapeError, match=rf"{kind}.source: expected one of \[0, .* 4\], got 9"):
        container(**{**fields, "source": np.array([0, 9, 1], np.uint8)})
    for arc_step in (0.0, -0.1, np.nan, np.inf):
        with pytest.raises(ShapeError, match=f"{kind}.arc_step: expected a length above 0"):
            container(**{**fields, "arc_step": arc_step})


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_probabilities_are_checked(value):
    fields = trace_fields()
    fields["valid_prob"][1, 2, 3] = value
    with pytest.raises(ShapeError, match=r"valid_prob: expected values in \[0, 1\], got"):
        Traces(**fields)


def test_keypoints_are_lifted_by_their_camera():
    fields = keypoint_fields()
    fields["z"][1] = np.nan
    xyz = Keypoints(**fields).xyz()
    assert xyz.dtype == np.float32
    np.testing.assert_allclose(xyz[[0, 2]], [[0.2, -0.2, 2.0]] * 2, rtol=1e-6)
    assert np.isnan(xyz[1]).all()


def test_selecting_keypoints():
    keypoints = Keypoints(**keypoint_fields())
    assert keypoints.of_source(KeypointSource.ROBOT).ids.tolist() == [10]
    assert keypoints.of_source(KeypointSource.CLICKED).n == 0
    swapped = keypoints.selected(np.array([2, 0]))
    assert swapped.ids.tolist() == [12, 10]
    assert swapped.history_uvz.shape == (2, 2, 3)
    assert swapped.camera is CAMERA


def test_selecting_traces():
    traces = Traces(**trace_fields())
    objects = traces.of_source(KeypointSource.ENTITY)
    assert objects.ids.tolist() == [11, 12]
    np.testing.assert_array_equal(objects.xyz, traces.xyz[:, 1:])
    np.testing.assert_array_equal(objects.current_xyz, traces.current_xyz[1:])
    np.testing.assert_array_equal(objects.valid_prob, traces.valid_prob[:, 1:])
    np.testing.assert_array_equal(objects.control_uvz, traces.control_uvz[:, 1:])
    assert objects.instruction == "lift the cube"
    assert objects.stage_names == traces.stage_names


def test_every_stage_has_its_time():
    with pytest.raises(
        ShapeError, match=r"stage_seconds: expected one for each of \('a',\), got 2"
    ):
        Traces(**{**trace_fields(), "stage_names": ("a",)})
