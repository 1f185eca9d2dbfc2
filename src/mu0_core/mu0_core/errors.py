"""Exceptions of the whole project, and the wording of the commonest one.

Every error says what was expected, what came (value and unit), where, and what to do.
"""

import difflib
from collections.abc import Iterable


class Mu0Error(Exception):
    """Mark an error that this project raises on purpose; catch it at the border of a program."""


class ConfigError(Mu0Error):
    """Report wrong settings; the message lists every fault that was found."""


class ShapeError(Mu0Error):
    """Report an array whose shape, dtype or values do not fit."""


class CalibrationError(Mu0Error):
    """Report camera intrinsics, extrinsics or transforms that cannot be right."""


class CheckpointError(Mu0Error):
    """Report a model checkpoint that is missing, incomplete or of another architecture."""


class StaleInputError(Mu0Error):
    """Report sensor data that is too old, or apart in time by too much, to act on."""


class EpisodeError(Mu0Error):
    """Report a recorded episode that breaks its format."""


class ResourceError(Mu0Error):
    """Report a machine without the memory for what was asked; says what to lower."""


class TrajectoryError(Mu0Error):
    """Report a motion that cannot be fitted, timed or executed."""


def unknown_name_message(kind: str, name: str, known: Iterable[str]) -> str:
    """Describe an unknown name, with the known ones and the nearest of them.

    Args:
        kind: What the name stands for, such as "camera model".
        name: The name that was given.
        known: The names that exist.

    Returns:
        One line for the message of an error.
    """
    names = sorted(known)
    if not names:
        return f"unknown {kind} {name!r}: there are none"
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {name!r}: known are {', '.join(names)}{hint}"
