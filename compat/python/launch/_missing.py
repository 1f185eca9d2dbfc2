"""Say by name what this stand-in lacks."""

from collections.abc import Callable
from typing import Any, NoReturn


def missing(what: str) -> str:
    """Return the sentence used wherever a part of the real package is absent."""
    return (
        f"{what} is not part of this stand-in (compat/README.md lists what is); "
        "use the real ROS 2 package for it"
    )


def missing_attribute(module: str) -> Callable[[str], Any]:
    """Return a module `__getattr__` that raises ImportError naming the attribute."""

    def module_getattr(name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        raise ImportError(missing(f"{module}.{name}"), name=module)

    return module_getattr
