"""Own a running LIBERO task: official states and success, pictures on demand, and its truth."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core import se3
from mu0_core.benchmark import FRONT, WRIST, Observation
from mu0_core.camera import Camera
from mu0_core.errors import ConfigError, ShapeError
from mu0_sim.libero.suites import LiberoTask, make_environment
from mu0_sim.libero.surfaces import collision_points, members
from mu0_sim.libero.truth import LiberoTruth
from mu0_sim.robots import load_robot

FloatArray = NDArray[np.float64]

RATE_HZ = 20.0
"""Actions a second."""
SHIFT_M, TURN_RAD = 0.05, 0.5
"""What 1 stands for in an action."""
OPEN, CLOSE = -1.0, 1.0
"""The gripper's number in an action."""

JOINTS = load_robot("panda").arm_joints
FINGER_OPEN_M = load_robot("panda").gripper.position_open
NS_PER_S = 1_000_000_000

SETTLING_STEPS = 10
"""Steps in which objects come to rest before the policy takes over, as in published work."""

_START_RAD = 0.02  # standard deviation of the arm's joints, as in the official states
_CAMERAS = {FRONT: "agentview", WRIST: "robot0_eye_in_hand"}
# The package's grip site opens its fingers along x; ours along y, as a tool frame does here.
_R_SITE_TOOL = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
_UPRIGHT = (1.0, -1.0, -1.0)  # MuJoCo's cameras look along -z with y up


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thing:
    """Hold one object or piece of furniture; for scripted experts and recordings only.

    Attributes:
        name: In the task's description.
        movable: Whether it is an object that can be carried.
        T_world_thing: (4, 4) pose of its origin, which the success checks look at.
        surface_xyz: (n, 3) points on what can be touched of it, in world, m.
    """

    name: str
    movable: bool
    T_world_thing: FloatArray
    surface_xyz: FloatArray


def gripper_share(finger_m: float) -> float:
    """Return where the fingers are, 0 = open, 1 = closed, from the travel of one, m."""
    return 1.0 - finger_m / FINGER_OPEN_M


