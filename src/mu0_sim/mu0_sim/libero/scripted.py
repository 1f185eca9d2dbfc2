"""Do pick-and-place tasks from what only the simulator knows, for demonstrations and as a bound.

The plan is closed-loop: grip, carry and release poses are worked out from where things are when
each part of it begins, and a grip that slipped is tried again. A seed varies speed and heights.
An episode can begin astray, to show how a miss is mended: the tool is first brought beside its
target.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mu0_core import se3
from mu0_core.errors import ConfigError, TrajectoryError
from mu0_sim.libero.environment import CLOSE, OPEN, SHIFT_M, TURN_RAD, LiberoEnvironment, Thing
from mu0_sim.libero.grasp import find_grasp, free

FloatArray = NDArray[np.float64]

_PLACING = ("in", "on")

# What the seed varies, as (lowest, highest).
_SPEED = (0.7, 1.0)
_HOVER_M = (0.06, 0.10)

_NEAR_M, _NEAR_RAD = 0.015, 0.1
_THERE_M, _THERE_RAD = 0.005, 0.05
_TURN_SPEED = 0.6  # of the largest turn, so that no joint is commanded far ahead
_GAIN = 2.0  # of the way left; more than 1, since friction holds the arm back near its goal
# A move ends, too, where it gets no further: at the end of the arm's reach, against a thing.
_STALLED_STEPS = 10
_PROGRESS_M, _ARM_M = 0.0005, 0.1
_CLOSING_STEPS, _OPENING_STEPS = 12, 8
_TRIES = 3
_LIFTED_M = 0.03
_CLEARANCE_M = 0.03
_DROP_M = 0.01
_WIDE_M = 0.13  # half width of the way that has to be clear for the hand
_COVERED_M = 0.03

# A tool astray: where it is from its grip, as (lowest, highest), and with fingers open or closed.
_STRAY_M, _STRAY_RAD, _STRAY_UP_M = (0.01, 0.05), (-0.4, 0.4), (0.015, 0.12)
_STRAY_DRAWS = 50
_BESIDE_M = 0.07  # as far as a tool may move sideways to its grip, if nothing is in its way
_BESIDE_STEPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """Say that an object has to be in or on a place."""

    thing: str
    place: str


class TaskRefusedError(ConfigError):
    """Report a task that the scripted expert cannot do."""


def plan_of(environment: LiberoEnvironment) -> list[Placing]:
    """Return what has to be placed where, or say why a task is beyond the scripted expert.

    Raises:
        TaskRefusedError: Something else than placing is asked, a place is covered from above, or
            an object offers no grip even where nothing is in the way.
    """
    task, goals = environment.task, environment.goals()
    other = sorted({goal[0] for goal in goals if goal[0] not in _PLACING or len(goal) != 3})
    if other:
        raise TaskRefusedError(
            f"{task.name}: the scripted expert only picks and places, this task also asks for "
            f"{', '.join(other)}"
        )
    things = environment.things()
    placings = [Placing(thing=thing, place=place) for _, thing, place in goals]
    for placing in placings:
        place_xyz = _place(environment, placing.place, things)
        above = _others(things, placing.thing) - place_xyz
        near = np.linalg.norm(above[:, :2], axis=1) < _COVERED_M
        if (near & (above[:, 2] > _COVERED_M)).any():
            raise TaskRefusedError(
                f"{task.name}: the scripted expert places from above, and {placing.place} is "
                "covered"
            )
        alone = {placing.thing: things[placing.thing]}
        try:
            _grasp(environment, placing.thing, alone)
        except TrajectoryError as error:
            raise TaskRefusedError(f"{task.name}: {placing.thing}: {error}") from error
    return placings


class ScriptedExpert:
    """Act in a LIBERO environment; one episode.

    Args:
        environment: Just reset; its truth is read.
        seed: Varies speed and heights.

    Raises:
        TaskRefusedError: The task is beyond it.
    """

    def __init__(self, environment: LiberoEnvironment, *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._environment, self._rng = environment, rng
        self._speed = rng.uniform(*_SPEED)
        self._hover_m = rng.uniform(*_HOVER_M)
        self._placings = plan_of(environment)
        self._actions = self._all()
        self.note = ""

    def act(self) -> FloatArray:
        """Return the next action (7,); rest with open fingers when the plan is at its end."""
        try:
            return next(self._actions, np.array([0.0] * 6 + [OPEN]))
        except TrajectoryError as error:
            self.note = str(error)  # and the generator is at its end
            return np.array([0.0] * 6 + [OPEN])

    def stray(self) -> Iterator[FloatArray]:
        """Return actions (7,) that bring the tool beside its first target, as after a miss.

        Where there is no place for it, or no grip, nothing is done in this episode.
        """
        try:
            yield from self._stray()
        except TrajectoryError as error:
            self.note, self._actions = str(error), iter(())

    def _stray(self) -> Iterator[FloatArray]:
        environment, rng, name = self._environment, self._rng, self._placings[0].thing
        things = environment.things()
        T_grasp, target = _grasp(environment, name, things), things[name].surface_xyz
        points = np.concatenate([target, _others(things, name)])
        # Closed, the fingers are above what they missed, so that they hold nothing.
        closed = rng.random() < 0.5
        low_z = target[:, 2].max() if closed else T_grasp[2, 3]
        for _ in range(_STRAY_DRAWS):
            aside, up_m = rng.uniform(*_STRAY_M), rng.uniform(*_STRAY_UP_M)
            way, turn = rng.uniform(-np.pi, np.pi), rng.uniform(*_STRAY_RAD)
            T_stray = _at_height(T_grasp, low_z + up_m)
            T_stray[:2, 3] += aside * np.array([np.cos(way), np.sin(way)])
            T_stray[:3, :3] = Rotation.from_euler("z", turn).as_matrix() @ T_stray[:3, :3]
            if _clear(T_stray, points):
                break
        else:
            raise TrajectoryError(f"{name}: no place beside it is free for the hand")
        over_z = max(self._clear_z(T_stray, name, things), target[:, 2].max()) + self._hover_m
        over_z = max(over_z, T_stray[2, 3])
        T_now = environment.T_world_tool
        yield from self._go(_at_height(T_now, max(over_z, T_now[2, 3])), OPEN, exact=False)
        yield from self._go(_at_height(T_stray, over_z), OPEN, exact=False)
        yield from self._go(T_stray, OPEN, exact=False)
        yield from self._wait(CLOSE, _CLOSING_STEPS if closed else 0)

    def _all(self) -> Iterator[FloatArray]:
        for placing in self._placings:
            for _ in range(_TRIES):
                yield from self._pick(placing)
                if self._is_lifted(placing.thing):
                    break
                self.note = f"{placing.thing} slipped"
            else:
                raise TrajectoryError(f"{placing.thing} slipped {_TRIES} times")
            yield from self._put(placing)

    def _pick(self, placing: Placing) -> Iterator[FloatArray]:
        environment = self._environment
        things = environment.things()
        target = things[placing.thing].surface_xyz
        self._start_z = target[:, 2].min()
        T_grasp = _grasp(environment, placing.thing, things)
        over_z = max(target[:, 2].max(), self._clear_z(T_grasp, placing.thing, things))
        over_z += self._hover_m
        T_now = environment.T_world_tool
        points = np.concatenate([target, _others(things, placing.thing)])
        if _is_beside(T_now, T_grasp, points):
            yield from self._go(_at_height(T_grasp, T_now[2, 3]), OPEN, exact=True)
        else:
            yield from self._go(_at_height(T_now, max(over_z, T_now[2, 3])), OPEN, exact=False)
            yield from self._go(_at_height(T_grasp, over_z), OPEN, exact=False)
            yield from self._go(_at_height(T_grasp, T_grasp[2, 3] + 0.04), OPEN, exact=True)
        yield from self._go(T_grasp, OPEN, exact=True)
        yield from self._wait(CLOSE, _CLOSING_STEPS)
        yield from self._go(_at_height(T_grasp, T_grasp[2, 3] + 0.1), CLOSE, exact=False)

    def _put(self, placing: Placing) -> Iterator[FloatArray]:
        environment = self._environment
        things = environment.things()
        held = things[placing.thing]
        place_xyz = _place(environment, placing.place, things)
        T_tool = environment.T_world_tool
        below_m = T_tool[2, 3] - held.surface_xyz[:, 2].min()
        T_over = T_tool.copy()
        T_over[:2, 3] += place_xyz[:2] - held.T_world_thing[:2, 3]
        carry_z = self._clear_z(T_over, placing.thing, things) + _CLEARANCE_M + below_m
        carry_z = max(carry_z, T_tool[2, 3])
        yield from self._go(_at_height(T_tool, carry_z), CLOSE, exact=False)
        yield from self._go(_at_height(T_over, carry_z), CLOSE, exact=True)
        # What is held may hang otherwise than before the way.
        things = environment.things()
        held = things[placing.thing]
        T_over = environment.T_world_tool
        T_over[:2, 3] += place_xyz[:2] - held.T_world_thing[:2, 3]
        T_release = _at_height(T_over, self._release_z(T_over, held, things))
        yield from self._go(T_release, CLOSE, exact=True)
        yield from self._wait(OPEN, _OPENING_STEPS)
        yield from self._go(_at_height(T_release, T_release[2, 3] + 0.1), OPEN, exact=False)

    def _go(self, T_goal: FloatArray, gripper: float, *, exact: bool) -> Iterator[FloatArray]:
        """Move the tool to a pose."""
        near_m, near_rad = (_THERE_M, _THERE_RAD) if exact else (_NEAR_M, _NEAR_RAD)
        least, stalled = np.inf, 0
        while stalled < _STALLED_STEPS:
            T_now = self._environment.T_world_tool
            shift = T_goal[:3, 3] - T_now[:3, 3]
            turn = Rotation.from_matrix(T_goal[:3, :3] @ T_now[:3, :3].T).as_rotvec()
            away_m, away_rad = float(np.linalg.norm(shift)), float(np.linalg.norm(turn))
            if away_m < near_m and away_rad < near_rad:
                return
            away = away_m + _ARM_M * away_rad
            stalled = 0 if away < least - _PROGRESS_M else stalled + 1
            least = min(least, away)
            yield np.concatenate(
                [
                    _limited(_GAIN * shift / SHIFT_M, self._speed),
                    _limited(_GAIN * turn / TURN_RAD, _TURN_SPEED * self._speed),
                    [gripper],
                ]
            )

    def _wait(self, gripper: float, steps: int) -> Iterator[FloatArray]:
        for _ in range(steps):
            yield np.array([0.0] * 6 + [gripper])

    def _is_lifted(self, name: str) -> bool:
        low_z = self._environment.things()[name].surface_xyz[:, 2].min()
        return bool(low_z > self._start_z + _LIFTED_M)

    def _clear_z(self, T_goal: FloatArray, carried: str, things: dict[str, Thing]) -> float:
        """Return the height of the highest other thing on the straight way to a pose."""
        start = self._environment.T_world_tool[:2, 3]
        points = _others(things, carried)
        way = T_goal[:2, 3] - start
        share = np.clip((points[:, :2] - start) @ way / (float(way @ way) + 1e-9), 0.0, 1.0)
        aside = np.linalg.norm(points[:, :2] - start - share[:, None] * way, axis=1)
        return float(points[aside < _WIDE_M, 2].max(initial=-np.inf))

    def _release_z(self, T_over: FloatArray, held: Thing, things: dict[str, Thing]) -> float:
        """Return the lowest height at which neither the hand nor what it holds meets anything."""
        others = _others(things, held.name)
        T_tool_world = se3.inverse(T_over)
        local = se3.transform_points(T_tool_world, others)
        hanging = se3.transform_points(
            se3.inverse(self._environment.T_world_tool), held.surface_xyz
        )
        reach = np.abs(hanging[:, :2]).max(axis=0)
        under = (np.abs(local[:, :2]) < reach).all(axis=1)
        floor_z = others[under, 2].max(initial=self._start_z)
        z = floor_z + hanging[:, 2].max() + _DROP_M
        while z < T_over[2, 3] and not free(local - [0.0, 0.0, T_over[2, 3] - z]):
            z += 0.01
        return float(z)


def _place(environment: LiberoEnvironment, name: str, things: dict[str, Thing]) -> FloatArray:
    """Return the point (3,) in world where the origin of something has to be brought."""
    if name in things:
        return things[name].T_world_thing[:3, 3]
    return environment.region(name)


def _grasp(environment: LiberoEnvironment, name: str, things: dict[str, Thing]) -> FloatArray:
    """Return T_world_tool of a grip on a thing."""
    return find_grasp(
        things[name].surface_xyz,
        _others(things, name),
        environment.T_world_tool,
        environment.T_world_base[:3, 3],
    ).T_world_tool


def _others(things: dict[str, Thing], name: str) -> FloatArray:
    """Return points (n, 3) on everything but one object."""
    parts = [thing.surface_xyz for key, thing in things.items() if key != name]
    return np.concatenate([np.zeros((0, 3)), *parts])


def _clear(T_world_tool: FloatArray, points: FloatArray) -> bool:
    """Say whether the open hand would meet none of the points (n, 3) in world."""
    return free(se3.transform_points(se3.inverse(T_world_tool), points))


def _is_beside(T_now: FloatArray, T_grasp: FloatArray, points: FloatArray) -> bool:
    """Say whether the open hand can move sideways over its grip, and meet none of the points."""
    T_over = _at_height(T_grasp, T_now[2, 3])
    shift = T_over[:3, 3] - T_now[:3, 3]
    if np.linalg.norm(shift) > _BESIDE_M or T_over[2, 3] < T_grasp[2, 3]:
        return False
    way = T_over[:3, 3] - np.linspace(1.0, 0.0, _BESIDE_STEPS)[:, None] * shift
    return all(_clear(T, points) for T in se3.make_transform(T_over[:3, :3], way))


def _at_height(T: FloatArray, z: float) -> FloatArray:
    moved = T.copy()
    moved[2, 3] = z
    return moved


def _limited(vector: FloatArray, most: float) -> FloatArray:
    """Shorten a vector so that no component exceeds a size."""
    largest = float(np.abs(vector).max())
    return vector if largest <= most else vector * (most / largest)
