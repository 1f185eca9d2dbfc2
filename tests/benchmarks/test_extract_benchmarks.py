"""The figures of TraceExtract hide nothing: what fails counts, and nothing is measured twice."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mu0_core.camera import Camera
from mu0_perception.extract.pipeline import Result
from mu0_perception.extract.recording import Found, Shot

CASE = SimpleNamespace(name="a", moving_camera=True)


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module


def _truth(path):
    """Write what is true of a cube that moves 0.1 m before a table that rests."""
    index = np.zeros((3, 40, 40), np.int16)
    index[:, 10:30, 10:30] = 1
    poses = np.tile(np.eye(4), (3, 2, 1, 1))
    poses[:, 1, 0, 3] = (0.0, 0.05, 0.1)
    np.savez(
        path,
        names=np.array(["table", "cube"]),
        index=index,
        depth_tenth_mm=np.full(index.shape, 10000, np.uint16),
        T_world_body=poses,
        stamps=np.arange(3.0),
        T_world_camera=np.tile(np.eye(4), (3, 1, 1)),
    )


@pytest.mark.parametrize(("status", "exit_status"), [("failed", 1), ("still", 0)])
def test_what_moved_in_a_recording_without_an_episode_is_lost(
    benchmark, monkeypatch, tmp_path, capsys, status, exit_status
):
    accuracy = benchmark("extract_accuracy")
    (tmp_path / "recordings").mkdir()
    _truth(tmp_path / "recordings/a.truth.npz")
    camera = Camera(np.array([[40.0, 0, 20], [0, 40, 20], [0, 0, 1]]), 40, 40)
    shot = Shot(stamp_s=0.0, rgb=np.zeros((40, 40, 3), np.uint8), camera=camera)
    recording = SimpleNamespace(stamps_s=lambda: [0.0], shots=lambda indices: iter([None, shot]))
    found = Found(name="a", path=tmp_path, source="rosbag2")
    monkeypatch.setattr(accuracy, "cases", lambda n: [CASE])
    monkeypatch.setattr(accuracy, "record", lambda case, folder: True)
    monkeypatch.setattr(accuracy, "find_recordings", lambda path, config: [found])
    monkeypatch.setattr(accuracy, "open_recording", lambda found, config: recording)
    monkeypatch.setattr(
        accuracy, "extract_recording", lambda *given: Result(name="a", status=status)
    )
    monkeypatch.setattr(sys, "argv", ["accuracy", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        accuracy.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert stop.value.code == exit_status
    assert figures["failed"] == ["a"] * exit_status
    assert (figures["recordings"], figures["object_recall"]) == (1, 0.0)


def test_speed_is_measured_anew(benchmark, monkeypatch, tmp_path):
    speed = benchmark("extract_speed")
    (tmp_path / "long_1min").mkdir()
    (tmp_path / "long_1min_episodes/.extract").mkdir(parents=True)
    commands = []

    def run(command, **options):
        assert not Path(command[-1]).exists()
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="{}\n")

    monkeypatch.setattr(speed, "record", lambda case, out: True)
    monkeypatch.setattr(speed.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["speed", "--out", str(tmp_path), "--minutes", "1"])
    with pytest.raises(SystemExit):
        speed.main()
    assert len(commands) == 1


def test_trainings_differ_in_their_episodes_alone_and_go_on(
    benchmark, monkeypatch, tmp_path, capsys
):
    training = benchmark("extract_training")
    runs = []

    def run(package, program, *flags, **options):
        if program == "train":
            runs.append((flags, options))
            (options["output"] / "state").mkdir(parents=True, exist_ok=True)
        error = 0.02 if "run_exact" in str(options.get("checkpoint")) else 0.025
        moving = {"moving": {"minADE_5_uvz": error}}
        return f"a table\n{json.dumps({'methods': {'model': {'horizon_32': moving}}})}\n"

    monkeypatch.setattr(training, "ros2_run", run)
    monkeypatch.setattr(sys, "argv", ["training", "--out", str(tmp_path), "--steps", "7"])
    for _ in range(2):
        training.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures == {"steps": 7, "exact": 0.02, "extracted": 0.025, "share_of_accuracy": 0.8}
    (_, exact), (_, extracted), *again = runs
    different = {name for name in exact if exact[name] != extracted[name]}
    assert different == {"output", "episodes"}
    outputs = exact["output"], extracted["output"]
    assert again == [(("--resume",), {"output": output}) for output in outputs]