class LiberoEnvironment:
    """Run one task. All calls must come from the thread that made it.

    Attributes:
        task: The task.
        camera: Intrinsics of the front camera.
        wrist_camera: Of the wrist camera.
    """

    def __init__(self, task: LiberoTask, *, size: int) -> None:
        """Build the scene.

        Args:
            task: The task.
            size: Width and height of pictures, px.
        """
        self.task = task
        self._size = size
        self._env = make_environment(task)
        self._seed = 0
        self._reset_package()
        self.camera, self.wrist_camera = (
            Camera.from_fovy(self._fovy_rad(name), size, size) for name in (FRONT, WRIST)
        )

    def reset(self, state: int | None, seed: int = 0) -> None:
        """Begin an episode, with objects at rest.

        Args:
            state: Number of the official initial state; None: drawn from the task's regions.
            seed: Of the draw.

        Raises:
            ConfigError: There is no official state of that number.
        """
        n = len(self.task.initial_states)
        if state is not None and not 0 <= state < n:
            raise ConfigError(f"initial state: expected 0 to {n - 1}, got {state}")
        self._seed = seed
        self._env.seed(seed)
        self._reset_package()
        begin = self._drawn(seed) if state is None else self.task.initial_states[state]
        self._env.set_init_state(begin)
        for _ in range(SETTLING_STEPS):
            self.step(np.array([0.0] * 6 + [OPEN]))
        self._steps = 0

    def step(self, action: FloatArray) -> bool:
        """Act for 1 / RATE_HZ; return whether the task is done.

        Args:
            action: (7,) as in `ActionKind.LIBERO`; limited to [-1, 1].

        Raises:
            ShapeError: Not seven finite numbers.
        """
        action = np.asarray(action, np.float64)
        if action.shape != (7,) or not np.isfinite(action).all():
            raise ShapeError(f"action: expected 7 finite numbers, got {action.tolist()}")
        self._env.step(np.clip(action, -1.0, 1.0))
        self._steps += 1
        return self.success()

    def success(self) -> bool:
        """Say whether the task is done, as the package checks it."""
        return bool(self._env.check_success())

    @property
    def seed(self) -> int:
        """Of the episode."""
        return self._seed

    @property
    def stamp_ns(self) -> int:
        """Time since objects had come to rest, ns."""
        return round(self._steps * NS_PER_S / RATE_HZ)

    @property
    def q(self) -> FloatArray:
        """Measured joints of the arm (7,), rad."""
        return np.array(self._sim.data.qpos[self._env.robots[0]._ref_joint_pos_indexes])

    @property
    def finger_m(self) -> float:
        """Measured travel of the fingers, m, 0 = closed."""
        fingers = self._sim.data.qpos[self._env.robots[0]._ref_gripper_joint_pos_indexes]
        return float(np.abs(fingers).mean())

    @property
    def T_world_base(self) -> FloatArray:  # noqa: N802
        """Pose of the robot's base (4, 4), upright and not turned."""
        body = self._data.body("robot0_base")
        return se3.make_transform(body.xmat.reshape(3, 3), body.xpos)

    @property
    def T_world_tool(self) -> FloatArray:  # noqa: N802
        """Pose of the grip point (4, 4): z out of the hand, the fingers open along y."""
        site = self._data.site("gripper0_grip_site")
        return se3.make_transform(site.xmat.reshape(3, 3) @ _R_SITE_TOOL, site.xpos)

    @property
    def T_world_camera(self) -> FloatArray:  # noqa: N802
        """Pose of the front camera's optical frame (REP-103), (4, 4)."""
        return self._camera_pose(FRONT)

    @property
    def T_base_camera(self) -> FloatArray:  # noqa: N802
        """Pose of that in the robot's base, (4, 4)."""
        return se3.inverse(self.T_world_base) @ self.T_world_camera

    @property
    def T_world_wrist(self) -> FloatArray:  # noqa: N802
        """Pose of the wrist camera's optical frame, likewise."""
        return self._camera_pose(WRIST)

    def observe(self) -> Observation:
        """Take pictures and measure joints."""
        front, depth_m = self._render(FRONT)
        return Observation(
            pictures={FRONT: front, WRIST: self._render(WRIST)[0]},
            depth_m=depth_m,
            camera=self.camera,
            T_base_camera=self.T_base_camera,
            q=self.q,
            gripper=gripper_share(self.finger_m),
            joints=JOINTS,
            rate_hz=RATE_HZ,
            time_s=self.stamp_ns / NS_PER_S,
            wrist_camera=self.wrist_camera,
        )

    def state(self) -> FloatArray:
        """Return the flattened MuJoCo state (m,)."""
        return np.array(self._env.get_sim_state())

    def picture_of(self, state: FloatArray) -> NDArray[np.uint8]:
        """Return the front camera's picture (H, W, 3) of a state; the episode is over then."""
        self._env.set_state(state)
        self._sim.forward()
        return self._render(FRONT)[0]

    def goals(self) -> list[list[str]]:
        """Return what has to hold in the end: predicates, each with its arguments."""
        return [list(goal) for goal in self._env.env.parsed_problem["goal_state"]]

    def things(self) -> dict[str, Thing]:
        """Return all objects and furniture by name, as they are now."""
        env = self._env.env
        found = {}
        for names, movable in ((env.objects_dict, True), (env.fixtures_dict, False)):
            for name in names:
                body = env.obj_body_id[name]
                rotation = self._data.xmat[body].reshape(3, 3)
                found[name] = Thing(
                    name=name,
                    movable=movable,
                    T_world_thing=se3.make_transform(rotation, self._data.xpos[body]),
                    surface_xyz=collision_points(
                        self._model, self._data, members(self._model, body)
                    ),
                )
        return found

    def region(self, name: str) -> FloatArray:
        """Return the centre (3,) in world, m, of a region of the task's description.

        Raises:
            ConfigError: There is no such region.
        """
        if name not in self._env.env.object_sites_dict:
            raise ConfigError(f"task {self.task.name}: no region {name!r}")
        return np.array(self._data.site(name).xpos)

    def truth(self) -> LiberoTruth:
        """Return poses and surfaces of all bodies; for recordings only."""
        return LiberoTruth(self._env.env)

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()

    def _drawn(self, seed: int) -> FloatArray:
        """Return the flattened state after a reset, with the arm's joints varied, too."""
        state = self.state()
        arm = 1 + np.array(self._env.robots[0]._ref_joint_pos_indexes)  # after the time
        state[arm] += np.random.default_rng(seed).normal(0.0, _START_RAD, len(arm))
        return state

    def _reset_package(self) -> None:
        self._env.reset()
        self._steps = 0

    @property
    def _sim(self) -> Any:
        return self._env.sim

    @property
    def _model(self) -> Any:
        return self._env.sim.model._model

    @property
    def _data(self) -> Any:
        return self._env.sim.data._data

    def _camera_pose(self, name: str) -> FloatArray:
        camera = self._data.cam(_CAMERAS[name])
        return se3.make_transform(camera.xmat.reshape(3, 3) * _UPRIGHT, camera.xpos)

    def _fovy_rad(self, camera: str) -> float:
        return float(np.deg2rad(self._model.camera(_CAMERAS[camera]).fovy[0]))

    def _render(self, camera: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return colours (H, W, 3) and depth (H, W) in m of a camera, upright."""
        rgb, raw = self._sim.render(
            camera_name=_CAMERAS[camera], width=self._size, height=self._size, depth=True
        )
        near, far = self._model.stat.extent * np.array(
            [self._model.vis.map.znear, self._model.vis.map.zfar]
        )
        depth_m = near / (1.0 - raw[::-1] * (1.0 - near / far))
        depth_m[raw[::-1] >= 1.0] = np.nan
        return np.ascontiguousarray(rgb[::-1]), depth_m.astype(np.float32)
