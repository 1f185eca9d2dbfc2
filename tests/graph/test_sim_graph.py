"""The simulator behind the topics of a real robot: what is there, and that it obeys."""

import numpy as np
import pytest
from rclpy.qos import QoSDurabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from mu0_core.ros.interfaces import INTERFACES, Role

pytestmark = pytest.mark.ros

# Of every rclpy node; not part of the product's interface.
OF_EVERY_NODE = {"/rosout", "/parameter_events", "/sim/transition_event", "/diagnostics"}
# A reachable pose away from home and the table, rad.
POSES = {
    "panda": [0.3, 0.1, 0.2, -2.0, 0.1, 2.3, 0.9],
    "ur5e": [-0.3, -1.9, 2.1, -1.8, -1.6, 0.2],
    "iiwa": [0.3, 0.5, 0.1, -1.6, 0.1, 0.9, 0.2],
}


@pytest.fixture(scope="module")
def sim(launch_sim):
    """Return the watcher of a simulated Panda without a namespace."""
    _, watcher = launch_sim("robot:=panda", "max_real_time_factor:=0.0")
    publishers = watcher.node.get_publishers_info_by_topic
    watcher.spin_until(lambda: publishers("/camera/color/image_raw") and watcher.knows("sim"))
    return watcher


def _rows():
    return [row for row in INTERFACES.values() if row.owner == "sim"]


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row.name)
def test_the_table_is_what_runs(sim, row):
    name = row.name if row.name.startswith("/") else f"/{row.name}"
    if row.role is Role.SERVES:
        sim.spin_until(lambda: dict(sim.node.get_service_names_and_types()).get(name))
        assert dict(sim.node.get_service_names_and_types())[name] == [row.type_name]
        return
    ends = {
        Role.PUBLISHES: sim.node.get_publishers_info_by_topic,
        Role.SUBSCRIBES: sim.node.get_subscriptions_info_by_topic,
    }[row.role]
    sim.spin_until(lambda: [end for end in ends(name) if end.node_name == "sim"])
    (end,) = [end for end in ends(name) if end.node_name == "sim"]
    assert end.topic_type == row.type_name
    assert end.qos_profile.reliability == row.qos.profile.reliability
    assert end.qos_profile.durability == row.qos.profile.durability


def test_nothing_runs_that_is_not_in_the_table(sim):
    table = {row.name if row.name.startswith("/") else f"/{row.name}" for row in _rows()}
    published = dict(sim.node.get_publisher_names_and_types_by_node("sim", "/"))
    taken = dict(sim.node.get_subscriber_names_and_types_by_node("sim", "/"))
    assert {*published, *taken} - OF_EVERY_NODE <= table


@pytest.mark.parametrize("robot", POSES)
def test_a_robot_goes_where_a_trajectory_sends_it(launch_sim, robot):
    launched, watcher = launch_sim(f"robot:={robot}", "max_real_time_factor:=0.0")
    states, pictures = [], []
    watcher.node.create_subscription(JointState, "joint_states", states.append, 10)
    watcher.node.create_subscription(
        Image, "camera/color/image_raw", pictures.append, qos_profile_sensor_data
    )
    publisher = watcher.node.create_publisher(
        JointTrajectory, "arm_controller/joint_trajectory", 10
    )
    watcher.spin_until(lambda: states and pictures and publisher.get_subscription_count())
    arm = states[-1].name[: len(POSES[robot])]
    # Joints in another order than the robot's: names decide.
    message = JointTrajectory(joint_names=arm[::-1])
    point = JointTrajectoryPoint(positions=POSES[robot][::-1])
    point.time_from_start.sec = 4
    message.points = [point]
    publisher.publish(message)

    def error():
        return np.abs(np.array(states[-1].position[: len(arm)]) - POSES[robot]).max()

    watcher.spin_until(lambda: error() < 0.01)
    assert launched.process.poll() is None
    picture = pictures[-1]
    assert (picture.width, picture.height, picture.encoding) == (320, 240, "rgb8")
    assert np.frombuffer(picture.data, np.uint8).std() > 10, "the picture is blank"


def test_a_namespace_moves_everything_but_the_clock(launch_sim):
    _, watcher = launch_sim("namespace:=left")
    publishers = watcher.node.get_publishers_info_by_topic
    watcher.spin_until(
        lambda: (
            publishers("/left/camera/color/image_raw") and watcher.knows("sim", namespace="/left")
        )
    )
    published = dict(watcher.node.get_publisher_names_and_types_by_node("sim", "/left"))
    shared = {name for name in published if not name.startswith("/left/")}
    assert shared <= {"/clock", "/rosout", "/parameter_events", "/diagnostics"}
    assert {"/left/tf", "/left/tf_static", "/left/joint_states"} <= set(published)
    (end,) = watcher.node.get_publishers_info_by_topic("/left/tf_static")
    assert end.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
