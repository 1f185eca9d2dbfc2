"""Predict traces of live keypoints, and of points in single pictures."""

import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from std_msgs.msg import String

from mu0_core.config import option, validate
from mu0_core.errors import Mu0Error, ShapeError
from mu0_core.ros.inbox import Latest
from mu0_core.ros.interfaces import create_publisher, create_service, create_subscription
from mu0_core.ros.lifecycle import Level, Mu0LifecycleNode, spin
from mu0_core.ros.messages import traces_message
from mu0_core.traces import Traces
from mu0_msgs.srv import PredictTraces
from mu0_world_model.features import SERVED, FeatureConfig
from mu0_world_model.loading import Kind, PredictorConfig, SharedPredictor
from mu0_world_model.nodes.display import Display
from mu0_world_model.nodes.feature_output import FeatureOutput
from mu0_world_model.nodes.one_shot import arrays_from_request
from mu0_world_model.nodes.picture_input import PictureInput, Query
from mu0_world_model.queries import usable

_INSTRUCTION = "mu0/instruction"
_HEALTH_PERIOD_S = 1.0
_WAIT_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldModelConfig(PredictorConfig):
    """Configure the node: what predicts, and what it is asked for."""

    samples: int = option(1, description="Futures that are drawn each time", low=1, high=64)
    seed: int = option(
        0, description="Of the noise: the same each time, so traces do not jump; -1: any", low=-1
    )
    features: FeatureConfig = option(
        SERVED, description="Of action experts; as they were trained", read_only=True
    )
    compressed: bool = option(
        False, description="Take .../compressed and .../compressedDepth", read_only=True
    )

    def __post_init__(self) -> None:
        validate(self)


