"""Own the two ways between NumPy arrays and the primitive arrays of messages."""

import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mu0_core.errors import ShapeError


def flat(values: NDArray[Any]) -> "array.array[Any]":
    """Copy an array, row-major, into what a message takes without looking at each element."""
    if values.dtype.kind not in "iuf" or not values.dtype.isnative:
        raise ShapeError(f"expected native integers or floats, got {values.dtype}")
    buffer = array.array(values.dtype.char)
    buffer.frombytes(np.ascontiguousarray(values).view(np.uint8).reshape(-1).data)
    return buffer


def fill(message: Any, container: Any, names: Iterable[str]) -> None:
    """Copy arrays of a container into the fields of the same names of a message.

    Fields are assigned, not given to the constructor, which would copy them one by one.
    """
    for name in names:
        setattr(message, name, flat(getattr(container, name)))


def shaped(
    values: Sequence[Any], dtype: DTypeLike, shape: tuple[int, ...], name: str
) -> NDArray[Any]:
    """View a flat array of a message as an array, which the containers then copy.

    Args:
        values: The field of the message.
        dtype: The type of the elements.
        shape: The shape that the message declares.
        name: Name of the field, for the error.

    Raises:
        ShapeError: The field has another number of elements.
    """
    if len(values) != int(np.prod(shape)):
        raise ShapeError(
            f"{name}: expected {int(np.prod(shape))} values for shape {shape}, got {len(values)}"
        )
    return np.asarray(values, dtype=dtype).reshape(shape)
