"""Hold what only a simulator knows: object poses and points on surfaces.

For demonstrations, recordings and scoring only. Nothing that drives a robot may import this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_sim.mujoco_gl import mujoco
from mu0_sim.robot_model import BASE_LINK, hand_link
from mu0_sim.robots import TOOL_FRAME
from mu0_sim.world import World

TABLE = "table"
_VISUAL_GROUP = 1
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
_BOX_FACES = np.array(  # two triangles a side, as rows of _CORNERS
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectTruth:
    """Hold one object: a box.

    Attributes:
        name: Such as "red_cube": its body's name, and with a space the name in an instruction.
        size_m: (3,) full edge lengths, m.
        T_world_object: (4, 4) pose of its centre.
        T_world_start: (4, 4) pose of its centre at the start of the episode.
    """

    name: str
    size_m: NDArray[np.float64]
    T_world_object: NDArray[np.float64]
    T_world_start: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BodyPoints:
    """Hold points fixed to bodies.

    Attributes:
        bodies: Names of the bodies.
        body_index: (n,) int64, into bodies.
        xyz_body: (n, 3) float64, m, in the frame of its body.
    """

    bodies: tuple[str, ...]
    body_index: NDArray[np.int64]
    xyz_body: NDArray[np.float64]

    def xyz_world(self, T_world_body: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return (n, 3) the points in world for these body poses."""
        T = np.stack([T_world_body[name] for name in self.bodies])[self.body_index]
        return np.einsum("nij,nj->ni", T[:, :3, :3], self.xyz_body) + T[:, :3, 3]


class Truth:
    """Show the running scene: a snapshot of poses, and the bodies' surfaces.

    Attributes:
        objects: {name: ObjectTruth}, the cubes.
        target: Name of the object that the instruction means.
        T_world_body: {body: (4, 4)}: cubes, "table" and all robot links by their URDF names.
        T_world_tool: (4, 4) pose of tool0.
        static: Names of bodies that rest where they are.
        gripper_links: Names of the links with a surface that move with the hand or its fingers.
        arm_links: Names of the other links with a surface.
    """

    def __init__(self, world: World, T_world_start: Mapping[str, NDArray[np.float64]]) -> None:
        """Copy the poses of a world whose bodies are up to date."""
        model = world.model
        self._model = model
        links = world.links()
        names = [*(cube.name for cube in world.scene.cubes), TABLE, BASE_LINK, *links]
        self.target: str = world.scene.target
        self.T_world_body = {name: world.body_pose(name) for name in names}
        self.T_world_tool = self.T_world_body[TOOL_FRAME]
        self.objects = {
            cube.name: ObjectTruth(
                name=cube.name,
                size_m=np.full(3, cube.edge_m),
                T_world_object=self.T_world_body[cube.name],
                T_world_start=T_world_start[cube.name],
            )
            for cube in world.scene.cubes
        }
        self.static = (TABLE,)
        hand = hand_link(world.robot)
        self.gripper_links = tuple(
            link for link in links if _is_on(model, link, hand) and visible_geoms(model, link)
        )
        self.arm_links = tuple(
            link for link in links if link not in self.gripper_links and visible_geoms(model, link)
        )

    def sample_surface(
        self, bodies: Sequence[str], n: int, rng: np.random.Generator
    ) -> BodyPoints:
        """Draw n points uniformly by area on the visible surfaces of the bodies.

        Raises:
            ValueError: None of the bodies has a visible surface of boxes or meshes.
        """
        return surface_points(self._model, bodies, n, rng)


def surface_points(
    model: mujoco.MjModel, bodies: Sequence[str], n: int, rng: np.random.Generator
) -> BodyPoints:
    """Draw n points uniformly by area on the visible surfaces of bodies.

    Raises:
        ValueError: None of the bodies has a visible surface of boxes or meshes.
    """
    triangles, owners = [], []
    for index, body in enumerate(bodies):
        for geom in visible_geoms(model, body):
            triangles.append(_triangles(model, geom))
            owners.append(np.full(len(triangles[-1]), index))
    if not triangles:
        raise ValueError(f"bodies {list(bodies)} have no visible surface to draw points from")
    corners = np.concatenate(triangles)
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    chosen = rng.choice(len(corners), size=n, p=area / area.sum())
    weights = rng.dirichlet((1.0, 1.0, 1.0), size=n)  # uniform within a triangle
    return BodyPoints(
        bodies=tuple(bodies),
        body_index=np.concatenate(owners)[chosen].astype(np.int64),
        xyz_body=np.einsum("nk,nki->ni", weights, corners[chosen]),
    )


def _is_on(model: mujoco.MjModel, body: str, ancestor: str) -> bool:
    """Say whether a body is the other one or moves with it."""
    index, goal = model.body(body).id, model.body(ancestor).id
    while index not in (0, goal):
        index = model.body_parentid[index]
    return bool(index == goal)


def visible_geoms(model: mujoco.MjModel, body: str) -> list[int]:
    """List the visible boxes and meshes of a body."""
    index = model.body(body).id
    first, count = model.body_geomadr[index], model.body_geomnum[index]
    kinds = (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_MESH)
    return [
        geom
        for geom in range(first, first + count)
        if model.geom_group[geom] == _VISUAL_GROUP and model.geom_type[geom] in kinds
    ]


def _triangles(model: mujoco.MjModel, geom: int) -> NDArray[np.float64]:
    """Return (t, 3, 3) the corners of a geom's triangles in its body's frame, m."""
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX:
        vertices, faces = _CORNERS * model.geom_size[geom], _BOX_FACES
    else:
        mesh = model.geom_dataid[geom]
        vertex, face = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh]
        vertices = model.mesh_vert[vertex : vertex + model.mesh_vertnum[mesh]].astype(np.float64)
        faces = model.mesh_face[face : face + model.mesh_facenum[mesh]]
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    return (vertices @ rotation.reshape(3, 3).T + model.geom_pos[geom])[faces]
