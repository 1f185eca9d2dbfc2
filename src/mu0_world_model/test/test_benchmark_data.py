"""The benchmark of the data path: its episodes are episodes, its figures are there."""

import json

import pytest

from mu0_world_model import benchmark_data

SMALL = ["--frames", "4", "--width", "32", "--height", "24", "--batches", "3", "--batch_size", "2"]


def test_few_and_more_episodes_are_measured(capsys, tmp_path):
    benchmark_data.main(["--counts", "1", "3", *SMALL, "--folder", str(tmp_path), "--json"])
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert [r["episodes"] for r in results] == [1, 3]
    assert [r["samples"] for r in results] == [4, 12]
    assert all(r["samples_per_s"] > 0 and r["samples_per_cpu_s"] > 0 for r in results)
    assert not list(tmp_path.iterdir())


def test_pictures_take_no_room(tmp_path):
    config = benchmark_data.BenchmarkConfig(frames=4)
    benchmark_data.write_episode(tmp_path / "a", config, seed=0)
    stat = (tmp_path / "a" / "images.npy").stat()
    assert stat.st_size > 900_000 and stat.st_blocks * 512 < 10_000


def test_faults(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        benchmark_data.main(["--episodes", str(tmp_path / "none*")])
    assert stop.value.code == 2 and "no folder matches" in capsys.readouterr().err
