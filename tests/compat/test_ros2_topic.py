"""ros2 topic: what users and scripts read from its output."""

import re

import pytest
from geometry_msgs.msg import Pose, PoseArray, PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.time import Time
from std_msgs.msg import String, UInt8MultiArray

pytestmark = pytest.mark.ros

PUB_THREE = ("topic", "pub", "-t", "3", "-r", "20", "-w", "1")


@pytest.fixture(scope="module")
def talker(ros2, make_node):
    """A node that talks at 20 Hz, reliably and as a sensor, and has said one latched thing."""
    node = make_node("talker")
    chatter = node.create_publisher(String, "chatter", 10)
    sensor = node.create_publisher(UInt8MultiArray, "sensor", qos_profile_sensor_data)
    latched = node.create_publisher(
        PoseArray, "latched", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    )
    poses = PoseArray(poses=[Pose(), Pose()])
    poses.header.frame_id = "world"
    poses.poses[1].position.y = 2.5
    latched.publish(poses)

    def talk():
        chatter.publish(String(data="hello"))
        sensor.publish(UInt8MultiArray(data=bytes(200)))

    node.create_timer(0.05, talk)
    ros2.know("/talker")
    return node


def test_list_and_info(ros2, talker):
    listed, plain, info, verbose, unknown = ros2.run_together(
        "topic list -t",
        "topic list",
        "topic info /chatter",
        "topic info -v /latched",
        "topic info --spin-time 1 /nobody",
    )
    assert "/chatter [std_msgs/msg/String]" in listed.stdout.splitlines()
    assert {"/chatter", "/sensor", "/latched"} <= set(plain.stdout.splitlines())
    assert info.stdout.splitlines() == [
        "Type: std_msgs/msg/String",
        "Publisher count: 1",
        "Subscription count: 0",
    ]
    for line in ("Node name: talker", "Durability: TRANSIENT_LOCAL", "Endpoint type: PUBLISHER"):
        assert line in verbose.stdout
    assert unknown.returncode != 0
    assert "Unknown topic '/nobody'" in unknown.stderr


def test_echo_fits_its_qos_to_the_publisher(ros2, talker):
    word, sensor, latched, sizes, whole, field, wrong, unknown = ros2.run_together(
        "topic echo --once /chatter",
        "topic echo --once /sensor",
        "topic echo --once /latched",
        "topic echo --once --no-arr /latched",
        "topic echo --once --full-length --qos-reliability best_effort /sensor",
        "topic echo --once --field header.frame_id /latched",
        "topic echo --once --field header.colour /latched",
        "topic echo --once --spin-time 1 /nobody",
    )
    assert word.stdout == "data: hello\n---\n"
    assert sensor.stdout.count("- 0\n") == 128
    assert "- '...'\n" in sensor.stdout
    assert whole.stdout.count("- 0\n") == 200
    assert latched.stdout.startswith("header:\n  stamp:\n    sec: 0\n")
    assert "  frame_id: world\nposes:\n" in latched.stdout
    assert "- position:\n    x: 0.0\n    y: 2.5\n" in latched.stdout
    assert latched.stdout.endswith("---\n")
    assert "poses: '<sequence type: geometry_msgs/msg/Pose, length: 2>'" in sizes.stdout
    assert field.stdout == "world\n---\n"
    assert wrong.returncode != 0
    assert "colour" in wrong.stderr
    assert unknown.returncode != 0
    assert "Could not determine the type for the passed topic" in unknown.stderr


def test_hz_reports_until_interrupted(ros2, talker):
    process = ros2.start("topic", "hz", "/chatter", "--window", "40")
    lines = iter(process.stdout.readline, "")
    rate_line = next(line for line in lines if "average rate" in line)
    statistics = next(lines)
    rate = float(re.fullmatch(r"average rate: (\d+\.\d{3})\n", rate_line)[1])
    assert 15.0 < rate < 25.0
    number = r"\d+\.\d+"
    assert re.fullmatch(
        rf"\tmin: {number}s max: {number}s std dev: {number}s window: \d+\n", statistics
    )
    assert ros2.interrupt(process).returncode == 2


def test_pub_fills_stamps_waits_for_a_subscription_and_counts(ros2, make_node):
    node, received = make_node("listener"), []
    node.create_subscription(PoseStamped, "goal", lambda message: received.append(message), 10)
    values = "{header: auto, pose: {position: {x: 1, y: 2.5}}}"
    done = ros2.run(
        *[
            "topic",
            "pub",
            "-t",
            "3",
            "-r",
            "20",
            "-w",
            "1",
            "/goal",
            "geometry_msgs/msg/PoseStamped",
        ],
        values,
    )
    assert done.returncode == 0
    assert "publisher: beginning loop" in done.stdout
    assert "publishing #3: geometry_msgs.msg.PoseStamped(" in done.stdout
    assert ros2.wait_until(lambda: len(received) == 3)
    position = received[0].pose.position
    assert (position.x, position.y, position.z) == (1.0, 2.5, 0.0)
    assert received[0].pose.orientation.w == 1.0
    stamps = [Time.from_msg(message.header.stamp) for message in received]
    assert stamps == sorted(stamps)
    age_s = (node.get_clock().now() - stamps[-1]).nanoseconds * 1e-9
    assert 0.0 <= age_s < 10.0


def test_pub_refuses_what_is_no_message(ros2):
    field, type_ = ros2.run_together(
        "topic pub --once -w 0 /x std_msgs/msg/String {dta:1}",
        "topic pub --once -w 0 /x std_msgs/msg/Strin",
    )
    assert field.returncode != 0
    assert "Failed to populate field" in field.stderr
    assert type_.returncode != 0
    assert "message type is invalid" in type_.stderr or "msg type is invalid" in type_.stderr
