"""Events that handlers can wait for."""

from dataclasses import dataclass, field
from typing import Any

from launch._missing import missing_attribute
from launch.events import process

__all__ = ["Shutdown", "process"]


@dataclass(frozen=True, kw_only=True)
class Shutdown:
    """The launch ends."""

    reason: str = "reason not given"
    due_to_sigint: bool = False


@dataclass(frozen=True)
class _Visit:
    """Internal: entities to visit, with the locals that hold for them."""

    entities: list[Any]
    local_values: dict[str, Any] = field(default_factory=dict)


__getattr__ = missing_attribute(__name__)
