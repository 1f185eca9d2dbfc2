"""Keypoints, picture and depth of one moment come together, in whatever order they arrive."""

import pytest
from sensor_msgs.msg import Image

from mu0_core.ros.messages import stamp_from_ns
from mu0_msgs.msg import KeypointArray
from mu0_world_model.nodes import picture_input
from mu0_world_model.nodes.picture_input import COLOUR, DEPTH, KEYPOINTS, PictureInput

MS = 1_000_000


class Bus:
    """Stand in for a node: messages are handed over by hand, and so is the clock."""

    def __init__(self, monkeypatch):
        self.now_s, self.callbacks = 0.0, {}
        monkeypatch.setattr(picture_input.time, "monotonic", lambda: self.now_s)

    def create_subscription(self, kind, topic, callback, *_, **__):
        self.callbacks[topic] = callback

    def create_timer(self, period_s, callback, **_):
        self.callbacks["timer"] = callback

    def put(self, topic, stamp_ns):
        message = KeypointArray() if topic == KEYPOINTS else Image()
        message.header.stamp = stamp_from_ns(stamp_ns)
        self.callbacks[topic](message)

    def wait(self, seconds):
        self.now_s += seconds
        self.callbacks["timer"]()


@pytest.fixture
def bus(monkeypatch):
    return Bus(monkeypatch)


@pytest.fixture
def queries(bus):
    got = []
    PictureInput(bus, got.append, depth=True, compressed=False)
    for topic in (DEPTH, COLOUR, KEYPOINTS):
        bus.put(topic, 1000 * MS)
    assert len(got) == 1 and got.pop().depth is not None
    return got


def test_a_picture_waits_for_its_depth(bus, queries):
    for topic in (COLOUR, KEYPOINTS):
        bus.put(topic, 1100 * MS)
    bus.wait(0.05)
    assert queries == []
    bus.put(DEPTH, 1100 * MS)
    assert len(queries) == 1 and queries[0].depth is not None


def test_it_does_not_wait_for_long(bus, queries):
    for topic in (COLOUR, KEYPOINTS):
        bus.put(topic, 1100 * MS)
    bus.wait(0.11)
    assert len(queries) == 1 and queries[0].depth is None


@pytest.mark.parametrize("gap_ns", [-100 * MS, 700 * MS])
def test_it_does_not_wait_for_depth_that_has_passed_or_has_ended(bus, queries, gap_ns):
    for topic in (COLOUR, KEYPOINTS):
        bus.put(topic, 1000 * MS + gap_ns)
    assert len(queries) == 1 and queries[0].depth is None


def test_without_any_depth_nothing_waits(bus):
    got = []
    PictureInput(bus, got.append, depth=True, compressed=False)
    for topic in (COLOUR, KEYPOINTS):
        bus.put(topic, 1000 * MS)
    assert len(got) == 1 and got[0].depth is None
