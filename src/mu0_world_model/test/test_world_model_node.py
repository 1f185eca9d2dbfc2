"""The node in a graph of its own: what comes out of what goes in, and what bad input does."""

import faulthandler
import os
import shutil
import sys
import threading
import time

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from visualization_msgs.msg import Marker  # noqa: E402

from mu0_core.camera import Camera  # noqa: E402
from mu0_core.ros import messages  # noqa: E402
from mu0_core.ros.executor import WatchedExecutor  # noqa: E402
from mu0_core.ros.interfaces import (  # noqa: E402
    Qos,
    create_client,
    create_publisher,
    create_subscription,
)
from mu0_core.traces import Keypoints, KeypointSource  # noqa: E402
from mu0_msgs.srv import PredictTraces  # noqa: E402
from mu0_world_model.loading import SharedPredictor  # noqa: E402
from mu0_world_model.nodes.world_model_node import WorldModelNode  # noqa: E402

pytestmark = pytest.mark.ros

CAMERA = Camera.from_fovy(1.0, 64, 48)
COLOUR = "camera/color/image_raw"
OUTPUTS = ("mu0/traces", "mu0/markers", "mu0/overlay")


class Graph:
    """Run a world model in threads, feed it and watch it from a node of its own."""

    def __init__(self, **parameters):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=101 + os.getpid() % 100)
        overrides = {"predictor": "constant_velocity"} | parameters
        self.model = WorldModelNode(
            context=self.context,
            parameter_overrides=[Parameter(name, value=v) for name, v in overrides.items()],
        )
        self.server = WatchedExecutor(2, context=self.context)
        self.server.add_node(self.model)
        self.thread = threading.Thread(target=self.server.spin, daemon=True)
        self.thread.start()
        self.node = rclpy.create_node("user", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.put = {
            name: create_publisher(self.node, name)
            for name in (COLOUR, "mu0/keypoints", "mu0/instruction")
        }
        if parameters.get("compressed"):
            self.put[COLOUR] = self.node.create_publisher(
                CompressedImage, f"{COLOUR}/compressed", Qos.SENSOR.profile
            )
        self.got = {name: [] for name in (*OUTPUTS, "status")}
        self.watched = {}
        self.watch("mu0/traces")
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_status, 10)

    def watch(self, name):
        self.watched[name] = create_subscription(self.node, name, self.got[name].append)

    def unwatch(self, name):
        self.node.destroy_subscription(self.watched.pop(name))

    def _on_status(self, message):
        self.got["status"] += [s for s in message.status if s.name == "/world_model"]

    def activate(self):
        self.model.trigger_configure()
        assert self.model.state == "inactive"
        self.model.trigger_activate()
        assert self.model.state == "active"
        self.spin_until(
            lambda: (
                self.put[COLOUR].get_subscription_count()
                and self.put["mu0/keypoints"].get_subscription_count()
            )
        )

    def spin_until(self, predicate, deadline_s=20.0):
        end_s = time.monotonic() + deadline_s
        while not predicate():
            if time.monotonic() > end_s:
                give_up("nothing happened")
            self.executor.spin_once(timeout_sec=0.05)

    def feed(self, stamp_ns, keypoints=None, picture=None):
        """Publish a picture and keypoints of one stamp."""
        self.put[COLOUR].publish(picture or image(stamp_ns))
        self.put["mu0/keypoints"].publish(keypoints or message_of(stamp_ns))

    def answer(self, stamp_ns, **inputs):
        """Feed, and return the traces of that stamp; best-effort pictures may need a repeat."""
        end_s = time.monotonic() + 20.0

        def answers():
            return [t for t in self.got["mu0/traces"] if ns(t) == stamp_ns]

        while not answers():
            if time.monotonic() > end_s:
                give_up("no traces")
            self.feed(stamp_ns, **inputs)
            self.executor.spin_once(timeout_sec=0.1)
        return messages.traces_from_message(answers()[-1])

    def complaint(self, text, feed, deadline_s=20.0):
        """Repeat an input until /diagnostics says a text; return the status."""
        end_s = time.monotonic() + deadline_s

        def found():
            return [s for s in self.got["status"] if text in s.message]

        while not found():
            if time.monotonic() > end_s:
                last = self.got["status"][-1].message if self.got["status"] else "nothing"
                give_up(f"/diagnostics says {last}")
            feed()
            self.executor.spin_once(timeout_sec=0.1)
        return found()[-1]

    def close(self):
        if self.model.state != "finalized":
            self.model.trigger_shutdown()
        self.server.shutdown()
        self.executor.shutdown()
        self.thread.join(10.0)
        self.model.destroy_node()
        self.node.destroy_node()
        self.context.shutdown()


