"""Fixtures that the tests of mu0_core share."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mu0_core.episode_captions import Caption
from mu0_core.episode_writer import EpisodeOptions, Recording, write_episode
from mu0_core.se3 import exp

# One small recording with a moving camera, and the episode that is written of it.
T, N, H, W = 14, 8, 30, 40
K = np.array([[40.0, 0.0, 19.5], [0.0, 40.0, 14.5], [0.0, 0.0, 1.0]])
OPTIONS = EpisodeOptions(arc_step=0.02, future_len=20, history_len=6)
CAPTIONS = (
    Caption(
        start=0, end=5, instructions=("reach the cup", "go to the cup"), skill_labels=("reach",)
    ),
    Caption(start=6, end=13, instructions=("lift the cup",)),
    Caption(start=0, end=13, instructions=("pick up the cup",), source_chunk_ids=(0, 1)),
)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Return the folder of numbers that the released code produced, or skip."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").is_file():
            golden = folder.parent / "shared" / "golden" / "mu0_tiny"
            if golden.is_dir():
                return golden
            pytest.skip(f"golden numbers of the released code are not at {golden}")
    pytest.skip("the repository root (the folder with pyproject.toml) is not above this test")


def _recording(**changes):
    """Five points that move and three that rest, before a camera that moves and turns."""
    rng = np.random.default_rng(3)
    tracks = np.repeat(rng.uniform([-0.2, -0.15, 0.8], [0.1, 0.1, 1.2], (1, N, 3)), T, axis=0)
    tracks[:, :5] += np.linspace(0, 1, T)[:, None, None] * [0.25, 0.1, 0.1]
    values = {
        "images": rng.integers(0, 255, (T, H, W, 3), dtype=np.uint8),
        "depth": rng.uniform(0.5, 2.0, (T, H, W)),
        "K": K,
        "T_camera_world": np.array(
            [exp([0.05 * s, 0, 0, 0, 0.1 * s, 0.05 * s]) for s in np.linspace(0, 1, T)]
        ),
        "tracks_xyz_world": tracks,
        "visible": rng.random((T, N)) < 0.7,
        "cluster_ids": np.array([0, 0, 0, 1, 1, 2, 2, 2]),
        "moving": np.arange(N) < 5,
        "stamps": 1.0 + 0.1 * np.arange(T),
    }
    return Recording(**(values | changes))


@pytest.fixture(scope="session")
def make_recording():
    """Return a maker of recordings, with some of the fields given."""
    return _recording


@pytest.fixture(scope="session")
def captions():
    """Return the captions of `written`."""
    return CAPTIONS


@pytest.fixture(scope="session")
def recording():
    """Return one that is not changed."""
    return _recording()


@pytest.fixture(scope="session")
def written(tmp_path_factory, recording):
    """Return the folder of an episode that is not changed."""
    return write_episode(
        tmp_path_factory.mktemp("episodes") / "cup",
        recording,
        OPTIONS,
        captions=CAPTIONS,
        description="pick up the cup",
        meta={"robot": "Bär"},
        provenance={"program": "test", "seed": 3},
    )


@pytest.fixture
def copy(written, tmp_path):
    """Return the folder of an episode that may be changed."""
    return shutil.copytree(written, tmp_path / "cup")
