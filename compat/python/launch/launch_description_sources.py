"""Where launch descriptions come from: Python launch files."""

from __future__ import annotations

import os
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import TYPE_CHECKING

from launch._missing import missing, missing_attribute
from launch.launch_context import LaunchContext
from launch.logging import get_logger
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.utilities import normalize_to_list_of_substitutions, perform_any

if TYPE_CHECKING:
    from launch.launch_description import LaunchDescription


class InvalidPythonLaunchFileError(Exception):
    """The file is not a launch file."""


class LaunchDescriptionSource:
    """A launch file whose path may be a substitution; it is read when first needed."""

    def __init__(self, launch_file_path: SomeSubstitutionsType) -> None:
        self._path = normalize_to_list_of_substitutions(launch_file_path)
        self._description: LaunchDescription | None = None
        self.location = ""

    def get_launch_description(self, context: LaunchContext) -> LaunchDescription:
        """Read the launch file and return its description."""
        if self._description is None:
            self.location = os.path.abspath(perform_any(context, self._path))
            self._description = _read(self.location)
        return self._description

    def try_get_launch_description_without_context(self) -> LaunchDescription | None:
        """Return the description if it can be read before the launch runs."""
        if self._description is not None:
            return self._description
        try:
            return _read(perform_any(LaunchContext(), self._path))
        except Exception as error:
            get_logger().debug(f"Failed to load the launch file without a context: {error}")
            return None


class PythonLaunchDescriptionSource(LaunchDescriptionSource):
    """A Python launch file."""


class AnyLaunchDescriptionSource(LaunchDescriptionSource):
    """A launch file of any kind; this stand-in reads Python only."""


def _read(path: str) -> LaunchDescription:
    if not path.endswith(".py"):
        raise InvalidPythonLaunchFileError(missing(f"reading launch files but .py ({path})"))
    loader = SourceFileLoader("python_launch_file", path)
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    if not hasattr(module, "generate_launch_description"):
        raise InvalidPythonLaunchFileError(
            f"launch file at '{path}' does not contain the required function "
            "'generate_launch_description()'"
        )
    return module.generate_launch_description()


__getattr__ = missing_attribute(__name__)
