"""Keypoints on simulated table-top pictures, judged by what only the simulator knows."""

import numpy as np
import pytest

from mu0_core.se3 import inverse, transform_points
from mu0_perception.frame import RgbdFrame
from mu0_perception.live_tracker import LiveTracker, LiveTrackerConfig
from mu0_sim.demonstrations import plan_demonstration, play
from mu0_sim.simulation import Simulation, SimulationConfig


class Watcher:
    """Track what the camera sees and measure the keypoints on cubes against the truth."""

    def __init__(self):
        self.tracker = LiveTracker(LiveTrackerConfig())
        self.born = {}
        self.errors = {}
        self.counts = []

    def on_reset(self, simulation):
        pass

    def on_joints(self, simulation):
        pass

    def on_camera(self, picture, simulation):
        frame = RgbdFrame(
            stamp_ns=round(picture.time_s * 1e9),
            frame_id="camera",
            rgb=picture.rgb,
            depth_m=picture.depth_m,
            camera=picture.camera,
        )
        keypoints = self.tracker.update(frame).keypoints
        xyz = transform_points(picture.T_world_camera, keypoints.xyz())
        objects = simulation.truth().objects
        count = dict.fromkeys(objects, 0)
        self.errors = {name: [] for name in objects}
        for row in np.flatnonzero(keypoints.visible):
            number = int(keypoints.ids[row])
            name, local = self.born.setdefault(number, _cube_under(objects, xyz[row]))
            if name is not None:
                now = transform_points(objects[name].T_world_object, local)
                self.errors[name].append(np.linalg.norm(now - xyz[row]))
                count[name] += 1
        self.counts.append(count)


def _cube_under(objects, xyz):
    for name, cube in objects.items():
        local = transform_points(inverse(cube.T_world_object), xyz)
        if (np.abs(local) < cube.size_m / 2 + 0.004).all():
            return name, local
    return None, None


@pytest.mark.parametrize("robot", ["panda", "ur5e", "iiwa"])
@pytest.mark.parametrize("task", ["lift", "lift_named"])
@pytest.mark.parametrize("depth_noise", [False, True], ids=["exact", "noisy"])
def test_each_cube_gets_keypoints(robot, task, depth_noise):
    config = SimulationConfig(robot=robot, task=task, seed=3, depth_noise=depth_noise)
    simulation = Simulation(config)
    watcher = Watcher()
    watcher.on_camera(simulation.render(), simulation)
    simulation.close()
    assert min(watcher.counts[0].values()) >= 4, watcher.counts[0]


@pytest.mark.slow
@pytest.mark.parametrize(("robot", "seed"), [("panda", 3), ("ur5e", 7)])
def test_keypoints_stay_on_a_cube_that_is_lifted(robot, seed):
    """The middle of their errors stays below 1 cm to the end, with 4 of them or more in sight."""
    simulation = Simulation(SimulationConfig(robot=robot, task="lift"))
    watcher = Watcher()
    assert play(simulation, plan_demonstration(simulation, seed), [watcher])
    simulation.close()
    assert min(count["cube"] for count in watcher.counts) >= 4
    assert np.median(watcher.errors["cube"]) < 0.01
