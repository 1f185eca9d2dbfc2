import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mu0_core.config import from_dict, to_dict
from mu0_core.errors import ConfigError, ShapeError
from mu0_core.se3 import exp, inverse, make_transform, transform_points
from mu0_core.traces import KeypointSource
from mu0_perception.frame import RgbdFrame
from mu0_perception.live_tracker import GripperKeypoints, LiveTracker, LiveTrackerConfig
from mu0_perception.selection import SelectionConfig, Source

FRAME_NS = 33_333_333
START_NS = 10**9


def _tracker(*sources, **settings):
    selection = SelectionConfig(sources=sources or (Source.ENTITY,))
    return LiveTracker(LiveTrackerConfig(selection=selection, **settings))


def _stamp(k):
    return START_NS + k * FRAME_NS


def _world(scene, keypoints):
    return transform_points(scene.T_world_camera, keypoints.xyz())


def _boxes_of(scene, keypoints, on_box):
    return [on_box(box, _world(scene, keypoints)) for box in scene.boxes]


def test_each_box_gets_points_and_the_table_none(scene, on_box):
    keypoints = _tracker().update(scene.frame(START_NS)).keypoints
    red, blue = _boxes_of(scene, keypoints, on_box)
    assert red.sum() == blue.sum() == 12 and keypoints.n == 24
    assert len(set(keypoints.cluster_ids[red])) == len(set(keypoints.cluster_ids[blue])) == 1
    assert set(keypoints.cluster_ids[red]) != set(keypoints.cluster_ids[blue])
    assert keypoints.visible.all() and not keypoints.history_valid.any()
    assert (keypoints.stamp_ns, keypoints.frame_id) == (START_NS, "camera_color_optical_frame")


def test_points_stay_on_a_box_that_moves_and_turns(scene):
    """Within 8 mm (95 % of them) and 12 mm (all) after 16 cm and 34 degrees, depth noise 1 mm.

    The picture shows 3 mm in a pixel.
    """
    tracker, red = _tracker(), scene.boxes[0]
    start = red.T_world_box.copy()
    first = tracker.update(scene.frame(_stamp(0))).keypoints
    local = transform_points(inverse(start), _world(scene, first))
    mine = np.abs(local).max(axis=1) < 0.04
    speed = np.array([0.12, 0.1, 0.04, 0.0, 0.0, 0.6])  # m/s and rad/s
    for k in range(1, 31):
        turn = exp(np.concatenate([np.zeros(3), speed[3:] * k / 30]))
        red.T_world_box = make_transform(np.eye(3), speed[:3] * k / 30) @ start @ turn
        keypoints = tracker.update(scene.frame(_stamp(k), depth_noise_m=0.001, seed=k)).keypoints
    kept = {int(i): row for row, i in enumerate(keypoints.ids)}
    born = zip(first.ids[mine], local[mine], strict=True)
    rows = [(kept[int(i)], xyz) for i, xyz in born if int(i) in kept]
    assert len(rows) >= 9, "most points live through the motion"
    index = np.array([row for row, _ in rows])
    exact = transform_points(red.T_world_box, np.array([xyz for _, xyz in rows]))
    error = np.linalg.norm(_world(scene, keypoints)[index] - exact, axis=1)
    assert np.percentile(error, 95) < 0.008 and error.max() < 0.012
    assert keypoints.history_valid[index].all()
    still = ~np.isin(keypoints.ids, first.ids[mine])
    drift = keypoints.history_uvz[still, :, :2] - keypoints.uv[still, None]
    assert np.nanmax(np.abs(drift)) < 1.5


