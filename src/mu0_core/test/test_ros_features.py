import numpy as np
import pytest

from mu0_core.errors import ShapeError
from mu0_core.ros import messages


def test_features_come_back_as_they_were():
    rng = np.random.default_rng(0)
    tensors = {
        "context": rng.standard_normal((5, 4)).astype(np.float16),
        "valid": np.array([True, False]),
        "steps": np.arange(3, dtype=np.int64),
    }
    message = messages.features_message(
        tensors, stamp_ns=12_000_000_034, frame_id="camera", instruction="lift", model="tiny 12ab"
    )
    found = messages.features_from_message(message)
    assert (found.stamp_ns, found.instruction, found.model) == (
        12_000_000_034,
        "lift",
        "tiny 12ab",
    )
    for name, values in tensors.items():
        assert found.tensors[name].dtype == values.dtype
        assert np.array_equal(found.tensors[name], values)
    message.tensors[0].shape = [5, 5]
    with pytest.raises(ShapeError, match="context: expected 50 bytes"):
        messages.features_from_message(message)
    message.tensors[0].dtype = "complex64"
    with pytest.raises(ShapeError, match="complex64"):
        messages.features_from_message(message)
    with pytest.raises(ShapeError, match="float64"):
        messages.features_message(
            {"x": np.zeros(2)}, stamp_ns=0, frame_id="", instruction="", model=""
        )
