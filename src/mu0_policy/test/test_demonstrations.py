"""Demonstrations of every source: one form, aligned by rule, refused when bad."""

import json

import numpy as np
import pytest

from mu0_core.errors import ConfigError, EpisodeError
from mu0_policy.camera_places import Mount
from mu0_policy.demonstrations.alignment import moments, newest
from mu0_policy.demonstrations.demonstration import Demonstration, Wanted, check, faults
from mu0_policy.demonstrations.export_lerobot import main as export
from mu0_policy.demonstrations.lerobot import LeRobotNames, read_lerobot
from mu0_policy.demonstrations.lerobot_writer import write_lerobot
from mu0_policy.demonstrations.reading import SourceConfig, read_demonstrations

JOINTS = ("j1", "j2", "j3")


def made(n=12, seed=0, **changes):
    rng = np.random.default_rng(seed)
    way = np.linspace(0.0, 0.3, n + 1)[:, None] * np.array([1.0, -1.0, 0.5])
    ramp = np.linspace(0, 255, 64 * 48, dtype=np.uint8).reshape(48, 64)
    front = np.stack([np.stack([np.roll(ramp, 4 * i, 1)] * 3, -1) for i in range(n)])
    wrist = np.stack([np.full((32, 48, 3), 20 * i, np.uint8) for i in range(n)])
    values = {
        "name": "made",
        "robot": "planar",
        "instruction": "lift the cube" if seed % 2 == 0 else "take the cube",
        "rate_hz": 10.0,
        "joints": JOINTS,
        "gripper_joints": ("jaw",),
        "pictures": {"front": front, "wrist": wrist},
        "depth": None,
        "q": way[:-1] + 0.01 * rng.standard_normal((n, 3)),
        "gripper": np.linspace(0.0, 0.5, n),
        "commands": np.concatenate([way[1:], (np.arange(n) > n // 2)[:, None]], axis=1),
    }
    return Demonstration(**(values | changes))


# ------------------------------------------------------------------------------------ the rule


def test_only_what_has_come_counts():
    stamps = np.array([0.0, 0.1, 0.2, 0.3])
    found = newest(stamps, [0.0, 0.09, 0.1, 0.29], oldest_s=0.2, what="x")
    assert found.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("stamps", "times", "what"),
    [
        ([], [0.0], "nothing came"),
        ([0.5], [0.4], "nothing before"),
        ([0.0, 0.1, 0.9], [0.5], "a gap"),
        ([0.0, 0.2, 0.1], [0.2], "go back"),
    ],
)
def test_gaps_are_said(stamps, times, what):
    with pytest.raises(EpisodeError, match=f"wrist: .*{what}"):
        newest(stamps, times, oldest_s=0.2, what="wrist")


def test_moments_are_evenly_spaced():
    assert np.allclose(moments(1.0, 1.35, 10.0), [1.0, 1.1, 1.2, 1.3])
    assert len(moments(1.0, 1.3, 10.0)) == 4


# ---------------------------------------------------------------------------------- the checks


def test_a_good_one_passes():
    check(made(), Wanted(joints=JOINTS, cameras=("wrist",), rate_hz=10.0))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"q": np.full((12, 3), np.nan)}, "j1 is no number at moment 0"),
        ({"instruction": " "}, "instruction: empty"),
        ({"pictures": {"wrist": np.zeros((12, 4, 4, 3), np.uint8)}}, "no camera 'front'"),
        ({"gripper": np.zeros(11)}, r"gripper: expected \(12,\)"),
        ({"commands": made().commands + np.array([0, 2.0, 0, 0])}, "j2 is far from"),
        ({"commands": made().commands * np.array([57.3, 1, 1, 1])}, "in rad"),
    ],
)
def test_bad_ones_are_refused(changes, what):
    with pytest.raises(EpisodeError, match=what):
        check(made(**changes))


def test_what_does_not_fit_the_others_is_refused():
    wanted = Wanted(joints=("j2", "j1", "j3"), cameras=("side",), rate_hz=30.0)
    found = " ".join(faults(made(), wanted))
    for what in ("another order", "no side", "expected 30 Hz, got 10 Hz"):
        assert what in found
    cut = made(pictures={**made().pictures, "wrist": made().pictures["wrist"][:-1]})
    assert "wrist: expected 12, one for each moment, got 11" in " ".join(faults(cut))


# ------------------------------------------------------------------------------------- LeRobot


@pytest.fixture
def data_set(tmp_path):
    shown = [made(seed=0), made(n=9, seed=1), made(seed=2)]
    numbers = write_lerobot(shown, tmp_path / "set")
    assert numbers == {"episodes": 3, "frames": 33, "tasks": 2}
    return shown, tmp_path / "set"


