import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu0_core.errors import CalibrationError, ConfigError, ShapeError, TrajectoryError
from mu0_core.kinematics import DifferentialIK, IkConfig, RobotModel
from mu0_core.se3 import exp, inverse, log


def joint(name, kind, parent, child, axis="0 0 1", xyz="0 0 0", limit="", extra=""):
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="{xyz}"/><axis xyz="{axis}"/>{limit}{extra}</joint>'
    )


def limit(lower, upper, velocity):
    return f'<limit lower="{lower}" upper="{upper}" velocity="{velocity}" effort="1"/>'


def urdf(*joints, links="base_link a b tip f1 f2"):
    parts = "".join(f'<link name="{name}"/>' for name in links.split())
    return f'<robot name="arm">{parts}{"".join(joints)}</robot>'


# A planar arm with two links of 1 m, a continuous wrist, and a finger that another one mimics.
SHOULDER = joint("shoulder", "revolute", "base_link", "a", limit=limit(-2, 2.5, 1.5))
ELBOW = joint("elbow", "revolute", "a", "b", xyz="1 0 0", limit=limit(-2.2, 2.2, 2.0))
WRIST = joint("wrist", "continuous", "b", "tip", xyz="1 0 0")
FINGER = joint("finger", "prismatic", "tip", "f1", axis="0 1 0", limit=limit(0, 0.04, 0.1))
FOLLOWER = joint(
    "follower",
    "prismatic",
    "tip",
    "f2",
    axis="0 1 0",
    limit=limit(-0.04, 0.04, 0.1),
    extra='<mimic joint="finger" multiplier="-1" offset="0.01"/>',
)
ARM = urdf(SHOULDER, ELBOW, WRIST, FINGER, FOLLOWER)

ROBOTS = {
    "panda": ([0, 0.196, 0, -2.618, 0, 2.942, 0.785], 2.8973),
    "ur5e": ([-0.470, -1.735, 2.480, -2.275, -1.590, -1.991], 6.28319),
    "iiwa": ([0, 0.65, 0, -1.89, 0, 0.6, 0], 2.96706),
}


@pytest.fixture(scope="module")
def arm():
    return RobotModel.from_urdf(ARM)


@pytest.fixture(scope="module")
def planar():
    return RobotModel.from_urdf(ARM, locked={"finger": 0.02})


def robot_file(name):
    spec = importlib.util.find_spec("robosuite")
    if spec is None:
        pytest.skip("robosuite is not installed: no robot.xml to load")
    return Path(spec.origin).parent / "models/assets/robots" / name / "robot.xml"


@pytest.fixture(scope="module", params=ROBOTS)
def real_arm(request):
    home, first_limit = ROBOTS[request.param]
    model = RobotModel.from_mjcf(robot_file(request.param), angle="radian")
    return model, np.array(home, dtype=float), first_limit


def test_model_reads_names_limits_and_leaves_out_the_mimicking_joint(arm):
    assert arm.name == "arm"
    assert arm.joint_names == ("shoulder", "elbow", "wrist", "finger")
    assert arm.base_frame == "base_link"
    assert {"base_link", "a", "b", "tip", "f1", "f2", "elbow"} <= set(arm.frame_names)
    np.testing.assert_array_equal(arm.position_lower, [-2, -2.2, -np.inf, 0])
    np.testing.assert_array_equal(arm.position_upper, [2.5, 2.2, np.inf, 0.04])
    np.testing.assert_array_equal(arm.velocity_limits, [1.5, 2.0, np.inf, 0.1])
    with pytest.raises(ValueError, match="read-only"):
        arm.position_lower[0] = 0.0


