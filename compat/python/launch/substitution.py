"""The base of all substitutions: texts that are computed when a launch file runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launch.launch_context import LaunchContext


class Substitution:
    """A text that is known only while launching."""

    def perform(self, context: LaunchContext) -> str:
        """Return the text in the given context."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return a description that needs no context."""
        return f"{type(self).__name__}()"
