"""Feed the trace follower with exact traces, in one process, without ROS and without a model.

The scripted expert shows the task once; from then on, wherever robot and object are, the rest of
that demonstration is what a perfect model would predict. Noise can be put on top. This separates
what the follower can do from what a model can predict.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mu0_core import se3
from mu0_core.embodiment import arm_model, load_embodiment
from mu0_core.traces import KeypointSource, Traces
from mu0_policy.core import Measured, PolicyCore
from mu0_policy.trace_follower import Phase, TraceFollower
from mu0_policy.trace_reading import FollowerConfig
from mu0_sim.controllers import JointTrajectory
from mu0_sim.exact_traces import Demonstration, by_arc_length
from mu0_sim.robot_control import RobotControl, run
from mu0_sim.simulation import Simulation, SimulationConfig

EMBODIMENTS = Path(__file__).resolve().parents[2] / "src/mu0_policy/config/embodiments"
N_OBJECT, N_TABLE, HORIZON = 24, 8, 32


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Say how traces are made and how late they come."""

    arc_step: float = 0.0125
    noise_m: float = 0.0  # independent for each point and step
    bias_m: float = 0.0  # the same for all points of the object
    samples: int = 1
    horizon_share: float = 1.0  # of the motion that is told; 0 = everything stands still
    period_s: float = 0.5
    latency_s: float = 0.2
    time_limit_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """Hold the figures of one episode."""

    seed: int
    success: bool
    end: str
    simulated_s: float
    limit_violations: int
    velocity_jump: float
    refused: int
    grasps: int


class ExactTraces:
    """Predict by replaying the rest of a demonstration from where it is nearest to the scene."""

    def __init__(self, simulation, seed, points_xyz_tool, setting):
        self._demonstration = Demonstration(simulation, seed)
        self._points_tool = np.asarray(points_xyz_tool)
        self._setting = setting
        self._rng = np.random.default_rng(seed)
        self._target = simulation.truth().target

    def predict(self, simulation):
        truth, setting, rng = simulation.truth(), self._setting, self._rng
        T_tool, T_thing = truth.T_world_tool, truth.T_world_body[self._target]
        half = truth.objects[self._target].size_m / 2.0
        corners = np.random.default_rng(1).uniform(-1.0, 1.0, (N_OBJECT, 3))
        corners[np.arange(N_OBJECT), np.arange(N_OBJECT) % 3] = 1.0  # three faces, as seen
        table = np.random.default_rng(2).uniform((-0.2, -0.3, 0.8), (0.2, 0.3, 0.8), (N_TABLE, 3))
        tool, thing = self._demonstration.rest(T_tool, T_thing)
        world = np.concatenate(
            [
                se3.transform_points(tool[:, None], self._points_tool),
                se3.transform_points(thing[:, None], corners * half),
                np.tile(table, (len(tool), 1, 1)),
            ],
            axis=1,
        )
        xyz, reached = by_arc_length(
            world,
            simulation.camera,
            se3.inverse(simulation.T_world_camera),
            arc_step=setting.arc_step,
            horizon=HORIZON,
        )
        valid, n = reached[1:], int(reached.sum())
        n = max(1, round(setting.horizon_share * n))
        xyz[:, n:] = xyz[:, n - 1 : n]
        future = np.tile(xyz[None, :, 1:], (setting.samples, 1, 1, 1))
        future += setting.noise_m * rng.standard_normal(future.shape)
        is_object = slice(len(self._points_tool), len(self._points_tool) + N_OBJECT)
        direction = rng.standard_normal(3)
        future[:, is_object] += setting.bias_m * direction / np.linalg.norm(direction)
        source = np.full(len(xyz), KeypointSource.ENTITY, np.uint8)
        source[: len(self._points_tool)] = KeypointSource.ROBOT
        cluster = np.full(len(xyz), -1, np.int32)
        cluster[is_object], cluster[is_object.stop :] = 0, 1
        return Traces(
            stamp_ns=round(simulation.time_s * 1e9),
            frame_id="camera_color_optical_frame",
            instruction=simulation.instruction,
            model="exact",
            arc_step=setting.arc_step,
            ids=np.arange(len(xyz), dtype=np.uint32),
            cluster_ids=cluster,
            source=source,
            current_xyz=xyz[:, 0].astype(np.float32),
            xyz=future.astype(np.float32),
            control_uvz=np.zeros((setting.samples, len(xyz), 4, 3), np.float32),
            valid_prob=np.tile(valid.astype(np.float32), (setting.samples, len(xyz), 1)),
            stage_names=(),
            stage_seconds=np.zeros(0, np.float32),
        )


def make_core(robot, description):
    embodiment = load_embodiment(EMBODIMENTS / f"{robot}.yaml")
    model = arm_model(embodiment, description)
    follower = TraceFollower(FollowerConfig(), embodiment.gripper.closing_s)
    return embodiment, PolicyCore(embodiment, model, follower)


