"""Record, play and inspect bags."""

import argparse
import contextlib
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
import yaml
from rclpy.duration import Duration
from rclpy.event_handler import QoSMessageLostInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosgraph_msgs.msg import Clock

from ros2cli import bags, qos
from ros2cli.graph import absolute, cli_node, stop_on_signals, visible
from ros2cli.interfaces import load_interface
from ros2cli.verbs import CommandError, Verbs, main, positive_float

__all__ = ["add_arguments", "main"]

_POLL_SECONDS = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = Verbs(parser)
    record = verbs.add("record", record_bag)
    record.add_argument("topics_positional", nargs="*", metavar="topic", default=[])
    record.add_argument("--topics", nargs="+", default=[], metavar="topic")
    record.add_argument("-a", "--all", action="store_true", help="every topic that is not hidden")
    record.add_argument("--exclude-topics", nargs="+", default=[], metavar="topic")
    record.add_argument("-o", "--output", help="folder to make (default: named by the time)")
    record.add_argument("-s", "--storage", choices=["mcap", "sqlite3"], default="mcap")
    record.add_argument("--include-hidden-topics", action="store_true")
    record.add_argument("--compression-mode", choices=["none"], default="none")
    record.add_argument("--use-sim-time", action="store_true", help="stamp messages by /clock")

    play = verbs.add("play", play_bag)
    play.add_argument("bag_path", type=_bag_path)
    play.add_argument("-r", "--rate", type=positive_float, default=1.0, metavar="FACTOR")
    play.add_argument("--topics", nargs="+", default=[], metavar="topic", help="only these")
    play.add_argument("-m", "--remap", nargs="+", default=[], metavar="old:=new")
    play.add_argument("-l", "--loop", action="store_true", help="start again at the end")
    play.add_argument("-d", "--delay", type=float, default=0.0, metavar="S", help="wait first")
    play.add_argument("--start-offset", type=float, default=0.0, metavar="S")
    play.add_argument(
        "--clock",
        type=positive_float,
        nargs="?",
        const=40.0,
        metavar="HZ",
        help="publish the bag's time on /clock (default rate: 40) instead of a recorded /clock",
    )

    info = verbs.add("info", show_info)
    info.add_argument("bag_path", type=_bag_path)


def _bag_path(text: str) -> Path:
    path = Path(text)
    if not (path / "metadata.yaml").is_file():
        raise argparse.ArgumentTypeError(f"'{text}' is not a bag: no metadata.yaml in it")
    return path


def record_bag(args: argparse.Namespace) -> None:
    """Record topics to a bag until interrupted."""
    topics = [absolute(topic) for topic in args.topics + args.topics_positional]
    if bool(topics) == args.all:
        raise CommandError("[ERROR] [ros2bag]: Need to specify either --all or topics")
    path = Path(args.output or datetime.now().strftime("rosbag2_%Y_%m_%d-%H_%M_%S"))
    if path.exists():
        raise CommandError(f"[ERROR] [ros2bag]: Output folder '{path}' already exists.")
    stop = stop_on_signals()
    with cli_node(args, "rosbag2_recorder", SignalHandlerOptions.NO) as node:
        writer = Writer(path, version=9, storage_plugin=StoragePlugin[args.storage.upper()])
        writer.open()
        recorder = Recorder(
            node,
            writer,
            topics,
            left_out={absolute(topic) for topic in args.exclude_topics},
            include_hidden=args.include_hidden_topics,
        )
        try:
            next_poll = 0.0
            while not stop:
                if time.monotonic() >= next_poll:
                    recorder.subscribe_to_new_topics()
                    next_poll = time.monotonic() + _POLL_SECONDS
                rclpy.spin_once(node, timeout_sec=_POLL_SECONDS)
        finally:
            writer.close()
            recorder.report()


class Recorder:
    """Subscribes to topics as they appear and writes what arrives, without deserialising it."""

    def __init__(
        self,
        node: Node,
        writer: Writer,
        topics: list[str],
        *,
        left_out: set[str],
        include_hidden: bool,
    ) -> None:
        self._node = node
        self._left_out = left_out
        self._writer = writer
        self._topics = topics
        self._include_hidden = include_hidden
        self._counts: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        node.get_logger().info("Recording...")

    def subscribe_to_new_topics(self) -> None:
        """Subscribe to each wanted topic once it has a publisher."""
        hidden_too = self._include_hidden or bool(self._topics)
        for topic, types in visible(
            self._node.get_topic_names_and_types(), include_hidden=hidden_too
        ):
            wanted = topic in self._topics if self._topics else topic not in self._left_out
            if topic in self._counts or not wanted:
                continue
            if publishers := self._node.get_publishers_info_by_topic(topic):
                self._counts[topic] = 0
                try:
                    self._subscribe(topic, types[0], publishers)
                except (CommandError, OSError) as error:
                    self._node.get_logger().warning(f"Not recording '{topic}': {error}")

    def _subscribe(self, topic: str, type_name: str, publishers: list) -> None:
        connection = self._writer.add_connection(
            topic,
            type_name,
            msgdef=bags.message_definition(type_name),
            rihs01=str(publishers[0].topic_type_hash),
            offered_qos_profiles=[bags.stored_qos(p.qos_profile) for p in publishers],
        )
        self._node.create_subscription(
            load_interface(type_name, "msg"),
            topic,
            partial(self._write, connection),
            qos.fitting(bags.recording_qos(), publishers),
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(
                message_lost=partial(self._count_lost, topic)
            ),
        )
        self._node.get_logger().info(f"Subscribed to topic '{topic}'")

    def _write(self, connection: Any, data: bytes) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        if now_ns > 0:  # simulated time is 0 until /clock arrives
            self._writer.write(connection, now_ns, data)
            self._counts[connection.topic] += 1

    def _count_lost(self, topic: str, event: QoSMessageLostInfo) -> None:
        self._lost[topic] = event.total_count

    def report(self) -> None:
        """Log what was recorded and what was not."""
        logger = self._node.get_logger()
        for topic in sorted(set(self._topics) | set(self._counts)):
            if self._topics and not self._counts.get(topic):
                logger.warning(f"Nothing was received on '{topic}'")
        for topic, count in sorted(self._lost.items()):
            logger.warning(f"{count} messages were lost on '{topic}'")
        logger.info(f"Recording stopped: {sum(self._counts.values())} messages")