def test_history_follows_the_motion(scene):
    tracker, red = _tracker(), scene.boxes[0]
    for k in range(31):
        red.T_world_box[:3, 3] = (-0.1 + 0.005 * k, 0.0, 0.03)
        keypoints = tracker.update(scene.frame(_stamp(k))).keypoints
    uvz = np.column_stack([keypoints.uv, keypoints.z])
    moving = np.nanmax(np.abs(keypoints.history_uvz - uvz[:, None]), axis=(1, 2)) > 5.0
    assert moving.sum() >= 10
    # 1 % of the picture's width is the arc step, and this motion is sideways only.
    steps = (uvz[:, None, 0] - keypoints.history_uvz[..., 0])[moving]
    np.testing.assert_allclose(
        steps, np.tile(3.2 * np.arange(8, 0, -1), (len(steps), 1)), atol=1.5
    )


def test_a_moving_camera_is_compensated(scene):
    tracker = _tracker()
    start = scene.T_world_camera
    for k in range(31):
        scene.T_world_camera = start @ exp(np.array([0.003, 0.001, 0.002, 0.0, 0.004, 0.002]) * k)
        frame = scene.frame(_stamp(k), T_fixed_camera=scene.T_world_camera)
        keypoints = tracker.update(frame).keypoints
        if k == 0:
            first, at_first = keypoints.ids, _world(scene, keypoints)
    _, now, before = np.intersect1d(keypoints.ids, first, return_indices=True)
    assert len(now) >= 20
    error = np.linalg.norm(_world(scene, keypoints)[now] - at_first[before], axis=1)
    assert np.percentile(error, 95) < 0.008
    assert not keypoints.history_valid[now].any(), "nothing moved but the camera"


def test_a_hidden_point_is_found_again(scene, box):
    tracker = _tracker()
    before = tracker.update(scene.frame(_stamp(0))).keypoints
    scene.boxes.append(box((-0.1, -0.2, 0.2), size=(0.2, 0.02, 0.25), colour=(60.0, 200.0, 60.0)))
    hidden = tracker.update(scene.frame(_stamp(1))).keypoints
    of_red = before.ids[_world(scene, before)[:, 0] < -0.05]
    assert not hidden.visible[np.isin(hidden.ids, of_red)].any()
    assert np.isfinite(hidden.uv).all(), "hidden points keep their place"
    scene.boxes.pop()
    after = tracker.update(scene.frame(_stamp(2))).keypoints
    assert after.visible[np.isin(after.ids, of_red)].all()
    np.testing.assert_allclose(after.uv, before.uv, atol=0.5)


def test_points_of_a_thing_taken_away_are_given_up_and_not_left_on_the_table(scene):
    tracker = _tracker()
    first = tracker.update(scene.frame(_stamp(0))).keypoints
    red = first.ids[_world(scene, first)[:, 0] < -0.05]
    scene.boxes.pop(0)
    seen = tracker.update(scene.frame(_stamp(1))).keypoints
    assert not seen.visible[np.isin(seen.ids, red)].any()
    later = tracker.update(scene.frame(_stamp(70))).keypoints
    assert not np.isin(later.ids, red).any()
    assert later.n == 12


def test_an_entity_keeps_its_number_when_points_are_replaced(scene, on_box):
    tracker = _tracker(propose_every_s=0.1)
    red = scene.boxes[0]
    start = red.T_world_box.copy()
    clusters = set()
    for k in range(45):
        turn = make_transform(Rotation.from_rotvec([0, 0, 0.06 * k]).as_matrix(), np.zeros(3))
        red.T_world_box = start @ turn
        keypoints = tracker.update(scene.frame(_stamp(k))).keypoints
        clusters |= set(keypoints.cluster_ids[_boxes_of(scene, keypoints, on_box)[0]].tolist())
    assert len(clusters) == 1
    assert keypoints.ids.max() > 24, "points on sides that came into view are new"
    assert len(np.unique(keypoints.ids)) == keypoints.n


