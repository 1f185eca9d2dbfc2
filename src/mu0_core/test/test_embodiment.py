from pathlib import Path

import numpy as np
import pytest
import yaml

from mu0_core.embodiment import (
    DescriptionSource,
    Embodiment,
    JointLimits,
    arm_limits,
    arm_model,
    load_embodiment,
)
from mu0_core.errors import ConfigError

URDF = """<robot name="two">
  <link name="base_link"/><link name="upper"/><link name="lower"/><link name="finger"/>
  <link name="tool0"/>
  <joint name="j1" type="revolute"><parent link="base_link"/><child link="upper"/>
    <axis xyz="0 0 1"/><limit lower="-2" upper="2" velocity="1.5" effort="1"/></joint>
  <joint name="j2" type="revolute"><parent link="upper"/><child link="lower"/>
    <origin xyz="1 0 0"/><axis xyz="0 0 1"/>
    <limit lower="-1" upper="1" velocity="3" effort="1"/></joint>
  <joint name="tool_joint" type="fixed"><parent link="lower"/><child link="tool0"/>
    <origin xyz="0.5 0 0"/></joint>
  <joint name="jaw" type="prismatic"><parent link="lower"/><child link="finger"/>
    <origin xyz="0.4 0 0"/><axis xyz="0 1 0"/>
    <limit lower="0" upper="0.04" velocity="0.1" effort="1"/></joint>
</robot>"""


def two(**changes):
    content = {
        "name": "two",
        "base_frame": "base_link",
        "tool_frame": "tool0",
        "arm": {
            "joints": ["j1", "j2"],
            "controller": "arm_controller/joint_trajectory",
            "home_q": [0.0, 0.5],
            "acceleration": [4.0, 5.0],
            "jerk": [40.0, 50.0],
        },
        "gripper": {
            "joints": ["jaw"],
            "open": [0.04],
            "closed": [0.0],
            "controller": "gripper_controller/joint_trajectory",
        },
        "keypoints": {"frame": "tool0", "xyz": [[0, 0, 0], [0.01, 0, 0], [0, 0.01, 0]]},
        "workspace": {"lower": [-2, -2, -1], "upper": [2, 2, 1]},
    }
    for path, value in changes.items():
        *parents, name = path.split("__")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return content


def write(folder, content):
    path = Path(folder) / "two.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def load(folder, **changes):
    return load_embodiment(write(folder, two(**changes)))


def test_a_file_gives_joints_limits_and_frames(tmp_path):
    embodiment = load(tmp_path)
    assert embodiment.arm.joints == ("j1", "j2")
    assert embodiment.description.source is DescriptionSource.TOPIC
    model = arm_model(embodiment, URDF)
    assert model.joint_names == ("j1", "j2")
    np.testing.assert_allclose(model.forward([0.0, 0.0], "tool0")[:3, 3], [1.5, 0, 0])
    limits = arm_limits(embodiment, model)
    assert limits.velocity.tolist() == [1.5, 3.0]
    assert limits.position_lower.tolist() == [-2.0, -1.0]
    assert limits.jerk.tolist() == [40.0, 50.0]


def test_other_joints_are_locked_the_gripper_open(tmp_path):
    model = arm_model(load(tmp_path), URDF)
    np.testing.assert_allclose(model.forward([0.0, 0.0], "finger")[:3, 3], [1.4, 0.04, 0])


def test_tighter_limits_win(tmp_path):
    embodiment = load(tmp_path, arm__velocity=[1.0, 1.0], arm__position_upper=[1.0, 0.9])
    limits = arm_limits(embodiment, arm_model(embodiment, URDF))
    assert limits.velocity.tolist() == [1.0, 1.0]
    assert limits.position_upper.tolist() == [1.0, 0.9]
    assert limits.position_lower.tolist() == [-2.0, -1.0]


def test_the_description_may_be_a_file_beside_the_embodiment(tmp_path):
    (tmp_path / "two.urdf").write_text(URDF)
    embodiment = load(tmp_path, description={"source": "urdf", "path": "two.urdf"})
    assert embodiment.description.path == tmp_path / "two.urdf"
    assert arm_model(embodiment).joint_names == ("j1", "j2")


def test_a_missing_description_is_said(tmp_path):
    with pytest.raises(ConfigError, match="robot_description, but none came"):
        arm_model(load(tmp_path))
    embodiment = load(tmp_path, description={"source": "urdf", "path": "none.urdf"})
    with pytest.raises(ConfigError, match=r"none.urdf: cannot be read: No such file"):
        arm_model(embodiment)


