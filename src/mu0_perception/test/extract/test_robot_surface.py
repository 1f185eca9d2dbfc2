"""Tests of points on a robot's surface: a bare plate that passes before a wall."""

from dataclasses import replace

import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_core.se3 import inverse, transform_points
from mu0_perception.extract.robot_surface import surface_points
from mu0_perception.extract.tracks import Tracks, joined
from mu0_perception.following import FollowConfig
from mu0_perception.frame import RgbdFrame

CAMERA = Camera(np.array([[160.0, 0.0, 80.0], [0.0, 160.0, 60.0], [0.0, 0.0, 1.0]]), 160, 120)
T = 16
PLATE, WALL = (0.2, 0.12), 2.0  # m, half of it left and right, up and down; at z = 1 m
CORNER = np.array([[-0.1, -0.06, 1.0], [-0.09, -0.06, 1.0], [-0.1, -0.05, 1.0]])


def moving(speed: tuple[float, float, float]) -> np.ndarray:
    """Return the poses (T, 4, 4) of a frame that goes straight, m per picture."""
    poses = np.tile(np.eye(4), (T, 1, 1))
    poses[:, :3, 3] = (np.arange(T)[:, None] - T / 2) * np.array(speed)
    return poses


HAND = moving((0.02, 0.0, 0.0))


def pictures(noise_m: float = 0.0) -> list[RgbdFrame]:
    """Draw the plate before the wall."""
    rng = np.random.default_rng(0)
    v, u = np.mgrid[:120, :160].astype(np.float64)
    rays = CAMERA.unproject(np.stack([u, v, np.ones_like(u)], axis=-1))
    drawn = []
    for t, pose in enumerate(HAND):
        on_plate = (np.abs(rays[..., :2] - pose[:2, 3]) <= np.array(PLATE) / 2).all(axis=-1)
        drawn.append(
            RgbdFrame(
                stamp_ns=t * 10**8,
                frame_id="camera",
                rgb=np.where(on_plate[..., None], 90, 200).astype(np.uint8).repeat(3, axis=-1),
                depth_m=np.where(on_plate, 1.0, WALL).astype(np.float32)
                + rng.normal(0.0, noise_m, on_plate.shape).astype(np.float32),
                camera=CAMERA,
                T_fixed_camera=np.eye(4),
            )
        )
    return drawn


def corner_tracks() -> Tracks:
    """Return tracks of one corner of the plate, which has the only texture."""
    xyz = transform_points(HAND[:, None], CORNER[None])
    return Tracks(
        xyz_world=xyz,
        visible=np.ones(xyz.shape[:2], np.bool_),
        cluster=np.zeros(3, np.int32),
        born=np.zeros(3, np.int64),
        colour=np.zeros((3, 3), np.float32),
        group=np.zeros(3, np.int32),
    )


def found(poses: list[np.ndarray], on: int = 0) -> tuple[Tracks, np.ndarray]:
    fixed = np.full(3, on, np.int32)
    return surface_points(corner_tracks(), fixed, pictures(), poses, FollowConfig())


def test_bare_surface_near_a_track_has_points_that_follow_its_frame():
    points, frame = found([HAND])
    assert points.n >= 6
    assert (frame == 0).all()
    assert (points.group == 0).all()
    local = transform_points(inverse(HAND)[:, None], points.xyz_world)
    assert np.abs(np.ptp(local, axis=0)).max() < 1e-9
    assert (np.abs(local[0, :, :2]) <= np.array(PLATE) / 2 + 0.004).all()
    assert local[0, :, 2] == pytest.approx(1.0)  # none on the wall
    assert points.visible.mean() > 0.9
    assert not np.isin(points.cluster, corner_tracks().cluster).any()


def test_a_point_lies_in_the_middle_of_what_all_pictures_show():
    fixed, noisy = np.zeros(3, np.int32), pictures(noise_m=0.004)
    points, _ = surface_points(corner_tracks(), fixed, noisy, [HAND], FollowConfig())
    assert points.n >= 6
    error = points.xyz_world[0, :, 2] - 1.0
    assert np.abs(error).max() < 0.002  # half of a single picture's deviation


def test_a_cell_of_the_surface_has_one_point():
    points, _ = found([HAND])
    local = transform_points(inverse(HAND[0]), points.xyz_world[0])
    cells = np.floor(local / 0.02)
    assert len(np.unique(cells, axis=0)) == points.n


def test_what_the_pictures_do_not_show_is_on_no_frame():
    points, frame = found([moving((0.0, 0.02, 0.0))])  # tracks that are fixed to a wrong frame
    assert points.n == len(frame) == 0


def test_a_place_that_two_frames_explain_is_on_neither():
    slower = HAND.copy()  # inside the bare plate nothing tells it
    slower[:, 0, 3] *= 0.9
    tracks, fixed = corner_tracks(), np.array([0, 0, 0, 1, 1, 1], np.int32)
    twice = joined(tracks, tracks)
    points, _ = surface_points(twice, fixed, pictures(), [HAND, slower], FollowConfig())
    alone, _ = found([HAND])
    local = transform_points(inverse(HAND[0]), points.xyz_world[0])
    assert (local[:, 0] < -0.1 + 0.035).all()  # the others would leave the plate on its left
    assert 0 < points.n < alone.n


def test_tracks_that_no_surface_is_near_give_no_points():
    tracks = corner_tracks()
    hidden = replace(tracks, xyz_world=tracks.xyz_world + np.array([0.0, 0.0, 0.5]))
    fixed = np.zeros(3, np.int32)
    points, frame = surface_points(hidden, fixed, pictures(), [HAND], FollowConfig())
    assert points.n == len(frame) == 0


def test_without_tracks_on_the_robot_there_are_none():
    points, frame = found([HAND], on=-1)
    assert points.n == len(frame) == 0
