"""Own how much memory a model and a piece of work take."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MB = 1e6


def stored_mb(module: nn.Module) -> float:
    """Return the size of all weights and buffers, 8-bit layers included."""
    tensors = [*module.parameters(), *module.buffers()]
    for part in module.modules():
        packed: Any = getattr(part, "_weight_bias", None)  # 8-bit layers have no parameters
        if packed is not None:
            tensors += [tensor for tensor in packed() if tensor is not None]
    return sum(t.numel() * t.element_size() for t in tensors) / _MB


def growth_mb(device: torch.device, work: Callable[[], object]) -> float | None:
    """Return by how much memory grew at most while something ran; None where none can tell.

    On a processor this is the resident memory of the process, on a GPU what torch allocated.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / _MB
    _give_back()
    try:
        _RESET.write_text("5")  # the peak starts again from here
        resident_mb = _resident_mb("VmRSS")
        work()
        return max(_resident_mb("VmHWM") - resident_mb, 0.0)
    except OSError:
        return None


def peak_mb() -> float | None:
    """Return the most resident memory of this process since `growth_mb` last began, or ever."""
    try:
        return _resident_mb("VmHWM")
    except OSError:
        return None


def _resident_mb(name: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / _MB
    raise OSError(f"{_STATUS}: no {name}")


def _give_back() -> None:
    """Let the allocator return what it keeps for later, which would hide growth."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
