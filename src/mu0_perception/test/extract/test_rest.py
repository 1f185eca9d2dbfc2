"""Which of the points at rest are kept."""

import numpy as np
import pytest

from mu0_perception.extract.rest import _chosen, _even_share
from mu0_perception.extract.tracks import Tracks


def tracks(cluster):
    n = len(cluster)
    places = np.random.default_rng(0).uniform(0.0, 1.0, (n, 3))
    return Tracks(
        xyz_world=np.broadcast_to(places, (4, n, 3)).copy(),
        visible=np.ones((4, n), np.bool_),
        cluster=np.asarray(cluster, np.int32),
        born=np.zeros(n, np.int64),
        colour=np.zeros((n, 3), np.float32),
        group=np.full(n, -1, np.int32),
    )


@pytest.mark.parametrize("n", [0, 30, 90, 200])
def test_each_thing_has_as_large_a_share(n):
    things = tracks(np.tile([3, 3, 7], 30))
    kept = _even_share(things, n).cluster
    assert len(kept) == min(n, 90)
    assert abs((kept == 3).sum() - 2 * (kept == 7).sum()) <= 2


@pytest.mark.parametrize("n", [0, 5])
def test_what_is_around_is_near_what_moves(n):
    around = tracks(np.zeros(60))
    moving = around.part(np.array([4]))
    kept = _chosen(around, moving, n)
    assert kept.n == n
    away = np.linalg.norm(around.xyz_world[0] - moving.xyz_world[0, 0], axis=1)
    near = np.linalg.norm(kept.xyz_world[0] - moving.xyz_world[0, 0], axis=1)
    assert (near <= np.sort(away)[4 * n]).all()
