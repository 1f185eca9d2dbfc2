"""ros2 service and action against running servers."""

import shutil
import threading
import time
from pathlib import Path

import pytest
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from std_srvs.srv import SetBool
from tf2_msgs.action import LookupTransform

pytestmark = pytest.mark.ros

STAND_IN = "compat" in Path(shutil.which("ros2") or "").parts
SEND_GOAL = ("action", "send_goal", "/look", "tf2_msgs/action/LookupTransform")


@pytest.fixture(scope="module")
def server(ros2, make_node):
    """A node with a switch and an action: 'wait' runs until cancelled, 'no' is rejected."""
    node = make_node("server")

    def switch(request, response):
        response.success, response.message = request.data, f"is {request.data}"
        return response

    node.create_service(SetBool, "switch", switch)
    node.cancelled = threading.Event()

    def execute(handle):
        handle.publish_feedback(LookupTransform.Feedback())
        result = LookupTransform.Result()
        result.transform.child_frame_id = handle.request.source_frame
        if handle.request.source_frame != "wait":
            handle.succeed()
            return result
        deadline = time.monotonic() + 20.0
        while not handle.is_cancel_requested and time.monotonic() < deadline:
            time.sleep(0.02)
        handle.canceled()
        node.cancelled.set()
        return result

    node.actions = ActionServer(
        node,
        LookupTransform,
        "look",
        execute,
        callback_group=ReentrantCallbackGroup(),
        goal_callback=lambda goal: GoalResponse(
            GoalResponse.REJECT if goal.source_frame == "no" else GoalResponse.ACCEPT
        ),
        cancel_callback=lambda _: CancelResponse.ACCEPT,
    )
    ros2.know("/server")
    return node


def test_lists_types_and_refusals(ros2, server):
    services, type_, actions, info, field, unknown = ros2.run_together(
        "service list -t",
        "service type /switch",
        "action list -t",
        "action info /look",
        "service call /switch std_srvs/srv/SetBool {dat:1}",
        "service call /switch std_srvs/srv/SetBol",
    )
    assert "/switch [std_srvs/srv/SetBool]" in services.stdout.splitlines()
    assert type_.stdout == "std_srvs/srv/SetBool\n"
    assert actions.stdout == "/look [tf2_msgs/action/LookupTransform]\n"
    assert info.stdout.splitlines() == [
        "Action: /look",
        "Action clients: 0",
        "Action servers: 1",
        "    /server",
    ]
    assert field.returncode != 0
    assert unknown.returncode != 0
    assert "type is invalid" in unknown.stderr


def test_service_call(ros2, server):
    done = ros2.run("service", "call", "/switch", "std_srvs/srv/SetBool", "{data: true}")
    assert done.returncode == 0
    assert "requester: making request: std_srvs.srv.SetBool_Request(data=True)\n" in done.stdout
    assert (
        "response:\nstd_srvs.srv.SetBool_Response(success=True, message='is True')" in done.stdout
    )


def test_action_goal_with_feedback(ros2, server):
    done = ros2.run(
        *["action", "send_goal", "--feedback", "/look", "tf2_msgs/action/LookupTransform"],
        "{source_frame: tool, timeout: {sec: 2}}",
    )
    assert done.returncode == 0
    assert "Sending goal:\n     target_frame: ''\nsource_frame: tool\n" in done.stdout
    assert "Goal accepted with ID: " in done.stdout
    assert "Feedback:\n" in done.stdout
    assert "child_frame_id: tool" in done.stdout
    assert done.stdout.endswith("Goal finished with status: SUCCEEDED\n")


def test_a_rejected_goal_says_so(ros2, server):
    done = ros2.run(
        *SEND_GOAL,
        "{source_frame: 'no'}",
    )
    assert "Goal was rejected." in done.stdout + done.stderr


@pytest.mark.skipif(not STAND_IN, reason="the real send_goal 0.32.2 loses its context on Ctrl-C")
def test_ctrl_c_cancels_the_goal(ros2, server):
    process = ros2.start(
        *SEND_GOAL,
        "{source_frame: wait}",
    )
    assert any("Goal accepted" in line for line in iter(process.stdout.readline, ""))
    output = ros2.interrupt(process)
    assert "Canceling goal..." in output.stdout
    assert server.cancelled.wait(10.0)
