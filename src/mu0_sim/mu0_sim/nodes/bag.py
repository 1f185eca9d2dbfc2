"""Record a simulated run as a rosbag2, with the messages that the simulator's node publishes."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from rclpy.serialization import serialize_message
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from mu0_core.ros.interfaces import Interface, interface
from mu0_sim.nodes.scene_messages import Messages, SceneMessages, trajectory_message
from mu0_sim.scripted_expert import LiftPlan
from mu0_sim.simulation import CameraFrame, Simulation

_NO_LIMIT = QosTime(0, 0)


class BagTape:
    """Write a bag while a plan is played; it appears complete under its path, or not at all.

    Args:
        path: Folder of the bag.
        plan: Its commands are recorded at the start.
        storage: File format inside the bag.
        moving_camera: Whether the camera moves.
    """

    def __init__(
        self,
        path: Path,
        plan: LiftPlan,
        *,
        storage: StoragePlugin = StoragePlugin.MCAP,
        moving_camera: bool = False,
    ) -> None:
        self._path = path
        self._moving_camera = moving_camera
        self._plan = plan
        path.parent.mkdir(parents=True, exist_ok=True)
        # Files in a bag are named after its folder, so only the folder around it is temporary.
        self._temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        self._writer = Writer(self._temporary / path.name, version=9, storage_plugin=storage)
        self._writer.open()
        self._typestore = get_typestore(Stores.ROS2_JAZZY)
        self._connections: dict[str, Connection] = {}

    def on_reset(self, simulation: Simulation) -> None:
        """Record description, fixed transforms and commands."""
        self._scene = SceneMessages(
            simulation.robot_description(), link_tf=True, moving_camera=self._moving_camera
        )
        self._write(self._scene.of_episode(simulation), simulation.time_s)
        commands = {
            "arm_controller/joint_trajectory": trajectory_message(self._plan.arm),
            "gripper_controller/joint_trajectory": trajectory_message(self._plan.gripper),
        }
        self._write(commands, simulation.time_s)

    def on_joints(self, simulation: Simulation) -> None:
        """Record clock, joints and links."""
        self._write(self._scene.of_joints(simulation), simulation.time_s)

    def on_camera(self, frame: CameraFrame, simulation: Simulation) -> None:
        """Record a picture and the score."""
        found = self._scene.of_camera(frame, success=simulation.success())
        found |= self._scene.of_wrist(simulation.render_wrist(), frame.time_s)
        self._write(found, frame.time_s)

    def keep(self) -> None:
        """Put the bag in its place; one that is there is replaced."""
        self._writer.close()
        shutil.rmtree(self._path, ignore_errors=True)
        (self._temporary / self._path.name).rename(self._path)
        self._temporary.rmdir()

    def discard(self) -> None:
        """Leave nothing behind."""
        self._writer.close()
        shutil.rmtree(self._temporary)

    def _write(self, found: Messages, time_s: float) -> None:
        for name, message in found.items():
            if name not in self._connections:
                self._connections[name] = self._connect(interface(name))
            data: Any = serialize_message(message)
            self._writer.write(self._connections[name], round(time_s * 1e9), data)

    def _connect(self, row: Interface) -> Connection:
        """Open a topic of the table with the QoS that it is published with."""
        return self._writer.add_connection(
            f"/{row.name.lstrip('/')}",
            row.type_name,
            typestore=self._typestore,
            offered_qos_profiles=[_qos(row)],
        )


def _qos(row: Interface) -> Qos:
    """Return the profile of a topic as bags store it; the numbers are those of rmw."""
    profile = row.qos.profile
    return Qos(
        history=QosHistory(profile.history.value),
        depth=profile.depth,
        reliability=QosReliability(profile.reliability.value),
        durability=QosDurability(profile.durability.value),
        deadline=_NO_LIMIT,
        lifespan=_NO_LIMIT,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_NO_LIMIT,
        avoid_ros_namespace_conventions=False,
    )
