import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_perception.pointcloud import organised_cloud, stride_for


@pytest.mark.parametrize(("width", "stride"), [(320, 1), (640, 2), (641, 3), (1280, 4)])
def test_stride_keeps_the_width(width, stride):
    assert stride_for(Camera.from_fovy(0.8, width, 240), 320) == stride


def test_points_lie_where_the_camera_says(scene):
    frame = scene.frame(0)
    cloud = organised_cloud(frame.rgb, frame.depth_m, frame.camera, stride=3)
    v, u = 60, 99
    exact = frame.camera.unproject([u, v, frame.depth_m[v, u]])
    np.testing.assert_allclose(cloud.xyz[v // 3, u // 3], exact, atol=1e-6)
    np.testing.assert_array_equal(cloud.rgb[v // 3, u // 3], frame.rgb[v, u])


def test_points_without_depth_are_left_out(scene):
    frame = scene.frame(0)
    depth = frame.depth_m.copy()
    depth[:, :160] = np.nan
    cloud = organised_cloud(frame.rgb, depth, frame.camera, stride=2)
    xyz, rgb = cloud.points()
    assert xyz.shape == rgb.shape == (120 * 80, 3)
    assert np.isfinite(xyz).all()
