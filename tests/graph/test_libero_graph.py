"""A policy that reads keypoints acts the same in the benchmark's process and as a node."""

import os

import numpy as np
import pytest

from mu0_core.benchmark import FRONT, WRIST, Observation, load_policy
from mu0_core.camera import Camera
from mu0_core.se3 import make_transform
from mu0_sim.libero.drivers import PolicyDriver, policy_settings
from mu0_sim.libero.environment import JOINTS, NS_PER_S, RATE_HZ
from mu0_sim.nodes.libero_link import RosDriver

POLICY = """
import numpy as np
from mu0_core.benchmark import ActionKind, load_keypoint_tracker

class Following:
    action_kind = ActionKind.LIBERO

    def __init__(self, settings):
        self.tracker = load_keypoint_tracker(settings)

    def reset(self, instruction):
        self.tracker.reset()

    def act(self, seen):
        rows = self.tracker.update(seen)
        return np.append(np.sin(np.nanmean(rows, axis=0)), [len(rows), 0.0, 0.0, 1.0])
"""
SIZE = 96
HOME = np.array([0.0, -0.16, 0.0, -2.44, 0.0, 2.23, 0.79])
C, S = np.cos(0.56), np.sin(0.56)
# From in front and above, as LIBERO's camera looks at the robot.
T_BASE_CAMERA = make_transform([[0.0, S, -C], [1.0, 0.0, 0.0], [0.0, -C, -S]], [1.5, 0.0, 0.65])


class Moving:
    """A textured box that is pushed over a plane, seen from straight ahead."""

    def __init__(self):
        self.task = type("Task", (), {"instruction": "push it"})
        self.stamp_ns, self.finger_m = -NS_PER_S // 20, 0.04
        self.texture = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)

    def observe(self):
        self.stamp_ns += NS_PER_S // 20
        step = self.stamp_ns * 20 // NS_PER_S
        rgb = np.full((SIZE, SIZE, 3), 120, np.uint8)
        depth_m = np.full((SIZE, SIZE), 1.2, np.float32)
        rows, columns = slice(50, 74), slice(30 + step, 54 + step)
        rgb[rows, columns], depth_m[rows, columns] = self.texture, 1.1
        return Observation(
            pictures={FRONT: rgb, WRIST: rgb},
            depth_m=depth_m,
            camera=Camera.from_fovy(0.8, SIZE, SIZE),
            T_base_camera=T_BASE_CAMERA,
            q=HOME + 0.01 * step,
            gripper=0.0,
            joints=JOINTS,
            rate_hz=RATE_HZ,
            time_s=self.stamp_ns / NS_PER_S,
            wrist_camera=Camera.from_fovy(1.3, SIZE, SIZE),
        )


@pytest.fixture
def policy(tmp_path, monkeypatch):
    (tmp_path / "following_policy.py").write_text(POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{path}")
    return "following_policy:Following"


@pytest.mark.ros
def test_keypoints_are_the_same_over_topics(policy):
    settings = policy_settings(None, "")
    here = PolicyDriver(load_policy(policy, settings))
    there = RosDriver(policy, settings, domain_id=1 + os.getpid() % 100)
    try:
        near, far = Moving(), Moving()
        here.begin(near, 0)
        there.begin(far, 0)
        actions = []
        for _ in range(5):
            actions.append(here.action(near))
            assert np.array_equal(there.action(far), actions[-1])
    finally:
        there.close()
    counts = [action[3] for action in actions]
    assert min(counts) > 14  # ten on the gripper, the others on the box
    assert len({action.tobytes() for action in actions}) == 5
