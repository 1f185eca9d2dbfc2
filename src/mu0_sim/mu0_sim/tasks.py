"""Draw scenes: what stands on the table, how it looks, what is asked, and when that is done.

A scene depends on task and seed alone, so every robot meets the same ones. Numbers only; the
MuJoCo model of a scene stands in `mu0_sim.world`.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import ConfigError, unknown_name_message

TABLE_HEIGHT_M = 0.8
"""Height of the table's top in world, m; the table's centre is at x = y = 0."""

LIFTED_M = 0.04
"""How far above its start a cube counts as lifted, m."""

EDGE_RANGE_M = (0.036, 0.048)
_REGION_M = ((-0.10, 0.10), (-0.16, 0.16))  # of cube centres: x, y in world; within every reach
_SEPARATION_M = 0.15  # of cube centres: an open gripper passes between two cubes

_COLOURS = {
    "red": (0.75, 0.10, 0.08),
    "green": (0.10, 0.55, 0.15),
    "blue": (0.10, 0.20, 0.70),
    "yellow": (0.80, 0.65, 0.10),
}
_PHRASES = (
    "lift the {object}",
    "pick up the {object}",
    "raise the {object} off the table",
    "grasp the {object} and lift it",
)
_TABLE_TEXTURES = (
    "ceramic",
    "light-wood",
    "dark-wood",
    "gray-woodgrain",
    "wood-varnished-panels",
    "white-plaster",
    "gray-felt",
    "cream-plaster",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cube:
    """Describe a cube that rests on the table.

    Attributes:
        name: Such as "red_cube": its body's name, and with a space the name in an instruction.
        edge_m: Edge length.
        xy: Centre in world, m.
        yaw_rad: About the vertical.
        rgb: In [0, 1].
    """

    name: str
    edge_m: float
    xy: tuple[float, float]
    yaw_rad: float
    rgb: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Describe how a scene is seen.

    Attributes:
        camera_xyz: Where the camera stands in world, m.
        camera_target_xyz: The point in world at the centre of its picture, m.
        camera_roll_rad: About its optical axis.
        light_direction: (3,) from the light to the scene.
        light_level: Brightness of the directed light, in [0, 1].
        ambient_level: Brightness of the light from everywhere, in [0, 1].
        table_texture: Name of one of robosuite's textures.
        table_rgb: Tint of the table, in [0, 1].
        wall_rgb: Tint of walls and floor, in [0, 1].
    """

    camera_xyz: tuple[float, float, float]
    camera_target_xyz: tuple[float, float, float]
    camera_roll_rad: float
    light_direction: tuple[float, float, float]
    light_level: float
    ambient_level: float
    table_texture: str
    table_rgb: tuple[float, float, float]
    wall_rgb: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Describe one seeded scene of a task.

    Attributes:
        task: As `make_scene` knows it.
        seed: As given.
        instruction: The task in words.
        target: Name of the cube that the instruction means.
        cubes: All cubes.
        look: How it is seen.
    """

    task: str
    seed: int
    instruction: str
    target: str
    cubes: tuple[Cube, ...]
    look: Look


def make_scene(task: str, seed: int) -> Scene:
    """Draw the scene of a task and a seed.

    Args:
        task: "lift" (one cube) or "lift_named" (a red and a green cube, one of them named).
        seed: >= 0.

    Raises:
        ConfigError: Unknown task, or a seed that is not a whole number >= 0.
    """
    if task not in _TASKS:
        raise ConfigError(unknown_name_message("task", task, _TASKS))
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigError(f"seed: expected a whole number >= 0, got {seed!r}")
    rng = np.random.default_rng([zlib.crc32(task.encode()), int(seed)])
    cubes, target = _TASKS[task](rng)
    phrase = _PHRASES[rng.integers(len(_PHRASES))]
    return Scene(
        task=task,
        seed=int(seed),
        instruction=phrase.format(object=target.replace("_", " ")),
        target=target,
        cubes=cubes,
        look=_draw_look(rng),
    )


def lifted_cubes(start_heights: Mapping[str, float], heights: Mapping[str, float]) -> list[str]:
    """Name the cubes that are lifted, given the heights of their centres at start and now, m."""
    return [name for name, start in start_heights.items() if heights[name] > start + LIFTED_M]


def _lift(rng: np.random.Generator) -> tuple[tuple[Cube, ...], str]:
    """Draw one cube of any colour."""
    colour = list(_COLOURS)[rng.integers(len(_COLOURS))]
    (xy,) = _draw_places(rng, 1)
    return (_draw_cube(rng, "cube", colour, xy),), "cube"


def _lift_named(rng: np.random.Generator) -> tuple[tuple[Cube, ...], str]:
    """Draw a red and a green cube, and which of them is meant."""
    colours = ("red", "green")
    cubes = tuple(
        _draw_cube(rng, f"{colour}_cube", colour, xy)
        for colour, xy in zip(colours, _draw_places(rng, 2), strict=True)
    )
    return cubes, cubes[rng.integers(2)].name


_TASKS: dict[str, Callable[[np.random.Generator], tuple[tuple[Cube, ...], str]]] = {
    "lift": _lift,
    "lift_named": _lift_named,
}
TASK_NAMES = tuple(_TASKS)
"""The tasks there are."""


def _draw_places(rng: np.random.Generator, n: int) -> list[NDArray[np.float64]]:
    """Draw n cube centres (2,) on the table that keep their distance from each other."""
    lower, upper = np.transpose(_REGION_M)
    places: list[NDArray[np.float64]] = []
    while len(places) < n:
        xy = rng.uniform(lower, upper)
        if all(np.linalg.norm(xy - other) >= _SEPARATION_M for other in places):
            places.append(xy)
    return places


def _draw_cube(rng: np.random.Generator, name: str, colour: str, xy: NDArray[np.float64]) -> Cube:
    """Draw size, turn and shade of a cube."""
    shade = rng.uniform(0.8, 1.2) * np.array(_COLOURS[colour])
    rgb = np.clip(shade + rng.uniform(-0.05, 0.05, 3), 0.0, 1.0)
    return Cube(
        name=name,
        edge_m=float(rng.uniform(*EDGE_RANGE_M)),
        xy=(float(xy[0]), float(xy[1])),
        yaw_rad=float(rng.uniform(-np.pi, np.pi)),
        rgb=_triple(rgb),
    )


def _draw_look(rng: np.random.Generator) -> Look:
    """Draw a view from the front, light and surfaces."""
    return Look(
        camera_xyz=_near(rng, (0.62, 0.0, 1.30), 0.05),
        camera_target_xyz=_near(rng, (-0.06, 0.0, 0.93), 0.02),
        camera_roll_rad=float(rng.uniform(-0.03, 0.03)),
        light_direction=_triple((-0.3, 0.0, -1.0) + rng.uniform(-0.5, 0.5, 3) * (1, 1, 0)),
        light_level=float(rng.uniform(0.3, 0.6)),
        ambient_level=float(rng.uniform(0.3, 0.5)),
        table_texture=_TABLE_TEXTURES[rng.integers(len(_TABLE_TEXTURES))],
        table_rgb=_triple(rng.uniform(0.7, 1.0) * rng.uniform(0.85, 1.0, 3)),
        wall_rgb=_triple(rng.uniform(0.6, 1.0) * rng.uniform(0.9, 1.0, 3)),
    )


def _near(
    rng: np.random.Generator, centre: tuple[float, float, float], spread: float
) -> tuple[float, float, float]:
    """Draw three numbers, each at most spread away from its centre."""
    return _triple(rng.uniform(-spread, spread, 3) + centre)


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return three floats."""
    x, y, z = (float(value) for value in values)
    return x, y, z
