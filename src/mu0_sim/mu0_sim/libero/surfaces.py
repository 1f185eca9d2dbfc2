"""Cover the collision shapes of bodies with points, for planning around them."""

import numpy as np
from numpy.typing import NDArray

from mu0_sim.mujoco_gl import mujoco

FloatArray = NDArray[np.float64]

_SPACING_M = 0.006


def members(model: mujoco.MjModel, root: int) -> NDArray[np.bool_]:
    """Say of each body (b,) whether it is a body or moves with it."""
    inside = np.zeros(model.nbody, bool)
    inside[root] = True
    for body in range(root + 1, model.nbody):  # parents come first
        inside[body] = inside[model.body_parentid[body]]
    return inside


def collision_points(
    model: mujoco.MjModel, data: mujoco.MjData, bodies: NDArray[np.bool_]
) -> FloatArray:
    """Return points (n, 3) in world on what can be touched of bodies, each shape taken as a box.

    Args:
        model: The model.
        data: Its state; geoms have to be up to date.
        bodies: (b,) which bodies.
    """
    touchable = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    geoms = np.flatnonzero(touchable & bodies[model.geom_bodyid])
    parts = [np.zeros((0, 3))]
    for geom in geoms:
        centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
        local = centre + box_points(half, _SPACING_M)
        parts.append(local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
    return np.concatenate(parts)


def box_points(half: FloatArray, spacing_m: float) -> FloatArray:
    """Return points (n, 3) on the surface of a box around the origin.

    Args:
        half: (3,) half edge lengths, m.
        spacing_m: Distance between neighbours, at most.
    """
    lines = [np.linspace(-h, h, int(np.ceil(2.0 * h / spacing_m)) + 1) for h in half]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3)
    on_surface = np.isclose(np.abs(grid), half).any(axis=1)
    return np.asarray(grid[on_surface])