def test_robot_points_are_where_the_gripper_is(scene):
    gripper = GripperKeypoints(frame="tool0", xyz=(0.0, 0.0, 0.0, 0.05, 0.0, 0.0))
    tracker = _tracker(Source.ROBOT, gripper_keypoints=gripper)
    T = make_transform(np.eye(3), (0.02, -0.1, 0.5))
    keypoints = tracker.update(scene.frame(_stamp(0), T_camera_gripper=T)).keypoints
    np.testing.assert_allclose(keypoints.xyz(), [[0.02, -0.1, 0.5], [0.07, -0.1, 0.5]], atol=1e-6)
    assert keypoints.visible.all()
    assert set(keypoints.source) == {KeypointSource.ROBOT}
    ids = keypoints.ids
    for k in range(1, 12):
        T = make_transform(np.eye(3), (0.02, -0.1, 0.5 + 0.01 * k))
        keypoints = tracker.update(scene.frame(_stamp(k), T_camera_gripper=T)).keypoints
    np.testing.assert_array_equal(keypoints.ids, ids)
    np.testing.assert_allclose(keypoints.history_uvz[0, -1, 2], 0.6, atol=0.004)
    behind = make_transform(np.eye(3), (0.0, 0.0, 1.2))
    hidden = tracker.update(scene.frame(_stamp(12), T_camera_gripper=behind)).keypoints
    assert not hidden.visible.any()


def test_another_scene_gets_points_at_once(scene, on_box):
    tracker = _tracker()
    for k in range(3):
        tracker.update(scene.frame(_stamp(k)))
    for box, shift in zip(scene.boxes, (0.15, -0.15), strict=True):
        box.T_world_box = make_transform(np.eye(3), (0.0, shift, 0.0)) @ box.T_world_box
    keypoints = tracker.update(scene.frame(_stamp(3))).keypoints
    for on in _boxes_of(scene, keypoints, on_box):
        assert on[keypoints.visible].sum() >= 10
    assert keypoints.visible.sum() == keypoints.n


def test_robot_points_are_left_out_while_the_gripper_is_unknown(scene):
    gripper = GripperKeypoints(frame="tool0", xyz=(0.0, 0.0, 0.0))
    tracker = _tracker(Source.ROBOT, Source.ENTITY, gripper_keypoints=gripper)
    T = make_transform(np.eye(3), (0.0, 0.0, 0.5))
    ids = [
        tracker.update(scene.frame(_stamp(k), T_camera_gripper=T if k != 1 else None))
        for k in range(3)
    ]
    assert [0 in update.keypoints.ids for update in ids] == [True, False, True]
    (trouble,) = ids[1].warnings
    assert "no transform from 'tool0' to 'camera_color_optical_frame'" in trouble.text


def test_a_wrong_calibration_is_reported_with_its_size(scene, box):
    scene.boxes = [box((0.0, -0.1, 0.2), size=(0.1, 0.04, 0.06))]
    T_camera_world = inverse(scene.T_world_camera)
    xyz = (-0.04, 0.0, 0.0, 0.0, 0.0, 0.0, 0.04, 0.0, 0.0, 0.0, 0.0, 0.02)
    gripper = GripperKeypoints(frame="tool0", xyz=xyz)
    T = T_camera_world @ make_transform(np.eye(3), (0.0, -0.12, 0.2))
    for off_m, expected in ((0.0, False), (0.09, True)):
        tracker = _tracker(Source.ROBOT, gripper_keypoints=gripper, propose_pause_s=0.0)
        wrong = make_transform(np.eye(3), (0.0, 0.0, -off_m)) @ T
        texts = [
            trouble.text
            for k in range(5)
            for trouble in tracker.update(scene.frame(_stamp(k), T_camera_gripper=wrong)).warnings
        ]
        assert bool(texts) == expected
    assert "4 of 4 gripper keypoints" in texts[0] and "hand-eye" in texts[0]


