"""Record what a driver does in LIBERO as an episode with the robot's joints and commands.

An action says where the tool shall go from where it is; as a command stands the joints that bring
it there, so that experts on joints, joint deltas and tool deltas learn from the same recording.
"""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core import se3
from mu0_core.benchmark import FRONT, WRIST
from mu0_core.episode_writer import EpisodeOptions
from mu0_core.robot_model import RobotModel
from mu0_sim.cameras import CameraFrame
from mu0_sim.episode_recorder import EpisodeRecorder, PointBudget, write_demonstration
from mu0_sim.libero.drivers import ToolCommands, panda_description
from mu0_sim.libero.environment import RATE_HZ, LiberoEnvironment, gripper_share
from mu0_sim.robot_recorder import RobotRecording

FloatArray = NDArray[np.float64]

_ARC_STEP = 0.01
# A scene has seven objects and more, and all but one of them rest: few points, and of these some.
_POINTS = PointBudget(per_object=24, gripper=24, arm=12, static=16)
_STATIC_SHARE = 0.25
_SKILLS = ("grasp", "place")


class LiberoRecorder:
    """Collect one episode: `take` before each step, `write` when it is worth keeping."""

    def __init__(self, environment: LiberoEnvironment) -> None:
        self._environment = environment
        self._arm = ToolCommands()
        self._episode = EpisodeRecorder(_POINTS)
        self._episode.on_reset(environment)
        self._description = panda_description()
        self._model = RobotModel.from_urdf(self._description)
        links = (link.get("name", "") for link in ET.fromstring(self._description).iter("link"))
        self._links = tuple(link for link in links if link != self._model.base_frame)
        self._T_base_camera = environment.T_base_camera
        self._T_tool_wrist = se3.inverse(environment.T_world_tool) @ environment.T_world_wrist
        self._wrist: list[NDArray[np.uint8]] = []
        self._q: list[FloatArray] = []
        self._fingers: list[float] = []
        self._commands: list[FloatArray] = []
        self._link_poses: list[FloatArray] = []

    def take(self, action: FloatArray) -> None:
        """Keep what is seen now, and the action (7,) that follows.

        Raises:
            ShapeError: The action leads out of reach.
        """
        environment, jaw = self._environment, self._arm.robot.gripper
        seen = environment.observe()
        frame = CameraFrame(
            rgb=seen.pictures[FRONT],
            depth_m=seen.depth_m,
            camera=seen.camera,
            T_world_camera=environment.T_world_camera,
            time_s=seen.time_s,
        )
        self._episode.on_camera(frame, environment)
        self._wrist.append(seen.pictures[WRIST])
        self._q.append(seen.q)
        self._fingers.append(environment.finger_m)
        self._link_poses.append(self._poses(seen.q, environment.finger_m))
        finger_m = jaw.position_closed if action[6] > 0.0 else jaw.position_open
        joints = self._arm.joints_for(action, seen.q)
        self._commands.append(np.append(joints, finger_m))

    def write(self, path: Path, provenance: dict[str, Any]) -> None:
        """Write the episode's folder, or what is missing in it."""
        if not path.exists():
            write_demonstration(
                path,
                self._episode.recording(),
                self._environment.task.instruction,
                EpisodeOptions(arc_step=_ARC_STEP, static_share=_STATIC_SHARE),
                skills=_SKILLS,
                provenance={"program": "mu0_sim libero", **provenance},
            )
        robot, wrist = self._arm.robot, self._environment.wrist_camera
        jaw = robot.gripper
        ends = (jaw.position_open, jaw.position_closed)
        first = np.append(self._q[0], ends[round(gripper_share(self._fingers[0]))])
        commands = np.stack([first, *self._commands])
        RobotRecording(
            robot=robot,
            rate_hz=RATE_HZ,
            wrist_focal_length=wrist.K[1, 1] / wrist.height,
            T_base_camera=self._T_base_camera,
            T_tool_wrist=self._T_tool_wrist,
            q=np.stack(self._q),
            gripper_q=np.array(self._fingers),
            command_q=commands[:, :-1],
            command_gripper=commands[:, -1],
            wrist=np.stack(self._wrist),
            description=self._description,
            frames=self._links,
            T_world_frame=np.stack(self._link_poses),
        ).write(path)

    def _poses(self, q: FloatArray, finger_m: float) -> FloatArray:
        """Return T_world_link (f, 4, 4) of the links, by forward kinematics as TF has them."""
        robot = self._arm.robot
        names = (*robot.arm_joints, robot.gripper.joint)
        T_base_link = self._model.forward_all(self._model.reorder(names, np.append(q, finger_m)))
        return self._environment.T_world_base @ np.stack([T_base_link[n] for n in self._links])
