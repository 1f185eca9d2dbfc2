"""LaunchDescription: a list of entities, and the arguments declared among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from launch.action import LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_context import LaunchContext


class LaunchDescription(LaunchDescriptionEntity):
    """What a launch file returns."""

    def __init__(self, initial_entities: Iterable[LaunchDescriptionEntity] | None = None) -> None:
        self.entities = list(initial_entities or [])

    def add_entity(self, entity: LaunchDescriptionEntity) -> None:
        """Append an entity."""
        self.entities.append(entity)

    def add_action(self, action: LaunchDescriptionEntity) -> None:
        """Append an action."""
        self.add_entity(action)

    def visit(self, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        """Return the entities."""
        return self.entities

    def get_sub_entities(self) -> list[LaunchDescriptionEntity]:
        """Return the entities."""
        return self.entities

    def get_launch_arguments(self) -> list[DeclareLaunchArgument]:
        """Return the declared arguments, those of included files too, the first of each name."""
        return [argument for argument, _ in self.get_arguments_with_includes()]

    def get_arguments_with_includes(
        self,
    ) -> list[tuple[DeclareLaunchArgument, list[IncludeLaunchDescription]]]:
        """Return the declared arguments, each with the include actions on the way to it."""
        found: dict[str, tuple[DeclareLaunchArgument, list[IncludeLaunchDescription]]] = {}
        for argument, conditional, includes in _declarations(self.entities, False, []):
            if argument.name not in found:
                argument.conditionally_included = conditional
                found[argument.name] = argument, includes
        return list(found.values())


def _declarations(
    entities: Iterable[LaunchDescriptionEntity],
    conditional: bool,
    includes: list[IncludeLaunchDescription],
) -> Iterator[tuple[DeclareLaunchArgument, bool, list[IncludeLaunchDescription]]]:
    for entity in entities:
        within = conditional or entity.condition is not None
        if isinstance(entity, DeclareLaunchArgument):
            yield entity, within, includes
        deeper = [*includes, entity] if isinstance(entity, IncludeLaunchDescription) else includes
        within = within or getattr(entity, "happens_later", False)
        yield from _declarations(entity.get_sub_entities(), within, deeper)
