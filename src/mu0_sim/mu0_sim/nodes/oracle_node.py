"""Take the world model's place with exact traces of the live keypoints; simulator only."""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from tf2_msgs.msg import TFMessage

from mu0_core import se3
from mu0_core.config import option, validate
from mu0_core.ros.interfaces import create_publisher, create_subscription
from mu0_core.ros.lifecycle import Level, Mu0LifecycleNode, spin
from mu0_core.ros.messages import keypoints_from_message, traces_message
from mu0_core.traces import Keypoints, KeypointSource, Traces
from mu0_msgs.msg import KeypointArray
from mu0_sim.exact_traces import Demonstration, by_arc_length
from mu0_sim.nodes.scene_messages import transforms_from_message
from mu0_sim.nodes.scripted_expert_node import ScriptedExpertConfig
from mu0_sim.robots import TOOL_FRAME
from mu0_sim.simulation import Simulation

_SKIN_M = 0.015


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleConfig(ScriptedExpertConfig):
    """Name the scene that the simulator was reset to, and how traces are made."""

    horizon: int = option(32, description="Steps of a trace", low=1)

    def __post_init__(self) -> None:
        ScriptedExpertConfig.__post_init__(self)
        validate(self)


class OracleNode(Mu0LifecycleNode[OracleConfig]):
    """Answer every set of keypoints with the rest of a demonstration of this scene."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("oracle", OracleConfig, **arguments)

    def setup(self) -> None:
        """Play the demonstration once."""
        config = self.config
        simulation = Simulation(config.scene())
        self._demonstration = Demonstration(simulation, config.seed)
        truth = simulation.truth()
        self._target, self._half_m = truth.target, truth.objects[truth.target].size_m / 2.0
        self._T_world_camera = simulation.T_world_camera
        self._instruction = simulation.instruction
        self._traces = create_publisher(self, "mu0/traces")
        self.get_logger().warning("exact traces from the simulator's truth stand for the model's")

    def start(self) -> None:
        """Take keypoints and poses."""
        self._poses: dict[str, np.ndarray] = {}
        create_subscription(self, "sim/poses", self._on_poses)
        create_subscription(self, "mu0/keypoints", self._on_keypoints, newest=True)

    def _on_poses(self, message: TFMessage) -> None:
        self._poses = transforms_from_message(message)

    def _on_keypoints(self, message: KeypointArray) -> None:
        keypoints = keypoints_from_message(message)
        if self._target not in self._poses or not keypoints.n:
            return
        self._traces.publish(traces_message(self._answer(keypoints)))
        self.report(Level.OK, "exact traces", keypoints=keypoints.n)

    def _answer(self, keypoints: Keypoints) -> Traces:
        """Let the points go where the bodies go that they are on."""
        T_world_tool, T_world_target = self._poses[TOOL_FRAME], self._poses[self._target]
        tool, target = self._demonstration.rest(T_world_tool, T_world_target)
        xyz_world = se3.transform_points(self._T_world_camera, keypoints.xyz())
        in_target = se3.transform_points(se3.inverse(T_world_target), xyz_world)
        on_target = (np.abs(in_target) < self._half_m + _SKIN_M).all(axis=-1)
        on_tool = keypoints.source == KeypointSource.ROBOT
        ways = np.tile(xyz_world, (len(tool), 1, 1))
        for chosen, poses in ((on_target & ~on_tool, target), (on_tool, tool)):
            motions = poses @ se3.inverse(poses[0])
            ways[:, chosen] = se3.transform_points(motions[:, None], xyz_world[chosen])
        xyz, valid = by_arc_length(
            ways,
            keypoints.camera,
            se3.inverse(self._T_world_camera),
            arc_step=keypoints.arc_step,
            horizon=self.config.horizon,
        )
        n = keypoints.n
        return Traces(
            stamp_ns=keypoints.stamp_ns,
            frame_id=keypoints.frame_id,
            instruction=self._instruction,
            model="oracle",
            arc_step=keypoints.arc_step,
            ids=keypoints.ids,
            cluster_ids=keypoints.cluster_ids,
            source=keypoints.source,
            current_xyz=xyz[:, 0].astype(np.float32),
            xyz=xyz[None, :, 1:].astype(np.float32),
            control_uvz=np.zeros((1, n, 4, 3), np.float32),
            valid_prob=np.tile(valid[1:].astype(np.float32), (1, n, 1)),
            stage_names=(),
            stage_seconds=np.zeros(0, np.float32),
        )


def main() -> int:
    """Run the node."""
    return spin(OracleNode)


if __name__ == "__main__":
    sys.exit(main())