def test_forward_is_exact_and_the_mimicking_joint_follows(arm):
    T = arm.forward([math.pi / 2, -math.pi / 2, math.pi, 0.02], "tip")
    np.testing.assert_allclose(T[:3, 3], [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(T[:3, :3], np.diag([-1, -1, 1]), atol=1e-12)
    q = [0, 0, 0, 0.02]
    np.testing.assert_allclose(arm.forward(q, "f1")[:3, 3], [2, 0.02, 0], atol=1e-12)
    np.testing.assert_allclose(arm.forward(q, "f2")[:3, 3], [2, -0.02 + 0.01, 0], atol=1e-12)


def test_continuous_joint_winds_beyond_pi(arm):
    near = arm.forward([0, 0, 1.0, 0], "tip")
    wound = arm.forward([0, 0, 1.0 + 4 * math.pi, 0], "tip")
    np.testing.assert_allclose(wound, near, atol=1e-12)


def test_forward_all_agrees_with_forward_and_shares_nothing(arm):
    q = np.array([0.3, -0.4, 0.5, 0.01])
    poses = arm.forward_all(q)
    assert tuple(poses) == arm.frame_names
    for frame, T in poses.items():
        np.testing.assert_array_equal(T, arm.forward(q, frame))
    before = poses["tip"].copy()
    arm.forward([0, 0, 0, 0], "tip")
    np.testing.assert_array_equal(poses["tip"], before)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1.9, 1.9), min_size=3, max_size=3), st.integers(0, 3))
def test_jacobian_is_the_derivative_of_forward(angles, moved):
    model = RobotModel.from_urdf(ARM)
    q, step = np.array([*angles, 0.02]), np.zeros(4)
    step[moved] = 1e-6
    before, after = model.forward(q - step, "f2"), model.forward(q + step, "f2")
    J = model.jacobian(q, "f2")[:, moved]
    np.testing.assert_allclose((after - before)[:3, 3] / 2e-6, J[:3], atol=1e-6)
    turn = log(inverse(before) @ after)[3:] / 2e-6
    np.testing.assert_allclose(before[:3, :3] @ turn, J[3:], atol=1e-6)


def test_another_base_frame_moves_poses_and_jacobian():
    fixed = joint("mount", "fixed", "world", "base_link", xyz="0 0 2").replace(
        '<origin xyz="0 0 2"/>', '<origin xyz="0 0 2" rpy="0 0 1.5707963267948966"/>'
    )
    text = urdf(fixed, SHOULDER, ELBOW, WRIST, links="world base_link a b tip")
    world, base = RobotModel.from_urdf(text), RobotModel.from_urdf(text, base_frame="base_link")
    plain = RobotModel.from_urdf(urdf(SHOULDER, ELBOW, WRIST, links="base_link a b tip"))
    q = [0.1, 0.2, 0.3]
    assert world.base_frame == "world"
    np.testing.assert_allclose(base.forward(q, "tip"), plain.forward(q, "tip"), atol=1e-12)
    np.testing.assert_allclose(base.jacobian(q, "tip"), plain.jacobian(q, "tip"), atol=1e-12)
    expected = world.forward(q, "base_link") @ base.forward(q, "tip")
    np.testing.assert_allclose(world.forward(q, "tip"), expected, atol=1e-12)


def test_locked_joint_takes_its_follower_along(arm, planar):
    assert planar.joint_names == ("shoulder", "elbow", "wrist")
    for frame in ("tip", "f1", "f2"):
        np.testing.assert_allclose(
            planar.forward([0.1, 0.2, 0.3], frame),
            arm.forward([0.1, 0.2, 0.3, 0.02], frame),
            atol=1e-12,
        )


