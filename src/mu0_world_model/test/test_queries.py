"""Keypoints that a prediction is asked for."""

import dataclasses

import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_core.errors import ShapeError
from mu0_world_model.queries import grid_uv, keypoints_without_past, usable

CAMERA = Camera.from_fovy(1.0, 64, 48)


def keypoints(uv, depth=None):
    return keypoints_without_past(
        np.array(uv, np.float32).reshape(-1, 2),
        depth,
        CAMERA,
        stamp_ns=3,
        frame_id="optical",
        arc_step=0.02,
        history_length=8,
    )


def test_a_grid_has_one_point_in_the_middle_of_each_cell():
    uv = grid_uv(CAMERA)
    assert uv.shape == (64, 2) and uv.dtype == np.float32
    np.testing.assert_allclose(uv[0], [3.5, 2.5])
    np.testing.assert_allclose(uv[1] - uv[0], [8.0, 0.0])
    np.testing.assert_allclose(uv[-1], [63 - 3.5, 47 - 2.5])


def test_fresh_keypoints_take_the_depth_under_them_and_have_no_past():
    depth = np.arange(48 * 64, dtype=np.float32).reshape(48, 64)
    depth[2, 1] = np.nan
    found = keypoints([[10.4, 20.6], [1.0, 2.0], [63.4, 47.4]], depth)
    np.testing.assert_array_equal(found.z, [21 * 64 + 10, np.nan, 47 * 64 + 63])
    assert not found.history_valid.any() and found.history_valid.shape == (3, 8)
    assert np.isnan(keypoints([[1.0, 2.0]]).z).all(), "no depth image, no depth"


def test_points_outside_and_depth_of_another_size_are_refused():
    with pytest.raises(ShapeError, match=r"64 x 48 px picture, got \[64.0, 1.0\] px and 1 more"):
        keypoints([[1, 1], [64.0, 1.0], [np.nan, 1.0]])
    with pytest.raises(ShapeError, match="depth image: expected 48 rows of 64 px"):
        keypoints([[1, 1]], np.ones((24, 32), np.float32))


def test_what_cannot_be_predicted_is_left_out_and_counted():
    given = dataclasses.replace(
        keypoints([[1, 1]] * 5),
        uv=np.array([[1, 1], [np.nan, 1], [-1, 1], [64, 48], [2, 2]], np.float32),
        z=np.array([np.nan, 1, 1, 1, np.inf], np.float32),
    )
    kept, left_out = usable(given)
    assert kept.ids.tolist() == [0, 3]
    assert left_out == {"not finite": 2, "outside the picture": 1}
    same, nothing = usable(kept)
    assert same is kept and nothing == {}
