"""Stand-in for the ROS 2 package `launch`; see compat/README.md."""

from launch import (
    action,
    actions,
    conditions,
    event_handlers,
    events,
    launch_description_sources,
    logging,
    substitution,
    substitutions,
    utilities,
)
from launch._missing import missing_attribute
from launch.action import Action, LaunchDescriptionEntity
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import LaunchDescriptionSource
from launch.launch_service import LaunchService
from launch.some_substitutions_type import (
    SomeSubstitutionsType,
    SomeSubstitutionsType_types_tuple,
)
from launch.substitution import Substitution

__all__ = [
    "Action",
    "LaunchContext",
    "LaunchDescription",
    "LaunchDescriptionEntity",
    "LaunchDescriptionSource",
    "LaunchService",
    "SomeSubstitutionsType",
    "SomeSubstitutionsType_types_tuple",
    "Substitution",
    "action",
    "actions",
    "conditions",
    "event_handlers",
    "events",
    "launch_description_sources",
    "logging",
    "substitution",
    "substitutions",
    "utilities",
]

__getattr__ = missing_attribute(__name__)
