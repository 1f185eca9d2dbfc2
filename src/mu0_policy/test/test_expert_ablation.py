"""The study of what trace features are worth."""

import json
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mu0_core.config import dump_yaml
from mu0_core.errors import ConfigError
from mu0_policy.action_expert import ablation
from mu0_policy.action_expert.ablation import AblationConfig, Result, summary, table
from mu0_policy.action_expert.training_config import ExpertTrainingConfig

MADE = []


class Training:
    """Stand in for a training: traces take a tenth off the error."""

    def __init__(self, settings):
        self.settings, self.held_out, self.best = settings, object(), 0.01
        MADE.append(settings)

    def run(self):
        error = (0.2 if self.settings.size == "small" else 0.1) + 0.01 * self.settings.seed
        share = 0.9 if self.settings.use_traces else 1.0
        return {"held_out_rad": share * error, "loss": 1.0}


@pytest.fixture
def study(tmp_path, monkeypatch):
    MADE.clear()
    monkeypatch.setattr(ablation, "Trainer", Training)
    settings = ExpertTrainingConfig(demonstrations=("demos/*",), output=tmp_path / "any", steps=7)
    dump_yaml(settings, tmp_path / "training.yaml")
    return ["--training", str(tmp_path / "training.yaml"), "--output", str(tmp_path / "study")]


def test_pairs_differ_in_the_traces_alone(study, tmp_path, capsys):
    assert ablation.main([*study, "--seeds", "3", "4"]) == 0
    made = MADE
    assert len(made) == 8
    for one, other in zip(made[::2], made[1::2], strict=True):
        assert one.use_traces
        assert replace(one, use_traces=False, output=other.output) == other
    assert {one.cache for one in made} == {tmp_path / "study" / "cache"}
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["size"] for row in found["summary"]] == ["small", "medium"]
    for row in found["summary"]:
        assert row["less_error"] == pytest.approx(0.1)
        assert row["seeds_with_less"] == row["seeds"] == 2
    assert "| small | 2 | 0.2115 ± 0.0045 |" in (tmp_path / "study" / "ablation.md").read_text()


def test_the_plot_shows_every_seed(study, tmp_path):
    assert ablation.main([*study, "--seeds", "3", "4"]) == 0
    picture = cv2.imread(str(tmp_path / "study" / "ablation.png"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    results = [
        ablation.train_one(s)
        for s in ablation.trainings(
            AblationConfig(
                training=tmp_path / "training.yaml", output=tmp_path / "study", seeds=(3, 4)
            )
        )
    ]
    (axes,) = ablation.plot(results).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["small", "medium"]
    assert axes.get_ylabel().endswith("rad")
    dots = [line.get_ydata().tolist() for line in axes.lines]
    assert dots == [pytest.approx([0.9 * e, e]) for e in (0.23, 0.24, 0.13, 0.14)]
    bars = [bar.get_height() for bar in axes.patches]
    assert bars == pytest.approx([0.9 * 0.235, 0.235, 0.9 * 0.135, 0.135])


def test_a_finished_study_is_drawn_again_without_training(study, tmp_path):
    command = [*study, "--seeds", "0", "--sizes", "small"]
    assert ablation.main(command) == 0
    (tmp_path / "study" / "ablation.png").unlink()
    (tmp_path / "study" / "ablation.md").unlink()
    MADE.clear()
    assert ablation.main(command) == 0
    assert not MADE
    assert {"ablation.png", "ablation.md"} <= {p.name for p in (tmp_path / "study").iterdir()}


def test_no_study_begins_that_cannot_be_drawn(study, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit):
        ablation.main(study)
    assert "needs Matplotlib, which is not installed" in capsys.readouterr().err
    assert not MADE


def test_ctrl_c_says_how_to_go_on(study, monkeypatch, capsys):
    def stopped(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run", stopped)
    with pytest.raises(SystemExit) as ended:
        ablation.main(study)
    assert ended.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_study_goes_on_where_it_stopped(study, tmp_path):
    assert ablation.main([*study, "--seeds", "0", "--sizes", "small"]) == 0
    (tmp_path / "study" / "small_no_traces_0" / "result.json").unlink()
    state = tmp_path / "study" / "small_no_traces_0" / "state"
    state.mkdir()
    (state / "run.pt").touch()
    MADE.clear()
    assert ablation.main([*study, "--seeds", "0", "--sizes", "small"]) == 0
    (again,) = MADE
    assert again.resume
    assert not again.use_traces


def test_results_of_other_settings_are_not_mixed_in(study, tmp_path):
    assert ablation.main([*study, "--seeds", "0", "--sizes", "small"]) == 0
    config = AblationConfig(training=tmp_path / "training.yaml", output=tmp_path / "study")
    first = next(ablation.trainings(config))
    with pytest.raises(ConfigError, match="trained for 7 steps, now 8"):
        ablation.train_one(replace(first, steps=8))


def test_more_error_is_said_too():
    results = [
        Result(
            size="small", traces=traces, seed=0, steps=1, held_out_rad=rad, best_rad=rad, loss=1.0
        )
        for traces, rad in ((True, 0.12), (False, 0.1))
    ]
    (row,) = summary(results)
    assert row["less_error"] == pytest.approx(-0.2)
    assert "-20.0% | 0 |" in table([row])


def test_an_unknown_size_is_refused(study, capsys):
    with pytest.raises(SystemExit):
        ablation.main([*study, "--sizes", "huge"])
    assert "huge" in capsys.readouterr().err
