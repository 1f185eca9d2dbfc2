"""The base of all actions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from launch.launch_context import LaunchContext


class Condition(Protocol):
    """Anything that says whether an action runs."""

    def evaluate(self, context: LaunchContext) -> bool:
        """Return the truth of the condition."""
        ...


class LaunchDescriptionEntity:
    """What a launch description holds: actions and other launch descriptions."""

    condition: Condition | None = None

    def visit(self, context: LaunchContext) -> Iterable[Any] | None:
        """Do what the entity stands for; return entities to visit next."""
        raise NotImplementedError

    def get_sub_entities(self) -> list[Any]:
        """Return the entities inside this one that are known without running it."""
        return []


class Action(LaunchDescriptionEntity):
    """Something that the launch does, under a condition if there is one."""

    def __init__(self, *, condition: Condition | None = None) -> None:
        self.condition = condition

    def visit(self, context: LaunchContext) -> Iterable[Any] | None:
        """Execute the action unless its condition is false."""
        if self.condition is None or self.condition.evaluate(context):
            return self.execute(context)
        return None

    def execute(self, context: LaunchContext) -> Iterable[Any] | None:
        """Do it; return entities to visit next."""
        return None
