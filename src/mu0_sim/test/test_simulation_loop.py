import threading

import numpy as np
import pytest

from mu0_core.errors import ConfigError
from mu0_sim.controllers import JointTrajectory
from mu0_sim.pacing import Pace, StepLock
from mu0_sim.robot_control import RobotControl, run
from mu0_sim.robots import load_robot
from mu0_sim.simulation import CameraFrame, JointCommand, SimulationConfig
from mu0_sim.simulation_loop import SimulationLoop


class FakeSimulation:
    """Keep time and the last command; a stand-in for physics and rendering."""

    def __init__(self, rate_hz=10.0):
        self.config = SimulationConfig(rate_hz=rate_hz)
        self.robot = load_robot("panda")
        self.dt_s = 0.002
        self.time_s = 1.0
        self.command = None
        self.closed_by = None

    def home_command(self):
        return JointCommand(q=self.robot.home_q, qd=np.zeros(7), gripper_position=0.04)

    def step(self, command):
        self.command = command
        self.time_s += self.dt_s

    def advance(self, duration_s, command_at):
        for _ in range(round(duration_s / self.dt_s)):
            self.step(command_at(self.time_s))

    def render(self):
        return CameraFrame(
            rgb=None, depth_m=None, camera=None, T_world_camera=None, time_s=self.time_s
        )

    def reset(self, task, seed):
        if seed == 13:
            raise ConfigError("seed 13 is not to be had")
        return f"lift the cube of scene {seed}"

    def close(self):
        self.closed_by = threading.current_thread()


class Log:
    """Note what a loop puts out, and wait for it."""

    def __init__(self):
        self.events = []
        self._news = threading.Condition()

    def _add(self, *event):
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def on_reset(self, simulation):
        self._add("reset")

    def on_joints(self, simulation):
        self._add("joints", round(simulation.time_s, 6))

    def on_camera(self, frame, simulation):
        self._add("camera", round(frame.time_s, 6))

    def on_real_time_factor(self, factor):
        self._add("factor", factor)

    def on_command(self, controller, refusal):
        self._add("command", controller, refusal)

    def on_arm_motion(self, motion):
        self._add("motion", round(motion.start_s, 6))

    def of(self, kind):
        return [event[1:] for event in self.events if event[0] == kind]

    def wait_for(self, kind, count, timeout_s=10.0):
        with self._news:
            assert self._news.wait_for(lambda: len(self.of(kind)) >= count, timeout_s), self.events


