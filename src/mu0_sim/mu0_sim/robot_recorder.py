"""Record what the robot did beside an episode: joints, commands, pictures of the wrist camera.

Everything is taken at the instants of the episode's pictures. The folder `robot` of an episode
holds `wrist.npy` (n, H, W, 3) uint8, `robot_description.urdf` and `states.npz`:

    robot, joints, gripper_joints   names
    gripper_open, gripper_closed    positions of the gripper's driving joint, rad or m
    rate_hz                         pictures a second
    wrist_focal_length              of the wrist camera, over its pictures' height
    T_base_camera, T_tool_wrist     (4, 4) poses of the cameras' optical frames (REP-103)
    q, gripper_q                    (n, j) rad and (n,) measured
    command_q, command_gripper      (n + 1, j) and (n + 1,) commanded then, and one period later
    frames, T_world_frame           names and (n, f, 4, 4) poses of the links, as TF has them
"""

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mu0_core import se3
from mu0_sim.cameras import wrist_camera
from mu0_sim.robot_control import RobotControl
from mu0_sim.robot_model import T_TOOL_WRIST
from mu0_sim.robots import RobotSpec
from mu0_sim.simulation import CameraFrame, JointCommand, JointState, Simulation

ROBOT_FOLDER = "robot"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RobotRecording:
    """Hold what a robot did in n pictures; as in the module's docstring.

    Attributes:
        robot: Its names, and the gripper's ends.
        rate_hz: Pictures a second.
        wrist_focal_length: Of the wrist camera, over its pictures' height.
        T_base_camera: (4, 4) pose of the front camera's optical frame in base_link.
        T_tool_wrist: (4, 4) pose of the wrist camera's, in the tool frame.
        q: (n, j) measured, rad.
        gripper_q: (n,) measured, rad or m.
        command_q: (n + 1, j) commanded, rad.
        command_gripper: (n + 1,) commanded, rad or m.
        wrist: (n, H, W, 3) uint8.
        description: The robot's URDF.
        frames: Names of the robot's links.
        T_world_frame: (n, f, 4, 4) their poses, which follow from the joints.
    """

    robot: RobotSpec
    rate_hz: float
    wrist_focal_length: float
    T_base_camera: NDArray[np.float64]
    T_tool_wrist: NDArray[np.float64]
    q: NDArray[np.float64]
    gripper_q: NDArray[np.float64]
    command_q: NDArray[np.float64]
    command_gripper: NDArray[np.float64]
    wrist: NDArray[np.uint8]
    description: str
    frames: tuple[str, ...] = ()
    T_world_frame: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0, 4, 4)))

    def write(self, episode: Path) -> None:
        """Put the recording into the folder of its episode, whole or not at all."""
        robot = self.robot
        partial = Path(tempfile.mkdtemp(dir=episode, prefix=f".{ROBOT_FOLDER}."))
        np.save(partial / "wrist.npy", self.wrist)
        np.savez(
            partial / "states.npz",
            robot=robot.name,
            joints=robot.arm_joints,
            gripper_joints=(robot.gripper.joint,),
            gripper_open=robot.gripper.position_open,
            gripper_closed=robot.gripper.position_closed,
            rate_hz=self.rate_hz,
            wrist_focal_length=self.wrist_focal_length,
            T_base_camera=self.T_base_camera,
            T_tool_wrist=self.T_tool_wrist,
            q=self.q,
            gripper_q=self.gripper_q,
            command_q=self.command_q,
            command_gripper=self.command_gripper,
            frames=self.frames,
            T_world_frame=self.T_world_frame,
        )
        (partial / "robot_description.urdf").write_text(self.description, encoding="utf-8")
        partial.chmod(0o755)
        shutil.rmtree(episode / ROBOT_FOLDER, ignore_errors=True)
        os.rename(partial, episode / ROBOT_FOLDER)


class RobotRecorder:
    """Collect joints, commands and wrist pictures; an observer of `mu0_sim.demonstrations.play`.

    Args:
        control: What commands the robot.
    """

    def __init__(self, control: RobotControl) -> None:
        self._control = control

    def on_reset(self, simulation: Simulation) -> None:
        """Begin an episode."""
        self._simulation = simulation
        self._states: list[JointState] = []
        self._commands: list[JointCommand] = []
        self._wrist: list[NDArray[np.uint8]] = []
        self._links: list[dict[str, NDArray[np.float64]]] = []

    def on_joints(self, simulation: Simulation) -> None:
        """Wait for pictures."""

    def on_camera(self, frame: CameraFrame, simulation: Simulation) -> None:
        """Keep what holds at the time of a picture."""
        self._states.append(simulation.joint_state())
        self._commands.append(self._control.command_at(frame.time_s))
        self._wrist.append(simulation.render_wrist())
        self._links.append(simulation.link_poses())

    def write(self, episode: Path) -> None:
        """Put the recording into the folder of its episode, whole or not at all."""
        simulation, robot = self._simulation, self._simulation.robot
        last = self._states[-1].time_s + 1.0 / simulation.config.rate_hz
        commands = [*self._commands, self._control.command_at(last)]
        n_joints, camera = len(robot.arm_joints), wrist_camera()
        RobotRecording(
            robot=robot,
            rate_hz=simulation.config.rate_hz,
            wrist_focal_length=camera.K[1, 1] / camera.height,
            T_base_camera=se3.inverse(simulation.T_world_base) @ simulation.T_world_camera,
            T_tool_wrist=T_TOOL_WRIST,
            q=np.stack([state.q[:n_joints] for state in self._states]),
            gripper_q=np.array([state.q[n_joints] for state in self._states]),
            command_q=np.stack([command.q for command in commands]),
            command_gripper=np.array([command.gripper_position for command in commands]),
            wrist=np.stack(self._wrist),
            description=simulation.robot_description(),
            frames=tuple(self._links[0]),
            T_world_frame=np.stack([np.stack([*links.values()]) for links in self._links]),
        ).write(episode)