def test_what_is_written_is_read_again(data_set):
    shown, path = data_set
    found = list(read_lerobot(path, LeRobotNames(cameras={})))
    assert [len(f) for f in found] == [12, 9, 12]
    for before, after in zip(shown, found, strict=True):
        check(after, Wanted(joints=JOINTS, cameras=("wrist",), rate_hz=10.0))
        assert (after.robot, after.instruction) == (before.robot, before.instruction)
        for name in ("q", "gripper", "commands"):
            assert np.allclose(getattr(after, name), getattr(before, name), atol=1e-6)
        for camera in ("front", "wrist"):
            assert after.picture_size(camera) == before.picture_size(camera)
            for i in (0, 3, 4, 8, 2):  # forwards and back
                a, b = (s.pictures[camera][i].astype(int) for s in (after, before))
                assert np.abs(a - b).mean() < 6.0, (camera, i)


def test_the_files_are_those_of_version_3(data_set):
    import pyarrow.parquet as parquet

    _, path = data_set
    info = json.loads((path / "meta" / "info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["features"]["action"]["names"] == ["j1", "j2", "j3", "gripper"]
    assert info["features"]["observation.images.wrist"]["shape"] == [32, 48, 3]
    tasks = parquet.read_table(path / "meta" / "tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["lift the cube", "take the cube"]}
    rows = parquet.read_table(path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["dataset_from_index"] for row in rows] == [0, 12, 21]
    assert rows[1]["tasks"] == ["take the cube"]
    statistics = json.loads((path / "meta" / "stats.json").read_text())
    assert np.shape(statistics["observation.images.front"]["mean"]) == (3, 1, 1)
    assert statistics["action"]["count"] == [33]


def test_other_names_and_units(data_set):
    _, path = data_set
    names = LeRobotNames(cameras={"front": "wrist", "side": "front"}, gripper_closed=0.5)
    found = next(read_lerobot(path, names))
    assert set(found.pictures) == {"front", "side"}
    assert found.gripper[-1] == pytest.approx(1.0)
    with pytest.raises(EpisodeError, match="no camera 'top'"):
        next(read_lerobot(path, LeRobotNames(cameras={"front": "top"})))
    with pytest.raises(EpisodeError, match="--camera_names front=NAME"):
        next(read_lerobot(path, LeRobotNames(cameras={"top": "front"})))


def test_version_2_1_is_read(data_set, tmp_path):
    """The same rows and videos, laid out as before version 3."""
    shown, new = data_set
    old = tmp_path / "old"
    info = json.loads((new / "meta" / "info.json").read_text())
    info |= {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
    }
    (old / "meta").mkdir(parents=True)
    (old / "meta" / "info.json").write_text(json.dumps(info))
    lines = []
    for i, one in enumerate(shown):
        lines.append(
            json.dumps({"episode_index": i, "tasks": [one.instruction], "length": len(one)})
        )
        moves = [
            (f"data/chunk-000/file-{i:03d}.parquet", f"data/chunk-000/episode_{i:06d}.parquet")
        ]
        moves += [
            (
                f"videos/observation.images.{c}/chunk-000/file-{i:03d}.mp4",
                f"videos/chunk-000/observation.images.{c}/episode_{i:06d}.mp4",
            )
            for c in ("front", "wrist")
        ]
        for source, target in moves:
            (old / target).parent.mkdir(parents=True, exist_ok=True)
            (old / target).write_bytes((new / source).read_bytes())
    (old / "meta" / "episodes.jsonl").write_text("\n".join(lines))
    ours = list(read_lerobot(new, LeRobotNames(cameras={})))
    for a, b in zip(read_lerobot(old, LeRobotNames(cameras={})), ours, strict=True):
        assert np.array_equal(a.commands, b.commands)
        assert np.array_equal(a.pictures["front"][5], b.pictures["front"][5])


def test_bad_data_sets_are_refused(data_set, tmp_path):
    import pyarrow
    import pyarrow.parquet as parquet

    _, path = data_set
    with pytest.raises(EpisodeError, match="exists"):
        write_lerobot([made()], path)
    for other, what in (
        (made(robot="ur5e"), "robot: expected 'planar', got 'ur5e'"),
        (made(pictures={c: np.zeros((12, 8, 8, 3), np.uint8) for c in ("front", "wrist")}), "8x8"),
    ):
        with pytest.raises(EpisodeError, match=what):
            write_lerobot([made(), other], tmp_path / "mixed")
    with pytest.raises(EpisodeError, match="another order"):
        write_lerobot([made(), made(joints=("j2", "j1", "j3"))], tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()
    info_file = path / "meta" / "info.json"
    info = json.loads(info_file.read_text())
    for key, value, what in (
        ("codebase_version", "v1.6", "version v1.6"),
        ("features", {**info["features"], "action": {"shape": [4]}}, "no names"),
    ):
        info_file.write_text(json.dumps(info | {key: value}))
        with pytest.raises(EpisodeError, match=what):
            next(read_lerobot(path, LeRobotNames(cameras={})))
    info_file.write_text(json.dumps(info))
    file = path / "data" / "chunk-000" / "file-000.parquet"
    table = parquet.read_table(file)
    late = np.asarray(table["timestamp"]) + 0.5 * (np.arange(12) > 5)
    column = table.column_names.index("timestamp")
    parquet.write_table(
        table.set_column(column, "timestamp", pyarrow.array(late.astype(np.float32))), file
    )
    with pytest.raises(EpisodeError, match="a gap"):
        next(read_lerobot(path, LeRobotNames(cameras={})))


# ------------------------------------------------------------------------------- the simulator


@pytest.fixture
def simulated(tmp_path):
    """A folder as the simulator's recorder leaves it, without the traces."""
    from mu0_core.episode_writer import EpisodeOptions, Recording, write_episode

    shown, n = made(), 12
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.1, 0.1, (n, 8, 3)) * 0.0 + rng.uniform(-0.1, 0.1, (8, 3))
    points = points + np.linspace(0, 0.2, n)[:, None, None] + np.array([0.0, 0.0, 1.0])
    recording = Recording(
        images=np.asarray(shown.pictures["front"]),
        depth=np.ones((n, 48, 64), np.float32),
        K=np.array([[60.0, 0, 32], [0, 60.0, 24], [0, 0, 1]]),
        T_camera_world=np.tile(np.eye(4), (n, 1, 1)),
        stamps=np.arange(n) / 10.0,
        tracks_xyz_world=points,
        visible=np.ones((n, 8), bool),
        moving=np.ones(8, bool),
        cluster_ids=np.zeros(8, np.int32),
    )
    path = tmp_path / "planar_lift_000000"
    write_episode(path, recording, EpisodeOptions(arc_step=0.02), description="lift the cube")
    (path / "robot").mkdir()
    np.save(path / "robot" / "wrist.npy", shown.pictures["wrist"])
    commands = np.concatenate([shown.commands[:1], shown.commands])
    np.savez(
        path / "robot" / "states.npz",
        robot="planar",
        joints=JOINTS,
        gripper_joints=("jaw",),
        gripper_open=0.04,
        gripper_closed=0.0,
        rate_hz=10.0,
        q=shown.q,
        gripper_q=0.04 - 0.04 * shown.gripper,
        command_q=commands[:, :3],
        command_gripper=0.04 - 0.04 * np.clip(np.arange(13) - 6, 0, 2) / 2.0,
    )
    return path


def test_simulated_episodes(simulated):
    (found,) = read_demonstrations(SourceConfig(demonstrations=(str(simulated),)))
    check(found, Wanted(joints=JOINTS, cameras=("wrist",), rate_hz=10.0))
    assert found.instruction == "lift the cube"
    assert np.allclose(found.q, made().q)
    assert np.allclose(found.commands[:, :3], made().commands[:, :3])
    # It moves from the seventh command on; the goal is said one moment before.
    assert found.commands[:, 3].tolist() == [0.0] * 6 + [1.0] * 6
    assert found.depth[3].shape == (48, 64)
    assert found.camera_places == {}
    with np.load(simulated / "robot" / "states.npz") as file:
        states = dict(file)
    np.savez(simulated / "robot" / "states.npz", **states, T_base_camera=np.eye(4))
    (found,) = read_demonstrations(SourceConfig(demonstrations=(str(simulated),)))
    assert found.camera_places["front"].mount is Mount.BASE
    stamps = np.load(simulated / "stamps.npy")
    np.save(simulated / "stamps.npy", stamps + 0.1 * (np.arange(12) > 7))
    with pytest.raises(EpisodeError, match=r"moments 7 and 8 are 0\.2000 s apart"):
        list(read_demonstrations(SourceConfig(demonstrations=(str(simulated),))))
    np.save(simulated / "stamps.npy", stamps)
    (simulated / "robot" / "wrist.npy").unlink()
    with pytest.raises(EpisodeError, match="no recording of a robot"):
        list(read_demonstrations(SourceConfig(demonstrations=(str(simulated),))))


def test_export_from_the_command_line(simulated, tmp_path, capsys):
    out = tmp_path / "exported"
    arguments = ["--demonstrations", str(simulated), "--output", str(out)]
    assert export(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["episodes"] == 1
    (found,) = read_lerobot(out, LeRobotNames(cameras={}))
    assert found.instruction == "lift the cube"
    with pytest.raises(SystemExit) as stopped:
        export(arguments)
    assert stopped.value.code == 2


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(EpisodeError, match="no folder matches"):
        list(read_demonstrations(SourceConfig(demonstrations=(str(tmp_path / "x*"),))))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EpisodeError, match="neither"):
        list(read_demonstrations(SourceConfig(demonstrations=(str(tmp_path / "empty"),))))
    with pytest.raises(ConfigError, match="another value than gripper_open"):
        SourceConfig(demonstrations=("a",), gripper_open=1.0)
    with pytest.raises(ConfigError, match="NAME=THEIRS"):
        SourceConfig(demonstrations=("a",), camera_names=("front",))
