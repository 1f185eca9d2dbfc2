"""A planar arm of three joints, and what the tests do with it."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mu0_core.embodiment import arm_model, load_embodiment
from mu0_policy.demonstrations.demonstration import Demonstration

URDF = """<robot name="planar">
  <link name="base_link"/><link name="a"/><link name="b"/><link name="c"/><link name="finger"/>
  <link name="tool0"/>
  <joint name="j1" type="revolute"><parent link="base_link"/><child link="a"/>
    <axis xyz="0 0 1"/><limit lower="-3" upper="3" velocity="2" effort="1"/></joint>
  <joint name="j2" type="revolute"><parent link="a"/><child link="b"/>
    <origin xyz="0.4 0 0"/><axis xyz="0 0 1"/>
    <limit lower="-2.5" upper="2.5" velocity="2" effort="1"/></joint>
  <joint name="j3" type="revolute"><parent link="b"/><child link="c"/>
    <origin xyz="0.4 0 0"/><axis xyz="0 0 1"/>
    <limit lower="-2.5" upper="2.5" velocity="2" effort="1"/></joint>
  <joint name="tool_joint" type="fixed"><parent link="c"/><child link="tool0"/>
    <origin xyz="0.2 0 0"/></joint>
  <joint name="jaw" type="prismatic"><parent link="c"/><child link="finger"/>
    <axis xyz="0 1 0"/><limit lower="0" upper="0.04" velocity="0.1" effort="1"/></joint>
</robot>"""

FILE = """
name: planar
base_frame: base_link
tool_frame: tool0
arm:
  joints: [j1, j2, j3]
  controller: arm_controller/joint_trajectory
  home_q: [1.2, -2.0, 0.8]
  acceleration: [5.0, 5.0, 5.0]
  jerk: [60.0, 60.0, 60.0]
gripper:
  joints: [jaw]
  open: [0.04]
  closed: [0.0]
  controller: gripper_controller/joint_trajectory
  closing_s: 0.6
keypoints:
  frame: tool0
  xyz: [[0.0, 0.05, 0.0], [0.0, -0.05, 0.0], [-0.08, 0.0, 0.0], [-0.04, 0.02, 0.05]]
