"""The table of interfaces: sound as data, and what nodes make from it."""

import os
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import SetBool

from mu0_core.errors import ConfigError
from mu0_core.ros.interfaces import (
    INTERFACES,
    Qos,
    Role,
    create_client,
    create_publisher,
    create_service,
    create_subscription,
    interface,
    markdown_table,
)

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=10 + os.getpid() % 90)
    yield context
    context.try_shutdown()


@pytest.fixture
def node(context: Context) -> Iterator[Node]:
    node = Node(f"user_{os.getpid()}", namespace="left", context=context)
    yield node
    node.destroy_node()


@pytest.mark.parametrize("row", INTERFACES.values(), ids=list(INTERFACES))
def test_types_exist(row) -> None:
    package = row.type_name.split("/")[0]
    pytest.importorskip(package, reason=f"package {package} is not built")
    assert row.message_type.__name__ == row.type_name.split("/")[-1]
    assert ("/srv/" in row.type_name) == (row.role is Role.SERVES)


def test_only_what_ros_fixes_is_absolute() -> None:
    absolute = {name for name in INTERFACES if name.startswith("/")}
    assert absolute == {"/tf", "/tf_static", "/clock", "/clicked_point", "/diagnostics"}
    assert all(name == row.name for name, row in INTERFACES.items())


def test_pictures_are_best_effort_and_descriptions_wait() -> None:
    assert interface("camera/color/image_raw").qos is Qos.SENSOR
    assert interface("robot_description").qos is Qos.LATCHED
    assert Qos.SENSOR.profile.reliability is QoSReliabilityPolicy.BEST_EFFORT
    assert Qos.RELIABLE.profile.reliability is QoSReliabilityPolicy.RELIABLE
    assert Qos.RELIABLE.profile.durability is QoSDurabilityPolicy.VOLATILE
    assert Qos.LATCHED.profile.durability is QoSDurabilityPolicy.TRANSIENT_LOCAL


def test_a_wrong_name_names_the_nearest(node: Node) -> None:
    with pytest.raises(ConfigError, match=r"unknown interface 'joint_state'.*'joint_states'\?"):
        create_publisher(node, "joint_state")


def test_nodes_make_their_ends_in_their_namespace(node: Node) -> None:
    publisher = create_publisher(node, "joint_states")
    assert publisher.msg_type is JointState
    assert publisher.topic_name == "/left/joint_states"
    subscription = create_subscription(node, "camera/color/image_raw", lambda message: None)
    assert subscription.msg_type is Image
    assert subscription.topic_name == "/left/camera/color/image_raw"
    assert subscription.qos_profile.reliability is QoSReliabilityPolicy.BEST_EFFORT
    service = create_service(node, "sim/pause", lambda request, response: response)
    client = create_client(node, "sim/pause")
    assert service.srv_type is client.srv_type is SetBool
    assert client.srv_name == "sim/pause"


def test_who_wants_the_newest_has_no_queue_and_leaves_that_of_others(node: Node) -> None:
    for name, depth in (("camera/color/image_raw", 5), ("mu0/traces", 10)):
        late = create_subscription(node, name, lambda message: None, newest=True)
        assert late.qos_profile.depth == 1
        assert late.qos_profile.reliability is interface(name).qos.profile.reliability
        assert create_subscription(node, name, lambda message: None).qos_profile.depth == depth


def test_publishers_of_a_lifecycle_node_are_mute_at_first(context: Context) -> None:
    node = LifecycleNode(f"managed_{os.getpid()}", context=context)
    publisher = create_publisher(node, "joint_states")
    assert isinstance(publisher, LifecyclePublisher)
    assert not publisher.is_activated
    node.destroy_node()


def test_the_table_for_the_documentation() -> None:
    lines = markdown_table().splitlines()
    assert len(lines) == 2 + len(INTERFACES)
    assert lines[0] == "| Name | Type | Node | QoS | Rate | Frame | Meaning |"
    assert all(line.count("|") == 8 for line in lines)
    assert (
        "| `camera/color/image_raw` | `sensor_msgs/msg/Image` | sim publishes | sensor data | "
        "camera rate | `camera_color_optical_frame` | Colour, rgb8 |"
    ) in lines
