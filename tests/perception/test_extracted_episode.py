"""An episode that was extracted is one that the world model trains on."""

import cv2
import numpy as np

from mu0_core.camera import Camera
from mu0_core.episode import read_episode
from mu0_core.episode_writer import EpisodeOptions, Recording, write_episode
from mu0_perception.extract import cli
from mu0_world_model.samples import RULES, find_samples

WIDTH, HEIGHT, FOCAL = 320, 240, 300.0
FRAMES, STEP_PX, NEAR_M, FAR_M = 10, 5, 0.85, 1.0


def _texture(rng, height, width):
    noise = cv2.GaussianBlur(rng.uniform(0, 255, (height, width, 3)), (0, 0), 2.0)
    return cv2.normalize(noise, None, 30, 225, cv2.NORM_MINMAX).astype(np.uint8)


def _recording(path):
    """Write a board that moves to the right before a wall, as an episode without useful traces."""
    rng = np.random.default_rng(0)
    wall, board = _texture(rng, HEIGHT, WIDTH), _texture(rng, 70, 70)
    images = np.stack([wall] * FRAMES)
    depth = np.full((FRAMES, HEIGHT, WIDTH), FAR_M, np.float32)
    xyz = np.zeros((FRAMES, 1, 3))
    camera = Camera(np.array([[FOCAL, 0, 159.5], [0, FOCAL, 119.5], [0, 0, 1]]), WIDTH, HEIGHT)
    for i in range(FRAMES):
        u = 80 + STEP_PX * i
        images[i, 80:150, u : u + 70] = board
        depth[i, 80:150, u : u + 70] = NEAR_M
        xyz[i, 0] = camera.unproject(np.array([u + 35.0, 115.0, NEAR_M]))
    recording = Recording(
        images=images,
        depth=depth,
        K=camera.K,
        T_camera_world=np.eye(4),
        tracks_xyz_world=xyz,
        visible=np.ones((FRAMES, 1), np.bool_),
        cluster_ids=np.zeros(1, np.int64),
        moving=np.ones(1, np.bool_),
        stamps=0.1 * np.arange(FRAMES),
    )
    write_episode(path, recording, EpisodeOptions(arc_step=0.01), description="push the board")


def test_an_extracted_episode_has_samples_to_train_on(tmp_path):
    _recording(tmp_path / "recorded/board")
    assert cli.main([str(tmp_path / "recorded"), str(tmp_path / "episodes")]) == 0
    paths = sorted((tmp_path / "episodes").glob("*"))
    assert [path.name for path in paths if path.name[0] != "."] == ["board"]
    index = find_samples(
        [tmp_path / "episodes/board"], RULES["all"], history_len=16, future_len=64, arc_step=0.01
    )
    episode = read_episode(index.episodes[0])
    assert len(index) >= FRAMES // 2 and not index.skipped
    assert episode.captions[0].instructions == ("push the board",)
    rows = episode.slot(0).rows
    way = np.asarray(rows.future_uvz)[:, 10, 0] - np.asarray(rows.future_uvz)[:, 0, 0]
    assert np.median(way[rows.is_moving]) > 20.0
    np.testing.assert_allclose(way[~np.asarray(rows.is_moving)], 0.0, atol=0.5)
