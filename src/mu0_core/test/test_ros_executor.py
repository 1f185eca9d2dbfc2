"""The executor of several threads: what callbacks raise comes out, also when nothing follows."""

import os
import threading
import time
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
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
        raise RuntimeError("cannot be taken")

    node.create_subscription(String, "input", lambda message: None, 1)
    node.create_timer(0.01, lambda: publisher.publish(String()))
    publisher = node.create_publisher(String, "input", 1)
    monkeypatch.setattr(executor, "_take_subscription", refuse)
    with pytest.raises(RuntimeError, match="cannot be taken"):
        spin_for(executor, 5.0)


def test_entities_may_come_and_go_in_another_thread(spinning):
    node, executor = spinning
    ended, turns = threading.Event(), []

    def come_and_go():
        for _ in range(200):
            subscription = node.create_subscription(String, "input", lambda message: None, 1)
            publisher = node.create_publisher(String, "input", 1)
            publisher.publish(String())
            node.destroy_subscription(subscription)
            node.destroy_publisher(publisher)
        ended.set()

    node.create_timer(0.01, lambda: turns.append(0))
    thread = threading.Thread(target=come_and_go)
    thread.start()
    while not ended.is_set():
        executor.spin_once()
    thread.join()
    before = len(turns)
    spin_for(executor, 0.5)
    assert len(turns) > before  # what was destroyed left no callback group occupied


def test_a_destroyed_entity_costs_one_turn(spinning, monkeypatch, capfd):
    _, executor = spinning

    def destroyed(*arguments):
        raise InvalidHandle("destruction was requested")

    with monkeypatch.context() as patch:
        patch.setattr(executor, "wait_for_ready_callbacks", destroyed)
        executor.spin_once()
    executor.spin_once()
    assert "destruction was requested" in capfd.readouterr().err