def run_episode(simulation, seed, setting, watch=None):
    """Let the follower do the task once; returns the figures."""
    embodiment, core = make_core(simulation.config.robot, simulation.robot_description())
    oracle = ExactTraces(simulation, seed, embodiment.keypoints.xyz, setting)
    simulation.reset(seed=seed)
    control = RobotControl(simulation.robot, simulation.home_command())
    sampler = _Sampler(core.limits, control, simulation.dt_s)
    T_base_camera = se3.inverse(simulation.T_world_base) @ simulation.T_world_camera
    start_s = simulation.time_s
    waiting, due_s, turn_s, closed = [], start_s + 0.1, start_s + 0.1, None
    jumps, grasps, last_phase = [0.0], 0, None
    end = "time-out"
    for tick in run(simulation, sampler):
        now_s = tick.time_s
        if tick.joints:
            core.measure(_measured(simulation, embodiment))
        if not core.engaged:
            assert core.engage(now_s) == ""
        if now_s >= due_s:
            waiting.append((now_s + setting.latency_s, oracle.predict(simulation)))
            due_s += setting.period_s
        if now_s >= turn_s:
            turn_s += 0.1
            prediction = None
            if waiting and waiting[0][0] <= now_s:
                prediction = core.read(waiting.pop(0)[1], T_base_camera)
            core.plan(now_s, prediction)
            chunk = core.command(now_s)
            if chunk is not None:
                made = core.sent(chunk, now_s + 0.02)
                jumps.append(made.velocity_jump)
                sampler.later(now_s + 0.02, chunk, core.limits.joint_names)
            if core.closed is not None and core.closed != closed:
                closed = core.closed
                _move_fingers(control, embodiment.gripper, closed, now_s)
            phase = core.policy.phase
            if phase is not last_phase:
                grasps += phase is Phase.CLOSE
                last_phase = phase
            if watch is not None:
                watch(now_s - start_s, core, simulation)
        if core.ended is not None or now_s - start_s > setting.time_limit_s:
            end = core.ended.name.lower() if core.ended else end
            break
    return Result(
        seed=seed,
        success=simulation.success(),
        end=end
        if core.ended
        else f"{end} in {core.policy.phase.value}: {core.hold or core.policy.reason}",
        simulated_s=round(simulation.time_s - start_s, 2),
        limit_violations=sampler.violations(),
        velocity_jump=max(jumps),
        refused=sampler.refused,
        grasps=grasps,
    )


class _Sampler:
    """Stand between the clockwork and the controllers: late arrivals, and what is commanded."""

    def __init__(self, limits, control, dt_s):
        self._limits, self._control, self._dt_s = limits, control, dt_s
        self._waiting, self._q, self._qd = [], [], []
        self.refused = 0

    def later(self, arrival_s, chunk, joint_names):
        trajectory = JointTrajectory(
            joint_names=joint_names,
            times_s=np.arange(len(chunk.q)) * 0.05,
            q=chunk.q,
            qd=chunk.qd,
            start_s=chunk.start_s,
        )
        self._waiting.append((arrival_s, trajectory))

    def command_at(self, time_s):
        while self._waiting and self._waiting[0][0] <= time_s:
            self._control.arm.accept(self._waiting.pop(0)[1], time_s)
        command = self._control.command_at(time_s)
        self._q.append(command.q)
        self._qd.append(command.qd)
        return command

    def violations(self):
        """Count the samples at 500 Hz of what was commanded that break a limit."""
        q, qd = np.stack(self._q), np.stack(self._qd)
        qdd = np.diff(qd, axis=0) / self._dt_s
        qddd = np.diff(qdd, axis=0) / self._dt_s
        limits, count = self._limits, 0
        for values, most in (
            (qd, limits.velocity),
            (qdd, limits.acceleration),
            (qddd, limits.jerk),
        ):
            count += int((np.abs(values) > most * (1.0 + 1e-3)).any(axis=1).sum())
        outside = (q < limits.position_lower - 1e-6) | (q > limits.position_upper + 1e-6)
        return count + int(outside.any(axis=1).sum())


def _measured(simulation, embodiment):
    state = simulation.joint_state()
    n = len(embodiment.arm.joints)
    return Measured(
        stamp_s=state.time_s,
        q=state.q[:n],
        qd=state.qd[:n],
        gripper_q=state.q[n : n + 1],
        gripper_qd=state.qd[n : n + 1],
    )


def _move_fingers(control, gripper, closed, now_s):
    control.gripper.accept(
        JointTrajectory(
            joint_names=gripper.joints,
            times_s=np.array([gripper.closing_s]),
            q=np.array([gripper.closed if closed else gripper.open]),
            qd=np.zeros((1, len(gripper.joints))),
        ),
        now_s,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robot", default="panda")
    parser.add_argument("--seed", type=int, default=5000)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--bias", type=float, default=0.0)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--arc-step", type=float, default=0.0125)
    parser.add_argument("--latency", type=float, default=0.2)
    arguments = parser.parse_args()
    setting = Setting(
        arc_step=arguments.arc_step,
        noise_m=arguments.noise,
        bias_m=arguments.bias,
        samples=arguments.samples,
        latency_s=arguments.latency,
    )
    simulation = Simulation(SimulationConfig(robot=arguments.robot, seed=arguments.seed))
    results = []
    for seed in range(arguments.seed, arguments.seed + arguments.episodes):
        results.append(run_episode(simulation, seed, setting))
        print(results[-1])
    print(
        json.dumps(
            {
                "settings": vars(arguments),
                "episodes": len(results),
                "successes": sum(r.success for r in results),
                "limit_violations": sum(r.limit_violations for r in results),
                "handover_velocity_jump": max(r.velocity_jump for r in results),
                "simulated_s": float(np.mean([r.simulated_s for r in results])),
                "grasps": sum(r.grasps for r in results),
            }
        )
    )


if __name__ == "__main__":
    main()
