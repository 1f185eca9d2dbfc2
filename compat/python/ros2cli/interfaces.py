"""Finds the Python classes of messages, services and actions by their ROS names."""

import importlib
from typing import Any

from ros2cli.verbs import CommandError


def load_interface(name: str, kind: str) -> Any:
    """Return the class of `package/kind/Name` or `package/Name`; kind is msg, srv or action.

    Raises:
        CommandError: the package is not in this environment or has no such interface.
    """
    parts = name.split("/")
    if len(parts) == 2:
        parts.insert(1, kind)
    if len(parts) != 3 or parts[1] != kind:
        raise CommandError(f"The passed {kind} type is invalid: '{name}', not package/{kind}/Name")
    module_name = ".".join(parts[:2])
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise CommandError(f"The passed {kind} type is invalid: '{name}' ({error})") from error
    if not hasattr(module, parts[2]):
        known = ", ".join(n for n in sorted(vars(module)) if n[0].isupper() and "_" not in n)
        raise CommandError(
            f"The passed {kind} type is invalid: '{name}'; {module_name} has {known}"
        )
    return getattr(module, parts[2])
