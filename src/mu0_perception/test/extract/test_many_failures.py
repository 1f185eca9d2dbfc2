"""Many recordings at once, when processes, the user or a cluster stop."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mu0_core.errors import ConfigError
from mu0_perception.extract import many
from mu0_perception.extract.config import ExtractConfig
from mu0_perception.extract.frames import FrameConfig
from mu0_perception.extract.pipeline import Result
from mu0_perception.extract.recording import Found

DEADLY = """
import os, signal

def work(found):
    if found.name == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return found.name
"""


def _found(*names):
    return [Found(name=name, path=Path(name), source="rosbag2") for name in names]


@pytest.fixture
def deadly(monkeypatch, tmp_path):
    """Return work that kills its process; spawned ones import it from the same path."""
    (tmp_path / "deadly_work.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("deadly_work").work
    del sys.modules["deadly_work"]


def test_a_killed_process_costs_its_own_recording_only(deadly):
    results = list(many._in_processes(_found("a", "bad", "c", "d"), deadly, 2))
    lost = [r for r in results if isinstance(r, Result)]
    assert [(r.name, r.status) for r in lost] == [("bad", "failed")]
    assert "killed" in lost[0].reason
    assert sorted(r for r in results if r not in lost) == ["a", "c", "d"]


def test_what_waits_is_given_up_when_the_user_stops(monkeypatch):
    shut = []

    class Pool:
        def __init__(self, *args, **words):
            pass

        def submit(self, *args):
            raise KeyboardInterrupt

        def shutdown(self, **words):
            shut.append(words)

    monkeypatch.setattr(many, "ProcessPoolExecutor", Pool)
    with pytest.raises(KeyboardInterrupt):
        list(many._in_processes(_found("a", "b"), len, 2))
    assert shut == [{"cancel_futures": True}]


def test_a_cluster_that_does_not_answer_is_a_wrong_setting(monkeypatch, tmp_path):
    def refuse(**words):
        raise ConnectionError("nobody there")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=refuse))
    results = many.extract_all(_found("a"), tmp_path, ExtractConfig(), ray_address="b:1")
    with pytest.raises(ConfigError, match="--ray b:1: .*nobody there"):
        list(results)


def test_nodes_of_a_cluster_get_whole_paths(monkeypatch, tmp_path):
    shipped = []

    def remote(found, out, config):
        shipped.append((found.path, out))
        return found.name

    ray = SimpleNamespace(
        init=lambda **words: None,
        remote=lambda **words: lambda function: SimpleNamespace(remote=remote),
        wait=lambda references, num_returns: (references[:1], references[1:]),
        get=lambda reference: Result(name=reference),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.chdir(tmp_path)
    results = many.extract_all(_found("a"), Path("out"), ExtractConfig(), ray_address="b:1")
    assert [r.name for r in results] == ["a"]
    assert shipped == [(tmp_path / "a", tmp_path / "out")]


def test_the_folder_is_claimed_before_anything_is_done(tmp_path):
    many.extract_all(_found("a"), tmp_path / "out", ExtractConfig())
    other = ExtractConfig(frames=FrameConfig(rate_hz=5.0))
    with pytest.raises(ConfigError, match="rate_hz"):
        many.extract_all(_found("a"), tmp_path / "out", other)
    inside = [Found(name="a", path=tmp_path / "out/a", source="episode")]
    with pytest.raises(ConfigError, match="not apart"):
        many.extract_all(inside, tmp_path / "out", ExtractConfig())
    with pytest.raises(ConfigError, match="--jobs"):
        many.extract_all(inside, tmp_path / "elsewhere", ExtractConfig(), jobs=0)
