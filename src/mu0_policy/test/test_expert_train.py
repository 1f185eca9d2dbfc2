"""Training an action expert: exact resume, learning, what it leaves, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mu0_core.config import from_dict, to_dict
from mu0_core.errors import CheckpointError, ConfigError, EpisodeError
from mu0_core.traces import PointsFrom
from mu0_policy.action_expert import checkpoint, frozen, train, training_start, training_store
from mu0_policy.action_expert.actions import ActionSpace
from mu0_policy.action_expert.card import ExpertCard, readme
from mu0_policy.action_expert.config import SIZES, DecoderConfig
from mu0_policy.action_expert.policy import ExpertPolicy, Moment
from mu0_policy.action_expert.training_config import ExpertTrainingConfig
from mu0_policy.camera_places import CameraPlace, Mount
from mu0_policy.demonstrations.reading import read_demonstrations

JOINTS = ("j1", "j2", "j3")


@pytest.fixture
def config(tmp_path, world_model, monkeypatch, made):
    torch.set_num_threads(1)
    decoder = DecoderConfig(width=16, layers=2, mlp=24, heads=2, kv_heads=1, head_dim=8)
    monkeypatch.setitem(SIZES, "small", decoder)
    monkeypatch.setattr(
        training_start, "read_demonstrations", lambda *_: (made(s) for s in range(4))
    )
    return ExpertTrainingConfig(
        demonstrations=("made",),
        output=tmp_path / "run",
        cache=tmp_path / "cache",
        world_model=str(world_model),
        points="grid",
        space="joint_deltas",
        places="picture",
        context_summary=2,
        grid=4,
        draws=1,
        chunk_size=4,
        most_known=2,
        steps=4,
        batch_size=4,
        warmup_steps=1,
        log_every=1,
        evaluate_every=2,
        save_every=2,
        ema_decay=0.9,
    )


def run(config):
    config.output.mkdir(parents=True, exist_ok=True)
    trainer = train.Trainer(config)
    return trainer, trainer.run()


def weights(trainer):
    with trainer.averaged() as expert:
        return [p.detach().clone() for p in expert.parameters()]


def test_an_expert_learns_from_features_at_keypoints(config, monkeypatch, with_keypoints):
    shown = [with_keypoints(seed) for seed in range(4)]
    monkeypatch.setattr(training_start, "read_demonstrations", lambda *_: iter(shown))
    config = replace(config, points=PointsFrom.KEYPOINTS)
    trainer, results = run(config)
    assert np.isfinite(results["held_out_rad"]) and np.isfinite(results["loss"])
    assert trainer.card.points is PointsFrom.KEYPOINTS
    assert "keypoints 32" in trainer.card.features
    policy = ExpertPolicy.from_pretrained(config.output / "latest")
    policy.warm_up()
    extract = frozen.load_extractor(
        config.world_model, frozen.FeatureConfig(points=PointsFrom.KEYPOINTS, draws=1)
    )
    one = shown[0]
    rgb = one.pictures["front"][0]
    commands = [
        policy.commands(
            Moment(
                features=extract(rgb, one.instruction, None, keypoints),
                pictures={"wrist": rgb},
                q=one.q[0],
                gripper=0.0,
            )
        )
        for keypoints in (one.keypoints[0], one.keypoints[1])  # three, and none
    ]
    assert np.isfinite(commands).all()
    assert not np.array_equal(*commands)


def test_keypoints_that_are_not_there_are_asked_for(config, monkeypatch, with_keypoints):
    config = replace(config, points=PointsFrom.KEYPOINTS)
    with pytest.raises(EpisodeError, match="mu0_perception track_episodes.*--points grid"):
        run(config)
    shown = [with_keypoints(counts=(0, 0) + 8 * (1,))]
    monkeypatch.setattr(training_start, "read_demonstrations", lambda *_: iter(shown))
    with pytest.raises(EpisodeError, match="none in 2 of 10 moments"):
        run(replace(config, output=config.output.with_name("other")))


def test_what_serving_sees_is_what_training_saw(config, world_model, made):
    trainer, _ = run(config)
    extract = frozen.load_extractor(
        str(world_model), frozen.FeatureConfig(grid=4, pool=1, draws=1)
    )
    one = made(0)
    found = extract(one.pictures["front"][3], one.instruction)
    names = sorted(p.name for p in config.cache.iterdir())
    assert len(names) == 4
    kept = [np.load(config.cache / name / "traces.npy")[3] for name in names]
    assert any(np.array_equal(found["traces"], rows) for rows in kept)
    assert trainer.card.features == extract.origin(depth=False)


def test_a_run_can_stop_and_go_on_exactly(config):
    whole, _ = run(config)
    again = replace(config, output=config.output.with_name("again"), save_every=2)
    again.output.mkdir()
    trainer = train.Trainer(again)
    trainer.config = replace(again, steps=4)
    batches = train.expert_batches(trainer.data, batch_size=4, rank=0, world=1, start=0, workers=0)
    for _ in range(2):
        trainer._train_step(next(batches))
        trainer.step += 1
    trainer._save()
    compare(whole, run(replace(again, resume=True))[0])


def test_a_run_with_an_average_of_an_older_version_goes_on(config):
    from torch.optim.swa_utils import AveragedModel

    trainer, _ = run(replace(config, steps=2))
    path = config.output / "state" / "run.pt"
    state = torch.load(path, weights_only=True)
    older = AveragedModel(trainer.expert)
    older.module.load_state_dict(state["average"]["weights"])
    older.n_averaged += state["average"]["updates"]
    torch.save(state | {"average": older.state_dict()}, path)
    resumed, _ = run(replace(config, resume=True))
    compare(run(replace(config, output=config.output.with_name("whole")))[0], resumed)


def test_checkpoints_have_the_average(config):
    trainer, _ = run(config)
    kept = list(checkpoint.load(config.output / "latest").expert.parameters())
    assert all(torch.equal(x, y) for x, y in zip(kept, weights(trainer), strict=True))
    learned = zip(kept, trainer.expert.parameters(), strict=True)
    assert not all(torch.equal(x, y) for x, y in learned)


def compare(a, b):
    assert all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def test_a_run_leaves_a_policy_with_its_card(config, made):
    _, results = run(config)
    assert results["steps"] == 4
    assert 0.0 < results["held_out_rad"] < 10.0
    found = checkpoint.load(config.output / "best")
    card = found.card
    assert (card.robot, card.joints, card.space) == ("planar", JOINTS, ActionSpace.JOINT_DELTAS)
    assert (card.rate_hz, card.cameras, card.picture_sizes) == (10.0, ("wrist",), ("32x32",))
    assert card.instructions == ("lift the cube",)
    assert card.held_out_rad is not None
    assert any((config.output / "logs").rglob("events*"))
    policy = ExpertPolicy(found)
    one = made(0)
    extract = frozen.load_extractor(
        config.world_model, frozen.FeatureConfig(grid=4, pool=1, draws=1)
    )
    moment = Moment(
        features=extract(one.pictures["front"][0], one.instruction),
        pictures={"wrist": one.pictures["wrist"][0]},
        q=one.q[0],
        gripper=0.0,
    )
    assert policy.commands(moment).shape == (4, 4)


@pytest.mark.slow
def test_it_learns_to_reach(config):
    config = replace(
        config,
        steps=600,
        batch_size=16,
        lr=3e-3,
        evaluate_every=600,
        save_every=600,
        held_out_share=0.0,
        log_every=100,
        warmup_steps=20,
    )
    trainer, _ = run(config)
    data = trainer.data.quiet()
    moments = list(range(0, len(data), 3))
    with trainer.averaged() as expert:
        joints, _ = train.held_out_errors(expert.eval(), data, trainer._translator, moments)
    still = np.mean(
        [np.abs(data.chunk(i)[0][:, :3] - data.joints(i)).mean() for i in range(len(data))]
    )
    assert joints < 0.3 * still


def test_all_bad_demonstrations_are_named_at_once(config, monkeypatch, made):
    wide = np.zeros((10, 32, 64, 3), np.uint8)
    on_tool = CameraPlace(mount=Mount.TOOL, T_mount_camera=np.eye(4))
    bad = [
        made(0, focal_lengths={"front": 1.0}, camera_places={"wrist": on_tool}),
        made(1, pictures={"front": made(1).pictures["front"]}),
        made(2, joints=("j2", "j1", "j3")),
        made(3, rate_hz=20.0),
        made(4, depth=np.ones((10, 32, 32), np.float32)),
        made(5, focal_lengths={"front": 1.5}),
        made(6, pictures={"front": made(6).pictures["front"], "wrist": wide}),
        made(7, camera_places={"wrist": CameraPlace(mount=Mount.BASE, T_mount_camera=np.eye(4))}),
    ]
    monkeypatch.setattr(training_start, "read_demonstrations", lambda *_: iter(bad))
    config.output.mkdir()
    with pytest.raises(EpisodeError) as error:
        train.Trainer(config)
    for what in (
        "made 1",
        "no wrist",
        "made 2",
        "another order",
        "made 3",
        "20 Hz",
        "made 4",
        "depth",
        "made 5",
        "front camera: focal length 1.500",
        "made 6",
        "wrist camera: pictures of 64x32 px",
        "made 7",
        "fixed to the base, in others to the tool",
    ):
        assert what in str(error.value)
    assert "made 0" not in str(error.value)


def test_folders_that_cannot_be_read_are_all_named(tmp_path, config, monkeypatch):
    monkeypatch.setattr(training_start, "read_demonstrations", read_demonstrations)
    for name in ("one", "two"):
        (tmp_path / "demos" / name).mkdir(parents=True)
    with pytest.raises(EpisodeError) as error:
        training_start.load_all(replace(config, demonstrations=(f"{tmp_path}/demos/*",)), None)
    assert all(f"demos/{name}: neither" in str(error.value) for name in ("one", "two"))


def test_demonstrations_are_compared_with_the_embodiment_file(
    config, embodiment_file, monkeypatch, made, fake_extract
):
    class Extractor:
        def origin(self, *, depth):
            return "fake"

        def __call__(self, *args):
            return fake_extract(*args)

    other = [made(0, joints=("j2", "j1", "j3")), made(1, robot="ur5e")]
    shown = [[made(0), made(1, gripper_joints=())], other]
    monkeypatch.setattr(training_start, "read_demonstrations", lambda *_: iter(shown.pop(0)))
    config = replace(config, embodiment_file=embodiment_file)
    facts, prepared = training_start.load_all(config, Extractor())
    assert len(facts) == len(prepared) == 2
    with pytest.raises(EpisodeError, match="another order") as error:
        training_start.load_all(config, Extractor())
    assert "robot: expected 'planar' as in the embodiment file, got 'ur5e'" in str(error.value)


def test_where_cameras_were_is_on_the_card(config, made):
    near, far = np.eye(4), np.eye(4)
    near[:3, 3], far[:3, 3] = [0.9, 0.0, 0.5], [0.96, 0.0, 0.5]
    shown = [
        made(s, camera_places={"front": CameraPlace(mount=Mount.BASE, T_mount_camera=T)})
        for s, T in enumerate((near, far))
    ]
    facts = [training_start._facts(one, ("wrist",), "tiny") for one in shown]
    card = training_start.make_card(config, facts, None)
    place = card.place("front")
    assert place.mount is Mount.BASE
    assert np.allclose(place.T_mount_camera[:3, 3], [0.93, 0.0, 0.5])
    assert place.spread_m == pytest.approx(0.03)
    assert card.place("wrist") is None
    assert from_dict(ExpertCard, json.loads(json.dumps(to_dict(card)))) == card
    assert "front: (0.93, 0.00, 0.50) m from the base, within 0.03 m; wrist: not known" in readme(
        card, 1000
    )
    facts[1] = training_start._facts(made(), ("wrist",), "tiny")
    some = training_start.make_card(config, facts, None)
    assert some.place("front") is None  # one of them does not say


def test_data_sets_with_other_names_are_trained_on(config, monkeypatch, made):
    from mu0_policy.demonstrations.lerobot_writer import write_lerobot

    monkeypatch.setattr(training_start, "read_demonstrations", read_demonstrations)
    path = config.output.with_name("set")
    write_lerobot([made(s) for s in range(2)], path)
    names = ("front=wrist", "hand=front")
    config = replace(
        config, demonstrations=(str(path),), camera_names=names, cameras=("hand",), steps=1
    )
    trainer, _ = run(config)
    assert trainer.card.cameras == ("hand",)


def test_nothing_to_resume_is_said(config):
    config.output.mkdir()
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train.Trainer(replace(config, resume=True))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"size": "medium", "seed": 3}, r"size: the run .* began with 'small', got 'medium'"),
        ({"batch_size": 2}, "batch_size: the run"),
    ],
)
def test_a_run_goes_on_with_the_settings_it_began_with(config, changes, what):
    training_store.begin_run(config)
    before = (config.output / "training.yaml").read_text()
    with pytest.raises(ConfigError, match=what):
        training_store.begin_run(replace(config, resume=True, **changes))
    assert (config.output / "training.yaml").read_text() == before
    given = {"output": config.output, "resume": True, "steps": 9}
    assert training_store.settings(given) == replace(config, resume=True, steps=9)
    assert not list(config.output.glob(".*"))


@pytest.mark.parametrize("name", ["state", "latest", "best"])
def test_what_a_run_left_is_not_overwritten(config, name):
    given = {"output": config.output, "demonstrations": ["made"]}
    assert training_store.settings(given).output == config.output
    (config.output / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds a run; add --resume, or remove it"):
        training_store.settings(given)


def test_a_run_does_not_go_on_with_other_demonstrations(config, monkeypatch, made):
    _, results = run(config)
    again = replace(config, resume=True)
    _, same = run(again)
    assert same["steps"] == 4
    assert same["held_out_rad"] == results["held_out_rad"]
    others = [made(s) for s in (0, 1, 2, 9)]
    monkeypatch.setattr(training_start, "read_demonstrations", lambda *_: iter(others))
    with pytest.raises(ConfigError, match="are others than those that the run"):
        train.Trainer(again)


def test_a_full_disk_stops_a_run_only_at_its_end(config, monkeypatch, caplog):
    full = CheckpointError("state: cannot be written: no space")
    failing = iter([True, False, False, False])
    save = checkpoint.save

    def sometimes(whole, folder):
        if folder.name == "latest" and next(failing):
            raise full
        save(whole, folder)

    monkeypatch.setattr(checkpoint, "save", sometimes)
    _, results = run(config)
    assert results["steps"] == 4
    assert "training goes on" in caplog.text
    assert checkpoint.load(config.output / "latest").card.step == 4

    def never(whole, folder):
        raise full

    monkeypatch.setattr(checkpoint, "save", never)
    with pytest.raises(CheckpointError, match="no space"):
        run(replace(config, output=config.output.with_name("full")))


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(config, monkeypatch):
    trainer, _ = run(replace(config, steps=1))
    whole = checkpoint.load(trainer.config.output / "latest")

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", interrupted)
    folder = config.output.with_name("stopped")
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(whole, folder / "latest")
    assert list(folder.iterdir()) == []
    (folder / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.save(whole, folder / "file" / "latest")


def test_ctrl_c_says_how_to_go_on(config, monkeypatch, capsys):
    def stopped(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(train.Trainer, "run", stopped)
    monkeypatch.setattr(train.Trainer, "__init__", lambda self, config: None)
    with pytest.raises(SystemExit) as ended:
        train.main(["--demonstrations", "made", "--output", str(config.output)])
    assert ended.value.code == 130
    assert "--resume goes on" in capsys.readouterr().err


def test_the_command(config, capsys):
    arguments = [
        "--demonstrations",
        "made",
        "--output",
        str(config.output),
        "--cache",
        str(config.cache),
        "--world_model",
        config.world_model,
        "--points",
        "grid",
        "--space",
        "joint_deltas",
        "--grid",
        "4",
        "--draws",
        "1",
        "--chunk_size",
        "4",
        "--most_known",
        "2",
        "--steps",
        "2",
        "--batch_size",
        "4",
    ]
    assert train.main(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 2
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    assert stopped.value.code == 2
    assert "--resume" in capsys.readouterr().err


def test_trace_features_are_compared_with_none(config, tmp_path, capsys):
    from mu0_core.config import dump_yaml
    from mu0_policy.action_expert import ablation

    dump_yaml(replace(config, steps=1), tmp_path / "training.yaml")
    study = ["--training", str(tmp_path / "training.yaml"), "--output", str(tmp_path / "study")]
    assert ablation.main([*study, "--sizes", "small", "--seeds", "0"]) == 0
    with_traces, without = json.loads(capsys.readouterr().out.splitlines()[-1])["trainings"]
    assert with_traces["traces"]
    assert with_traces["held_out_rad"] != without["held_out_rad"]
