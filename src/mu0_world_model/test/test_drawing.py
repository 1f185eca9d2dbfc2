"""What viewers are given to draw: which lines, where, in which colours."""

import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_core.errors import ShapeError
from mu0_core.traces import KeypointSource, Traces
from mu0_world_model import drawing

CAMERA = Camera(np.array([[100.0, 0.0, 79.5], [0.0, 100.0, 59.5], [0.0, 0.0, 1.0]]), 160, 120)


def traces(n=2, s=1, horizon=4, step=(0.02, 0.0, 0.0), **changes) -> Traces:
    """Straight traces of keypoints one metre before the camera, 0.1 m apart downwards."""
    now = np.array([[0.0, 0.1 * i, 1.0] for i in range(n)], np.float32).reshape(n, 3)
    ahead = np.arange(1, horizon + 1, dtype=np.float32)[:, None] * np.array(step, np.float32)
    path = np.broadcast_to(now[:, None] + ahead, (s, n, horizon, 3))
    values = {
        "stamp_ns": 7,
        "frame_id": "camera",
        "instruction": "lift the cube",
        "model": "test",
        "arc_step": 0.02,
        "ids": np.arange(10, 10 + n, dtype=np.uint32),
        "cluster_ids": np.arange(n, dtype=np.int32),
        "source": np.zeros(n, np.uint8),
        "current_xyz": now,
        "xyz": np.array(path),
        "control_uvz": np.zeros((s, n, 4, 3), np.float32),
        "valid_prob": np.ones((s, n, horizon), np.float32),
        "stage_names": (),
        "stage_seconds": np.zeros(0, np.float32),
    }
    return Traces(**(values | changes))


def valid_prob(*rows):
    return np.array([rows], np.float32)


def test_a_line_runs_from_now_to_the_horizon_and_is_coloured_along_the_way():
    (line, _) = drawing.strips(traces())
    np.testing.assert_allclose(line.xyz[:, 0], [0.0, 0.02, 0.04, 0.06, 0.08], atol=1e-7)
    np.testing.assert_allclose(line.xyz[:, 1:], [[0.0, 1.0]] * 5)
    assert (line.sample, line.id) == (0, 10)
    assert line.rgba.shape == (5, 4) and (line.rgba[:, 3] == 1.0).all()
    assert line.rgba[0, 2] > 0.9 and line.rgba[-1, 2] < 0.3, "blue at first, not at the end"
    assert len(np.unique(line.rgba, axis=0)) == 5


def test_a_line_ends_where_the_motion_probably_does():
    some = traces(valid_prob=valid_prob([0.9, 0.5, 0.4, 0.9], [0.9, 0.9, 0.9, 0.9]))
    np.testing.assert_array_equal(drawing.shown_lengths(some), [[2, 4]])
    short, long = drawing.strips(some)
    assert (len(short.xyz), len(short.rgba), len(long.xyz)) == (3, 3, 5)
    np.testing.assert_array_equal(short.rgba, long.rgba[:3])


def test_one_step_that_goes_on_is_enough():
    some = traces(n=1, valid_prob=valid_prob([0.9, 0.1, 0.1, 0.1]))
    (line,) = drawing.strips(some)
    assert len(line.xyz) == 2


def test_what_stands_still_or_is_unknown_has_no_line():
    assert drawing.strips(traces(step=(0.002, 0.0, 0.0))) == []
    unknown = traces(n=1, current_xyz=np.full((1, 3), np.nan, np.float32))
    assert drawing.strips(unknown) == []
    xyz = np.array(traces(n=1).xyz)
    xyz[0, 0, 2] = np.inf
    (line,) = drawing.strips(traces(n=1, xyz=xyz))
    assert len(line.xyz) == 3 and np.isfinite(line.xyz).all()


def test_other_samples_are_pale_and_under_the_first():
    lines = drawing.strips(traces(n=1, s=3))
    assert [line.sample for line in lines] == [2, 1, 0]
    assert [line.rgba[0, 3] for line in lines] == [
        pytest.approx(drawing.OTHERS_ALPHA),
        pytest.approx(drawing.OTHERS_ALPHA),
        1.0,
    ]


