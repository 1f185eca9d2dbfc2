"""What an output folder keeps, what it refuses, and what interrupted runs leave in it."""

import json
import re
import shutil
from pathlib import Path

import pytest

from mu0_core.episode import read_episode
from mu0_core.errors import ConfigError
from mu0_perception.extract import cli, pipeline, validate
from mu0_perception.extract.captions import RecordedWriter
from mu0_perception.extract.sidecar import read_sidecar
from mu0_perception.extract.state import OutFolder, check_apart

DOCUMENT = Path(__file__).resolve().parents[4] / "docs/extract.md"


@pytest.fixture
def extract(tmp_path, capsys):
    """Run the command; return its exit status, summary and what it logged."""

    def run(source, *words, out=tmp_path / "episodes"):
        status = cli.main([str(source), str(out), *words])
        told = capsys.readouterr()
        return status, json.loads(told.out.strip().splitlines()[-1]), told.err

    return run


@pytest.fixture
def days(film, bag, tmp_path):
    """Two recordings of one name."""
    for day in ("day1", "day2"):
        (tmp_path / "recordings" / day).mkdir(parents=True)
    return bag(film(10), "day1/bag"), bag(film(11), "day2/bag")


def test_another_recording_of_the_same_name_is_refused(days, extract, tmp_path):
    first, second = days
    extract(first)
    status, summary, _ = extract(second)
    assert status == 1 and str(first) in summary["failures"]["bag"]
    assert read_episode(tmp_path / "episodes/bag").n_frames == 10
    assert extract(first)[1]["kept"] == 1


def test_a_folder_that_was_not_made_from_the_recording_is_not_replaced(days, extract, tmp_path):
    first, second = days
    extract(first, out=tmp_path / "other")
    shutil.copytree(tmp_path / "other/bag", tmp_path / "episodes/bag")
    status, summary, _ = extract(second)
    assert status == 1 and "was not made from" in summary["failures"]["bag"]
    assert read_episode(tmp_path / "episodes/bag").n_frames == 10
    assert extract(first)[1]["failed"] == 1  # the name is the second recording's by now
    shutil.rmtree(tmp_path / "episodes/.extract")
    assert extract(first)[1]["done"] == 1  # made from it, though nothing is remembered


@pytest.mark.parametrize("out", ["data", "data/bag/out", "."])
def test_recordings_and_episodes_are_kept_apart(tmp_path, out):
    source = tmp_path / "data"
    (source / "bag").mkdir(parents=True)
    with pytest.raises(ConfigError, match="not apart"):
        check_apart(source, tmp_path / out)
    with pytest.raises(SystemExit) as stop:
        cli.main([str(source), str(tmp_path / out)])
    assert stop.value.code == 2
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["bag", "data"]
    check_apart(source, tmp_path / "data2")


def test_a_changed_recording_replaces_all_its_episodes(film, bag, extract, tmp_path):
    film = film(24)
    path = bag(film, skip=range(10, 15))
    words = ("--frames.max_gap_s", "0.3")
    assert extract(path, *words)[1]["episodes"] == 2
    shutil.rmtree(path)
    bag(film, skip=range(10, 24))
    assert extract(path, *words)[1]["episodes"] == 1
    assert [p.name for p in (tmp_path / "episodes").glob("[!.]*")] == ["bag"]


def test_what_a_killed_run_leaves_is_deleted_and_never_validated(film, bag, extract, tmp_path):
    out = tmp_path / "episodes"
    path = bag(film(10))
    extract(path)
    shutil.copytree(out / "bag", out / ".bag_part001.a1b2c3d4/bag_part001")
    shutil.copytree(out / "bag", out / ".bag.b.a1b2c3d4/bag.b")  # of another recording
    (out / ".extract/bag.work").mkdir()
    (out / ".extract/bag.work/images.raw").write_bytes(b"0")
    assert validate.episodes_at(out) == [out / "bag"]
    assert extract(path)[1]["kept"] == 1
    assert sorted(p.name for p in out.iterdir()) == [".bag.b.a1b2c3d4", ".extract", "bag"]
    assert sorted(p.name for p in (out / ".extract").iterdir()) == [
        "bag.json",
        "bag.lock",
        "config.json",
    ]


def test_work_folders_go_when_the_work_ends_in_an_error(tmp_path):
    folder = OutFolder(tmp_path)
    with pytest.raises(RuntimeError), folder.locked("a"):
        (folder.work_folder("a") / "images.raw").write_bytes(b"0")
        raise RuntimeError
    assert not list(tmp_path.rglob("images.raw"))


def test_captions_that_failed_are_told_and_tried_again_without_the_rest(
    film, bag, extract, monkeypatch, tmp_path
):
    path = bag(film(10))
    words = ("--captions.endpoint", "http://127.0.0.1:9/v1", "--captions.tries", "1")
    status, summary, log = extract(path, *words)
    assert status == 0 and "frames 0 to 9" in summary["caption_failures"]["bag"][0]
    assert "color_topic: /camera/color/image_raw" in log and "fixed_frame: world" in log

    def refuse(*given, **words):
        raise AssertionError("the pictures are not to be worked on again")

    monkeypatch.setattr(pipeline, "extract_part", refuse)
    monkeypatch.setattr(pipeline, "make_writer", lambda config: RecordedWriter())
    status, summary, _ = extract(path, *words)
    assert (status, summary["done"], summary["caption_failures"]) == (0, 1, {})
    episode = read_episode(tmp_path / "episodes/bag")
    assert episode.captions[0].instructions == ("carry the red box",)
    assert read_sidecar(episode.path)["caption_failures"] == []
    assert validate.faults_of(episode.path) == []
    assert extract(path, *words)[1]["kept"] == 1


def test_the_documented_program_extracts(film, bag, tmp_path, monkeypatch, capsys):
    bag(film(10))
    monkeypatch.chdir(tmp_path)
    program = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL).group(1)
    exec(compile(program, "extract.md", "exec"), {})
    assert capsys.readouterr().out == "bag done  ['bag']\n"
    assert validate.episodes_at(tmp_path / "out/extracted") == [tmp_path / "out/extracted/bag"]