class WorldModelNode(Mu0LifecycleNode[WorldModelConfig]):
    """Predict from the newest picture and keypoints on a thread of its own."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("world_model", WorldModelConfig, **arguments)
        self._predictor: SharedPredictor | None = None
        self._thread: threading.Thread | None = None
        self._failure: str | None = None

    def setup(self) -> None:
        """Load the predictor, try it once, and make publishers."""
        config = self.config
        self._predictor = SharedPredictor.load(config)
        seconds = self._predictor.warm_up(config.samples)
        model = config.predictor is Kind.MODEL
        which = f" {config.checkpoint} on {config.device}" if model else ""
        self.get_logger().info(
            f"predictor: {config.predictor.value}{which}; a first prediction took {seconds:.2f} s"
        )
        self._traces = create_publisher(self, "mu0/traces")
        self._display = Display(self)
        self._features = FeatureOutput(self, self._predictor, config.features)

    def start(self) -> None:
        """Subscribe, serve, and start the thread that predicts."""
        assert self._predictor is not None
        self._instruction = ""
        self._inbox: Latest[Query] = Latest()
        self._n_predicted = self._n_predicted_before = 0
        self._rate_hz, self._stages_s = 0.0, dict[str, float]()
        self._input = PictureInput(
            self,
            self._inbox.put,
            depth=self._predictor.uses_depth,
            compressed=self.config.compressed,
        )
        create_subscription(self, _INSTRUCTION, self._on_instruction)
        # A prediction takes a while; it must not keep other callbacks waiting.
        group = MutuallyExclusiveCallbackGroup()
        create_service(self, "mu0/predict_traces", self._on_request, callback_group=group)
        wall_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_HEALTH_PERIOD_S, self._check_health, clock=wall_clock)
        self._running = threading.Event()
        self._running.set()
        self._thread = threading.Thread(target=self._work, name="prediction", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and take the markers away."""
        if self._thread is not None:
            self._running.clear()
            self._thread.join()
            self._thread = None
            self._display.clear()

    def teardown(self) -> None:
        """Let go of the model."""
        self._predictor = None

    # On the thread that predicts.

    def _work(self) -> None:
        try:
            while self._running.is_set():
                query = self._inbox.take(_WAIT_S)
                if query is not None:
                    self._answer(query)
        except Exception:
            self._failure = traceback.format_exc()

    def _answer(self, query: Query) -> None:
        """Publish the traces of one picture; bad input is reported and skipped."""
        assert self._predictor is not None
        config, times_s = self.config, [time.perf_counter()]
        try:
            rgb, given, depth = query.arrays()
            keypoints, left_out = usable(given)
            if keypoints.n == 0:
                raise ShapeError(f"nothing to predict: none of {given.n} keypoints can be used")
            times_s.append(time.perf_counter())
            traces = self._predictor.predict(
                rgb,
                keypoints,
                depth,
                instruction=self._instruction,
                samples=config.samples,
                seed=config.seed,
            )
        except Mu0Error as error:
            self._complain(type(error).__name__, str(error))
            return
        times_s.append(time.perf_counter())
        self._traces.publish(traces_message(traces))
        self._n_predicted += 1
        times_s.append(time.perf_counter())
        latency_ns = self.get_clock().now().nanoseconds - traces.stamp_ns
        self._display.show(rgb, keypoints, traces)
        times_s.append(time.perf_counter())
        self._features.publish(rgb, keypoints, traces, depth)
        times_s.append(time.perf_counter())
        stages_s = dict(zip(traces.stage_names, traces.stage_seconds, strict=True))
        own = ("convert", "predict", "publish", "display", "features")
        stages_s |= dict(zip(own, np.diff(times_s), strict=True))
        self._stages_s = {**dict.fromkeys(self._stages_s, 0.0), **stages_s}  # 0: was not needed
        self._tell(traces, self._troubles(query, left_out), latency_ns)

    def _troubles(self, query: Query, left_out: Mapping[str, int]) -> dict[str, str]:
        """Say what is not right, by kind, though a prediction was made."""
        troubles = {}
        if not self._instruction.strip():
            topic = self.resolve_topic_name(_INSTRUCTION)
            troubles["instruction"] = f"no instruction on {topic}: predicting any motion"
        if self._input.takes_depth and query.depth is None:
            troubles["depth"] = "an image without depth: predicting without, which is less exact"
        if "not finite" in left_out:
            troubles["keypoints"] = f"{left_out['not finite']} keypoints left out: not finite"
        return troubles

    def _tell(
        self,
        traces: Traces,
        troubles: Mapping[str, str],
        latency_ns: int,
    ) -> None:
        """Put troubles in the log (once, then throttled), and all figures on /diagnostics."""
        for key, text in troubles.items():
            self.warn_throttled(key, text)
        self.report(
            Level.WARN if troubles else Level.OK,
            "; ".join(troubles.values()) or "predicting",
            predictor=traces.model,
            instruction=traces.instruction,
            keypoints=traces.n,
            latency_ms=round(1e-6 * latency_ns, 1),
            rate_hz=round(self._rate_hz, 2),
            queries_dropped=self._inbox.dropped,
            **{f"{stage}_ms": round(1e3 * float(s), 2) for stage, s in self._stages_s.items()},
        )

    def _complain(self, key: str, text: str) -> None:
        """Say in the log (once, then throttled) and on /diagnostics why nothing comes out."""
        self.warn_throttled(key, text)
        self.report(Level.WARN, text)

    # On the executor's threads.

    def _on_instruction(self, message: String) -> None:
        if message.data != self._instruction:
            self.get_logger().info(f"instruction: {message.data!r}")
        self._instruction = message.data

    def _on_request(
        self, request: PredictTraces.Request, response: PredictTraces.Response
    ) -> PredictTraces.Response:
        assert self._predictor is not None
        try:
            rgb, keypoints, depth = arrays_from_request(
                request,
                arc_step=self._predictor.arc_step,
                history_length=self._predictor.history_length,
            )
            traces = self._predictor.predict(
                rgb,
                keypoints,
                depth,
                instruction=request.instruction,
                samples=request.samples or self.config.samples,
                seed=request.seed,
            )
        except Mu0Error as error:
            response.message = str(error)
            return response
        response.success, response.traces = True, traces_message(traces)
        return response

    def _check_health(self) -> None:
        """Say what does not come, and bring a failure of the thread to the surface."""
        if self._failure is not None:
            raise Mu0Error(f"the prediction stopped: {self._failure}")
        n_predicted = self._n_predicted
        self._rate_hz = (n_predicted - self._n_predicted_before) / _HEALTH_PERIOD_S
        silence = self._input.silence()
        if silence is not None and n_predicted == self._n_predicted_before:
            self._complain("silent", silence)
        self._n_predicted_before = n_predicted


def main() -> int:
    """Run the node."""
    return spin(WorldModelNode, threads=2)


if __name__ == "__main__":
    sys.exit(main())
