"""Record LIBERO demonstrations as episodes, with what is truly seen beside them.

Needs requirements/libero.txt. Depth has the flaws of a real sensor; there is no TF of the robot.
"""

from dataclasses import dataclass

import numpy as np
from extract_recordings import SWING_PERIOD_S, swung
from extract_scoring import save_truth

from mu0_core.benchmark import FRONT
from mu0_core.episode_captions import Caption
from mu0_core.episode_writer import EpisodeOptions, write_episode
from mu0_core.errors import Mu0Error
from mu0_core.se3 import make_transform
from mu0_sim.cameras import CameraFrame, DepthSensor
from mu0_sim.episode_recorder import EpisodeRecorder, PointBudget
from mu0_sim.libero.drivers import ScriptedDriver
from mu0_sim.libero.environment import LiberoEnvironment
from mu0_sim.libero.suites import load_suite, step_limit
from mu0_sim.mujoco_gl import mujoco

SUITES = ("libero_object", "libero_spatial")
_SIZE_PX, _STRIDE = 480, 2  # every second step: 10 pictures a second


@dataclass(frozen=True)
class LiberoCase:
    """Name one recording."""

    suite: str
    task: int
    seed: int
    moving_camera: bool

    @property
    def name(self):
        return f"{self.suite}_{self.task:02d}_{self.seed}{'_moving' if self.moving_camera else ''}"


def libero_cases(n, first_seed=9000):
    """Return n cases over both suites and their tasks; every second pair has a moving camera."""
    return [
        LiberoCase(SUITES[i % 2], (i // 2) % 10, first_seed + i, bool((i // 2) % 2))
        for i in range(n)
    ]


class Watched:
    """Take pictures of an environment with a sensor's depth, maybe from a carried camera."""

    def __init__(self, environment, case):
        self._environment, self._case = environment, case
        self._sensor, self._rng = DepthSensor(), np.random.default_rng(case.seed)
        self._model, self._data = environment._model, environment._data
        self._start = environment.T_world_camera
        self.bodies, self.poses, self.stamps, self.cameras, self.depth_m = [], [], [], [], []

    def picture(self):
        """Return the camera's next frame, and write down what is true."""
        environment = self._environment
        if self._case.moving_camera:
            self._carry(environment.stamp_ns * 1e-9)
        seen = environment.observe()
        self.stamps.append(seen.time_s)
        self.cameras.append(environment.T_world_camera)
        self.depth_m.append(seen.depth_m)
        self.bodies.append(self._body_of_each_pixel())
        self.poses.append(make_transform(self._data.xmat.reshape(-1, 3, 3), self._data.xpos))
        return CameraFrame(
            rgb=seen.pictures[FRONT],
            depth_m=self._sensor.degrade(seen.depth_m, self._rng),
            camera=seen.camera,
            T_world_camera=self.cameras[-1],
            time_s=seen.time_s,
        )

    def save(self, path):
        """Write the truth."""
        names = [self._model.body(i).name or f"body_{i}" for i in range(self._model.nbody)]
        save_truth(
            path,
            names=names,
            index=self.bodies,
            depth_m=self.depth_m,
            T_world_body=self.poses,
            stamps=self.stamps,
            T_world_camera=self.cameras,
        )

    def _carry(self, time_s):
        camera = self._model.camera("agentview")
        T = swung(self._start, 2 * np.pi * time_s / SWING_PERIOD_S)
        camera.pos[:] = T[:3, 3]
        mujoco.mju_mat2Quat(camera.quat, (T[:3, :3] * (1.0, -1.0, -1.0)).ravel())
        mujoco.mj_camlight(self._model, self._data)

    def _body_of_each_pixel(self):
        drawn = self._environment._sim.render(
            camera_name="agentview", width=_SIZE_PX, height=_SIZE_PX, segmentation=True
        )[::-1]
        kinds, ids = drawn[..., 0], drawn[..., 1]
        is_geom = (kinds == int(mujoco.mjtObj.mjOBJ_GEOM)) & (ids >= 0)
        return np.where(is_geom, self._model.geom_bodyid[np.maximum(ids, 0)], -1)


def record_libero(case, out):
    """Record one case; return whether it is there."""
    path, truth_file = out / case.name, out / f"{case.name}.truth.npz"
    if path.exists() and truth_file.exists():
        return True
    task = load_suite(case.suite)[case.task]
    environment = LiberoEnvironment(task, size=_SIZE_PX)
    try:
        environment.reset(None, case.seed)
        driver = ScriptedDriver()
        driver.begin(environment, case.seed)
        watched, recorder = Watched(environment, case), EpisodeRecorder(PointBudget())
        recorder.on_reset(environment)
        for step in range(step_limit(case.suite)):
            if step % _STRIDE == 0:
                recorder.on_camera(watched.picture(), environment)
            if environment.step(driver.action(environment)):
                break
        recording = recorder.recording()
        caption = Caption(
            start=0,
            end=recording.n_frames - 1,
            instructions=(task.instruction,),
            skill_labels=("grasp", "place"),
            embodiment_type="robot_gripper",
        )
        options = EpisodeOptions(arc_step=0.01)
        write_episode(path, recording, options, captions=[caption], description=task.instruction)
        watched.save(truth_file)
    except Mu0Error as error:
        print(f"{case.name}: {error}")
        return False
    finally:
        environment.close()
    return True
