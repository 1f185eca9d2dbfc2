"""Run one simulated robot, its camera and a task, without ROS.

`Simulation` is what a node, a rollout or a test holds. It steps physics at 500 Hz under a computed
torque loop that follows desired joint positions and velocities, and renders the camera on demand.
It owns no trajectories (`mu0_sim.controllers`) and no schedule: whoever holds it decides when to
step and when to render.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu0_core.camera import Camera
from mu0_core.errors import ConfigError, unknown_name_message
from mu0_sim.cameras import (
    WRIST_SIZE,
    BodyFrame,
    CameraFrame,
    DepthSensor,
    SceneRenderer,
    picture_buffer,
    scene_camera,
)
from mu0_sim.robot_model import WRIST_CAMERA
from mu0_sim.robots import ROBOTS, RobotSpec, load_robot
from mu0_sim.tasks import TASK_NAMES, Scene, lifted_cubes, make_scene
from mu0_sim.truth import Truth
from mu0_sim.urdf import robot_description
from mu0_sim.world import DT_S, World

START_TIME_S = 1.0
"""Simulated time at which a simulation begins: zero means "no time yet" in ROS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """Choose robot, task, scene and camera.

    Attributes:
        robot: "panda", "ur5e" or "iiwa".
        task: "lift" or "lift_named".
        seed: Of the first scene, >= 0.
        width: Of pictures, px.
        height: Of pictures, px.
        rate_hz: Of pictures; kept for whoever schedules them.
        depth_noise: Whether depth has the flaws of a RealSense.
        shadows: Whether pictures have shadows and reflections.
    """

    robot: str = "panda"
    task: str = "lift"
    seed: int = 0
    width: int = 320
    height: int = 240
    rate_hz: float = 10.0
    depth_noise: bool = False
    shadows: bool = False

    def __post_init__(self) -> None:
        faults = []
        if self.robot not in ROBOTS:
            faults.append(unknown_name_message("robot", self.robot, ROBOTS))
        if self.task not in TASK_NAMES:
            faults.append(unknown_name_message("task", self.task, TASK_NAMES))
        if self.seed < 0:
            faults.append(f"seed: expected a whole number >= 0, got {self.seed}")
        for name, size in (("width", self.width), ("height", self.height)):
            if not 16 <= size <= 4096:
                faults.append(f"{name}: expected 16 to 4096 px, got {size}")
        if not 0.0 < self.rate_hz <= 1.0 / DT_S:
            faults.append(f"rate_hz: expected above 0 to {1 / DT_S:g} Hz, got {self.rate_hz}")
        if faults:
            raise ConfigError("simulation: " + "; ".join(faults))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointCommand:
    """Hold what the torque loop follows during one physics step.

    Attributes:
        q: (j,) desired arm joint positions, rad, in the order of RobotSpec.arm_joints.
        qd: (j,) desired arm joint velocities, rad/s.
        gripper_position: Desired position of the gripper's driving joint, rad or m.
    """

    q: NDArray[np.float64]
    qd: NDArray[np.float64]
    gripper_position: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointState:
    """Hold measured joints; all arrays (n,) in the order of names (RobotSpec.joint_names).

    Attributes:
        names: Arm joints, then all gripper joints with the driving one first.
        q: rad or m.
        qd: rad/s or m/s.
        effort: Actuator effort, N m or N; 0 for joints that only follow.
        time_s: Simulated time.
    """

    names: tuple[str, ...]
    q: NDArray[np.float64]
    qd: NDArray[np.float64]
    effort: NDArray[np.float64]
    time_s: float


