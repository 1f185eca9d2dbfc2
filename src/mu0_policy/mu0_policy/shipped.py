"""Own the way to the embodiment files that come with this package, for launch files."""

from mu0_core.shipped_robots import embodiment_file

__all__ = ["embodiment_file"]
