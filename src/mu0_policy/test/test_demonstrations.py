"""Demonstrations of every source: one form, aligned by rule, refused when bad."""

import json
from dataclasses import replace

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
    assert "wrist: expected 12 pictures" in " ".join(faults(cut))


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


# ---------------------------------------------------------------------------------------- bags


def write_bag(
    path,
    embodiment,
    *,
    joints=JOINTS,
    wrist_until=99,
    stamps_late=0.0,
    depth=False,
    positions=4,
    points=((0.0, 0.0, 0.0), (0.4, -0.2, 0.1)),
    frames=(),
):
    """Write what a driver, a controller and a person would publish; 20 Hz joints, 10 Hz images."""
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    header = types["std_msgs/msg/Header"]
    time = types["builtin_interfaces/msg/Time"]
    duration = types["builtin_interfaces/msg/Duration"]
    point = types["trajectory_msgs/msg/JointTrajectoryPoint"]
    none = np.zeros(0)

    def stamp(t):
        return time(sec=int(t), nanosec=round((t % 1.0) * 1e9))

    def trajectory(start, names, times, rows):
        return types["trajectory_msgs/msg/JointTrajectory"](
            header=header(stamp=stamp(start), frame_id=""),
            joint_names=list(names),
            points=[
                point(
                    positions=np.array(row, np.float64),
                    velocities=none,
                    accelerations=none,
                    effort=none,
                    time_from_start=duration(sec=int(t), nanosec=round((t % 1.0) * 1e9)),
                )
                for t, row in zip(times, rows, strict=True)
            ],
        )

    def image(t, value, frame="camera"):
        return types["sensor_msgs/msg/Image"](
            header=header(stamp=stamp(t), frame_id=frame),
            height=8,
            width=8,
            encoding="bgr8",
            is_bigendian=0,
            step=24,
            data=np.tile(np.array([0, 0, value], np.uint8), 64),
        )

    def depth_image(t, millimetres):
        return types["sensor_msgs/msg/Image"](
            header=header(stamp=stamp(t), frame_id="camera"),
            height=8,
            width=8,
            encoding="16UC1",
            is_bigendian=0,
            step=16,
            data=np.full(64, millimetres, np.uint16).view(np.uint8),
        )

    def info(t):
        region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        return types["sensor_msgs/msg/CameraInfo"](
            header=header(stamp=stamp(t), frame_id="camera"),
            height=8,
            width=8,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=np.array([9.0, 0.0, 3.5, 0.0, 10.0, 3.5, 0.0, 0.0, 1.0]),
            r=np.eye(3).ravel(),
            p=np.zeros(12),
            binning_x=0,
            binning_y=0,
            roi=region,
        )

    rows = [
        (10.0, "/mu0/instruction", types["std_msgs/msg/String"](data="lift the cube")),
        (
            10.2,
            "/arm_controller/joint_trajectory",
            trajectory(10.2, joints, [0.0, 1.0][: len(points)], points),
        ),
        (
            10.2,
            "/gripper_controller/joint_trajectory",
            trajectory(10.2, ("jaw",), [0.5, 0.7], [[0.04], [0.0]]),
        ),
    ]
    for parent, child, xyz in frames:
        static = types["geometry_msgs/msg/TransformStamped"](
            header=header(stamp=stamp(10.0), frame_id=parent),
            child_frame_id=child,
            transform=types["geometry_msgs/msg/Transform"](
                translation=types["geometry_msgs/msg/Vector3"](*xyz),
                rotation=types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
            ),
        )
        rows.append((10.0, "/tf_static", types["tf2_msgs/msg/TFMessage"](transforms=[static])))
    for i in range(31):
        t = 10.0 + i / 20.0
        at = np.clip(t - 10.2 - 0.05, 0.0, 1.0)
        state = types["sensor_msgs/msg/JointState"](
            header=header(stamp=stamp(t), frame_id=""),
            name=[*joints, "jaw"],
            position=np.array([0.4 * at, -0.2 * at, 0.1 * at, 0.04])[:positions],
            velocity=none,
            effort=none,
        )
        rows.append((t, "/joint_states", state))
    for i in range(15):
        t = 10.0 + i / 10.0
        rows.append((t + 0.03, "/camera/color/image_raw", image(t + stamps_late, 10 * i)))
        if depth:
            rows.append((t, "/camera/color/camera_info", info(t)))
            aligned = depth_image(t, 500 + i)
            rows.append((t + 0.03, "/camera/aligned_depth_to_color/image_raw", aligned))
        if i < wrist_until:
            rows.append((t + 0.03, "/wrist/image_raw", image(t, 100, "hand_camera")))
    with Writer(path, version=9) as writer:
        connections = {}
        for t, topic, message in sorted(rows, key=lambda row: row[0]):
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, message.__msgtype__, typestore=store
                )
            raw = store.serialize_cdr(message, message.__msgtype__)
            writer.write(connections[topic], round(t * 1e9), raw)
    return path


