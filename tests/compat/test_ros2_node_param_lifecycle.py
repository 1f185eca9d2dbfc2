"""ros2 node, param and lifecycle against running nodes."""

import pytest
import yaml
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import Trigger

pytestmark = pytest.mark.ros


class Machine(LifecycleNode):
    """A lifecycle node that cannot be activated."""

    def on_activate(self, state):
        return TransitionCallbackReturn.FAILURE


@pytest.fixture(scope="module")
def robot(make_node):
    """A node in a namespace with topics, a service and parameters; refuses speeds above 10."""
    node = make_node("robot", namespace="/lab")
    node.create_publisher(String, "state", 10)
    node.create_subscription(String, "command", lambda _: None, 10)
    node.create_service(Trigger, "stop", lambda _, response: response)
    node.declare_parameter("speed", 1.5)
    node.declare_parameter("joints", ["a", "b"])
    node.declare_parameter("arm.gains", [1.0, 2.0])

    def check(parameters):
        bad = [p.value for p in parameters if p.name == "speed" and p.value > 10.0]
        return SetParametersResult(successful=not bad, reason="too fast" if bad else "")

    node.add_on_set_parameters_callback(check)
    return node


@pytest.fixture(scope="module")
def machine(make_node):
    return make_node("machine", Machine)


LOOK = {
    "node_list": "node list",
    "node_info": "node info /lab/robot",
    "node_unknown": "node info --spin-time 1 /lab/nobody",
    "speed": "param get /lab/robot speed",
    "joints": "param get /lab/robot joints",
    "plain": "param get --hide-type /lab/robot speed",
    "missing": "param get /lab/robot colour",
    "params": "param list /lab/robot",
    "dump": "param dump /lab/robot",
}
CHANGE = {
    "nodes": "lifecycle nodes",
    "state": "lifecycle get /machine",
    "everyone": "lifecycle get",
    "unknown": "lifecycle get --spin-time 1 /nobody",
    "wrong": "lifecycle set /machine fly",
    "transitions": "lifecycle list /machine",
    "done": "param set /lab/robot arm.gains [3.0,4.0]",
    "refused": "param set /lab/robot speed 11.0",
    "nobody": "param get --spin-time 1 /lab/nobody speed",
}


@pytest.fixture(scope="module")
def look(ros2, robot, machine):
    """The outcomes of LOOK, run at the same time."""
    ros2.know("/machine")
    return dict(zip(LOOK, ros2.run_together(*LOOK.values()), strict=True))


@pytest.fixture(scope="module")
def change(ros2, robot, machine, look):
    """The outcomes of CHANGE, run after LOOK."""
    return dict(zip(CHANGE, ros2.run_together(*CHANGE.values()), strict=True))


def test_node_list_and_info(look):
    assert {"/lab/robot", "/machine"} <= set(look["node_list"].stdout.split())
    lines = look["node_info"].stdout.splitlines()
    assert lines[0] == "/lab/robot"
    titles = [line for line in lines if line.startswith("  ") and line.endswith(":")]
    assert [title.strip(" :") for title in titles] == [
        "Subscribers",
        "Publishers",
        "Service Servers",
        "Service Clients",
        "Action Servers",
        "Action Clients",
    ]
    assert "    /lab/command: std_msgs/msg/String" in lines
    assert "    /lab/state: std_msgs/msg/String" in lines
    assert "    /lab/stop: std_srvs/srv/Trigger" in lines
    assert look["node_unknown"].returncode != 0
    assert "/lab/nobody" in look["node_unknown"].stderr


def test_param_get_list_and_dump(look):
    assert look["speed"].stdout == "Double value is: 1.5\n"
    assert look["joints"].stdout == "String values are: ['a', 'b']\n"
    assert look["plain"].stdout == "1.5\n"
    assert "Parameter not set" in look["missing"].stdout + look["missing"].stderr
    names = set(look["params"].stdout.splitlines())
    assert {"  speed", "  joints", "  arm.gains", "  use_sim_time"} <= names
    parameters = yaml.safe_load(look["dump"].stdout)["/lab/robot"]["ros__parameters"]
    assert parameters["speed"] == 1.5
    assert list(parameters["arm"]["gains"]) == [1.0, 2.0]


def test_param_set(change, robot):
    assert change["done"].stdout == "Set parameter successful\n"
    assert list(robot.get_parameter("arm.gains").value) == [3.0, 4.0]
    assert "Setting parameter failed: too fast" in change["refused"].stderr
    assert robot.get_parameter("speed").value == 1.5
    assert change["nobody"].returncode != 0
    assert "Node not found" in change["nobody"].stderr


def test_lifecycle(change):
    assert change["nodes"].stdout.split() == ["/machine"]
    assert change["state"].stdout == "unconfigured [1]\n"
    assert change["everyone"].stdout == "/machine: unconfigured [1]\n"
    assert change["unknown"].returncode != 0
    assert "Node not found" in change["unknown"].stderr
    assert change["wrong"].returncode != 0
    refusal = "Unknown transition requested, available ones are:\n- configure [1]"
    assert refusal in change["wrong"].stderr
    first = "- configure [1]\n\tStart: unconfigured\n\tGoal: configuring\n"
    assert first in change["transitions"].stdout


def test_lifecycle_set(ros2, machine, change):
    done = ros2.run("lifecycle", "set", "/machine", "configure")
    assert done.stdout == "Transitioning successful\n"
    assert machine._state_machine.current_state[1] == "inactive"
    refused = ros2.run("lifecycle", "set", "/machine", "activate")
    assert "Transitioning failed" in refused.stderr