def test_reorder_picks_by_name(arm):
    names = ["finger", "wrist", "other", "elbow", "shoulder"]
    np.testing.assert_array_equal(arm.reorder(names, [4, 3, 9, 2, 1]), [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m: m.forward([0] * 4, "tipp"), ConfigError, "unknown frame 'tipp'.*'tip'"),
        (lambda m: m.forward([0] * 3, "tip"), ShapeError, "4 values for shoulder, elbow, wrist"),
        (lambda m: m.forward([0, np.nan, 0, 0], "tip"), ShapeError, "elbow = nan"),
        (lambda m: m.jacobian([0] * 4, "x"), ConfigError, "unknown frame 'x'"),
        (
            lambda m: m.reorder(["elbow", "wrist", "elbow"], [1, 2, 3]),
            TrajectoryError,
            "missing joints shoulder, finger; joints named twice elbow",
        ),
        (lambda m: m.reorder(["elbow"], [1, 2]), ShapeError, "expected 1 values"),
        (
            lambda _: RobotModel.from_urdf(ARM, locked={"follower": 0}),
            ConfigError,
            "unknown joint to lock 'follower': known are elbow, finger, shoulder, wrist",
        ),
        (
            lambda _: RobotModel.from_urdf(ARM, locked={"finger": np.inf}),
            ConfigError,
            "finite positions",
        ),
        (
            lambda _: RobotModel.from_urdf(ARM, base_frame="b"),
            ConfigError,
            "base frame 'b' is moved by joint 'elbow'; fixed are base_link",
        ),
    ],
)
def test_model_errors_name_what_is_wrong(arm, call, error, text):
    with pytest.raises(error, match=text):
        call(arm)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not XML"),
        ("<robot", "not XML"),
        ("/opt/robot.urdf", "not XML"),
        ("<mujoco/>", "got <mujoco>"),
        ('<robot name="x"/>', "no <link>"),
        (ARM.replace('<link name="b"/>', '<link name="c"/>'), "parent: unknown link 'b'"),
        (ARM.replace('joint name="elbow"', 'joint name="wrist"'), "2 joints are named 'wrist'"),
        (ARM.replace('type="continuous"', 'type="continous"'), "did you mean 'continuous'"),
        (ARM.replace('type="continuous"', 'type="revolute"'), "'wrist': a revolute joint needs"),
        (ARM.replace('mimic joint="finger"', 'mimic joint="fingr"'), "mean 'finger'"),
        (urdf(SHOULDER), "expected one root link, got base_link, b, tip, f1, f2"),
        (
            urdf(
                SHOULDER,
                joint("again", "fixed", "base_link", "a"),
                links="base_link a",
            ),
            "link 'a' is the child of several joints",
        ),
        (
            urdf(joint("free", "floating", "base_link", "a"), links="base_link a"),
            "joint 'free' has 6 degrees of freedom",
        ),
    ],
)
def test_malformed_urdf_names_the_fault(text, fault):
    with pytest.raises(ConfigError, match=fault):
        RobotModel.from_urdf(text)


def test_all_faults_of_a_urdf_come_at_once():
    text = ARM.replace('type="continuous"', 'type="x"').replace('<child link="a"/>', "")
    with pytest.raises(ConfigError, match="(?s)child: unknown link ''.*unknown type 'x'"):
        RobotModel.from_urdf(text)


def test_mjcf_robots_load_with_their_limits(real_arm):
    model, home, first_limit = real_arm
    assert model.n_joints == len(home)
    assert model.base_frame == "base"
    assert model.position_upper[0] == pytest.approx(first_limit)
    assert np.isinf(model.velocity_limits).all()
    assert 0.2 < np.linalg.norm(model.forward(home, "right_hand")[:3, 3]) < 1.5


def test_mjcf_without_angle_unit_must_be_told(tmp_path):
    body = '<worldbody><body name="base"><body name="l"><joint name="j" range="-90 90"/>{}'
    body += '<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/></body></body></worldbody>'
    file = tmp_path / "robot.xml"
    file.write_text("<mujoco>" + body.format("") + "</mujoco>")
    with pytest.raises(ConfigError, match="pass angle='degree' or angle='radian'"):
        RobotModel.from_mjcf(file)
    model = RobotModel.from_mjcf(file, angle="degree")
    assert model.position_upper[0] == pytest.approx(math.pi / 2)
    file.write_text('<mujoco><compiler angle="degree"/>' + body.format("") + "</mujoco>")
    assert RobotModel.from_mjcf(file).position_upper[0] == pytest.approx(math.pi / 2)
    with pytest.raises(ConfigError, match="angles are in degree, but angle='radian'"):
        RobotModel.from_mjcf(file, angle="radian")
    with pytest.raises(ConfigError, match="not a readable MJCF"):
        RobotModel.from_mjcf(tmp_path / "none.xml")


