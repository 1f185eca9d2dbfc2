"""Measure what training on TraceExtract's episodes costs, against training on exact traces.

    python tests/benchmarks/extract_training.py --out DIR --steps 1800

Records demonstrations with exact traces and the robot's joints, extracts them, trains one model of
the shipped size from scratch on each, and evaluates both on held-out demonstrations. What is there
is kept, and a training goes on where it stopped. The last line is JSON: minADE of the points that
move (image fractions and metres in one norm), and the share of the accuracy, exact / extracted.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

from extract_recordings import ROBOTS, TASKS

HELD_OUT_SEED, SAMPLES, HORIZON = 40_000, 5, 32
# More points on things that move than by default, and fewer at rest: docs/extract.md
SELECTION = {
    "tracks.selection.points_per_entity": 64,
    "tracks.selection.max_keypoints": 640,
    "robot.points": 72,
    "rest.on_things": 48,
}


def ros2_run(package, program, *arguments, **options):
    """Run a program of the workspace, or end with its error; return what it prints."""
    named = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = ["ros2", "run", package, program, *map(str, arguments), *named]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def record(out, episodes, seed, *flags):
    """Record demonstrations of all robots and tasks; they are shared out evenly."""
    each = -(-episodes // (len(ROBOTS) * len(TASKS)))
    for robot in ROBOTS:
        for task in TASKS:
            options = {"robot": robot, "task": task, "episodes": each, "seed": seed, "out": out}
            ros2_run("mu0_sim", "record", *flags, **options)


def train(episodes, run, steps, seed):
    """Train on episodes; a run that is there goes on, if it is not done."""
    if (run / "state").exists():
        ros2_run("mu0_world_model", "train", "--resume", output=run)
        return
    ros2_run(
        "mu0_world_model",
        "train",
        recipe="ours",
        episodes=episodes,
        output=run,
        steps=steps,
        seed=seed,
        held_out_share=0,
        save_every=300,
    )


def min_ade(run, held_out):
    """Return the error of a run's checkpoint on held-out episodes."""
    printed = ros2_run(
        "mu0_world_model",
        "evaluate",
        "--json",
        checkpoint=run / "latest",
        episodes=held_out,
        samples=SAMPLES,
        scenes=100_000,  # all
    )
    methods = json.loads(printed.splitlines()[-1])["methods"]
    return methods["model"][f"horizon_{HORIZON}"]["moving"][f"minADE_{SAMPLES}_uvz"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=168)
    parser.add_argument("--held-out", type=int, default=30)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=0, help="Of the trainings")
    given = parser.parse_args()
    record(given.out / "exact", given.episodes, 0, "--actions")
    record(given.out / "held_out", given.held_out, HELD_OUT_SEED)
    folders = given.out / "exact", given.out / "extracted"
    ros2_run("mu0_perception", "extract", *folders, jobs=os.cpu_count(), **SELECTION)
    error = {}
    for kind in ("exact", "extracted"):
        run = given.out / f"run_{kind}_{given.steps}_{given.seed}"
        train(f"{given.out / kind}/*_lift_*", run, given.steps, given.seed)
        error[kind] = min_ade(run, f"{given.out / 'held_out'}/*_lift_*")
    share = error["exact"] / error["extracted"]
    print(json.dumps({"steps": given.steps, **error, "share_of_accuracy": round(share, 3)}))


if __name__ == "__main__":
    main()
