"""Read demonstrations that `ros2 run mu0_sim record --actions` leaves: episodes with a `robot`."""

from pathlib import Path

import numpy as np

from mu0_core.episode import read_episode
from mu0_core.errors import EpisodeError
from mu0_core.keypoint_file import read_keypoints
from mu0_policy.action_expert.actions import gripper_goals
from mu0_policy.camera_places import CameraPlace, Mount
from mu0_policy.demonstrations.alignment import check_even
from mu0_policy.demonstrations.demonstration import FRONT, Demonstration

ROBOT_FOLDER = "robot"
WRIST = "wrist"
_PLACES = {"T_base_camera": (FRONT, Mount.BASE), "T_tool_wrist": (WRIST, Mount.TOOL)}
"""Poses in `states.npz`, which older recordings lack."""


def is_simulated(path: Path) -> bool:
    """Say whether a folder is such an episode."""
    return (path / ROBOT_FOLDER / "states.npz").is_file()


def read_simulated(path: Path) -> Demonstration:
    """Read one episode.

    Raises:
        EpisodeError: The episode or what belongs to the robot is missing or damaged.
    """
    episode, folder = read_episode(path), path / ROBOT_FOLDER
    try:
        urdf = folder / "robot_description.urdf"
        wrist = np.load(folder / "wrist.npy", mmap_mode="r")
        with np.load(folder / "states.npz") as file:
            states = dict(file)
        rate_hz = float(states["rate_hz"])
        if episode.stamps is not None:
            check_even(str(path), episode.stamps, rate_hz)
        opened, closed = float(states["gripper_open"]), float(states["gripper_closed"])
        shares = (states["command_gripper"] - opened) / (closed - opened)
        commands = np.concatenate(
            [states["command_q"][1:], gripper_goals(shares)[:, None]], axis=1
        )
        focal_lengths = {}
        if episode.K is not None:
            focal_lengths[FRONT] = float(episode.K[0, 1, 1]) / episode.height
        if "wrist_focal_length" in states:
            focal_lengths[WRIST] = float(states["wrist_focal_length"])
        return Demonstration(
            name=str(path),
            robot=str(states["robot"]),
            instruction=(episode.description or "").strip(),
            rate_hz=rate_hz,
            joints=tuple(str(name) for name in states["joints"]),
            gripper_joints=tuple(str(name) for name in states["gripper_joints"]),
            pictures={FRONT: episode.images, WRIST: wrist},
            depth=episode.depth,
            q=states["q"],
            gripper=(states["gripper_q"] - opened) / (closed - opened),
            commands=commands,
            focal_lengths=focal_lengths,
            camera_places={
                camera: CameraPlace(mount=mount, T_mount_camera=states[name])
                for name, (camera, mount) in _PLACES.items()
                if name in states
            },
            keypoints=read_keypoints(path),
            robot_description=urdf.read_text(encoding="utf-8") if urdf.is_file() else "",
        )
    except (OSError, ValueError, KeyError) as error:
        raise EpisodeError(f"{folder}: no recording of a robot: {error}") from error
