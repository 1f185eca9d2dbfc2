"""Stand-in for the ROS 2 package `launch_ros`; see compat/README.md."""

from launch._missing import missing_attribute
from launch_ros import actions, descriptions, parameter_descriptions, substitutions

__all__ = ["actions", "descriptions", "parameter_descriptions", "substitutions"]

__getattr__ = missing_attribute(__name__)