def play_bag(args: argparse.Namespace) -> None:
    """Publish a bag's messages in their rhythm."""
    names = _remapped(args.remap)
    with (
        Reader(args.bag_path) as reader,
        cli_node(args, "rosbag2_player", SignalHandlerOptions.NO) as node,
        contextlib.suppress(KeyboardInterrupt),
    ):
        skipped = {"/clock"} if args.clock else set()
        wanted = {absolute(topic) for topic in args.topics} or set(reader.topics)
        if unknown := wanted - set(reader.topics):
            raise CommandError(f"Not in the bag: {sorted(unknown)}; it has {list(reader.topics)}")
        chosen = [c for c in reader.connections if c.topic in wanted - skipped]
        publishers = {
            c.id: node.create_publisher(
                load_interface(c.msgtype, "msg"),
                names.get(c.topic, c.topic),
                bags.playing_qos(c.ext.offered_qos_profiles),  # type: ignore[union-attr]
            )
            for c in chosen
        }
        player = Player(node, args.rate, args.clock)
        while True:
            time.sleep(args.delay)
            start_ns = reader.start_time + int(args.start_offset * 1e9)
            for connection, data in player.paced(reader.messages(chosen, start_ns), start_ns):
                publishers[connection.id].publish(data)
            if not args.loop:
                break
        for publisher in publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=1))


def _remapped(rules: list[str]) -> dict[str, str]:
    pairs = [rule.partition(":=") for rule in rules]
    if wrong := [rule for rule, pair in zip(rules, pairs, strict=True) if not pair[1]]:
        raise CommandError(f"--remap expects old:=new, got {wrong}")
    return {absolute(old): absolute(new) for old, _, new in pairs}


class Player:
    """Keeps a bag's time: releases messages when they are due and publishes /clock."""

    def __init__(self, node: Node, rate: float, clock_hz: float | None) -> None:
        self._rate = rate
        self._period = 1.0 / clock_hz if clock_hz else None
        if self._period is not None:
            best_effort = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
            self._clock = node.create_publisher(Clock, "/clock", best_effort)

    def paced(self, messages: Iterator, start_ns: int) -> Iterator[tuple[Any, bytes]]:
        """Yield (connection, data) of each message at its time."""
        begin = next_tick = time.monotonic()
        for connection, stamp_ns, data in messages:
            due = begin + (stamp_ns - start_ns) * 1e-9 / self._rate
            while self._period is not None and next_tick <= due:
                _sleep_until(next_tick)
                now_ns = start_ns + int((next_tick - begin) * self._rate * 1e9)
                self._clock.publish(Clock(clock=Time(nanoseconds=now_ns).to_msg()))
                next_tick += self._period
            _sleep_until(due)
            yield connection, bytes(data)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def show_info(args: argparse.Namespace) -> None:
    """Print information about a bag."""
    text = (args.bag_path / "metadata.yaml").read_text(encoding="utf-8")
    meta = yaml.safe_load(text)["rosbag2_bagfile_information"]
    files = meta["relative_file_paths"]
    size = sum((args.bag_path / name).stat().st_size for name in files)
    start_ns = meta["starting_time"]["nanoseconds_since_epoch"] if meta["message_count"] else 0
    duration_ns = meta["duration"]["nanoseconds"]
    topics = [
        f"Topic: {topic['topic_metadata']['name']} | Type: {topic['topic_metadata']['type']} | "
        f"Count: {topic['message_count']} | "
        f"Serialization Format: {topic['topic_metadata']['serialization_format']}"
        for topic in meta["topics_with_message_count"]
    ]
    rows = {
        "Files": f"\n{'':19}".join(files),
        "Bag size": _readable_size(size),
        "Storage id": meta["storage_identifier"],
        "ROS Distro": meta.get("ros_distro") or "unknown",
        "Duration": f"{duration_ns // 10**9}.{duration_ns % 10**9:09d}s",
        "Start": _readable_time(start_ns),
        "End": _readable_time(start_ns + duration_ns),
        "Messages": meta["message_count"],
        "Topic information": f"\n{'':19}".join(topics),
    }
    print()
    for title, value in rows.items():
        print(f"{title + ':':<18} {value}")


def _readable_size(size: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _readable_time(stamp_ns: int) -> str:
    seconds, rest = divmod(stamp_ns, 10**9)
    local = datetime.fromtimestamp(seconds).strftime("%b %e %Y %H:%M:%S")
    return f"{local}.{rest:09d} ({seconds}.{rest:09d})"