def test_clicked_points_are_added_or_refused_with_a_reason(scene):
    tracker = _tracker(Source.CLICKED)
    T_camera_world = inverse(scene.T_world_camera)
    on_table = transform_points(T_camera_world, np.array([[0.0, -0.1, 0.0]]))
    update = tracker.update(scene.frame(_stamp(0), clicked_xyz=on_table))
    np.testing.assert_allclose(update.keypoints.xyz(), on_table, atol=0.003)
    assert update.keypoints.source.tolist() == [KeypointSource.CLICKED]
    in_the_air = np.array([[0.0, 0.0, 0.3], [9.0, 0.0, 0.5]])
    update = tracker.update(scene.frame(_stamp(1), clicked_xyz=in_the_air))
    assert update.keypoints.n == 1
    texts = [trouble.text for trouble in update.warnings]
    assert "on no surface that the camera sees" in texts[0] and "outside the picture" in texts[1]


def test_a_mask_replaces_the_points_of_the_one_before(scene):
    tracker = _tracker(Source.MASK)
    mask = np.zeros((240, 320), np.bool_)
    mask[20:60, 30:90] = True
    first = tracker.update(scene.frame(_stamp(0), mask=mask)).keypoints
    assert first.n == 16 and (first.uv < (90, 60)).all()
    assert tracker.update(scene.frame(_stamp(1))).keypoints.n == 16
    second = tracker.update(scene.frame(_stamp(2), mask=mask[::-1])).keypoints
    assert not np.isin(second.ids, first.ids).any() and (second.uv[:, 1] > 170).all()


def test_sources_share_the_budget(scene):
    selection = SelectionConfig(sources=(Source.ENTITY, Source.GRID), max_keypoints=30)
    tracker = LiveTracker(LiveTrackerConfig(selection=selection))
    source = tracker.update(scene.frame(0)).keypoints.source
    assert np.bincount(source).tolist() == [24, 0, 0, 6]


def test_no_depth_at_all_is_reported_and_work_goes_on(scene):
    tracker = _tracker()
    good = scene.frame(_stamp(0))
    blind = RgbdFrame(
        stamp_ns=_stamp(0),
        frame_id="camera",
        rgb=good.rgb,
        depth_m=np.full_like(good.depth_m, np.nan),
        camera=good.camera,
    )
    update = tracker.update(blind)
    assert update.keypoints.n == 0
    assert update.keypoints.history_uvz.shape == (0, 8, 3)
    assert "no keypoints from entity: 0 % of the picture has depth" in update.warnings[0].text
    assert tracker.update(scene.frame(_stamp(20))).keypoints.n == 24


def test_depth_that_fails_for_a_while_does_not_lose_the_points(scene):
    tracker = _tracker()
    before = tracker.update(scene.frame(_stamp(0))).keypoints
    frame = scene.frame(_stamp(1))
    frame.depth_m[:] = np.nan
    blind = tracker.update(frame).keypoints
    after = tracker.update(scene.frame(_stamp(2))).keypoints
    assert set(before.ids) <= set(after.ids) and after.visible.all()
    np.testing.assert_allclose(blind.z[: before.n], before.z, atol=1e-4)


def test_a_clock_that_jumps_back_starts_anew_with_new_ids(scene):
    tracker = _tracker()
    before = tracker.update(scene.frame(5 * START_NS)).keypoints
    update = tracker.update(scene.frame(START_NS))
    assert "the clock jumped back by 4.000 s" in update.warnings[0].text
    assert update.keypoints.n == 24 and not np.isin(update.keypoints.ids, before.ids).any()
    assert not tracker.update(scene.frame(START_NS + FRAME_NS)).warnings


def test_another_picture_size_starts_anew(scene):
    tracker = _tracker()
    tracker.update(scene.frame(_stamp(0)))
    scene.camera = scene.camera.resized(160, 120)
    update = tracker.update(scene.frame(_stamp(1)))
    assert "was 320x240 px and is now 160x120 px" in update.warnings[0].text


def test_what_does_not_fit_together_is_refused(scene):
    frame = scene.frame(0)
    with pytest.raises(ShapeError) as error:
        RgbdFrame(
            stamp_ns=0,
            frame_id="camera",
            rgb=frame.rgb[:, :300],
            depth_m=frame.depth_m[::2, ::2],
            camera=frame.camera,
        )
    text = str(error.value)
    assert "colour image: expected 320x240 px" in text and "got 300x240 px" in text
    assert "depth image" in text and "got 160x120 px" in text and "aligned to colour" in text


