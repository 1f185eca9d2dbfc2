"""Make the traces that a perfect model would predict, from what only the simulator knows.

The scripted expert shows the task once; from then on, wherever robot and object are, the rest of
that demonstration is the prediction. This separates what a follower can do from what a model can
predict. For tests and scoring only.
"""

import numpy as np
from numpy.typing import NDArray

from mu0_core import se3
from mu0_core.arclength import retarget
from mu0_core.camera import Camera
from mu0_core.errors import TrajectoryError
from mu0_sim.demonstrations import plan_demonstration
from mu0_sim.robot_control import RobotControl, run
from mu0_sim.simulation import Simulation

FloatArray = NDArray[np.float64]

_KEEP_EVERY = 2  # ticks of the clockwork
_AFTER_S = 0.2


class Demonstration:
    """Hold the way of tool and target through one demonstration.

    Args:
        simulation: Is reset to the scene of the seed and left after the lift.
        seed: Of the scene.

    Raises:
        TrajectoryError: The expert cannot do it.
    """

    def __init__(self, simulation: Simulation, seed: int) -> None:
        plan = plan_demonstration(simulation, seed)
        target = simulation.truth().target
        control = RobotControl(simulation.robot, simulation.home_command())
        control.arm.accept(plan.arm, simulation.time_s)
        control.gripper.accept(plan.gripper, simulation.time_s)
        tool, thing = [], []
        for i, tick in enumerate(run(simulation, control)):
            if i % _KEEP_EVERY == 0:
                poses = simulation.truth().T_world_body
                tool.append(simulation.truth().T_world_tool)
                thing.append(poses[target])
            if tick.time_s > control.arm.end_s + _AFTER_S:
                break
        if not simulation.success():
            raise TrajectoryError(f"the scripted expert does not lift {target} of seed {seed}")
        self._tool, self._target = np.stack(tool), np.stack(thing)

    def rest(self, T_world_tool: FloatArray, T_world_target: FloatArray) -> tuple[FloatArray, ...]:
        """Return the poses (k, 4, 4) of tool and target from here to the end, now first.

        Where the target has been moved, what was shown moves with it.
        """
        start = self._target[0, :3, 3]
        lifted = np.linalg.norm(self._target[:, :3, 3] - start, axis=-1)
        now = np.linalg.norm(T_world_target[:3, 3] - start)
        apart = np.linalg.norm(self._tool[:, :3, 3] - T_world_tool[:3, 3], axis=-1)
        at = int(np.argmin(apart + 2.0 * np.abs(lifted - now)))
        moved = T_world_target @ se3.inverse(self._target[at])
        return (
            np.concatenate([T_world_tool[None], moved @ self._tool[at + 1 :]]),
            np.concatenate([T_world_target[None], moved @ self._target[at + 1 :]]),
        )


def by_arc_length(
    xyz_world: FloatArray,
    camera: Camera,
    T_camera_world: FloatArray,
    *,
    arc_step: float,
    horizon: int,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Turn ways of points into traces.

    Args:
        xyz_world: (k, n, 3) m, the places of n points, now first.
        camera: Whose picture the arc length is measured in.
        T_camera_world: (4, 4).
        arc_step: Image fractions and metres in one norm.
        horizon: Steps after now.

    Returns:
        (n, horizon + 1, 3) m in the camera's optical frame, now first, at rest after the end of
        the way; (horizon + 1,) which steps the way reaches.
    """
    uvz = np.swapaxes(camera.project(se3.transform_points(T_camera_world, xyz_world)), 0, 1)
    sampled = retarget(
        uvz, width=camera.width, height=camera.height, arc_step=arc_step, n_samples=horizon + 1
    )
    xyz, n_reached = camera.unproject(sampled.uvz), int(sampled.valid.sum())
    xyz[:, n_reached:] = xyz[:, n_reached - 1 : n_reached]
    return xyz, sampled.valid
