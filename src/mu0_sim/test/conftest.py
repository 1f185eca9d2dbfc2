import os

import pytest

SIGHTED = """
import numpy as np
from mu0_core.benchmark import ActionKind

class Sighted:
    action_kind = ActionKind.LIBERO

    def __init__(self, settings):
        self.settings = settings

    def reset(self, instruction):
        self.bias = len(instruction) / 1000.0

    def act(self, seen):
        means = [seen.pictures[name].mean() for name in ("front", "wrist")]
        means += [float(np.nanmean(seen.depth_m)), seen.q.sum(), seen.gripper]
        means[0] += np.round(seen.T_base_camera, 9).sum()  # a quaternion on its way
        lenses = seen.camera.K[0, 0] + seen.wrist_camera.K[0, 0]
        move = np.sin(np.array([*means, seen.time_s + lenses]) * 9.0)
        return np.append(move, 1.0) + self.bias
"""


@pytest.fixture
def sighted(tmp_path, monkeypatch):
    """Name a policy whose actions depend on all that it sees; other processes find it too."""
    (tmp_path / "sighted_policy.py").write_text(SIGHTED)
    monkeypatch.syspath_prepend(tmp_path)
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{path}")
    return "sighted_policy:Sighted"
