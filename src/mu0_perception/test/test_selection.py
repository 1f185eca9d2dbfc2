import numpy as np
import pytest

from mu0_core.errors import ConfigError
from mu0_core.traces import KeypointSource
from mu0_perception.selection import (
    Picture,
    SelectionConfig,
    Source,
    entity_shares,
    grid_points,
    mask_points,
    spread,
)

NONE = np.empty((0, 2), np.float32)


def _picture(height=60, width=80):
    grey = np.random.default_rng(0).integers(0, 255, (height, width), dtype=np.uint8)
    return Picture(grey=grey, depth_m=np.ones((height, width), np.float32))


def test_sources_have_the_numbers_of_the_message():
    assert {source.value: source.code for source in Source} == {
        source.name.lower(): int(source) for source in KeypointSource
    }


@pytest.mark.parametrize(
    ("present", "budget", "shares"),
    [
        ([0, 0], 64, [12, 12]),
        ([0, 0, 0], 20, [6, 6, 6]),
        ([5, 0], 64, [7, 12]),
        ([14, 0], 64, [0, 12]),
        ([0] * 5, 12, [4, 4, 4, 0, 0]),
        ([3, 3], 0, [0, 0]),
        ([], 64, []),
    ],
)
def test_the_budget_is_shared_evenly_and_then_by_rank(present, budget, shares):
    assert entity_shares(np.array(present, np.int64), budget, SelectionConfig()) == shares


def test_spread_takes_the_corners_after_the_middle():
    v, u = np.mgrid[0:11, 0:11]
    uv = np.stack([u.ravel(), v.ravel()], axis=-1).astype(np.float32)
    chosen = spread(uv, NONE, 5).tolist()
    assert chosen[0] == [5.0, 5.0]
    assert sorted(chosen[1:]) == [[0.0, 0.0], [0.0, 10.0], [10.0, 0.0], [10.0, 10.0]]


def test_spread_keeps_away_from_what_is_taken():
    uv = np.array([[0, 0], [10, 0], [5, 0]], np.float32)
    taken = np.array([[1.0, 0.0]], np.float32)
    np.testing.assert_array_equal(spread(uv, taken, 2), [[10, 0], [5, 0]])


def test_spread_gives_each_point_once():
    uv = np.zeros((4, 2), np.float32)
    assert len(spread(uv, NONE, 3)) == 1
    assert len(spread(NONE + 1, NONE, 3)) == 0


def test_mask_points_lie_inside_with_margin_and_depth():
    picture = _picture()
    mask = np.zeros((60, 80), np.bool_)
    mask[10:50, 20:60] = True
    picture.depth_m[:, 40:] = np.nan
    uv = mask_points(picture, mask, n=9, margin_px=4)
    assert len(uv) == 9
    assert (uv >= (23, 13)).all() and (uv <= (40, 46)).all()


def test_a_thin_mask_gets_points_in_its_middle():
    mask = np.zeros((60, 80), np.bool_)
    mask[30:33, 10:70] = True
    uv = mask_points(_picture(), mask, n=4, margin_px=6)
    assert len(uv) == 4 and (uv[:, 1] == 31).all()


def test_an_empty_mask_gets_nothing():
    uv = mask_points(_picture(), np.zeros((60, 80), np.bool_), n=4, margin_px=2)
    assert uv.shape == (0, 2)


def test_the_grid_leaves_out_holes_and_neighbours():
    picture = _picture()
    assert len(grid_points(picture, spacing_px=20, taken_uv=NONE)) == 12
    picture.depth_m[10, 10] = np.nan
    taken = np.array([[31.0, 12.0]], np.float32)
    uv = grid_points(picture, spacing_px=20, taken_uv=taken).tolist()
    assert len(uv) == 10 and [10.0, 10.0] not in uv and [30.0, 10.0] not in uv


def test_wrong_settings_are_all_named():
    with pytest.raises(ConfigError) as error:
        SelectionConfig(sources=(), points_per_entity=3)
    text = str(error.value)
    assert "sources: expected at least one of entity, robot, clicked, grid, mask" in text
    assert "min_points_per_entity: expected at most points_per_entity (3), got 4" in text
