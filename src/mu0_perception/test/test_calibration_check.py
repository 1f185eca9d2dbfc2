import numpy as np
import pytest

from mu0_core.se3 import inverse, transform_points
from mu0_perception.calibration_check import CalibrationConfig, check_gripper
from mu0_perception.pointcloud import organised_cloud


@pytest.fixture
def gripper(scene, box):
    """A box in the air, and points on its camera side, in the camera's frame."""
    scene.boxes = [box((0.0, -0.1, 0.2), size=(0.1, 0.04, 0.06))]
    world = np.array([[x, -0.12, z] for x in (-0.04, 0.0, 0.04) for z in (0.18, 0.22)])
    return transform_points(inverse(scene.T_world_camera), world)


def _check(scene, points):
    frame = scene.frame(0)
    cloud = organised_cloud(frame.rgb, frame.depth_m, frame.camera, stride=1)
    return check_gripper(cloud, frame.camera, points, CalibrationConfig())


def test_points_where_tf_says_are_fine(scene, gripper):
    sight = _check(scene, gripper)
    assert sight.n_judged == 6 and sight.median_off_m < 0.004 and not sight.off


@pytest.mark.parametrize("axis", [0, 2])
def test_a_wrong_transform_is_found_and_measured(scene, gripper, axis):
    shift = np.zeros(3)
    shift[axis] = -0.16 if axis == 0 else -0.08
    sight = _check(scene, gripper + shift)
    assert sight.off
    assert 0.05 < sight.median_off_m <= 0.15
    text = sight.sentence("tool0", "camera_color_optical_frame")
    assert f"off by {100 * sight.median_off_m:.1f} cm" in text
    assert "'tool0'" in text and "hand-eye" in text


def test_hidden_points_and_points_out_of_view_say_nothing(scene, gripper):
    assert _check(scene, gripper + np.array([0.0, 0.0, 0.3])).enough is False
    assert _check(scene, gripper + np.array([3.0, 0.0, 0.0])).enough is False
    assert _check(scene, gripper * -1.0).n_judged == 0


def test_without_depth_nothing_is_judged(scene, gripper):
    frame = scene.frame(0)
    cloud = organised_cloud(frame.rgb, np.full_like(frame.depth_m, np.nan), frame.camera, stride=2)
    sight = check_gripper(cloud, frame.camera, gripper, CalibrationConfig())
    assert (sight.n_judged, sight.off, sight.median_off_m) == (0, False, 0.0)
