"""Translate named tensors for action experts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import ShapeError
from mu0_core.ros.messages.buffers import flat
from mu0_core.ros.messages.geometry import ns_from_stamp, stamp_from_ns
from mu0_msgs.msg import Tensor, TraceFeatures

_DTYPES = ("float32", "float16", "bool", "int64")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NamedFeatures:
    """Hold the features of one picture.

    Attributes:
        stamp_ns: Of the picture.
        instruction: What they were computed for.
        model: What tells them from those of other checkpoints or settings.
        tensors: By name.
    """

    stamp_ns: int
    instruction: str
    model: str
    tensors: Mapping[str, NDArray[Any]]


def features_message(
    tensors: Mapping[str, NDArray[Any]],
    *,
    stamp_ns: int,
    frame_id: str,
    instruction: str,
    model: str,
) -> TraceFeatures:
    """Make the message of features.

    Args:
        tensors: By name.
        stamp_ns: Of the picture.
        frame_id: Its optical frame.
        instruction: What was asked for.
        model: What made them.
    """
    message = TraceFeatures(instruction=instruction, model=model)
    message.header.stamp, message.header.frame_id = stamp_from_ns(stamp_ns), frame_id
    message.tensors = [_tensor(name, values) for name, values in tensors.items()]
    return message


def features_from_message(message: TraceFeatures) -> NamedFeatures:
    """Return the features of a message.

    Raises:
        ShapeError: A tensor has an unknown dtype, or another number of bytes than its shape asks.
    """
    return NamedFeatures(
        stamp_ns=ns_from_stamp(message.header.stamp),
        instruction=message.instruction,
        model=message.model,
        tensors={tensor.name: _array(tensor) for tensor in message.tensors},
    )


def _tensor(name: str, values: NDArray[Any]) -> Tensor:
    if values.dtype.name not in _DTYPES:
        raise ShapeError(f"{name}: expected one of {', '.join(_DTYPES)}, got {values.dtype}")
    message = Tensor(name=name, dtype=values.dtype.name, shape=list(values.shape))
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    message.data = flat(little.reshape(-1).view(np.uint8))
    return message


def _array(message: Tensor) -> NDArray[Any]:
    if message.dtype not in _DTYPES:
        raise ShapeError(
            f"{message.name}: expected one of {', '.join(_DTYPES)}, got {message.dtype!r}"
        )
    dtype = np.dtype(message.dtype).newbyteorder("<")
    shape = tuple(message.shape)
    wanted = int(np.prod(shape)) * dtype.itemsize
    if len(message.data) != wanted:
        raise ShapeError(
            f"{message.name}: expected {wanted} bytes for {message.dtype} {shape}, got "
            f"{len(message.data)}"
        )
    array = np.frombuffer(bytes(message.data), dtype).reshape(shape)
    return array.astype(np.dtype(message.dtype))
