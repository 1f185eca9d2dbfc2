"""Points follow the motion that their body's points agree on."""

import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_core.se3 import exp, transform_points
from mu0_perception.extract.bodies import BodyConfig, follow_bodies
from mu0_perception.extract.tracks import Tracks
from mu0_perception.following import FollowConfig
from mu0_perception.frame import RgbdFrame

T, N, NOISE_M = 30, 14, 0.004
CAMERA = Camera.from_fovy(0.8, 64, 48)


@pytest.fixture
def truth():
    """Points (T, N, 3) on a body that turns and is carried past the camera, 1 m before it."""
    local = np.random.default_rng(0).uniform(-0.05, 0.05, (N, 3))
    poses = [exp([0.01 * t, 0.0, 1.0, 0.02 * t, 0.0, 0.03 * t]) for t in range(T)]
    return np.stack([transform_points(pose, local) for pose in poses])


def pictures(depth_m):
    """Return pictures that show one plane: what is farther is hidden by it."""
    return [
        RgbdFrame(
            stamp_ns=t * 10**8,
            frame_id="camera",
            rgb=np.full((48, 64, 3), 120, np.uint8),
            depth_m=np.full((48, 64), depth_m, np.float32),
            camera=CAMERA,
            T_fixed_camera=np.eye(4),
        )
        for t in range(T)
    ]


def noisy(truth, visible):
    """Return tracks of what is visible, from there to there, with noise."""
    noise = np.random.default_rng(1).normal(0.0, NOISE_M, truth.shape)
    return Tracks(
        xyz_world=np.where(visible[..., None], truth + noise, np.nan),
        visible=visible,
        cluster=np.zeros(N, np.int32),
        born=visible.argmax(axis=0),
        colour=np.zeros((N, 3), np.float32),
        group=np.full(N, -1, np.int32),
    )


def followed(tracks, depth_m, free=None, **settings):
    free = np.ones(N, np.bool_) if free is None else free
    return follow_bodies(tracks, pictures(depth_m), free, BodyConfig(**settings), FollowConfig())


def error_m(xyz, truth):
    return float(np.sqrt(np.nanmean(np.sum((xyz - truth) ** 2, axis=-1))))


def test_the_noise_of_points_is_averaged_out(truth):
    tracks = noisy(truth, np.ones((T, N), np.bool_))
    before, after = (error_m(t.xyz_world, truth) for t in (tracks, followed(tracks, 0.5)))
    assert after < 0.6 * before


def test_points_out_of_sight_ride_along_where_something_hides_them(truth):
    visible = np.ones((T, N), np.bool_)
    visible[12:, :4] = False
    found = followed(noisy(truth, visible), 0.5)
    assert np.isfinite(found.xyz_world).all()
    assert not found.visible[12:, :4].any()
    assert error_m(found.xyz_world[12:, :4], truth[12:, :4]) < 0.005


def test_where_the_pictures_show_nothing_a_track_ends_as_it_did(truth):
    visible = np.ones((T, N), np.bool_)
    visible[12:, :4] = False
    found = followed(noisy(truth, visible), 3.0)
    np.testing.assert_array_equal(np.isfinite(found.xyz_world[..., 0]), visible)


def test_a_point_that_goes_its_own_way_keeps_its_track(truth):
    own = truth.copy()
    own[:, 3] += np.linspace(0.0, 0.2, T)[:, None]
    tracks = noisy(own, np.ones((T, N), np.bool_))
    found = followed(tracks, 0.5)
    np.testing.assert_array_equal(found.xyz_world[:, 3], tracks.xyz_world[:, 3])


@pytest.mark.parametrize("few", [{"min_points": N + 1}, {"min_points": 0}])
def test_a_body_of_too_few_points_or_known_otherwise_is_left(truth, few):
    tracks = noisy(truth, np.ones((T, N), np.bool_))
    np.testing.assert_array_equal(followed(tracks, 0.5, **few).xyz_world, tracks.xyz_world)
    fixed = followed(tracks, 0.5, free=np.zeros(N, np.bool_))
    np.testing.assert_array_equal(fixed.xyz_world, tracks.xyz_world)
