import numpy as np
import pytest

from mu0_perception.planes import background_planes

SETTINGS = {
    "tolerance_m": 0.005,
    "min_share": 0.08,
    "max_behind_share": 0.25,
    "max_planes": 3,
}


def _sheet(rng, n, normal_axis, offset, noise=0.001):
    xyz = rng.uniform(-0.5, 0.5, (n, 3))
    xyz[:, normal_axis] = offset + rng.normal(0.0, noise, n)
    return xyz


def test_a_noisy_plane_is_found_to_a_millimetre():
    rng = np.random.default_rng(1)
    table = _sheet(rng, 4000, 2, 1.0, noise=0.002)
    clutter = rng.uniform((-0.5, -0.5, 0.6), (0.5, 0.5, 0.98), (1500, 3))
    (plane,) = background_planes(np.concatenate([table, clutter]).astype(np.float32), **SETTINGS)
    np.testing.assert_allclose(plane.normal, (0.0, 0.0, -1.0), atol=0.005)
    assert plane.offset_m == pytest.approx(1.0, abs=0.001)
    assert plane.height(np.array([0.0, 0.0, 0.9], np.float32)) == pytest.approx(0.1, abs=0.002)


def test_the_top_of_a_large_box_is_no_background():
    rng = np.random.default_rng(2)
    table, top = _sheet(rng, 2000, 2, 1.0), _sheet(rng, 2500, 2, 0.9)
    (plane,) = background_planes(np.concatenate([table, top]).astype(np.float32), **SETTINGS)
    assert plane.offset_m == pytest.approx(1.0, abs=0.002)


def test_a_wall_is_found_beside_the_table():
    rng = np.random.default_rng(3)
    table = _sheet(rng, 4000, 1, 0.5)
    table[:, 2] += 1.5
    wall = _sheet(rng, 2000, 2, 2.0)
    planes = background_planes(np.concatenate([table, wall]).astype(np.float32), **SETTINGS)
    assert [round(plane.offset_m, 2) for plane in planes] == [0.5, 2.0]


def test_equal_input_gives_equal_planes():
    xyz = np.random.default_rng(4).normal(0.0, 0.3, (3000, 3)).astype(np.float32) + 1.0
    first, second = (background_planes(xyz, **SETTINGS) for _ in range(2))
    assert [p.offset_m for p in first] == [p.offset_m for p in second]


@pytest.mark.parametrize("n", [0, 2])
def test_too_few_points_have_no_plane(n):
    assert background_planes(np.zeros((n, 3), np.float32), **SETTINGS) == []


def test_points_on_one_line_have_no_plane():
    line = np.linspace(0.5, 1.0, 500)[:, None] * np.array([[0.0, 0.0, 1.0]])
    assert background_planes(line.astype(np.float32), **SETTINGS) == []