def give_up(text):
    """Fail, and show where all threads are."""
    faulthandler.dump_traceback(sys.__stderr__)
    pytest.fail(text)


def ns(message):
    return messages.ns_from_stamp(message.header.stamp)


def image(stamp_ns, shape=(48, 64, 3), encoding="rgb8", dtype=np.uint8):
    pixels = np.full(shape, 90, dtype)
    stamp = messages.stamp_from_ns(stamp_ns)
    return messages.image_from_array(pixels, encoding, stamp=stamp, frame_id="optical")


def message_of(stamp_ns, n=3, **changes):
    """Keypoints one metre away that have come from the left, 2 px a step."""
    uvz = np.column_stack([np.full(n, 20.0), np.linspace(10, 40, n), np.ones(n)])
    back = np.arange(8, 0, -1)[:, None] * [-2.0, 0.0, 0.0]
    values = {
        "stamp_ns": stamp_ns,
        "frame_id": "optical",
        "camera": CAMERA,
        "arc_step": 0.02,
        "ids": np.arange(5, 5 + n, dtype=np.uint32),
        "cluster_ids": np.zeros(n, np.int32),
        "source": np.full(n, KeypointSource.ENTITY, np.uint8),
        "uv": uvz[:, :2].astype(np.float32),
        "z": uvz[:, 2].astype(np.float32),
        "visible": np.ones(n, bool),
        "history_uvz": (uvz[:, None] + back).astype(np.float32),
        "history_valid": np.ones((n, 8), bool),
    }
    return messages.keypoints_message(Keypoints(**(values | changes)))