workspace: {lower: [0.3, -0.6, -0.5], upper: [0.98, 0.6, 0.5]}
"""


@pytest.fixture(autouse=True)
def _as_in_a_node(request):
    """Share the interpreter as `spin` does, where a whole graph has one."""
    before = sys.getswitchinterval()
    if request.node.get_closest_marker("ros"):
        from mu0_core.ros.lifecycle import SWITCH_INTERVAL_S

        sys.setswitchinterval(SWITCH_INTERVAL_S)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def urdf():
    return URDF


@pytest.fixture
def embodiment_file(tmp_path):
    path = tmp_path / "planar.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def embodiment(embodiment_file):
    return load_embodiment(embodiment_file)


@pytest.fixture
def model(embodiment):
    return arm_model(embodiment, URDF)


@pytest.fixture
def embodiments_dir():
    return Path(__file__).resolve().parents[1] / "config" / "embodiments"


@pytest.fixture
def scene(embodiment, model):
    """Return a maker of predictions: the tool goes along a line to a cube and takes it on."""
    from mu0_policy.trace_motions import Prediction

    def make(
        q=(1.2, -2.0, 0.8),
        *,
        stamp_s=0.0,
        way=0.3,
        before=20,
        after=10,
        valid=None,
        noise_m=0.0,
        held=False,
        leaves=None,
    ):
        rng = np.random.default_rng(0)
        tool = model.forward(np.array(q), "tool0")
        grasp = tool[:3, 3] + [way if not held else 0.0, 0.0, 0.0]
        cube = grasp + rng.uniform(-0.02, 0.02, (12, 3))
        gripper = np.array(embodiment.keypoints.xyz) @ tool[:3, :3].T + tool[:3, 3]
        steps = np.arange(1, before + after + 1)
        go = np.where(steps <= before, steps * way / max(before, 1), way)
        lift = np.maximum(steps - before, 0) * 0.0125
        move = np.stack([0.0 * go if held else go, lift, 0.0 * go], axis=-1)
        cube_move = np.stack([0.0 * go, lift, 0.0 * go], axis=-1)
        if leaves is not None:
            cube_move[leaves:] = cube_move[leaves]
        current = np.concatenate([gripper, cube])
        xyz = np.concatenate([gripper[:, None] + move, cube[:, None] + cube_move])
        on_gripper = np.arange(len(current)) < len(gripper)
        goes_on = np.arange(len(steps)) < (len(steps) if valid is None else valid)
        return Prediction(
            stamp_s=stamp_s,
            T_base_tool=tool,
            instruction="take the cube",
            current_xyz=current,
            xyz=xyz + noise_m * rng.standard_normal(xyz.shape),
            valid_prob=np.tile(goes_on.astype(float), (len(current), 1)),
            on_gripper=on_gripper,
            cluster_ids=np.where(on_gripper, -1, 7).astype(np.int32),
            spread_m=0.0,
        ), grasp

    return make


@pytest.fixture(scope="session")
def world_model(tmp_path_factory):
    """Save a world model of a few thousand random weights, and return its folder."""
    import torch

    from mu0_world_model import checkpoint
    from mu0_world_model.model import Mu0
    from mu0_world_model.presets import TINY
    from mu0_world_model.statistics import STATISTICS, Statistics
    from mu0_world_model.text import save_tokenizer, train_tokenizer

    folder = tmp_path_factory.mktemp("world") / "tiny"
    sizes = replace(
        TINY,
        vlm=replace(
            TINY.vlm,
            vision_width=16,
            vision_heads=2,
            vision_mlp=16,
            vision_layers=1,
            text_width=16,
            text_heads=2,
            text_kv_heads=2,
            text_head_dim=8,
            text_mlp=16,
        ),
        num_vlm_layers=2,
        num_expert_layers=2,
        resize_imgs_with_padding=(32, 32),
    )
    statistics = Statistics(
        delta_scale=sizes.delta_scale,
        arc_step=0.01,
        history_len=sizes.history_len,
        future_len=sizes.future_len,
        depth_log_min=-1.0,
        depth_log_max=1.0,
    )
    torch.manual_seed(0)
    model = Mu0(sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    tokenizer = train_tokenizer(["Task: lift the cube\n"], sizes.vlm.vocab_size)
    files = save_tokenizer(tokenizer, folder.parent / "tokenizer")
    extras = {STATISTICS: statistics.to_json()}
    checkpoint.save(model, folder, step=0, extras=extras, copy=files)
    return folder


def _made(seed=0, n=10, **changes):
    """A reach whose goal can be seen in the pictures."""
    rng = np.random.default_rng(seed)
    goal = rng.uniform(-0.3, 0.3, 3)
    way = np.linspace(0.0, 1.0, n + 1)[:, None] * goal
    brightness = np.clip(128 + 400 * goal, 0, 255).astype(np.uint8)
    front = np.tile(brightness, (n, 32, 32, 1))
    values = {
        "name": f"made {seed}",
        "robot": "planar",
        "instruction": "lift the cube",
        "rate_hz": 10.0,
        "joints": ("j1", "j2", "j3"),
        "gripper_joints": ("jaw",),
        "pictures": {"front": front, "wrist": front},
        "depth": None,
        "q": way[:-1],
        "gripper": np.zeros(n),
        "commands": np.concatenate([way[1:], np.zeros((n, 1))], axis=1),
    }
    return Demonstration(**(values | changes))


@pytest.fixture
def made():
    """Return a maker of demonstrations."""
    return _made


def _with_keypoints(seed=0, counts=(3, 0, 2, 3, 1, 3, 2, 3, 3, 3)):
    """Points on two things, as a tracker gives them, of varying number."""
    rng = np.random.default_rng(seed)
    rows = [np.column_stack([rng.uniform(2, 30, (n, 2)), np.full(n, 0.8)]) for n in counts]
    return _made(seed, keypoints=rows)


@pytest.fixture
def with_keypoints():
    """Return a maker of demonstrations with keypoints."""
    return _with_keypoints


def _fake_extract(rgb, instruction, depth=None, keypoints=None):
    """As many features as a world model would give, of the picture's brightness."""
    mean = np.float16(rgb.mean() / 255.0)
    n = 2 if keypoints is None else len(keypoints)
    return {
        "context": np.full((3, 16), mean, np.float16),
        "traces": np.full((n, 24), mean, np.float16),
        "places": np.full((n, 3), 0.5, np.float16),
        "language": np.full((len(instruction) % 5 + 1, 16), mean, np.float16),
    }


@pytest.fixture
def fake_extract():
    """Return what stands in for the frozen world model."""
    return _fake_extract