def bag_config(path, embodiment_file, **changes):
    values = {
        "demonstrations": (str(path),),
        "embodiment_file": embodiment_file,
        "camera_names": ("wrist=/wrist/image_raw",),
    }
    return SourceConfig(**(values | changes))


def test_bags(tmp_path, embodiment, embodiment_file):
    bag = write_bag(tmp_path / "bag", embodiment)
    (found,) = read_demonstrations(bag_config(bag, embodiment_file))
    check(found, Wanted(joints=JOINTS, cameras=("wrist",), rate_hz=10.0))
    assert found.instruction == "lift the cube"
    assert (found.robot, len(found)) == ("planar", 13)  # from the first command on
    assert found.depth is None
    assert found.focal_lengths == {}
    # Moment 0 is at 10.2 s, and its command what holds at 10.3 s.
    assert np.allclose(found.commands[0, :3], [0.04, -0.02, 0.01])
    assert np.allclose(found.commands[-1, :3], [0.4, -0.2, 0.1])
    assert found.pictures["front"][0][0, 0].tolist() == [20, 0, 0]  # taken at 10.2 s, bgr8
    # It moves from 10.7 s on.
    assert np.allclose(found.commands[:, 3], [0.0] * 5 + [1.0] * 8)


def test_depth_and_intrinsics_of_a_bag(tmp_path, embodiment, embodiment_file):
    bag = write_bag(tmp_path / "bag", embodiment, depth=True)
    (found,) = read_demonstrations(bag_config(bag, embodiment_file))
    check(found)
    assert found.depth[0].shape == (8, 8)
    assert found.depth[0][0, 0] == pytest.approx(0.502)  # of 10.2 s
    assert found.focal_lengths == {"front": 1.25}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"positions": 0}, "joint_states with 4 names and 0 positions"),
        ({"points": ()}, "a command of 0 points with no positions, expected 3"),
        ({"points": ((0.0, 0.0), (0.4, 0.1))}, "a command of 2 points with 2 positions, expect"),
    ],
)
def test_broken_messages_of_a_bag_are_refused(
    tmp_path, embodiment, embodiment_file, changes, what
):
    bag = write_bag(tmp_path / "bag", embodiment, **changes)
    with pytest.raises(EpisodeError, match=what):
        list(read_demonstrations(bag_config(bag, embodiment_file)))


def test_a_bag_that_was_cut_off_is_refused_by_its_name(tmp_path, embodiment, embodiment_file):
    bag = write_bag(tmp_path / "bag", embodiment)
    (file,) = (f for f in bag.iterdir() if f.name != "metadata.yaml")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(EpisodeError, match=f"{bag}: cannot be read as a bag"):
        list(read_demonstrations(bag_config(bag, embodiment_file)))


def test_a_bag_with_static_frames_knows_where_cameras_are(tmp_path, embodiment, embodiment_file):
    frames = [
        ("world", "base_link", (0.0, 0.0, 0.5)),
        ("world", "mast", (1.0, 0.0, 0.5)),
        ("mast", "camera", (0.0, 0.0, 0.7)),
        ("flange", "tool0", (0.0, 0.0, 0.2)),
        ("flange", "hand_camera", (0.1, 0.0, 0.1)),
    ]
    bag = write_bag(tmp_path / "bag", embodiment, frames=frames)
    (found,) = read_demonstrations(bag_config(bag, embodiment_file))
    front, wrist = (found.camera_places[name] for name in ("front", "wrist"))
    assert (front.mount, wrist.mount) == (Mount.BASE, Mount.TOOL)
    assert np.allclose(front.T_mount_camera[:3, 3], [1.0, 0.0, 0.7])
    assert np.allclose(wrist.T_mount_camera[:3, 3], [0.1, 0.0, -0.1])
    plain = write_bag(tmp_path / "plain", embodiment, frames=frames[:2])
    (found,) = read_demonstrations(bag_config(plain, embodiment_file))
    assert found.camera_places == {}


def test_bags_that_do_not_fit_are_refused(tmp_path, embodiment, embodiment_file):
    stops = write_bag(tmp_path / "stops", embodiment, wrist_until=8)
    with pytest.raises(EpisodeError, match=r"/wrist/image_raw: it ends 0\.80 s before /joint_sta"):
        list(read_demonstrations(bag_config(stops, embodiment_file)))
    other = write_bag(tmp_path / "other", embodiment, joints=("a", "b", "c"))
    with pytest.raises(EpisodeError, match=r"a command of a, b, c|joint_states has no j1"):
        list(read_demonstrations(bag_config(other, embodiment_file)))
    with pytest.raises(EpisodeError, match="nothing on /side"):
        config = bag_config(stops, embodiment_file, camera_names=("side=/side",))
        list(read_demonstrations(config))
    with pytest.raises(ConfigError, match="embodiment_file"):
        list(read_demonstrations(replace(bag_config(stops, None))))
