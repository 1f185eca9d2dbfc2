"""The evaluation: the same samples for every method, grasp errors, the command."""

import json
from fnmatch import fnmatch

import numpy as np
import pytest
import torch

from mu0_core.errors import ConfigError, EpisodeError, ResourceError
from mu0_world_model import evaluate as command
from mu0_world_model import recordings
from mu0_world_model.dataset import TraceDataset
from mu0_world_model.evaluation import Futures, Plan, evaluate, grasp_errors, horizons_of
from mu0_world_model.predictor import Predictor
from mu0_world_model.samples import RULES


@pytest.fixture(scope="module")
def predictor(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mu0") / "checkpoint"
    folder.symlink_to(golden / "checkpoint")
    for name in ("tiny_smolvlm", "tiny_dinov2", "normalizer_stats.json"):
        (folder.parent / name).symlink_to(golden / name)
    return Predictor.from_pretrained(folder)


def test_neighbours_of_the_same_data_are_exact_and_still_is_as_measured(golden, predictor):
    data = TraceDataset([golden / "episode"], predictor.processor, RULES["all"], augment=False)
    report = evaluate(predictor, data, data, Plan(samples=2, horizons=(8, 32)))
    methods = report["methods"]
    assert set(methods) == {"model", "static", "constant_velocity", "nearest_neighbours"}
    assert report["scenes"] == 4
    near = methods["nearest_neighbours"]["horizon_32"]["all"]
    assert near["ade_uvz"] < 2e-3  # float16 of the very same futures
    still = methods["static"]["horizon_8"]["all"]["ade_uvz"]
    examples = [data[0, i] for i in range(4)]
    scale = np.array(predictor.processor.statistics.delta_scale)
    by_hand = []
    for example in examples:
        for future, valid in zip(example.future * scale, example.future_valid, strict=True):
            if valid[:8].any():
                by_hand.append(np.linalg.norm(future[:8][valid[:8]], axis=-1).mean())
    assert still == pytest.approx(np.mean(by_hand), rel=1e-5)
    best = min(report["baselines"].values())
    model = report["errors"]["model"]
    assert report["improvement_over_best_baseline"] == pytest.approx(1 - model / best)
    assert 0 <= methods["model"]["validity"]["done_acc"] <= 1
    again = evaluate(predictor, data, data, Plan(samples=2, horizons=(8, 32)))
    assert again["errors"] == report["errors"]


def grasp_scene():
    """A gripper (cluster 1) approaches an object (0), then both go up; cluster 2 is the arm."""
    horizon = 10
    gripper = np.zeros((horizon, 3))
    gripper[:, 0] = np.minimum(np.arange(horizon) * 0.02, 0.1) - 0.1
    thing = np.zeros((horizon, 3))
    lift = np.maximum(np.arange(horizon) - 6, 0) * 0.02
    gripper[:, 2] += lift
    thing[:, 2] += lift
    beside, above = np.array([0, 0.01, 0]), np.array([0, 0, 0.5])
    truth = np.stack([thing, thing + beside, gripper, gripper + above])
    return truth, np.ones((4, horizon), bool), np.array([0, 0, 1, 2])


def test_grasp_errors_are_of_mean_positions_at_the_last_step_of_rest():
    truth, valid, clusters = grasp_scene()
    assert grasp_errors(truth, truth, valid, clusters) == {"object_m": 0.0, "gripper_m": 0.0}
    off = truth.copy()
    off[0, 6] += [0.02, 0, 0]  # half of the object's points: a mean of 0.01
    off[2, 6] += [0, 0.03, 0]
    off[:, 7:] += 1.0  # later steps do not matter
    errors = grasp_errors(off, truth, valid, clusters)
    assert errors["object_m"] == pytest.approx(0.01)
    assert errors["gripper_m"] == pytest.approx(0.03)


def test_scenes_without_a_grasp_have_no_error():
    truth, valid, clusters = grasp_scene()
    resting = np.repeat(truth[:, :1], 10, axis=1)
    assert grasp_errors(truth, resting, valid, clusters) == {}
    assert grasp_errors(truth, truth[:, ::-1], valid, np.full(4, -1)) == {}
    assert grasp_errors(truth, truth, np.zeros_like(valid), clusters) == {}


def test_command_prints_a_table_and_one_json_line_last(golden, predictor, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(
        Predictor, "from_pretrained", lambda name, **k: asked.append((name, k)) or predictor
    )
    episodes = ["--threads", "1", "--episodes", str(golden / "episode")]
    command.main(["--checkpoint", "./x", *episodes, "--samples", "2", "--json", "--compile"])
    way = {"device": "cpu", "precision": "float32", "compiled": True, "n_steps": None}
    assert asked == [("./x", way)]
    assert torch.get_num_threads() == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("moving") and "constant_velocity" in line for line in lines)
    report = json.loads(lines[-1])
    assert {"model", "baselines", "improvement_over_best_baseline"} <= set(report)
    with pytest.raises(SystemExit):
        command.main(["--checkpoint", "./x", *episodes[:3], str(golden / "none*")])
    assert "no folder matches" in capsys.readouterr().err


def test_one_future_has_no_minimum_and_what_is_no_number_is_null(
    golden, predictor, capsys, monkeypatch
):
    monkeypatch.setattr(Predictor, "from_pretrained", lambda *a, **k: predictor)
    grasp = {"grasp": {"object_m": float("nan")}}
    monkeypatch.setattr(command, "evaluate", lambda *a: evaluate(*a) | grasp)
    arguments = ["--checkpoint", "./x", "--episodes", str(golden / "episode"), "--threads", "1"]
    command.main([*arguments, "--samples", "1", "--scenes", "1", "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert "minADE" not in lines[0] and "ade_m" in lines[0]
    report = json.loads(lines[-1], parse_constant=pytest.fail)
    assert report["measure"] == "ade_uvz, moving points, horizon 32"
    model = report["methods"]["model"]
    assert report["errors"]["model"] == model["horizon_32"]["moving"]["ade_uvz"]
    assert report["grasp"] == {"object_m": None}
    whole = model["horizon_32"]["all"]
    assert whole["l1_abs"] == pytest.approx(whole["l1_uv"] + whole["l1_depth"])
    assert whole["l1_abs"] != model["horizon_8"]["all"]["l1_abs"]
    assert command.without_nan({"a": (1.5, [float("inf")])}) == {"a": [1.5, [None]]}


def test_horizons_are_those_of_the_model():
    found = {steps: horizons_of(steps) for steps in (32, 64, 16, 12, 5)}
    assert found == {32: (8, 16, 32), 64: (8, 16, 64), 16: (8, 16), 12: (8, 12), 5: (5,)}


def test_without_the_memory_the_error_says_what_to_lower(golden, predictor, monkeypatch):
    data = TraceDataset([golden / "episode"], predictor.processor, RULES["all"], augment=False)
    sizes = []

    def full(prefix, points, noise, **kwargs):
        sizes.append(len(noise))
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")

    monkeypatch.setattr(predictor.model, "sample", full)
    plan = Plan(horizons=(32,), samples=2, batch=3)
    with pytest.raises(ResourceError, match="2 futures of 3 scenes at once do not fit on cpu; lo"):
        evaluate(predictor, data, None, plan)
    assert sizes == [3]


def test_a_hub_repository_s_recordings_are_found(golden, predictor, tmp_path, capsys, monkeypatch):
    inner = tmp_path / "final"
    inner.mkdir()
    (inner / "config.json").touch()
    recording = "{robot: panda, task: lift, seed: 7, episodes: 1}"
    (inner / "recordings.yaml").write_text(
        f"arc_step: 0.01\ntraining: [{recording}]\nheld_out: [{recording}]\n"
    )
    asked = []

    def download(name, allow_patterns):
        asked.append(name)
        assert any(fnmatch("final/recordings.yaml", pattern) for pattern in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr(Predictor, "from_pretrained", lambda *a, **k: predictor)
    monkeypatch.setattr(recordings, "make", lambda *a: (str(golden / "episode"),))
    small = ["--threads", "1", "--samples", "1", "--scenes", "1"]
    command.main(["--checkpoint", "owner/name", *small])
    assert asked == ["owner/name"]
    assert "nearest_neighbours" in capsys.readouterr().out


def test_no_episodes_is_an_error(golden, predictor, tmp_path):
    with pytest.raises(EpisodeError, match="none of 1 episodes has a sample"):
        TraceDataset([tmp_path], predictor.processor, RULES["all"])
    assert Futures(np.zeros((1, 1, 1, 3))).valid_prob is None


def test_recordings_that_a_checkpoint_names_are_made_once(tmp_path, monkeypatch):
    (tmp_path / "recordings.yaml").write_text(
        "arc_step: 0.01\n"
        "training: [{robot: panda, task: lift, seed: 7, episodes: 40}]\n"
        "held_out: [{robot: panda, task: lift, seed: 90, episodes: 2}]\n"
    )
    named = recordings.read_recordings(tmp_path)
    assert recordings.first(named.training, 5)[0].episodes == 5
    assert recordings.first(named.training, 0) == named.training
    made = []

    def run(words, **options):
        options = dict(zip(words[3::2], words[4::2], strict=True))
        made.append(options)
        for seed in (90, 91):
            (tmp_path / "out/panda_lift" / f"panda_lift_{seed:06d}").mkdir(parents=True)
        return recordings.subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(recordings.subprocess, "run", run)
    folders = [str(tmp_path / f"out/panda_lift/panda_lift_{s:06d}") for s in (90, 91)]
    for _ in range(2):
        assert list(recordings.make(named.held_out, 0.01, tmp_path / "out")) == folders
    assert len(made) == 1
    assert made[0]["--seed"] == "90"
    assert made[0]["--out"] == str(tmp_path / "out/panda_lift")


def test_recordings_with_depth_noise_stand_apart(tmp_path, monkeypatch):
    made = []

    def run(words, **options):
        made.append(words)
        return recordings.subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(recordings.subprocess, "run", run)
    noisy = recordings.Recording(robot="iiwa", task="lift", seed=3, episodes=1, depth_noise=True)
    recordings.make((noisy,), 0.01, tmp_path)
    assert made[0][-1] == "--depth_noise"
    assert made[0][made[0].index("--out") + 1] == str(tmp_path / "iiwa_lift_noise")


def test_a_checkpoint_without_recordings_asks_for_episodes(tmp_path):
    with pytest.raises(EpisodeError, match="--episodes"):
        recordings.read_recordings(tmp_path)
    (tmp_path / "recordings.yaml").write_text("arc_step: 0.01\ntraining: []\n")
    with pytest.raises(ConfigError, match="held_out"):
        recordings.read_recordings(tmp_path)
