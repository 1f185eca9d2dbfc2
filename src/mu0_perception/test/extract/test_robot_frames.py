"""Which frame of a robot a point is fixed to, when hand and finger are as one most of the time."""

import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_core.se3 import exp, transform_points
from mu0_perception.extract.robot_frames import (
    RobotFrameConfig,
    _quantile,
    distinct_frames,
    fix_to_frames,
    stays_on_robot,
)
from mu0_perception.extract.tracks import Tracks
from mu0_perception.following import FollowConfig
from mu0_perception.frame import RgbdFrame

T, CLOSES, NOISE_M = 40, 30, 0.001
CAMERA = Camera.from_fovy(0.8, 64, 48)
POINTS = np.random.default_rng(1).uniform(0.02, 0.05, (20, 3))


@pytest.fixture
def frames():
    """T_world_frame of a hand that is carried and stops, and of its finger that closes then."""
    steps = np.minimum(np.arange(T), CLOSES)
    hand = np.stack([exp([0.01 * t, 0.0, 1.0, 0.0, 0.0, 0.01 * t]) for t in steps])
    angle = np.clip((np.arange(T) - CLOSES) / 6.0, 0.0, 1.0) * 0.8
    finger = hand @ np.stack([exp([0.0, 0.0, 0.0, 0.0, 0.0, a]) for a in angle])
    return {"finger": finger, "hand": hand}


def fixed(frames, on, seen, noise_m=NOISE_M, points=POINTS, astray=0.0):
    """Return the names of the frames that points on one of them are fixed to, and their errors.

    Args:
        frames: {name: (T, 4, 4)}.
        on: The frame that the points move with.
        seen: (T,) when they are seen.
        noise_m: Of their tracks.
        points: (n, 3) m in the frame.
        astray: (T, n, 3) m by which their tracks are wrong.
    """
    xyz = transform_points(frames[on][:, None], points)
    tracks = Tracks(
        xyz_world=xyz + astray + np.random.default_rng(0).normal(0.0, noise_m, xyz.shape),
        visible=np.broadcast_to(seen[:, None], xyz.shape[:2]).copy(),
        cluster=np.zeros(len(points), np.int32),
        born=np.zeros(len(points), np.int64),
        colour=np.zeros((len(points), 3), np.float32),
        group=np.full(len(points), -1, np.int32),
    )
    pictures = [
        RgbdFrame(
            stamp_ns=t * 10**8,
            frame_id="camera",
            rgb=np.zeros((48, 64, 3), np.uint8),
            depth_m=np.full((48, 64), 3.0, np.float32),
            camera=CAMERA,
            T_fixed_camera=np.eye(4),
        )
        for t in range(T)
    ]
    names, poses = distinct_frames(frames)
    found, index = fix_to_frames(tracks, pictures, poses, RobotFrameConfig(), FollowConfig())
    return ["" if i < 0 else names[i] for i in index], found.xyz_world - xyz


@pytest.mark.parametrize("on", ["hand", "finger"])
def test_a_short_sight_of_the_motion_tells_the_frame(frames, on):
    seen = np.arange(T) < CLOSES + 6  # less than a fifth of the sightings
    names, error = fixed(frames, on, seen)
    assert names == [on] * len(POINTS)
    assert np.linalg.norm(error, axis=-1).max() < 3 * NOISE_M


@pytest.mark.parametrize("on", ["hand", "finger"])
def test_what_nothing_tells_is_given_up(frames, on):
    names, error = fixed(frames, on, np.arange(T) < CLOSES)
    assert names == [""] * len(POINTS)
    assert np.isnan(error).all()


@pytest.mark.parametrize("noise_m", [0.03, np.nan])
def test_what_follows_no_frame_is_fixed_to_none(frames, noise_m):
    assert fixed(frames, "hand", np.ones(T, np.bool_), noise_m)[0] == [""] * len(POINTS)


def slipping(frames, on):
    """Return (T, n, 3) m by which tracks that slip along what they are on are wrong."""
    return np.arange(T)[:, None, None] * frames[on][:, None, :3, 0] * 0.0015


