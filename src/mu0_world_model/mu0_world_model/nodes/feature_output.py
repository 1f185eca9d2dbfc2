"""Publish features for action experts, only while somebody subscribes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import Mu0Error
from mu0_core.ros.interfaces import create_publisher
from mu0_core.ros.messages import features_message
from mu0_core.traces import Keypoints, Traces
from mu0_world_model.features import FeatureConfig
from mu0_world_model.loading import SharedPredictor


class FeatureOutput:
    """Compute and publish the features of pictures.

    Args:
        node: The node that publishes.
        predictor: What traces are predicted with; the picture is not read twice.
        config: Which features.
    """

    def __init__(self, node: Any, predictor: SharedPredictor, config: FeatureConfig) -> None:
        self._node, self._predictor, self._config = node, predictor, config
        self._publisher = create_publisher(node, "mu0/trace_features")

    def publish(
        self,
        rgb: NDArray[np.uint8],
        keypoints: Keypoints,
        traces: Traces,
        depth: NDArray[np.float32] | None,
    ) -> None:
        """Publish the features of the picture and keypoints that traces were predicted from."""
        if not self._publisher.get_subscription_count():
            return
        try:
            found, model = self._predictor.features(
                self._config, rgb, traces.instruction, depth, keypoints.uvz()
            )
        except Mu0Error as error:
            self._node.warn_throttled("features", str(error))
            return
        message = features_message(
            found,
            stamp_ns=traces.stamp_ns,
            frame_id=traces.frame_id,
            instruction=traces.instruction,
            model=model,
        )
        self._publisher.publish(message)
