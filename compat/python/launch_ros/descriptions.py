"""The same descriptions under their second name."""

from launch._missing import missing_attribute
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

__all__ = ["ParameterFile", "ParameterValue"]

__getattr__ = missing_attribute(__name__)
