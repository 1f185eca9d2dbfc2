"""Show where everything is in a LIBERO scene, and its surfaces; for recordings only."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mu0_core import se3
from mu0_sim.truth import BodyPoints, surface_points, visible_geoms

_GRIPPER, _ARM = "gripper0_", "robot0_"


class LiberoTruth:
    """Show the running scene: a snapshot of poses, and the bodies' surfaces.

    Attributes:
        objects: {body: name of the object}, of visible bodies that can be carried.
        static: Visible bodies of the furniture.
        gripper_links: Visible bodies of the gripper.
        arm_links: Visible bodies of the arm.
        T_world_body: {body: (4, 4)} of all bodies that have a name.
    """

    def __init__(self, environment: Any) -> None:
        """Copy the poses of the package's environment."""
        model, data = environment.sim.model._model, environment.sim.data._data
        self._model = model
        bodies = [(i, model.body(i).name) for i in range(1, model.nbody) if model.body(i).name]
        self.T_world_body = {
            name: se3.make_transform(data.xmat[i].reshape(3, 3), data.xpos[i])
            for i, name in bodies
        }
        visible = [name for _, name in bodies if visible_geoms(model, name)]
        self.objects = _of(visible, environment.objects_dict)
        self.static = tuple(_of(visible, environment.fixtures_dict))
        self.gripper_links = tuple(name for name in visible if name.startswith(_GRIPPER))
        self.arm_links = tuple(name for name in visible if name.startswith(_ARM))

    def sample_surface(
        self, bodies: Sequence[str], n: int, rng: np.random.Generator
    ) -> BodyPoints:
        """Draw n points uniformly by area on the visible surfaces of the bodies."""
        return surface_points(self._model, bodies, n, rng)


def _of(bodies: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return the bodies that belong to things of these names: the package prefixes them."""
    return {body: name for name in names for body in bodies if body.startswith(f"{name}_")}
