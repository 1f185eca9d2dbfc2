"""The executor of several threads: what callbacks raise comes out, also when nothing follows."""

import os
import time
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String

from mu0_core.ros.executor import WatchedExecutor

pytestmark = pytest.mark.ros


@pytest.fixture
def spinning() -> Iterator[tuple[Node, WatchedExecutor]]:
    context = Context()
    rclpy.init(context=context, domain_id=10 + os.getpid() % 90)
    node = rclpy.create_node("watched", context=context)
    executor = WatchedExecutor(2, context=context)
    executor.add_node(node)
    yield node, executor
    executor.shutdown()
    node.destroy_node()
    context.shutdown()


def spin_for(executor, seconds):
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        executor.spin_once()


def test_a_failure_comes_out_though_no_callback_follows(spinning):
    node, executor = spinning

    def fail():
        timer.cancel()
        time.sleep(0.05)  # longer than it takes to start it
        raise RuntimeError("broken callback")

    timer = node.create_timer(0.01, fail)
    with pytest.raises(RuntimeError, match="broken callback"):
        spin_for(executor, 5.0)


def test_a_message_that_cannot_be_taken_stops_no_node_silently(spinning, monkeypatch):
    node, executor = spinning

    def refuse(subscription):
        time.sleep(0.05)  # the timer is of the same group, so that nothing is started meanwhile
        raise RuntimeError("cannot be taken")

    node.create_subscription(String, "input", lambda message: None, 1)
    node.create_timer(0.01, lambda: publisher.publish(String()))
    publisher = node.create_publisher(String, "input", 1)
    monkeypatch.setattr(executor, "_take_subscription", refuse)
    with pytest.raises(RuntimeError, match="cannot be taken"):
        spin_for(executor, 5.0)


def test_what_is_gone_while_it_is_waited_for_costs_one_turn(spinning, monkeypatch):
    node, executor = spinning
    turns = []
    node.create_timer(0.01, lambda: turns.append(0))

    def gone(*arguments):
        raise InvalidHandle("destruction was requested")

    with monkeypatch.context() as patch:
        patch.setattr(MultiThreadedExecutor, "wait_for_ready_callbacks", gone)
        executor.spin_once()
    spin_for(executor, 0.2)
    assert turns


def test_a_callback_that_uses_what_is_gone_fails(spinning):
    node, executor = spinning
    publisher = node.create_publisher(String, "output", 1)
    node.destroy_publisher(publisher)
    node.create_timer(0.01, lambda: publisher.publish(String()))
    with pytest.raises(InvalidHandle):
        spin_for(executor, 5.0)
