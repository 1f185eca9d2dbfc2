"""Own how a model runs: on what, in which number format, compiled or not.

Tokens, heads and integration are float32 whatever is chosen here.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from mu0_core.config import option, validate
from mu0_core.errors import ConfigError, ResourceError
from mu0_world_model.model import Mu0

_LARGE_PARTS = ("vlm.", "expert.", "dino.model.")


class Precision(StrEnum):
    """Choose the number format of vision tower, text layers, expert and DINOv2.

    INT8 stores the weights of their linear layers as 8-bit integers and rounds what comes in, each
    call by its own range; the rest is float32. It needs a processor.
    """

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionConfig:
    """Say where a model runs, and how."""

    device: str = option(
        "cpu", description="Where the model runs: cpu, cuda, cuda:1 ...", read_only=True
    )
    threads: int = option(
        1,
        description="Processor threads of the model; on cores that others use, two are slower",
        low=1,
        read_only=True,
    )
    precision: Precision = option(
        Precision.FLOAT32,
        description="Number format; bfloat16 and int8 are smaller and less exact",
        read_only=True,
    )
    compile: bool = option(
        False,
        description="Compile the layers at the first predictions; needs a C++ compiler",
        read_only=True,
    )

    def __post_init__(self) -> None:
        validate(self)


def check_device(device: str, precision: Precision, *, compiled: bool = False) -> None:
    """Raise ConfigError unless a model can run on the device here, in this way."""
    try:
        kind = torch.empty(1, device=device).device.type
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device: expected one that torch can use here, such as cpu, got {device!r}: {reason}"
        ) from error
    if precision is Precision.INT8 and kind != "cpu":
        raise ConfigError(f"precision: int8 needs the device cpu, got {device!r}; take bfloat16")
    compilers = (os.environ.get("CXX", "g++"), "g++", "clang++")
    if compiled and kind == "cpu" and not any(map(shutil.which, compilers)):
        raise ConfigError("compile: needs a C++ compiler, found none; install g++ or leave it out")


def number_format(precision: Precision) -> Callable[[str], torch.dtype]:
    """Return what maps the name of a weight of `Mu0` to the format it is loaded in."""
    large = torch.float32 if precision is Precision.FLOAT32 else torch.bfloat16

    def of(name: str) -> torch.dtype:
        return large if name.startswith(_LARGE_PARTS) else torch.float32

    return of


def quantise(model: Mu0) -> None:
    """Turn the linear layers of the large parts into 8-bit ones, and what remains to float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is going to move this to another package
        for part in [*model.vlm.tower.encoder.layers, model.vlm.connector, *model.vlm.layers]:
            _quantise(part)
        expert = cast(list[LlamaDecoderLayer], list(model.expert.layers))
        for layer, joint in zip(expert, model.expert.joint, strict=True):
            _quantise(layer.mlp)
            # Keys and values of cross layers are made once for a picture; they stay exact.
            _quantise(layer.self_attn, None if joint else ("q_proj", "o_proj"))
        if model.dino is not None:
            _quantise(model.dino.model)
    model.float()


def _quantise(module: nn.Module, names: Sequence[str] | None = None) -> None:
    """Turn linear layers of a module into 8-bit ones: all, or those of these names."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    chosen: Sequence[str | type[nn.Module]] = (nn.Linear,) if names is None else names
    spec = dict.fromkeys(chosen, per_channel_dynamic_qconfig)
    quantize_dynamic(module.float(), spec, inplace=True)


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn the ways in which torch runs out of memory into one ResourceError with advice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(f"out of memory: {advice}") from error
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise ResourceError(f"out of memory: {advice}") from error
