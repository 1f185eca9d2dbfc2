"""Record simulated demonstrations as bags, with what is truly seen beside them.

    python tests/benchmarks/extract_recordings.py --out DIR --recordings 12

Recordings go through robots, tasks, and fixed and moving cameras in turn; depth has the flaws of a
real sensor. What is there already is not recorded again.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from extract_scoring import save_truth

from mu0_core import se3
from mu0_core.errors import TrajectoryError
from mu0_sim.demonstrations import plan_demonstration, play
from mu0_sim.nodes.bag import BagTape
from mu0_sim.simulation import Simulation, SimulationConfig

ROBOTS = ("panda", "ur5e", "iiwa")
TASKS = ("lift", "lift_named")
SWING_PERIOD_S = 7.0
_SWING_RAD, _CENTRE = 0.12, (0.0, 0.0, 0.85)


@dataclass(frozen=True)
class Case:
    """Name one recording."""

    robot: str
    task: str
    seed: int
    moving_camera: bool

    @property
    def name(self):
        return f"{self.robot}_{self.task}_{self.seed:04d}{'_moving' if self.moving_camera else ''}"


def cases(n, first_seed=5000):
    """Return n cases over all robots and tasks; every second one has a moving camera."""
    return [
        Case(ROBOTS[i % 3], TASKS[(i // 3) % 2], first_seed + i, bool((i + i // 6) % 2))
        for i in range(n)
    ]


class Truth:
    """Write down which body each pixel shows and where the bodies are."""

    def __init__(self):
        self._frames, self._stamps = [], []

    def on_reset(self, simulation):
        pass

    def on_joints(self, simulation):
        pass

    def on_camera(self, frame, simulation):
        self._frames.append(simulation.render_bodies())
        self._stamps.append((frame.time_s, frame.T_world_camera))

    def save(self, path):
        stamps, poses = zip(*self._stamps, strict=True)
        save_truth(
            path,
            names=self._frames[0].names,
            index=[f.index for f in self._frames],
            depth_m=[f.depth_m for f in self._frames],
            T_world_body=[f.T_world_body for f in self._frames],
            stamps=stamps,
            T_world_camera=poses,
        )


def swung(T_world_camera, phase):
    """Return the pose of a camera that is carried around the table's middle."""
    turn = se3.exp(np.array([0, 0, 0, 0, 0, _SWING_RAD * np.sin(phase)]))
    tilt = se3.exp(np.array([0, 0, 0, 0, 0.4 * _SWING_RAD * (1 - np.cos(phase)), 0]))
    about = se3.make_transform(np.eye(3), _CENTRE)
    return about @ turn @ tilt @ se3.inverse(about) @ T_world_camera


class Swing:
    """Carry the camera around what it looks at, as a hand or a second arm would."""

    def on_reset(self, simulation):
        self._start_s, self._T = simulation.time_s, simulation.T_world_camera

    def on_joints(self, simulation):
        phase = 2 * np.pi * (simulation.time_s - self._start_s) / SWING_PERIOD_S
        simulation.move_camera(swung(self._T, phase))

    def on_camera(self, frame, simulation):
        pass


def record(case, out, *, size=(640, 480), rate_hz=10.0):
    """Record one case; return whether it is there."""
    bag, truth_file = out / case.name, out / f"{case.name}.truth.npz"
    if bag.exists() and truth_file.exists():
        return True
    config = SimulationConfig(
        robot=case.robot,
        task=case.task,
        seed=case.seed,
        width=size[0],
        height=size[1],
        rate_hz=rate_hz,
        depth_noise=True,
    )
    simulation = Simulation(config)
    try:
        plan = plan_demonstration(simulation, case.seed)
        tape, truth = BagTape(bag, plan, moving_camera=case.moving_camera), Truth()
        movers = [Swing()] if case.moving_camera else []
        play(simulation, plan, [*movers, tape, truth])  # also what fails is motion to extract
        tape.keep()
        truth.save(truth_file)
    except TrajectoryError as error:
        print(f"{case.name}: {error}", file=sys.stderr)
        return False
    finally:
        simulation.close()
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=12)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for case in cases(arguments.recordings):
        print(case.name, "recorded" if record(case, arguments.out) else "left out", flush=True)


if __name__ == "__main__":
    main()