def test_solve_reaches_poses_of_real_arms_inside_their_limits(real_arm):
    model, home, _ = real_arm
    ik = DifferentialIK(model, "right_hand", q_nominal=home)
    rng = np.random.default_rng(1)
    for _ in range(10):
        near = np.clip(home + rng.normal(0, 0.3, len(home)), *limits(model))
        target = model.forward(near, "right_hand")
        solution = ik.solve(home, target)
        assert solution.converged
        assert_inside(solution.q, model)
        error = log(inverse(target) @ model.forward(solution.q, "right_hand"))
        assert np.linalg.norm(error[:3]) < 2e-4
        assert np.linalg.norm(error[3:]) < 2e-3
        np.testing.assert_array_equal(solution.q, ik.solve(home, target).q)  # the same again


def test_solve_reports_a_pose_out_of_reach(planar):
    target = np.eye(4)
    target[0, 3] = 3.0
    solution = DifferentialIK(planar, "tip").solve([0.1, 0.1, 0.1], target)
    assert not solution.converged
    assert solution.position_error_m == pytest.approx(1.0, abs=0.03)
    assert_inside(solution.q, planar)


def test_errors_of_a_solution_are_those_of_its_pose(planar):
    ik = DifferentialIK(planar, "tip", config=IkConfig(max_iterations=1, max_joint_step=0.01))
    target = planar.forward([0.5, 0.5, 1.0], "tip")
    solution = ik.solve([0, 0, 0], target)
    assert solution.iterations == 1
    error = inverse(planar.forward(solution.q, "tip")) @ target
    assert solution.position_error_m == pytest.approx(np.linalg.norm(error[:3, 3]))
    assert solution.rotation_error_rad == pytest.approx(np.linalg.norm(log(error)[3:]))


def test_nominal_posture_decides_between_elbow_left_and_right(planar):
    position_only = IkConfig(orientation_cost=0.0, rotation_tolerance_rad=4.0, posture_cost=0.1)
    target = np.eye(4)
    target[0, 3] = 1.5
    for sign in (-1.0, 1.0):
        nominal = np.array([-0.7 * sign, 1.4 * sign, 0.0])
        ik = DifferentialIK(planar, "tip", q_nominal=nominal, config=position_only)
        assert np.sign(ik.solve([0, 0, 0], target).q[1]) == sign


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3),
    st.lists(st.floats(-3.0, 3.0), min_size=6, max_size=6),
    st.floats(0.001, 0.5),
)
def test_step_stays_inside_velocity_and_position_limits(shares, twist, dt):
    planar = RobotModel.from_urdf(ARM, locked={"finger": 0.0})
    q = np.array(shares) * [2.0, 2.2, 9.0]
    qd = DifferentialIK(planar, "tip").step(q, exp(twist), dt)
    assert (np.abs(qd) <= planar.velocity_limits).all()
    assert_inside(q + qd * dt, planar, 1e-12)


def test_step_reaches_a_near_pose_in_one_time_step(planar):
    q, dt = np.array([0.3, 0.6, 0.2]), 0.1
    wanted = np.array([0.5, -0.4, 0.3])
    target = planar.forward(q + wanted * dt, "tip")
    np.testing.assert_allclose(
        DifferentialIK(planar, "tip").step(q, target, dt), wanted, atol=5e-3
    )


def test_step_leads_back_a_joint_beyond_its_limit(planar):
    q = np.array([2.505, 0.0, 0.0])
    qd = DifferentialIK(planar, "tip").step(q, planar.forward(q, "tip"), 0.001)
    assert qd[0] == pytest.approx(-1.5)


