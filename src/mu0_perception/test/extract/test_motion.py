"""What moves of a thing moves together, and leaves its place; other tracks have slipped."""

from dataclasses import replace

import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_perception.extract.motion import MotionConfig, find_moving, moves_apart
from mu0_perception.extract.tracks import Tracks
from mu0_perception.following import FollowConfig
from mu0_perception.frame import RgbdFrame
from mu0_perception.tracking import colour_at

N = 60
PLACES = np.random.default_rng(0).uniform(-0.1, 0.1, (N, 3))


def tracks(moves, *, as_body=False, seen=10):
    """Points of one entity, each of them seen in so many pictures; some of them move."""
    ways = np.random.default_rng(4).normal(0.0, 0.01, (1 if as_body else N, 3))
    steps = np.arange(10)[:, None, None] * ways * moves[:, None]
    return Tracks(
        xyz_world=PLACES + steps,
        visible=np.arange(10)[:, None] < np.broadcast_to(seen, N),
        cluster=np.zeros(N, np.int32),
        born=np.zeros(N, np.int64),
        colour=np.zeros((N, 3), np.float32),
        group=np.full(N, -1, np.int32),
    )


def test_what_moves_as_a_whole_moves_together():
    moves = np.random.default_rng(1).random(N) < 0.9
    assert not moves_apart(tracks(moves), moves, MotionConfig()).any()


def test_a_drawer_moves_though_its_cabinet_rests():
    drawer = PLACES[:, 2] > 0.06
    assert 3 < drawer.sum() < 0.3 * N
    assert not moves_apart(tracks(drawer, as_body=True), drawer, MotionConfig()).any()


def test_the_corner_of_a_cloth_moves_without_the_rest():
    corner = (PLACES[:, :2] > -0.02).all(axis=1)
    flat = tracks(corner)
    flat.xyz_world[..., 2] = 0.0
    assert 0.1 * N < corner.sum() < 0.5 * N
    assert not moves_apart(flat, corner, MotionConfig()).any()


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_tracks_that_slip_among_points_at_rest_move_apart(share):
    moves = np.random.default_rng(2).random(N) < share
    np.testing.assert_array_equal(moves_apart(tracks(moves), moves, MotionConfig()), moves)


def test_points_that_were_hardly_seen_do_not_say_that_a_thing_rests():
    moves = np.random.default_rng(3).random(N) < 0.3
    seen = np.where(moves, 10, MotionConfig().min_seen - 1)
    assert not moves_apart(tracks(moves, seen=seen), moves, MotionConfig()).any()


def test_a_single_point_moves_with_itself():
    one = np.ones(1, np.bool_)
    alone = tracks(np.ones(N, np.bool_)).part(np.arange(1))
    assert not moves_apart(alone, one, MotionConfig()).any()


CAMERA = Camera(np.array([[160.0, 0.0, 80.0], [0.0, 160.0, 60.0], [0.0, 0.0, 1.0]]), 160, 120)
GREY = 120
T, TAKEN = 24, 12  # pictures, and the one from which on the hand carries the thing away
TABLE, HAND, THING = 1.0, 0.85, 0.95  # m from the camera
WAY = np.where(np.arange(T) < TAKEN, 0.0, 0.025 * (np.arange(T) - TAKEN))  # m to the right
COMES = np.where(np.arange(T) < TAKEN, 0.02 * (np.arange(T) - TAKEN), WAY)


def pictures(
    thing_z: float = THING,
    colour: int | tuple[int, int, int] = GREY,
    ways: np.ndarray = WAY,
) -> list[RgbdFrame]:
    """Draw a hand above a table that takes a thing with it; all of one colour but the thing."""
    v, u = np.mgrid[:120, :160].astype(np.float64)
    rays = CAMERA.unproject(np.stack([u, v, np.ones_like(u)], axis=-1))[..., :2]
    drawn = []
    for t in range(T):
        depth, rgb = np.full(u.shape, TABLE), np.full((*u.shape, 3), GREY, np.uint8)
        on_thing = (np.abs(rays * thing_z - (ways[t], 0.05)) < (0.03, 0.02)).all(axis=-1)
        on_hand = (np.abs(rays * HAND - (COMES[t], -0.05)) < (0.03, 0.02)).all(axis=-1)
        depth[on_thing], rgb[on_thing], depth[on_hand] = thing_z, colour, HAND
        drawn.append(
            RgbdFrame(
                stamp_ns=t * 10**8,
                frame_id="camera",
                rgb=rgb,
                depth_m=depth.astype(np.float32),
                camera=CAMERA,
                T_fixed_camera=np.eye(4),
            )
        )
    return drawn