@pytest.mark.parametrize("on", ["hand", "finger"])
def test_what_slips_stays_where_it_was_found(frames, on):
    slips = slipping(frames, on)
    names, error = fixed(frames, on, np.ones(T, np.bool_), astray=slips)
    assert names == [on] * len(POINTS)
    assert np.linalg.norm(error, axis=-1).max() < 0.005 < np.linalg.norm(slips, axis=-1).max()


@pytest.mark.parametrize("on", ["hand", "finger"])
def test_what_slips_on_hand_or_finger_is_given_up(frames, on):
    names, error = fixed(frames, on, np.arange(T) < CLOSES, astray=slipping(frames, on))
    assert names == [""] * len(POINTS)
    assert np.isnan(error).all()


def test_what_slips_too_often_is_given_up(frames):
    slips = (np.arange(T) // 4)[:, None, None] * frames["hand"][:, None, :3, 0] * 0.02
    names, error = fixed(frames, "hand", np.ones(T, np.bool_), astray=slips)
    assert names == [""] * len(POINTS)
    assert np.isnan(error).all()


@pytest.mark.parametrize("waits", [8, 10, 20])
def test_a_thing_that_waits_for_the_hand_is_fixed_to_none(frames, waits):
    thing = frames["hand"][np.maximum(np.arange(T), waits)]
    on_thing, on_hand = (
        transform_points(poses[:, None], POINTS) for poses in (thing, frames["hand"])
    )
    seen, astray = np.ones(T, np.bool_), on_thing - on_hand
    names, error = fixed(frames, "hand", seen, NOISE_M / 2, astray=astray)
    assert names == [""] * len(POINTS)
    assert np.isfinite(error).all()


def test_what_rests_whenever_it_is_seen_is_fixed_to_none():
    turn = np.clip(np.arange(T) / 8.0, 0.0, 1.0) * 0.8 + 0.01 * np.sin(np.arange(T))
    link = np.stack([exp([0.0, 0.0, 1.0, 0.0, 0.0, a]) for a in turn])
    on_link = transform_points(link[:, None], POINTS)
    names, error = fixed({"link": link}, "link", np.arange(T) > 9, astray=on_link[-1] - on_link)
    assert names == [""] * len(POINTS)
    assert np.isfinite(error).all()


def test_what_rests_is_fixed_to_none(frames):
    rest = {**frames, "table": np.tile(np.eye(4), (T, 1, 1))}
    assert fixed(rest, "table", np.ones(T, np.bool_))[0] == [""] * len(POINTS)


def test_without_points_there_is_nothing_to_fix(frames):
    assert fixed(frames, "hand", np.ones(T, np.bool_), points=POINTS[:0])[0] == []


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_quantiles_are_those_of_numpy_also_of_nothing(share):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(9, 50, 3))
    values[rng.random(values.shape[:2]) < 0.6] = np.nan
    values[:, 0] = np.nan
    np.testing.assert_allclose(
        _quantile(values, share), np.nanquantile(values, share, axis=0), rtol=0, atol=1e-12
    )


def test_what_is_never_seen_away_from_the_robot_slips_along_it():
    hand = np.column_stack([0.03 * np.arange(T), np.zeros(T), np.zeros(T)])
    slips = hand + np.linspace(-0.015, 0.015, T)[:, None] * [0.0, 1.0, 0.0]
    thing = np.where(np.arange(T)[:, None] < CLOSES, [0.03 * CLOSES, 0.0, 0.0], hand + 0.005)
    xyz = np.stack([hand, slips, thing], axis=1)
    tracks = Tracks(
        xyz_world=xyz,
        visible=np.ones(xyz.shape[:2], np.bool_),
        cluster=np.zeros(3, np.int32),
        born=np.zeros(3, np.int64),
        colour=np.zeros((3, 3), np.float32),
        group=np.full(3, -1, np.int32),
    )
    assert stays_on_robot(tracks, np.array([0, -1, -1])).tolist() == [False, True, False]
    assert not stays_on_robot(tracks, np.array([-1, -1, -1])).any()
