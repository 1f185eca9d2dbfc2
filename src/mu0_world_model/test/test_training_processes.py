"""Training in several processes, split weights, and a run that is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from mu0_world_model import checkpoint

pytestmark = pytest.mark.slow

# Accelerate splits weights over GPUs only, torch over processes without one too.
SPLIT_ON_CPU = """
import accelerate
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from mu0_world_model import train, training_distributed

class Accelerator(accelerate.Accelerator):
    def __init__(self, fsdp_plugin, **kwargs):
        super().__init__(**kwargs)
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.state.distributed_type = DistributedType.FSDP
        self.state.fsdp_plugin = fsdp_plugin

training_distributed.Accelerator = Accelerator
train.main()
"""


@pytest.fixture
def launch(small_checkpoint, golden, tmp_path):
    """Start a run of four steps; it is evaluated on a copy of the episode it trains on."""
    episodes = tmp_path / "episodes"
    episodes.mkdir()
    for name in "ab":
        shutil.copytree(golden / "episode", episodes / name)
    settings = [
        *("--recipe", "ours", "--start_from", small_checkpoint, "--episodes", episodes / "*"),
        *("--held_out", episodes / "b", "--steps", "4", "--batch_size", "4", "--log_every", "1"),
        *("--warmup_steps", "1", "--evaluate_every", "2", "--evaluate_batches", "1"),
        *("--evaluate_scenes", "3", "--evaluate_samples", "2", "--shown_scenes", "0"),
        *("--save_every", "2"),
    ]

    def run(launcher, output, *options):
        words = [sys.executable, *launcher, *settings, "--output", output, *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen([str(word) for word in words], env=environment)

    return run


def log_of(output):
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def values(output, name):
    return [entry[name] for entry in log_of(output) if name in entry]


ALONE = ["-m", "mu0_world_model.train"]
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def test_two_processes_equal_one_with_copies_and_with_split_weights(launch, tmp_path):
    script = tmp_path / "split.py"
    script.write_text(SPLIT_ON_CPU)
    launchers = {
        "one": ALONE,
        "two": [*TWO, *ALONE],
        "split": [*TWO, str(script)],
    }
    for name, launcher in launchers.items():
        options = ["--fsdp"] if name == "split" else []
        assert launch(launcher, tmp_path / name, *options).wait(timeout=900) == 0, name
        for value in ("loss", "eval_loss", "eval_ade_uvz", "eval_minADE_2_uvz"):
            expected = values(tmp_path / "one", value)
            assert len(expected) == (4 if value == "loss" else 2)
            found = values(tmp_path / name, value)
            np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=f"{name} {value}")
    one = checkpoint.load(tmp_path / "one" / "latest").state_dict()
    for name in ("two", "split"):
        other = checkpoint.load(tmp_path / name / "latest").state_dict()
        for key, value in one.items():
            torch.testing.assert_close(other[key], value, rtol=1e-3, atol=1e-4, msg=key)
    # A run may go on with other processes than it started with.
    for name, launcher in (
        ("one", launchers["two"]),
        ("two", ALONE),
        ("split", launchers["split"]),
    ):
        words = ["--resume", "--steps", "6"]
        assert launch(launcher, tmp_path / name, *words).wait(timeout=900) == 0, name
        assert len(values(tmp_path / name, "loss")) == 6
        np.testing.assert_allclose(
            values(tmp_path / name, "loss"), values(tmp_path / "one", "loss"), rtol=1e-4
        )


def test_a_killed_run_goes_on_as_if_nothing_had_been(launch, tmp_path):
    long = ("--steps", "30", "--save_every", "3", "--evaluate_every", "100")
    assert launch(ALONE, tmp_path / "whole", *long).wait(timeout=900) == 0
    output = tmp_path / "killed"
    process = launch(ALONE, output, *long)
    while not (output / "log.jsonl").exists() or len(values(output, "loss")) < 11:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(values(output, "loss"))
    assert 11 <= done < 30
    assert launch(ALONE, output, "--resume", *long).wait(timeout=900) == 0
    assert values(output, "loss") == values(tmp_path / "whole", "loss")
    ends = [checkpoint.load(tmp_path / name / "latest") for name in ("whole", "killed")]
    for name, value in ends[0].state_dict().items():
        assert torch.equal(value, ends[1].state_dict()[name]), name
