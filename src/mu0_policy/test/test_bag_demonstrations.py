"""Demonstrations in bags: aligned by rule, refused where something is missing or broken."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mu0_core.errors import ConfigError, EpisodeError
from mu0_policy.camera_places import Mount
from mu0_policy.demonstrations.demonstration import Wanted, check
from mu0_policy.demonstrations.reading import SourceConfig, read_demonstrations

JOINTS = ("j1", "j2", "j3")


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
    keypoints_until=0,
    commands_at=10.2,
):
    """Write what a driver, a controller and a person would publish; 20 Hz joints, 10 Hz images."""
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    definition = Path(__file__).parents[2] / "mu0_msgs" / "msg" / "KeypointArray.msg"
    kind = "mu0_msgs/msg/KeypointArray"
    store.register(get_types_from_msg(definition.read_text(), kind))
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

    def keypoints(t, z):
        return types[kind](
            header=header(stamp=stamp(t), frame_id="camera"),
            height=8,
            width=8,
            k=np.eye(3).ravel(),
            n=2,
            history_length=0,
            arc_step=0.01,
            ids=np.arange(2, dtype=np.uint32),
            cluster_ids=np.zeros(2, np.int32),
            source=np.zeros(2, np.uint8),
            uv=np.array([1.0, 2.0, 3.0, 4.0], np.float32),
            z=np.array([z, np.nan], np.float32),
            visible=np.ones(2, np.bool_),
            history_uvz=np.zeros(0, np.float32),
            history_valid=np.zeros(0, np.bool_),
        )

    rows = [
        (10.0, "/mu0/instruction", types["std_msgs/msg/String"](data="lift the cube")),
        (
            commands_at,
            "/arm_controller/joint_trajectory",
            trajectory(10.2, joints, [0.0, 1.0][: len(points)], points),
        ),
        (
            commands_at,
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
        if i < keypoints_until:
            rows.append((t + 0.05, "/mu0/keypoints", keypoints(t, 0.1 * i)))
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


def test_keypoints_of_bags_are_those_of_the_picture(tmp_path, embodiment, embodiment_file):
    bag = write_bag(tmp_path / "bag", embodiment, keypoints_until=12)
    (found,) = read_demonstrations(bag_config(bag, embodiment_file))
    check(found)
    assert len(found.keypoints) == len(found) == 13  # from 10.2 s on
    assert np.allclose(found.keypoints[0], [[1, 2, 0.2], [3, 4, np.nan]], equal_nan=True)
    assert [len(rows) for rows in found.keypoints] == [2] * 12 + [0]  # the last is too old there


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


def test_streams_slower_than_the_moments_are_refused(tmp_path, embodiment, embodiment_file):
    bag = write_bag(tmp_path / "bag", embodiment)
    says = r"/camera/color/image_raw: 10\.0 a second, moments are taken 15 a second; lower --bag"
    with pytest.raises(EpisodeError, match=says):
        list(read_demonstrations(bag_config(bag, embodiment_file, bag_rate_hz=15.0)))


def test_a_bag_whose_commands_are_of_another_clock_is_refused(
    tmp_path, embodiment, embodiment_file
):
    bag = write_bag(tmp_path / "bag", embodiment, commands_at=1000.0)
    says = r"of 10\.0 to 11\.4 s, the first command was recorded at 1000\.0 s.*--use-sim-time"
    with pytest.raises(EpisodeError, match=says):
        list(read_demonstrations(bag_config(bag, embodiment_file)))


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
