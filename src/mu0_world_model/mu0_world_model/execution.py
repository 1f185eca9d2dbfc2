"""Own how a model runs: on what, in which number format, compiled or not.

Tokens, heads and integration are float32 whatever is chosen here.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from mu0_core.config import option, validate
from mu0_core.errors import ConfigError, ResourceError
from mu0_world_model.model import Mu0

_LARGE_PARTS = ("vlm.", "expert.", "dino.model.")
_MEMORY_SIGNS = ("allocate memory", "STATUS_ALLOC_FAILED")  # of processors; of cuBLAS and cuDNN
_PACKED_FROM = 1 << 17  # weights; below, calling the kernel costs more than packing


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


def settle(model: Mu0, device: str, precision: Precision, *, compiled: bool = False) -> Mu0:
    """Bring a loaded model into the form in which it runs; it cannot be trained or saved after.

    Args:
        model: In the number format of its precision.
        device: Where it runs.
        precision: Number format.
        compiled: Whether layers are compiled, each at its first use.
    """
    model = model.to(device)
    if precision is Precision.INT8:
        _quantise(model)
    elif torch.device(device).type == "cpu" and not compiled:
        _pack(model)
    if compiled:
        model.compile_layers()
    return model


class PackedLinear(nn.Module):
    """Apply a linear layer whose weights lie as the processor's kernel reads them."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.register_buffer("weight", packed)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; the result differs from the plain layer's by rounding."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def _pack(model: Mu0) -> None:
    """Let large layers keep their weights packed; plain ones are packed again in every call."""
    if not torch.backends.mkldnn.is_available():
        return
    formats = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # with AVX2 alone, packing it raises
        formats.add(torch.bfloat16)
    for part in _large_parts(model):
        for name, module in list(part.named_modules()):
            if not isinstance(module, nn.Linear) or module.weight.dtype not in formats:
                continue
            if module.weight.numel() >= _PACKED_FROM:
                part.set_submodule(name, PackedLinear(module))


def _quantise(model: Mu0) -> None:
    """Turn the linear layers of the large parts into 8-bit ones, and what remains to float32."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    # Keys and values of cross layers are made once for a picture; they stay exact.
    cross = [
        layer.self_attn
        for layer, joint in zip(model.expert.blocks, model.expert.joint, strict=True)
        if not joint
    ]
    exact = {module for attention in cross for module in (attention.k_proj, attention.v_proj)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is going to move this to another package
        for part in _large_parts(model):
            names = [
                name
                for name, module in part.named_modules()
                if isinstance(module, nn.Linear) and module not in exact
            ]
            spec = dict.fromkeys(names, per_channel_dynamic_qconfig)
            quantize_dynamic(part.float(), spec, inplace=True)
    model.float()


def _large_parts(model: Mu0) -> list[nn.Module]:
    """Return what holds most weights: layers of tower, text, expert and DINOv2."""
    parts = [model.vlm.tower.encoder, model.vlm.connector, model.vlm.layers, model.expert.layers]
    return parts if model.dino is None else [*parts, model.dino.model]


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn the ways in which torch runs out of memory into one ResourceError with advice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(f"out of memory: {advice}") from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _MEMORY_SIGNS):
            raise
        raise ResourceError(f"out of memory: {advice}") from error