def test_input_is_not_written_to_and_output_not_shared(scene):
    tracker, frame = _tracker(), scene.frame(_stamp(0))
    frame.rgb.setflags(write=False)
    frame.depth_m.setflags(write=False)
    first = tracker.update(frame).keypoints
    uv = first.uv.copy()
    scene.boxes[0].T_world_box[0, 3] += 0.01
    tracker.update(scene.frame(_stamp(1)))
    np.testing.assert_array_equal(first.uv, uv)


def test_two_runs_are_equal(scene):
    runs = []
    for _ in range(2):
        tracker = _tracker()
        runs.append([tracker.update(scene.frame(_stamp(k))).keypoints.uv for k in range(3)])
    np.testing.assert_array_equal(runs[0], runs[1])


def test_timings_come_from_the_clock_given(scene):
    ticks = iter(np.arange(0.0, 10.0, 0.5))
    tracker = LiveTracker(LiveTrackerConfig(), now_s=lambda: float(next(ticks)))
    timings = tracker.update(scene.frame(0)).timings_ms
    assert timings == {"track": 500.0, "propose": 500.0, "history": 500.0}


def test_configuration_survives_a_round_trip_and_names_faults():
    config = LiveTrackerConfig(gripper_keypoints=GripperKeypoints(frame="tool0", xyz=(1, 2, 3)))
    assert from_dict(LiveTrackerConfig, to_dict(config)) == config
    with pytest.raises(ConfigError, match=r"xyz: expected x, y, z of each point, got 4 numbers"):
        GripperKeypoints(frame="tool0", xyz=(0.0,) * 4)
    with pytest.raises(ConfigError, match="frame: expected the frame that xyz is given in"):
        GripperKeypoints(xyz=(0.0,) * 3)


def test_a_recorded_frame_gets_points_on_its_objects(real_frame):
    """At most one keypoint in ten lies on the bare table or on invalid depth."""
    frame, workspace = real_frame
    keypoints = _tracker().update(frame).keypoints
    column, row = np.rint(keypoints.uv).astype(int).T
    in_workspace = workspace[row, column]
    assert in_workspace.sum() >= 32

    # The table, found apart from the code under test: teal pixels left of the robot.
    red, green, blue = (frame.rgb[..., c].astype(int) for c in range(3))
    teal = (green > red + 30) & (abs(green - blue) < 45) & (red < 90)
    v, u = np.nonzero(teal & workspace & np.isfinite(frame.depth_m))
    xyz = frame.camera.unproject(np.column_stack([u, v, frame.depth_m[v, u]]))
    for _ in range(5):
        (a, b, c), *_ = np.linalg.lstsq(
            np.column_stack([xyz[:, :2], np.ones(len(xyz))]), xyz[:, 2], rcond=None
        )
        height = a * xyz[:, 0] + b * xyz[:, 1] + c - xyz[:, 2]
        xyz = xyz[np.abs(height) < 0.006]
    own = keypoints.xyz()
    height = a * own[:, 0] + b * own[:, 1] + c - own[:, 2]
    bare = (np.abs(height) < 0.006) | teal[row, column]
    invalid = ~np.isfinite(frame.depth_m[row, column])
    share = np.count_nonzero((bare | invalid) & in_workspace) / in_workspace.sum()
    share_of_all = np.count_nonzero(bare | invalid) / keypoints.n
    assert share <= 0.1 and share_of_all <= 0.1, f"{share:.3f} of those in the workspace"


def test_the_library_does_without_ros():
    program = (
        "import sys, mu0_perception.live_tracker, mu0_core.compressed; "
        "print(sorted({'rclpy', 'torch', 'mu0_msgs'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