def test_no_keypoints_give_nothing_to_draw():
    none = traces(n=0)
    assert drawing.strips(none) == []
    xyz, rgba = drawing.dots(none)
    assert xyz.shape == (0, 3) and rgba.shape == (0, 4)


def test_dots_show_entity_and_robot_and_leave_out_unknown_depth():
    now = np.array(traces(n=4).current_xyz)
    now[3, 2] = np.nan
    some = traces(
        n=4,
        current_xyz=now,
        cluster_ids=np.array([0, 1, 1, 0], np.int32),
        source=np.array([0, 0, KeypointSource.ROBOT, 0], np.uint8),
    )
    xyz, rgba = drawing.dots(some)
    np.testing.assert_array_equal(xyz, now[:3])
    assert not np.allclose(rgba[0], rgba[1])
    np.testing.assert_array_equal(rgba[2], 1.0)


def test_the_overlay_draws_where_the_trace_is():
    black = np.zeros((120, 160, 3), np.uint8)
    picture = drawing.overlay(black, traces(n=1, step=(0.1, 0.0, 0.0)), CAMERA)
    assert picture.shape == (480, 640, 3) and picture.dtype == np.uint8
    assert not black.any(), "the input is left alone"
    # z = 1 m, f = 100 px: the trace runs 40 px to the right of the centre, four times enlarged.
    centre, end = 4 * 80 - 0.5, 4 * 120 - 0.5
    lit = np.flatnonzero(picture[239:242].any((0, 2)))
    assert lit.min() == pytest.approx(centre - 4, abs=2.5) and lit.max() == pytest.approx(
        end + 1, abs=2.5
    )
    assert not picture[:225, :].any() and not picture[260:440].any()
    last = picture[240, int(end) - 4].astype(int)
    assert last[0] > 200 and last[2] < 100, "yellow at the end"


def test_the_overlay_names_the_instruction():
    grey = np.full((120, 160, 3), 90, np.uint8)
    foot = [
        drawing.overlay(grey, traces(n=0, instruction=text), CAMERA)[450:]
        for text in ("", "lift the cube", "lift the cube " * 5)
    ]
    assert all((picture > 180).any() for picture in foot)
    assert not np.array_equal(foot[0], foot[1])
    assert not (foot[2][:, 632:] > 180).any(), "a long text is made small enough"


def test_the_overlay_shows_the_spread_of_samples():
    xyz = np.array(traces(n=1, s=2, step=(0.1, 0.0, 0.0)).xyz)
    xyz[1, ..., 1] += 0.2
    grey = np.full((120, 160, 3), 90, np.uint8)
    picture = drawing.overlay(grey, traces(n=1, s=2, xyz=xyz), CAMERA)
    strong, pale = picture[240, 360].astype(int), picture[240 + 80, 400].astype(int)
    assert abs(strong - 90).max() > abs(pale - 90).max() > 20


def test_points_behind_the_camera_or_unknown_do_not_disturb_the_overlay():
    xyz = np.array(traces(n=3).xyz)
    xyz[0, 0, :, 2] = -1.0
    xyz[0, 1, :, 2] = 1e-9
    now = np.array(traces(n=3).current_xyz)
    now[2] = np.nan
    picture = drawing.overlay(
        np.zeros((120, 160, 3), np.uint8), traces(n=3, xyz=xyz, current_xyz=now), CAMERA
    )
    assert picture[:440].any()


def test_a_large_picture_keeps_its_size_and_the_input_its_pixels():
    camera = CAMERA.resized(800, 600)
    rgb = np.zeros((600, 800, 3), np.uint8)
    assert drawing.overlay(rgb, traces(), camera).shape == (600, 800, 3)
    assert not rgb.any()


def test_a_picture_of_another_size_than_the_camera_s_is_refused():
    with pytest.raises(ShapeError, match=r"uint8 \(120, 160, 3\) as the camera says, got uint8 "):
        drawing.overlay(np.zeros((60, 80, 3), np.uint8), traces(), CAMERA)
