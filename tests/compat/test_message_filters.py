"""message_filters: which messages are paired, and which never are."""

from functools import partial
from pathlib import Path

import message_filters
import pytest
from builtin_interfaces.msg import Time
from message_filters import (
    ApproximateTimeSynchronizer,
    SimpleFilter,
    Subscriber,
    TimeSynchronizer,
)
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, String

STAND_IN = "compat" in Path(message_filters.__file__).parts


def image(milliseconds):
    seconds, rest = divmod(milliseconds, 1000)
    return Image(header=Header(stamp=Time(sec=seconds, nanosec=rest * 1_000_000)))


def milliseconds(message):
    return message.header.stamp.sec * 1000 + message.header.stamp.nanosec // 1_000_000


def synchronised(make, n_inputs=2):
    """Return the inputs of a synchroniser and the sets it hands on, as milliseconds."""
    inputs, sets = [SimpleFilter() for _ in range(n_inputs)], []
    synchroniser = make(inputs)
    synchroniser.registerCallback(lambda *messages: sets.append([*map(milliseconds, messages)]))
    return inputs, sets


def feed(inputs, *pairs):
    for index, stamp in pairs:
        inputs[index].signalMessage(image(stamp))


def exact(queue_size=10):
    return partial(TimeSynchronizer, queue_size=queue_size)


def approximate(slop, queue_size=10):
    return partial(ApproximateTimeSynchronizer, queue_size=queue_size, slop=slop)


def test_callbacks_are_numbered_and_get_their_own_arguments():
    source, calls = SimpleFilter(), []
    assert source.registerCallback(lambda *a: calls.append(a), "x", 1) == 0
    assert source.registerCallback(lambda *a: calls.append(a)) == 1
    source.signalMessage("m")
    assert calls == [("m", "x", 1), ("m",)]


def test_exact_pairs_equal_stamps_only_and_each_message_once():
    inputs, sets = synchronised(exact())
    feed(inputs, (0, 10), (0, 20), (1, 11), (1, 20), (1, 10), (1, 10))
    assert sets == [[20, 20], [10, 10]]


def test_exact_waits_for_every_input():
    inputs, sets = synchronised(exact(), n_inputs=3)
    feed(inputs, (0, 5), (1, 5))
    assert sets == []
    feed(inputs, (2, 5))
    assert sets == [[5, 5, 5]]


def test_a_full_queue_drops_the_oldest_stamp():
    inputs, sets = synchronised(exact(queue_size=2))
    feed(inputs, (0, 30), (0, 10), (0, 20), (1, 10), (1, 20), (1, 30))
    assert sets == [[20, 20], [30, 30]]


def test_approximate_takes_the_nearest_within_slop():
    inputs, sets = synchronised(approximate(slop=0.02))
    feed(inputs, (0, 100), (0, 110), (0, 150), (1, 113))
    assert sets == [[110, 113]]


def test_approximate_keeps_what_it_did_not_use():
    inputs, sets = synchronised(approximate(slop=0.02))
    feed(inputs, (0, 100), (0, 110), (1, 113), (1, 105))
    assert sets == [[110, 113], [100, 105]]


def test_the_span_must_be_less_than_slop():
    inputs, sets = synchronised(approximate(slop=0.01))
    feed(inputs, (0, 100), (1, 110))
    assert sets == []
    feed(inputs, (1, 109))
    assert sets == [[100, 109]]


def test_slop_zero_never_pairs():
    inputs, sets = synchronised(approximate(slop=0.0))
    feed(inputs, (0, 100), (1, 100))
    assert sets == []


def test_approximate_with_three_inputs_checks_the_whole_span():
    inputs, sets = synchronised(approximate(slop=0.02), n_inputs=3)
    feed(inputs, (0, 100), (1, 130), (2, 115))  # each within 20 ms of 115, together 30 ms
    assert sets == []
    feed(inputs, (1, 112))
    assert sets == [[100, 112, 115]]


def test_approximate_with_a_full_queue_forgets_the_oldest():
    inputs, sets = synchronised(approximate(slop=0.02, queue_size=2))
    feed(inputs, (0, 100), (0, 200), (0, 300), (1, 101), (1, 301))
    assert sets == [[300, 301]]


def test_messages_without_a_stamp_need_allow_headerless():
    sets = []
    for allow in (False, True):
        inputs = [SimpleFilter(), SimpleFilter()]
        synchroniser = ApproximateTimeSynchronizer(inputs, 10, 0.5, allow_headerless=allow)
        synchroniser.registerCallback(lambda *messages: sets.append([m.data for m in messages]))
        for source, text in zip(inputs, "ab", strict=True):
            source.signalMessage(String(data=text))
    assert sets == [["a", "b"]]


@pytest.mark.skipif(not STAND_IN, reason="the real synchroniser blocks for ever after this")
def test_a_callback_that_raises_does_not_block_the_next_message():
    inputs, sets = synchronised(exact())
    TimeSynchronizer(inputs, 10).registerCallback(lambda *_: 1 / 0)
    feed(inputs, (0, 10))
    with pytest.raises(ZeroDivisionError):
        feed(inputs, (1, 10))
    with pytest.raises(ZeroDivisionError):
        feed(inputs, (0, 20), (1, 20))
    assert sets == [[10, 10], [20, 20]]


@pytest.mark.ros
def test_subscribers_feed_a_synchroniser(ros2, make_node):
    node, sets = make_node("pairing"), []
    subscribers = [
        Subscriber(node, Image, "color", qos_profile=5),
        Subscriber(node, CameraInfo, "info"),
    ]
    synchroniser = ApproximateTimeSynchronizer(subscribers, queue_size=5, slop=0.05)
    synchroniser.registerCallback(lambda *messages: sets.append([*map(milliseconds, messages)]))
    colour, info = (
        node.create_publisher(Image, "color", 5),
        node.create_publisher(CameraInfo, "info", 5),
    )
    assert ros2.wait_until(
        lambda: colour.get_subscription_count() and info.get_subscription_count()
    )
    colour.publish(image(100))
    info.publish(CameraInfo(header=image(110).header))
    assert ros2.wait_until(lambda: sets == [[100, 110]])
    assert subscribers[0].topic == "color"