def way(xyz: tuple[float, float, float], right_m: np.ndarray) -> np.ndarray:
    """Return a track (T, 3) that goes right from a place."""
    return np.array(xyz) + right_m[:, None] * (1.0, 0.0, 0.0)


THING_WAY = way((0.01, 0.05, THING), WAY)
HAND_WAY = way((0.01, -0.05, HAND), COMES)
ON_TABLE = way((0.04, -0.08, TABLE), np.zeros(T))
EARLY = (np.arange(T) < TAKEN)[:, None]
HOPS = {
    "from the table to the hand": np.where(EARLY, ON_TABLE, HAND_WAY),
    "from the hand to the table": np.where(EARLY, HAND_WAY, ON_TABLE),
}


def moves(ways: np.ndarray, born: int, frames: list[RgbdFrame]) -> np.ndarray:
    """Say (n,) which of the tracks (T, n, 3) of an entity, proposed in one picture, move."""
    uv = CAMERA.project(ways[born])[:, :2].astype(np.float32)
    n = len(uv)
    points = replace(
        tracks(np.ones(N, np.bool_)).part(np.arange(n)),
        xyz_world=ways,
        visible=np.ones((T, n), np.bool_),
        born=np.full(n, born),
        colour=colour_at(frames[born].rgb, uv),
    )
    options = {"trusted": np.zeros(n, np.bool_)}
    return find_moving(points, frames, MotionConfig(), FollowConfig(), **options).any(axis=0)


@pytest.mark.parametrize("born", [0, TAKEN, T - 1])
@pytest.mark.parametrize("track", [THING_WAY, HAND_WAY])
def test_what_is_carried_moves(track, born):
    assert moves(track[:, None], born, pictures()).all()


@pytest.mark.parametrize("born", [0, TAKEN, T - 1])
def test_what_lies_flat_and_is_taken_moves_if_it_has_another_colour(born):
    paper = way((0.01, 0.05, TABLE), WAY)
    assert moves(paper[:, None], born, pictures(TABLE, colour=(200, 40, 40))).all()
    assert not moves(paper[:, None], born, pictures(TABLE)).any()


@pytest.mark.parametrize("born", [0, TAKEN - 2, TAKEN + 2, T - 1])
@pytest.mark.parametrize("track", HOPS.values(), ids=HOPS.keys())
def test_a_track_that_hops_between_what_moves_and_what_rests_does_not_move(track, born):
    assert not moves(track[:, None], born, pictures()).any()


@pytest.mark.parametrize("born", [0, TAKEN, T - 1])
def test_a_plain_box_moves_with_all_its_points_also_by_half_its_length(born):
    ways = np.clip(WAY, 0.0, 0.03)
    across, down = np.meshgrid(np.linspace(-0.025, 0.025, 6), [0.04, 0.05, 0.06])
    places = np.column_stack([across.ravel(), down.ravel(), np.full(18, THING)])
    tracks_ = np.stack([way(tuple(place), ways) for place in places], axis=1)
    assert moves(tracks_, born, pictures(ways=ways)).all()


@pytest.mark.parametrize("born", [0, TAKEN + 2, T - 1])
def test_tracks_that_hop_together_do_not_move(born):
    aside = np.linspace(-0.01, 0.01, 8)[:, None] * (0.0, 1.0, 0.0)
    hops = HOPS["from the table to the hand"][:, None] + aside
    assert not moves(hops, born, pictures()).any()


@pytest.mark.filterwarnings("error")
def test_a_track_that_was_given_up_does_not_move_and_says_nothing():
    given_up = replace(
        tracks(np.ones(N, np.bool_)),
        xyz_world=np.full((10, N, 3), np.nan),
        visible=np.zeros((10, N), np.bool_),
    )
    options = {"trusted": np.zeros(N, np.bool_)}
    found = find_moving(given_up, pictures()[:10], MotionConfig(), FollowConfig(), **options)
    assert not found.any()
