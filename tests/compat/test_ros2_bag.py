"""ros2 bag: what was published is in the bag, and comes out again."""

import shutil
import subprocess
import time

import pytest
import yaml
from rclpy.clock import ClockType
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String, UInt8MultiArray

pytestmark = pytest.mark.ros

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module", autouse=True)
def bag_command(ros2):
    """Skip where the real `ros2` is installed without `ros2 bag`."""
    if subprocess.run([shutil.which("ros2"), "bag", "-h"], capture_output=True).returncode != 0:
        pytest.skip("this ros2 has no bag command (ros-jazzy-ros2bag)")


@pytest.fixture(scope="module")
def bags(ros2, make_node, tmp_path_factory):
    """The same 60 messages at 50 Hz as two bags: all topics as mcap, two topics as sqlite3."""
    folder = tmp_path_factory.mktemp("bags")
    node = make_node("talker")
    numbers = node.create_publisher(String, "numbers", 10)
    sensor = node.create_publisher(UInt8MultiArray, "sensor", qos_profile_sensor_data)
    latched = node.create_publisher(String, "latched", LATCHED)
    latched.publish(String(data="robot"))
    private = node.create_publisher(String, "private", LATCHED)
    private.publish(String(data="not for the bag"))
    paths = {storage: folder / storage for storage in ("mcap", "sqlite3")}
    recorders = [
        ros2.start(*f"bag record -a --exclude-topics /private -s mcap -o {paths['mcap']}".split()),
        ros2.start(
            *f"bag record -s sqlite3 -o {paths['sqlite3']} --topics /numbers /latched".split()
        ),
    ]
    assert ros2.wait_until(lambda: numbers.get_subscription_count() == 2)
    assert ros2.wait_until(lambda: latched.get_subscription_count() == 2)
    assert ros2.wait_until(lambda: sensor.get_subscription_count() == 1)
    sent = 0

    def send():
        nonlocal sent
        if sent < 60:
            numbers.publish(String(data=str(sent)))
            sensor.publish(UInt8MultiArray(data=bytes([sent])))
            sent += 1

    timer = node.create_timer(0.02, send)
    assert ros2.wait_until(lambda: sent == 60)
    node.create_rate(2.0).sleep()  # the last messages travel
    node.destroy_timer(timer)
    for recorder in recorders:
        assert ros2.interrupt(recorder).returncode in (0, 2)
    for publisher in (numbers, sensor, latched, private):
        node.destroy_publisher(publisher)
    return paths


def recorded(path, topic, message_type):
    with Reader(path) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        return [
            (stamp, deserialize_message(bytes(data), message_type).data)
            for _, stamp, data in reader.messages(connections)
        ]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_every_message_is_in_the_bag_in_its_order(bags, storage):
    messages = recorded(bags[storage], "/numbers", String)
    assert [text for _, text in messages] == [str(i) for i in range(60)]
    stamps = [stamp for stamp, _ in messages]
    assert stamps == sorted(stamps)
    assert 1.0 < (stamps[-1] - stamps[0]) * 1e-9 < 3.0
    assert [text for _, text in recorded(bags[storage], "/latched", String)] == ["robot"]


def test_best_effort_topics_are_recorded_and_all_leaves_out_hidden_and_excluded_ones(bags):
    assert len(recorded(bags["mcap"], "/sensor", UInt8MultiArray)) >= 57
    with Reader(bags["mcap"]) as reader:
        assert not any("/_" in topic for topic in reader.topics)
        assert "/private" not in reader.topics


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_metadata_says_what_the_publishers_offered(bags, storage):
    text = (bags[storage] / "metadata.yaml").read_text()
    information = yaml.safe_load(text)["rosbag2_bagfile_information"]
    assert information["storage_identifier"] == storage
    assert all((bags[storage] / name).is_file() for name in information["relative_file_paths"])
    topics = {
        t["topic_metadata"]["name"]: t["topic_metadata"]
        for t in information["topics_with_message_count"]
    }
    assert topics["/latched"]["type"] == "std_msgs/msg/String"
    assert topics["/latched"]["type_description_hash"].startswith("RIHS01_")
    (offer,) = topics["/latched"]["offered_qos_profiles"]
    assert (offer["durability"], offer["reliability"]) == ("transient_local", "reliable")
    (offer,) = topics["/numbers"]["offered_qos_profiles"]
    assert offer["durability"] == "volatile"


def test_the_bag_carries_its_message_definitions(bags):
    with Reader(bags["mcap"]) as reader:
        (connection,) = (c for c in reader.connections if c.topic == "/sensor")
        assert "MSG: std_msgs/MultiArrayLayout" in connection.msgdef.data
        assert "MSG: std_msgs/MultiArrayDimension" in connection.msgdef.data


def test_info(ros2, bags):
    done = ros2.run("bag", "info", str(bags["sqlite3"]))
    lines = done.stdout.splitlines()
    assert "Storage id:        sqlite3" in lines
    assert "Messages:          61" in lines
    assert (
        "Topic: /numbers | Type: std_msgs/msg/String | Count: 60 | Serialization Format: cdr"
        in done.stdout
    )


def test_play_keeps_rhythm_order_and_durability(ros2, bags, make_node):
    node, heard, clock, latched, players = make_node("listener"), {}, [], [], []
    best_effort = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(Clock, "/clock", lambda m: clock.append(m.clock), best_effort)
    for storage, path in bags.items():
        heard[storage] = []

        def hear(message, to=heard[storage]):
            to.append((time.monotonic(), message.data))

        node.create_subscription(String, f"/{storage}", hear, 100)
        # Asks for durability, so that a volatile publisher would not be matched at all.
        node.create_subscription(
            String, f"/{storage}_latched", lambda m: latched.append(m.data), LATCHED
        )
        play = f"bag play {path} --rate 0.8 --delay 3 --topics /numbers /latched"
        remap = f" --remap /numbers:=/{storage} /latched:=/{storage}_latched"
        ticks = " --clock 20" if storage == "mcap" else ""
        players.append(ros2.start(*f"{play}{remap}{ticks}".split()))
    assert ros2.wait_until(lambda: all(heard.values()))
    assert [ros2.finish(player).returncode for player in players] == [0, 0]
    for storage, messages in heard.items():
        assert [text for _, text in messages] == [str(i) for i in range(60)], storage
        assert 1.2 < messages[-1][0] - messages[0][0] < 3.5, storage  # 1.2 s recorded, slowed
    assert ros2.wait_until(lambda: latched == ["robot", "robot"], 1.0)
    times = [Time.from_msg(stamp, clock_type=ClockType.ROS_TIME).nanoseconds for stamp in clock]
    assert times == sorted(times)
    assert abs(times[-1] - recorded(bags["mcap"], "/numbers", String)[-1][0]) < 0.5e9


def test_bad_requests_are_refused(ros2, bags, tmp_path):
    nothing, exists, missing = ros2.run_together(
        f"bag record -o {tmp_path / 'x'}",
        f"bag record -a -o {bags['mcap']}",
        f"bag play {tmp_path / 'no_bag'}",
    )
    assert nothing.returncode != 0
    assert "--all" in nothing.stderr
    assert exists.returncode != 0
    assert "already exists" in exists.stderr
    assert missing.returncode != 0
    assert "no_bag" in missing.stderr