class Simulation:
    """Simulate one robot at a table; see the module's docstring.

    Attributes:
        config: As given.
        robot: The robot's names, limits and gripper map.
        camera: Intrinsics of the camera.
        T_world_base: (4, 4) pose of base_link in world.
        T_world_camera: (4, 4) pose of the camera's optical frame (REP-103) in world, constant
            within an episode unless it is moved.
        dt_s: Duration of one physics step.
    """

    dt_s = DT_S

    def __init__(self, config: SimulationConfig) -> None:
        """Build the scene of config.task and config.seed."""
        self.config = config
        self.robot: RobotSpec = load_robot(config.robot)
        self.camera: Camera = scene_camera(config.width, config.height)
        self.T_world_base: NDArray[np.float64] = self.robot.T_world_base
        self._depth_sensor = DepthSensor() if config.depth_noise else None
        self._renderer: SceneRenderer | None = None
        self._ticks = 0
        self._start(make_scene(config.task, config.seed))

    def reset(self, task: str | None = None, seed: int | None = None) -> str:
        """Start a new episode with the arm at rest at home and the gripper open.

        Args:
            task: "lift" or "lift_named"; None = as before.
            seed: Of the scene, >= 0; None = as before.

        Returns:
            The instruction. Time goes on: it never goes back.

        Raises:
            ConfigError: Unknown task or negative seed; the running episode stays as it was.
        """
        scene = make_scene(
            self.task if task is None else task, self.seed if seed is None else seed
        )
        self._start(scene)
        return self.instruction

    def _start(self, scene: Scene) -> None:
        """Replace the running scene."""
        width, height = picture_buffer(self.camera)
        self._world = World(self.robot, scene, width=width, height=height)
        self._cube_start = self._cube_poses()
        self.T_world_camera = self._world.camera_pose()
        self._sensor_rng = np.random.default_rng(scene.seed)

    @property
    def task(self) -> str:
        """Name of the running task."""
        return self._world.scene.task

    @property
    def seed(self) -> int:
        """Seed of the running scene."""
        return self._world.scene.seed

    @property
    def instruction(self) -> str:
        """The running task in words."""
        return self._world.scene.instruction

    @property
    def time_s(self) -> float:
        """Simulated time; starts at START_TIME_S and never goes back."""
        return START_TIME_S + self._ticks * DT_S

    def home_command(self) -> JointCommand:
        """Return the command that holds the arm at home with the gripper open."""
        return JointCommand(
            q=self.robot.home_q,
            qd=np.zeros_like(self.robot.home_q),
            gripper_position=self.robot.gripper.position_open,
        )

    def step(self, command: JointCommand) -> None:
        """Advance physics by dt_s while the torque loop follows command."""
        self._world.step(command.q, command.qd, command.gripper_position)
        self._ticks += 1

    def advance(self, duration_s: float, command_at: Callable[[float], JointCommand]) -> None:
        """Step for a duration, asking for the command at time_s before each step."""
        for _ in range(round(duration_s / DT_S)):
            self.step(command_at(self.time_s))

    def joint_state(self) -> JointState:
        """Measure all joints."""
        q, qd, effort = self._world.joints()
        return JointState(
            names=self.robot.joint_names, q=q, qd=qd, effort=effort, time_s=self.time_s
        )

    def render(self) -> CameraFrame:
        """Take a picture. The first call decides the thread that all others must come from.

        Raises:
            ConfigError: There is no working off-screen OpenGL.
            Mu0Error: Called from another thread than before.
        """
        rgb, depth_m = self._ready_renderer().render()
        if self._depth_sensor is not None:
            depth_m = self._depth_sensor.degrade(depth_m, self._sensor_rng)
        return CameraFrame(
            rgb=rgb,
            depth_m=depth_m,
            camera=self.camera,
            T_world_camera=self.T_world_camera,
            time_s=self.time_s,
        )

    def render_wrist(self) -> NDArray[np.uint8]:
        """Take a picture (120, 160, 3) uint8 with the camera on the hand; as `render`."""
        return self._ready_renderer().render(WRIST_CAMERA, WRIST_SIZE)[0]

    def render_bodies(self) -> BodyFrame:
        """Say which body each pixel shows, how far it is, and where all bodies are.

        For scoring only; raises what `render` raises.
        """
        index, depth_m = self._ready_renderer().render_bodies()
        names = self._world.body_names()
        return BodyFrame(
            names=names,
            index=index,
            depth_m=depth_m,
            T_world_body=np.stack([self._world.body_pose(name) for name in names]),
        )

    def move_camera(self, T_world_camera: NDArray[np.float64]) -> None:
        """Put the camera's optical frame somewhere else in world, until the next reset."""
        self._world.move_camera(T_world_camera)
        self.T_world_camera = self._world.camera_pose()

    def _ready_renderer(self) -> SceneRenderer:
        """Return the renderer of the running scene, with bodies where they are now."""
        if self._renderer is not None and self._renderer.world is not self._world:
            self.close()
        if self._renderer is None:
            self._renderer = SceneRenderer(self._world, self.camera, shadows=self.config.shadows)
        self._world.refresh()
        return self._renderer

    def robot_description(self) -> str:
        """Return the robot's URDF."""
        return robot_description(self.robot)

    def link_transforms(self) -> Mapping[str, tuple[str, NDArray[np.float64]]]:
        """Return {link: (parent link, T_parent_link)} of all links but base_link."""
        self._world.refresh()
        return self._world.link_transforms()

    def link_poses(self) -> dict[str, NDArray[np.float64]]:
        """Return {link: T_world_link} of all links but base_link, which follow from the joints."""
        self._world.refresh()
        return {link: self._world.body_pose(link) for link in self._world.links()}

    def success(self) -> bool:
        """Say whether the cube that the instruction means is lifted. For scoring only."""
        return self._world.scene.target in self.lifted()

    def lifted(self) -> tuple[str, ...]:
        """Name the cubes that are lifted. For scoring only."""
        start = {name: T[2, 3] for name, T in self._cube_start.items()}
        now = {name: T[2, 3] for name, T in self._cube_poses().items()}
        return tuple(lifted_cubes(start, now))

    def truth(self) -> Truth:
        """Return what only the simulator knows. For demonstrations and scoring only."""
        self._world.refresh()
        return Truth(self._world, self._cube_start)

    def close(self) -> None:
        """Free the renderer; call from the rendering thread."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _cube_poses(self) -> dict[str, NDArray[np.float64]]:
        """Return the pose of every cube."""
        self._world.refresh()
        return {cube.name: self._world.body_pose(cube.name) for cube in self._world.scene.cubes}
