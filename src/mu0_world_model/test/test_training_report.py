"""What is written of a run beside its weights: log, curves and settings, also on a full disk."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mu0_core.config import load_yaml
from mu0_core.errors import CheckpointError
from mu0_world_model.training_config import TrainingConfig
from mu0_world_model.training_report import Report
from mu0_world_model.training_store import SETTINGS, begin_run, write_settings

# The thread that writes curves ends with the fault that stopped it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def steps_of(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def curve_steps(folder):
    curves = EventAccumulator(str(folder / "tensorboard"))
    curves.Reload()
    return [event.step for event in curves.Scalars("training/loss")]


def test_a_run_that_goes_on_drops_what_it_takes_again(tmp_path, largest_file):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    with largest_file(4), pytest.raises(CheckpointError, match="log.jsonl: cannot be written"):
        Report(tmp_path, step=2, steps=9, enabled=True)
    assert (tmp_path / "log.jsonl").read_text().count("step") == 3  # all of it stays
    Report(tmp_path, step=2, steps=9, enabled=True).close()
    assert steps_of(tmp_path) == [1, 2]
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_written_is_left_out_and_told_once(tmp_path, caplog, largest_file):
    report = Report(tmp_path, step=0, steps=9, enabled=True)
    report.write(1, {"loss": 1.0})
    size = (tmp_path / "log.jsonl").stat().st_size
    with largest_file(size + 5):
        for step in (2, 3):
            report.write(step, {"loss": 1.0})
            report.advance()
    assert (tmp_path / "log.jsonl").stat().st_size == size  # nothing to run into
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
    report.write(4, {"loss": 1.0})
    report.close()
    assert steps_of(tmp_path) == [1, 4] and curve_steps(tmp_path) == [1, 4]


def test_curves_begin_anew_after_they_could_not_be_written(tmp_path, caplog, largest_file):
    report = Report(tmp_path, step=0, steps=9, enabled=True)
    report.write(1, {"loss": 1.0})
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with largest_file(2000):
        report.show(2, "traces/0", noise)
        report.write(2, {"loss": 1.0})
    assert "cannot be written" in caplog.text
    report.write(3, {"loss": 1.0})
    report.close()
    assert steps_of(tmp_path) == [1, 2, 3] and set(curve_steps(tmp_path)) >= {1, 3}


def test_settings_stay_whole_on_a_full_disk(config, largest_file):
    config.output.mkdir()
    write_settings(config)
    before = (config.output / SETTINGS).read_text()
    longer = replace(config, steps=9, resume=True)
    with largest_file(100):
        write_settings(replace(config, resume=True))  # as they are
        with pytest.raises(CheckpointError, match="training.yaml: cannot be written"):
            write_settings(longer)
    assert (config.output / SETTINGS).read_text() == before
    assert not list(config.output.glob(".*"))
    write_settings(longer)
    assert load_yaml(TrainingConfig, config.output / SETTINGS) == replace(longer, resume=False)


def test_a_run_that_cannot_be_begun_says_so(config, largest_file):
    with largest_file(100), pytest.raises(CheckpointError, match="the run cannot start there"):
        begin_run(config)
    assert not (config.output / SETTINGS).exists()
