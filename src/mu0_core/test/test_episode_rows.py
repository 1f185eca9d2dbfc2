"""Rows of a whole episode against a plain calculation, frame by frame and sample by sample."""

import math
from itertools import pairwise

import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_core.episode import read_episode
from mu0_core.episode_writer import EpisodeOptions, Recording, write_episode
from mu0_core.se3 import exp, inverse, transform_points

T, N, H, W = 24, 60, 30, 40
K = np.array([[40.0, 0.3, 19.5], [0.0, 41.0, 14.5], [0.0, 0.0, 1.0]])
SIZE = (W, H, 1.0)
OPTIONS = EpisodeOptions(arc_step=0.05, future_len=30, history_len=8, static_share=0.4)


def pose(at):
    return exp([0.01 * at, 0, 0, 0.005 * at, 0, 0.02 * at])


def random_recording(seed, pace):
    """Points that come, go, pass behind the camera and close to it; a pose for each frame."""
    rng = np.random.default_rng(seed)
    start = rng.uniform([-0.4, -0.3, 0.3], [0.4, 0.3, 1.5], (N, 3))
    tracks = start + np.cumsum(rng.normal(scale=0.01, size=(T, N, 3)), axis=0)
    tracks[:, :7, :2] *= 0.2  # in the middle of the picture
    tracks[:, :6, 2] = np.linspace(0.5, -0.3, T)[:, None] + rng.normal(scale=0.02, size=6)
    # One goes from the middle to a pixel beyond float16, for one frame.
    places = [[0.0, 0.0, 1.0], [0.2, 0.0, 1e-6]]
    tracks[11:13, 6] = transform_points(inverse(pose(pace[11])), places)
    first = rng.integers(0, T // 2, N) * (rng.random(N) < 0.5)
    last = np.where(rng.random(N) < 0.5, T, first + rng.integers(1, T // 2, N))
    first[:7], last[:7] = 0, T
    moving = rng.random((T, N)) < 0.5
    moving[11, 6] = True
    t = np.arange(T)[:, None]
    tracks[(t < first) | (t >= last)] = np.nan
    return Recording(
        images=np.zeros((T, H, W, 3), np.uint8),
        depth=np.ones((T, H, W)),
        K=np.array([K * (1.0 + 0.01 * (p > 5), 1.0, 1.0) for p in pace]),
        T_camera_world=np.array([pose(p) for p in pace]),
        tracks_xyz_world=tracks,
        visible=rng.random((T, N)) < 0.7,
        cluster_ids=np.zeros(N, np.int64),
        moving=moving,
    )


def plain_samples(path, length):
    """Sample tracks (l, n, 3) one instant after the other; also their frames."""
    scaled = path / SIZE
    n_fastest = math.ceil(0.02 * path.shape[1])
    steps = []
    for before, after in pairwise(scaled):
        lengths = np.linalg.norm(after - before, axis=-1)
        steps.append(np.sort(np.where(np.isnan(lengths), 0.0, lengths))[-n_fastest:].mean())
    clock = np.cumsum([0.0, *steps])
    samples, frames = [scaled[0] * SIZE], [0.0]
    while len(samples) < length and len(samples) * OPTIONS.arc_step <= clock[-1]:
        target = len(samples) * OPTIONS.arc_step
        before = max(i for i in range(len(steps)) if clock[i] <= target)
        share = (target - clock[before]) / steps[before]
        step = scaled[before + 1] - scaled[before]
        samples.append((scaled[before] + share * step) * SIZE)
        frames.append(before + share)
    return np.array(samples), np.array(frames)


def plain_path(uvz, rows, length):
    """Return what is stored of tracks (l, n, 3): raw and sampled steps of rows, frames."""
    storable = (np.abs(uvz) <= 65504).all(axis=-1, keepdims=True)
    samples, frames = plain_samples(np.where(storable, uvz, np.nan), length)
    raw = np.full((len(rows), length, 3), -np.inf)
    sampled, times = raw.copy(), np.full(length, np.nan)
    for row, point in enumerate(rows):
        for m, place in enumerate(uvz[:length, point]):
            if np.isfinite(place[2]):
                raw[row, m] = place
        for m, place in enumerate(samples[:, point]):
            if not np.isfinite(place).all():
                break
            sampled[row, m], times[m] = place, frames[m]
    return raw, sampled, times


def plain_slots(recording, keep):
    """Return the frames with rows, each with its points and its paths in both directions."""
    slots = []
    for frame in range(T):
        camera = Camera(recording.K[frame], W, H)
        alive = np.flatnonzero(np.isfinite(recording.tracks_xyz_world[frame, :, 0]))
        tracks = recording.tracks_xyz_world[:, alive]
        uvz = camera.project(transform_points(recording.T_camera_world[frame], tracks))
        u, v, z = uvz[frame].T
        inside = (u >= 0) & (u <= W) & (v >= 0) & (v <= H) & (z > 0)
        rows = np.flatnonzero(inside & keep[frame, alive])
        if not len(rows):
            continue
        future = plain_path(uvz[frame:], rows, OPTIONS.future_len)
        history = plain_path(uvz[frame::-1], rows, OPTIONS.history_len)
        if (future[1][:, 1, 0] != -np.inf).any():
            slots.append((frame, alive[rows], future, history))
    return slots


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "pace",
    [np.zeros(T), np.arange(T), np.repeat([0, 3, 9, 3], T // 4)],
    ids=["fixed", "moves", "stops and goes"],
)
def test_rows_are_exactly_those_of_a_plain_calculation(tmp_path, seed, pace):
    recording = random_recording(seed, pace)
    episode = read_episode(write_episode(tmp_path / "e", recording, OPTIONS))
    rank = np.random.default_rng(OPTIONS.seed).permutation(N)
    slots = plain_slots(recording, recording.moving | (rank < round(0.4 * N)))
    frames, points, futures, histories = zip(*slots, strict=True)
    np.testing.assert_array_equal(episode.frame_indices, frames)
    np.testing.assert_array_equal(episode.rows.point_ids, np.concatenate(points))
    for name, paths, times, sign in (
        ("future", futures, episode.step_times, 1),
        ("history", histories, episode.step_times_history, -1),
    ):
        raw, sampled, index = zip(*paths, strict=True)
        for stored, plain in ((f"raw_{name}", raw), (name, sampled)):
            with np.errstate(over="ignore"):
                expected = np.concatenate(plain).astype(np.float16)
            np.testing.assert_array_equal(getattr(episode.rows, f"{stored}_uvz"), expected)
            valid = np.concatenate(plain)[..., 2] != -np.inf
            np.testing.assert_array_equal(getattr(episode.rows, f"{stored}_valid"), valid)
        expected = np.array(frames)[:, None] + sign * np.array(index)
        np.testing.assert_array_equal(times, expected.astype(np.float32))
    # What makes it hard is there: lives that end, points behind the camera, pixels too large.
    assert len(slots) > T // 2
    assert (episode.rows.future_valid.sum(axis=1) != episode.rows.future_valid[0].sum()).any()
    assert (np.isnan(episode.rows.raw_future_uvz) & episode.rows.raw_future_valid[..., None]).any()
    assert (episode.rows.raw_future_uvz == np.inf).any()