class Running:
    def __init__(self, *, max_factor=0.0, step_lock=False, timeout_s=30.0):
        self.simulation, self.log = FakeSimulation(), Log()
        lock = StepLock(enabled=step_lock, timeout_s=timeout_s)
        self.loop = SimulationLoop(self.simulation, self.log, Pace(max_factor), lock)
        self.thread = threading.Thread(target=self.loop.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.loop.close()
        self.thread.join(10.0)
        assert not self.thread.is_alive()


def test_clockwork_reads_joints_and_camera_at_their_rates():
    simulation = FakeSimulation(rate_hz=30.0)
    ticks = run(simulation, RobotControl(simulation.robot, simulation.home_command()))
    seen = [next(ticks) for _ in range(160)]
    seen = [tick for tick in seen if tick.time_s < 2.0 - 1e-9]
    joints = [tick.time_s for tick in seen if tick.joints]
    camera = [tick.time_s for tick in seen if tick.camera]
    np.testing.assert_allclose(joints, 1.0 + np.arange(100) / 100.0, atol=1e-9)
    np.testing.assert_allclose(camera, 1.0 + np.arange(30) / 30.0, atol=0.0011)


def test_time_stands_still_until_go_on():
    with Running(max_factor=5.0) as running:
        assert running.loop.reset(None, 3).result(10.0) == "lift the cube of scene 3"
        assert running.simulation.time_s == pytest.approx(1.01)
        running.loop.go_on()
        running.log.wait_for("camera", 2)
    assert running.log.of("camera")[:2] == [(1.01,), (1.11,)]
    assert running.simulation.closed_by is running.thread


def test_trajectory_moves_the_joints_and_a_wrong_one_is_reported():
    with Running(max_factor=10.0) as running:
        robot = running.simulation.robot
        q = robot.home_q + 0.1
        fields = dict(joint_names=robot.arm_joints, times_s=[0.5])
        running.loop.go_on()
        running.loop.command("arm", JointTrajectory(q=[q], **fields))
        running.loop.command("arm", JointTrajectory(q=[q + 9.0], **fields))
        running.log.wait_for("camera", 8)
    (_, accepted), (_, refused) = running.log.of("command")
    assert accepted is None
    assert "position" in refused and "outside its limits" in refused
    np.testing.assert_allclose(running.simulation.command.q, q)


def test_reset_holds_home_and_restarts_the_schedule_at_the_same_time():
    with Running(max_factor=10.0) as running:
        running.loop.go_on()
        robot = running.simulation.robot
        trajectory = JointTrajectory(
            joint_names=robot.arm_joints, times_s=[0.5], q=[robot.home_q + 0.1]
        )
        running.loop.command("arm", trajectory)
        running.log.wait_for("camera", 3)
        before_s = running.simulation.time_s
        running.loop.reset(None, 4).result(10.0)
        running.log.wait_for("camera", len(running.log.of("camera")) + 2)
    assert running.simulation.time_s > before_s
    np.testing.assert_allclose(running.simulation.command.q, robot.home_q)
    with Running() as running, pytest.raises(ConfigError, match="seed 13"):
        running.loop.reset(None, 13).result(10.0)


def test_pause_holds_time():
    with Running(max_factor=1.0) as running:
        running.loop.go_on()
        running.log.wait_for("joints", 3)
        running.loop.pause(True)
        running.loop.reset(None, 1).result(10.0)
        held_s = running.simulation.time_s
        running.loop.reset(None, 1).result(10.0)
        assert running.simulation.time_s == pytest.approx(held_s + 0.01)
        running.loop.pause(False)
        running.log.wait_for("joints", len(running.log.of("joints")) + 2)
        assert running.simulation.time_s > held_s


def test_step_lock_waits_for_the_answer_to_its_picture():
    with Running(step_lock=True) as running:
        running.loop.go_on()
        running.log.wait_for("camera", 1)
        running.loop.answer(0.9)
        running.loop.pause(False)
        running.loop.reset(None, 1).result(10.0)
        running.log.wait_for("camera", 2)
        assert running.log.of("camera") == [(1.0,), (1.01,)]
        running.loop.answer(1.0)
        running.loop.answer(1.01)
        running.log.wait_for("camera", 3)
        assert running.log.of("camera")[-1] == (1.11,)
        assert running.simulation.time_s == pytest.approx(1.11)


def test_a_command_with_the_stamp_of_the_picture_answers_too():
    with Running(step_lock=True) as running:
        running.loop.go_on()
        running.log.wait_for("camera", 1)
        robot = running.simulation.robot
        stamped = JointTrajectory(
            joint_names=robot.arm_joints, times_s=[0.5], q=[robot.home_q], start_s=1.0
        )
        running.loop.command("arm", stamped)
        running.log.wait_for("camera", 2)


def test_commands_answer_only_where_no_traces_come():
    lock = StepLock(enabled=True, timeout_s=60.0)
    lock.ask(1.0)
    lock.answer(1.0, traces=False)
    assert lock.left_s() <= 0.0
    lock.ask(1.1)
    lock.answer(1.1, traces=True)
    assert lock.left_s() <= 0.0
    lock.ask(1.2)
    lock.answer(1.2, traces=False)  # a chunk that begins then by chance
    assert lock.left_s() > 0.0


def test_step_lock_goes_on_after_its_time_out():
    with Running(step_lock=True, timeout_s=0.01) as running:
        running.loop.go_on()
        running.log.wait_for("camera", 4)


def test_pace_holds_back_and_does_not_make_up_for_lost_time():
    now = [100.0]
    pace = Pace(2.0, clock=lambda: now[0])
    assert pace.ahead_s(5.0) == 0.0
    assert pace.ahead_s(6.0) == pytest.approx(0.5)
    now[0] = 103.0
    assert pace.ahead_s(6.0) == pytest.approx(-2.5)
    assert pace.ahead_s(6.2) == pytest.approx(0.1)
    assert Pace(0.0).ahead_s(1e9) == 0.0


def test_real_time_factor_is_reported_once_a_second():
    now = [0.0]
    pace = Pace(0.0, clock=lambda: now[0])
    assert pace.new_factor(10.0) is None
    now[0] = 0.9
    assert pace.new_factor(10.5) is None
    now[0] = 2.0
    assert pace.new_factor(11.0) == pytest.approx(0.5)
    assert pace.new_factor(11.0) is None
    pace.restart()
    assert pace.new_factor(11.0) is None