def test_all_faults_of_a_file_are_named_at_once(tmp_path):
    changes = {
        "arm__home_q": [0.0],
        "gripper__closed": [0.04],
        "keypoints__xyz": [[0, 0, 0], [1, 0, 0], [2, 0, 0]],
        "workspace__lower": [3, 0, 0],
        "workspace__upper": [2, 1, 1],
        "speeds": {"linaer": 1.0},
        "description": {"source": "urdf"},
    }
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **changes)
    text = str(caught.value)
    assert str(tmp_path / "two.yaml") in text
    for fault in (
        "arm.home_q: expected 2 values, one for each joint, got 1",
        "gripper.closed: expected another position than open for jaw",
        "keypoints.xyz: the points lie on one line",
        "workspace.x: expected lower < upper, got 3.0 to 2.0 m",
        "speeds.linaer: unknown key 'linaer'",
        "did you mean 'linear'?",
        "description.path: expected a file, because source is urdf",
    ):
        assert fault in text


def test_limits_are_positive(tmp_path):
    with pytest.raises(ConfigError, match=r"arm.jerk: expected at least 0.001 rad/s\^3, got -1.0"):
        load(tmp_path, arm__jerk=[40.0, -1.0])


def test_names_must_be_single_and_not_shared(tmp_path):
    with pytest.raises(ConfigError, match="joints: j1 named twice"):
        load(tmp_path, arm__joints=["j1", "j1"])
    with pytest.raises(ConfigError, match=r"gripper.joints: j1 also among arm.joints"):
        load(tmp_path, gripper__joints=["j1"])


def test_a_gripper_command_moves_one_joint(tmp_path):
    changes = {
        "gripper__interface": "gripper_command",
        "gripper__joints": ["a", "b"],
        "gripper__open": [1, 1],
        "gripper__closed": [0, 0],
    }
    with pytest.raises(ConfigError, match="a gripper_command moves one joint, got 2"):
        load(tmp_path, **changes)


def test_a_description_without_the_joints_and_frames_is_refused(tmp_path):
    embodiment = load(tmp_path, arm__joints=["j1", "elbow"], tool_frame="tool1")
    with pytest.raises(ConfigError) as caught:
        arm_model(embodiment, URDF)
    text = str(caught.value)
    assert "embodiment 'two' and the description of 'two' disagree" in text
    assert "arm.joints: unknown joint 'elbow': known are j1, j2, jaw" in text
    assert "tool_frame: unknown frame 'tool1'" in text and "did you mean 'tool0'?" in text


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"arm__velocity": [9.0, 1.0]}, "arm.velocity: 9.0 rad/s for j1 is wider than"),
        ({"arm__position_lower": [-3.0, 0]}, "arm.position_lower: -3.0 rad for j1 is wider"),
        ({"arm__position_upper": [2.0, 1.5]}, "arm.position_upper: 1.5 rad for j2 is wider"),
        ({"arm__home_q": [0.0, 1.5]}, "arm.home_q: j2 at 1.5 rad, limits [-1.0000, 1.0000]"),
        ({"arm__joints": ["j2", "j1"]}, "expected the order of the description: j1, j2"),
    ],
)
def test_limits_wider_than_the_description_are_refused(tmp_path, change, fault):
    with pytest.raises(ConfigError) as caught:
        arm_model(load(tmp_path, **change), URDF)
    assert fault in str(caught.value)


def test_violations_name_joint_value_and_limit():
    limits = JointLimits(
        joint_names=("a", "b"),
        position_lower=np.array([-1.0, -np.inf]),
        position_upper=np.array([1.0, np.inf]),
        velocity=np.array([1.0, 2.0]),
        acceleration=np.array([5.0, 5.0]),
        jerk=np.array([50.0, 50.0]),
    )
    q = np.array([[0.0, 100.0], [1.2, 0.0]])
    assert limits.violations(np.zeros((4, 2)), np.full((4, 2), 1.0)) == []
    assert limits.violations(q, np.array([[0.0, -2.5], [1.0, 0.0]])) == [
        "a: position 1.2000 rad, limits [-1.0000, 1.0000]",
        "b: velocity 2.5000 rad/s, limit 2.0000",
    ]
    assert limits.violations(np.zeros(2), None, [6.0, 0.0], [0.0, np.nan]) == [
        "a: acceleration 6.0000 rad/s^2, limit 5.0000",
        "b: jerk inf rad/s^3, limit 50.0000",
    ]
    with pytest.raises(ValueError, match="read-only"):
        limits.velocity[0] = 3.0


def test_every_option_of_the_file_is_described():
    from mu0_core.config import leaves

    parts = ["description", "arm", "gripper", "keypoints", "workspace", "speeds"]
    assert {leaf.path.split(".")[0] for leaf in leaves(Embodiment)} >= set(parts)
    assert all(leaf.option.description for leaf in leaves(Embodiment))