def test_follow_stays_on_a_slow_path_and_lags_on_a_fast_one(planar):
    ik = DifferentialIK(planar, "tip")
    q_start, dt = np.array([0.2, 0.8, 0.0]), 0.05
    path = np.linspace(0, 0.6, 12)[1:, None] * [1, -1, 1] + q_start
    targets = np.array([planar.forward(q, "tip") for q in path])
    slow = ik.follow(q_start, targets, dt)
    assert slow.converged.all()
    assert slow.q.shape == (11, 3)
    fast = ik.follow(q_start, targets, 0.01)
    assert not fast.converged[-1]
    assert fast.position_error_m[-1] > 0.05
    for result, time_step in ((slow, dt), (fast, 0.01)):
        steps = np.diff(np.concatenate([q_start[None], result.q]), axis=0)
        assert (np.abs(steps) <= planar.velocity_limits * time_step + 1e-12).all()
        assert_inside(result.q, planar)
    assert ik.follow(q_start, np.zeros((0, 4, 4)), dt).q.shape == (0, 3)


def test_nothing_is_written_into_the_input(planar):
    q, target = np.array([0.1, 0.2, 0.3]), planar.forward([0.4, 0.5, 0.6], "tip")
    copies = q.copy(), target.copy()
    solution = DifferentialIK(planar, "tip", q_nominal=q).solve(q, target)
    solution.q[:] = 9.0
    np.testing.assert_array_equal(q, copies[0])
    np.testing.assert_array_equal(target, copies[1])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda ik, T: ik.solve([2.6, 0, 0], T),
            TrajectoryError,
            r"q_start is outside .*shoulder = 2.6000, limits \[-2.0000, 2.5000\]",
        ),
        (lambda ik, T: ik.solve([0, np.inf, 0], T), ShapeError, "elbow = inf"),
        (lambda ik, T: ik.solve([0, 0, 0], T * np.nan), CalibrationError, "T_base_tool.*finite"),
        (lambda ik, T: ik.solve([0, 0, 0], 2 * T), CalibrationError, "T_base_tool.*rotation"),
        (lambda ik, T: ik.solve([0, 0, 0], T[:3]), ShapeError, "T_base_tool"),
        (lambda ik, T: ik.step([0, 0, 0], T, 0.0), ValueError, "time step above 0 s, got 0"),
        (lambda ik, T: ik.step([0, 0], T, 0.1), ShapeError, "3 values for shoulder"),
        (lambda ik, T: ik.step([0, -3, 0], T, 0.1), TrajectoryError, "elbow = -3.0000"),
        (lambda ik, T: ik.follow([0, 0, 0], T, 0.1), ShapeError, r"expected shape \(t, 4, 4\)"),
        (lambda ik, _: DifferentialIK(ik.model, "tool0"), ConfigError, "unknown frame 'tool0'"),
        (
            lambda ik, _: DifferentialIK(ik.model, "tip", q_nominal=[0, 3, 0]),
            TrajectoryError,
            "q_nominal is outside",
        ),
        (
            lambda *_: IkConfig(position_cost=0.0, max_iterations=0),
            ConfigError,
            "(?s)position_cost.*max_iterations|max_iterations.*position_cost",
        ),
    ],
)
def test_ik_errors_name_what_is_wrong(planar, call, error, text):
    with pytest.raises(error, match=text):
        call(DifferentialIK(planar, "tip"), np.eye(4))


def test_missing_qp_solver_is_named(planar, monkeypatch):
    monkeypatch.setattr("qpsolvers.available_solvers", [])
    with pytest.raises(ConfigError, match="install the Python package 'daqp'"):
        DifferentialIK(planar, "tip")


def limits(model):
    return model.position_lower, model.position_upper


def assert_inside(q, model, tolerance=0.0):
    assert (q >= model.position_lower - tolerance).all()
    assert (q <= model.position_upper + tolerance).all()