def compressed_image(stamp_ns):
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1]
    message = CompressedImage(format="rgb8; jpeg compressed bgr8")
    message.data = jpeg.tobytes()
    message.header.stamp = messages.stamp_from_ns(stamp_ns)
    return message


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Let nodes say how they are ten times a second, which tests wait for."""
    monkeypatch.setattr("mu0_core.ros.lifecycle.DIAGNOSTICS_PERIOD_S", 0.1)
    monkeypatch.setattr("mu0_world_model.nodes.world_model_node._HEALTH_PERIOD_S", 0.3)


@pytest.fixture
def graph():
    made = []

    def make(**parameters):
        made.append(Graph(**parameters))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_traces_carry_stamp_frame_ids_and_the_latched_instruction(graph):
    graph = graph()
    graph.put["mu0/instruction"].publish(String(data="lift the cube"))
    graph.activate()
    graph.spin_until(lambda: graph.model._instruction == "lift the cube")
    traces = graph.answer(1_500_000_000)
    assert (traces.stamp_ns, traces.frame_id) == (1_500_000_000, "optical")
    assert (traces.instruction, traces.model) == ("lift the cube", "constant_velocity")
    assert traces.ids.tolist() == [5, 6, 7] and traces.arc_step == pytest.approx(0.02)
    uvz = np.asarray(CAMERA.project(traces.xyz[0, 0, :3]))
    np.testing.assert_allclose(uvz[:, 0], [22.0, 24.0, 26.0], atol=0.01)
    graph.spin_until(lambda: any(s.message == "predicting" for s in graph.got["status"]))
    status = [s for s in graph.got["status"] if s.message == "predicting"][-1]
    figures = {value.key: value.value for value in status.values}
    assert status.level == DiagnosticStatus.OK
    assert (figures["keypoints"], figures["instruction"]) == ("3", "lift the cube")
    stages = ("convert_ms", "predict_ms", "publish_ms", "display_ms", "latency_ms")
    assert all(float(figures[stage]) >= 0.0 for stage in stages)


def test_compressed_pictures_do_as_well(graph):
    graph = graph(compressed=True)
    graph.activate()
    traces = graph.answer(1_500_000_000, picture=compressed_image(1_500_000_000))
    assert traces.ids.tolist() == [5, 6, 7]
    graph.complaint(
        "no colour images on /camera/color/image_raw/compressed",
        lambda: graph.put["mu0/keypoints"].publish(message_of(2_000_000_000)),
    )


def test_pictures_and_keypoints_of_different_stamps_are_not_mixed(graph):
    graph = graph()
    graph.activate()

    def unequal():
        graph.put[COLOUR].publish(image(1_000_000_000))
        graph.put["mu0/keypoints"].publish(message_of(2_000_000_000))

    graph.complaint("has the stamp of keypoints on /mu0/keypoints", unequal)
    assert graph.got["mu0/traces"] == []
    # The picture of the keypoints that wait comes late.
    graph.put[COLOUR].publish(image(2_000_000_000))
    graph.spin_until(lambda: graph.got["mu0/traces"])
    assert ns(graph.got["mu0/traces"][0]) == 2_000_000_000


def test_a_clock_that_jumps_back_is_followed(graph):
    graph = graph()
    graph.activate()
    assert graph.answer(90_000_000_000).n == 3
    assert graph.answer(1_000_000_000).n == 3


def test_the_newest_picture_wins_and_the_others_are_counted(graph, monkeypatch):
    graph = graph()
    graph.activate()
    busy, go_on = threading.Event(), threading.Event()
    predict = SharedPredictor.predict

    def slow(*arguments, **named):
        busy.set()
        assert go_on.wait(20.0)
        return predict(*arguments, **named)

    monkeypatch.setattr(SharedPredictor, "predict", slow)
    graph.feed(1_000_000_000)
    graph.spin_until(busy.is_set)
    dropped = graph.model._inbox.dropped
    for stamp_ns in (2_000_000_000, 3_000_000_000, 4_000_000_000):
        graph.feed(stamp_ns)
    graph.spin_until(lambda: graph.model._inbox.dropped >= dropped + 2)
    before = len(graph.got["status"])
    graph.spin_until(lambda: len(graph.got["status"]) > before)  # a prediction blocks nothing
    go_on.set()
    graph.spin_until(lambda: len(graph.got["mu0/traces"]) == 2)
    assert [ns(t) for t in graph.got["mu0/traces"]] == [1_000_000_000, 4_000_000_000]


def test_markers_and_overlay_only_for_those_who_look(graph):
    graph = graph(samples=2)
    graph.activate()
    graph.answer(1_000_000_000)
    assert graph.model._display._shown is None, "nobody looks, nothing is drawn"
    graph.watch("mu0/markers")
    graph.watch("mu0/overlay")
    stamps = iter(range(2_000_000_000, 9_000_000_000, 100_000_000))

    def feed_until(predicate):
        while not predicate():
            graph.answer(next(stamps))
        return graph.got["mu0/markers"][-1].markers

    markers = feed_until(lambda: graph.got["mu0/markers"] and graph.got["mu0/overlay"])
    first = graph.got["mu0/markers"][0].markers
    assert first[0].action == Marker.DELETEALL
    lines = [m for m in markers if m.type == Marker.LINE_STRIP and m.action == Marker.ADD]
    assert sorted((m.ns, m.id) for m in lines) == [
        (f"sample {sample}", number) for sample in (0, 1) for number in (5, 6, 7)
    ]
    assert all(len(m.points) == len(m.colors) == 33 for m in lines)
    assert {m.header.frame_id for m in lines} == {"optical"}
    assert {(m.ns, m.color.a == 1.0) for m in lines} == {("sample 0", True), ("sample 1", False)}
    (dots,) = [m for m in markers if m.type == Marker.SPHERE_LIST]
    assert len(dots.points) == 3
    picture = graph.got["mu0/overlay"][-1]
    assert (picture.width, picture.height, picture.encoding) == (640, 480, "rgb8")
    assert picture.header.frame_id == "optical"
    # A keypoint that is gone takes its lines with it.
    stamp_ns = next(stamps)
    graph.answer(stamp_ns, keypoints=message_of(stamp_ns, n=2))
    graph.spin_until(lambda: ns(graph.got["mu0/markers"][-1].markers[-1]) == stamp_ns)
    gone = [m for m in graph.got["mu0/markers"][-1].markers if m.action == Marker.DELETE]
    assert sorted((m.ns, m.id) for m in gone) == [("sample 0", 7), ("sample 1", 7)]
    # Deactivating leaves nothing in the viewer.
    graph.model.trigger_deactivate()
    graph.spin_until(
        lambda: [m.action for m in graph.got["mu0/markers"][-1].markers] == [Marker.DELETEALL]
    )


def _bad_inputs():
    yield "zero", {"keypoints": message_of(7, n=0)}, "none of 0 keypoints can be used"
    broken = message_of(7)
    broken.n = 9
    yield "broken", {"keypoints": broken}, "expected 9 values for shape (9,), got 3"
    yield (
        "size",
        {"picture": image(7, (24, 32, 3))},
        "expected 64 x 48 px as the keypoints say, got 32 x 24",
    )
    yield (
        "encoding",
        {"picture": image(7, (48, 64), "mono8")},
        "expected encoding rgb8 or bgr8, got 'mono8'",
    )
    uv = np.full((3, 2), np.nan, np.float32)
    yield "nan", {"keypoints": message_of(7, uv=uv)}, "none of 3 keypoints can be used"
    k = message_of(7)
    k.k[0] = 0.0
    yield "intrinsics", {"keypoints": k}, "camera intrinsics"


@pytest.mark.parametrize(
    ("inputs", "text"), [(i, t) for _, i, t in _bad_inputs()], ids=[n for n, *_ in _bad_inputs()]
)
def test_bad_input_is_said_and_good_input_goes_on(graph, inputs, text):
    graph = graph()
    graph.activate()
    status = graph.complaint(text, lambda: graph.feed(7, **inputs))
    assert status.level == DiagnosticStatus.WARN
    assert graph.got["mu0/traces"] == []
    assert graph.answer(9).n == 3
    assert graph.model.state == "active"


def test_single_keypoints_that_cannot_be_used_are_left_out(graph):
    graph = graph()
    graph.activate()
    uv = np.array([[10, 10], [-5, 10], [10, 10], [np.inf, 1]], np.float32)
    z = np.array([1.0, 1.0, np.nan, 1.0], np.float32)
    traces = graph.answer(9, keypoints=message_of(9, n=4, uv=uv, z=z))
    assert traces.ids.tolist() == [5, 7]
    assert np.isfinite(traces.xyz[0, 0]).all() and np.isnan(traces.xyz[0, 1]).all()
    graph.complaint("1 keypoints left out: not finite", lambda: None)


def test_silence_and_a_missing_instruction_are_said(graph):
    graph = graph()
    graph.activate()
    graph.complaint("no colour images on /camera/color/image_raw", lambda: None)
    graph.complaint("no keypoints on /mu0/keypoints", lambda: graph.put[COLOUR].publish(image(3)))
    graph.answer(9)
    status = graph.complaint("no instruction on /mu0/instruction", lambda: None)
    assert status.level == DiagnosticStatus.WARN


def request(**changes):
    values = {
        "color": image(8),
        "camera_info": messages.camera_info_message(
            CAMERA, stamp=messages.stamp_from_ns(8), frame_id="optical"
        ),
        "instruction": "lift",
        "seed": -1,
    }
    return PredictTraces.Request(**(values | changes))


def test_the_service_predicts_from_one_picture(graph):
    graph = graph(samples=3)
    graph.activate()
    client = create_client(graph.node, "mu0/predict_traces")

    def call(**changes):
        future = client.call_async(request(**changes))
        graph.spin_until(future.done)
        return future.result()

    graph.spin_until(client.service_is_ready)
    depth = image(8, (48, 64), "32FC1", np.float32)
    answer = call(depth=depth, uv=[10.0, 20.0, 30.0, 40.0])
    assert answer.success and answer.message == ""
    traces = messages.traces_from_message(answer.traces)
    assert (traces.n, traces.s, traces.instruction, traces.stamp_ns) == (2, 3, "lift", 8)
    np.testing.assert_allclose(traces.current_xyz[:, 2], 90.0)
    assert call(samples=1).traces.n == 64, "a grid without points"
    refused = {
        "picture, got [64.0, 10.0] px": {"uv": [64.0, 10.0]},
        "expected u, v of each point, got 3 numbers": {"uv": [1.0, 2.0, 3.0]},
        "not calibrated": {"camera_info": type(request().camera_info)()},
        "color: expected 64 x 48 px": {"color": image(8, (24, 32, 3))},
        "depth image: expected 48 rows": {"depth": image(8, (24, 32), "32FC1", np.float32)},
        "expected encoding 16UC1 (mm) or 32FC1 (m)": {"depth": image(8)},
    }
    for text, changes in refused.items():
        answer = call(**changes)
        assert not answer.success and text in answer.message


@pytest.fixture
def folder(golden, tmp_path):
    """A checkpoint folder as a user has it: weights, configuration, statistics, tokenizer."""
    for source in (golden / "checkpoint", golden / "tiny_smolvlm"):
        for path in source.iterdir():
            if source.name == "checkpoint" or path.name.startswith("tokenizer"):
                shutil.copy(path, tmp_path / path.name)
    shutil.copy(golden / "normalizer_stats.json", tmp_path)
    for name in ("tiny_smolvlm", "tiny_dinov2"):
        (tmp_path / name).mkdir()
        shutil.copy(golden / name / "config.json", tmp_path / name)
    return tmp_path


def test_a_checkpoint_predicts_and_tells_a_wrong_arc_step_and_missing_depth(graph, folder):
    graph = graph(predictor="model", checkpoint=str(folder))
    graph.activate()
    graph.complaint("arc_step: expected 0.05", lambda: graph.feed(7))
    traces = graph.answer(9, keypoints=message_of(9, arc_step=0.05))
    assert traces.model == folder.name and traces.stage_names[-1] == "decode"
    graph.complaint("an image without depth", lambda: None)
    again = graph.answer(10, keypoints=message_of(10, arc_step=0.05))
    np.testing.assert_array_equal(traces.xyz, again.xyz)  # one seed, one noise


def test_a_checkpoint_that_is_cut_off_is_refused(graph, folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    graph = graph(predictor="model", checkpoint=str(folder))
    graph.model.trigger_configure()
    assert graph.model.state == "unconfigured"
    graph.complaint("model.safetensors: is no complete safetensors file", lambda: None)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"checkpoint": "mu0-tyni"}, "unknown shipped checkpoint 'mu0-tyni'"),
        ({"checkpoint": "/nowhere/mu0"}, "/nowhere/mu0: expected a checkpoint folder"),
        ({"checkpoint": "{tmp}/"}, "config.json: cannot be read"),
        ({"device": "cuda:7"}, "device: expected one that torch can use here, such as cpu, got"),
    ],
    ids=["name", "folder", "broken", "device"],
)
def test_a_checkpoint_that_cannot_be_had_is_refused_and_said(graph, tmp_path, parameters, text):
    filled = {name: value.format(tmp=tmp_path) for name, value in parameters.items()}
    graph = graph(predictor="model", **filled)
    graph.model.trigger_configure()
    assert graph.model.state == "unconfigured"
    graph.complaint(text, lambda: None)


def test_features_are_of_the_keypoints_that_traces_are_of(graph, folder):
    graph = graph(predictor="model", checkpoint=str(folder))
    topic = "mu0/trace_features"
    graph.got[topic] = []
    graph.watch(topic)
    graph.activate()
    graph.spin_until(lambda: graph.model._features._publisher.get_subscription_count())
    keypoints = message_of(9, arc_step=0.05)
    graph.answer(9, keypoints=keypoints)
    graph.spin_until(lambda: graph.got[topic])
    found = messages.features_from_message(graph.got[topic][0])
    assert found.stamp_ns == 9 and ", keypoints 32, " in found.model
    uv = 2.0 * np.reshape(keypoints.uv, (-1, 2)) / (CAMERA.width, CAMERA.height) - 1.0
    np.testing.assert_allclose(found.tensors["places"][:, :2], uv, atol=1e-3)
    assert len(found.tensors["traces"]) == len(uv) == 3
