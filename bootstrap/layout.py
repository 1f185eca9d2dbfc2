"""Where things stand, and which ROS 2 is used: an installed one or the Python wheels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bootstrap.report import SetupError

DISTRO = "jazzy"


@dataclass(frozen=True)
class Layout:
    """Folders of one checkout.

    Attributes:
        root: The checkout.
        ros_installed: True where ROS 2 is sourced; then neither wheels nor stand-ins are used.
    """

    root: Path
    ros_installed: bool

    @property
    def venv(self) -> Path:
        """The virtual environment; also holds the state of the set-up."""
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        """The interpreter of the virtual environment."""
        return self.venv / "bin" / "python"

    @property
    def state(self) -> Path:
        """Stamps of the steps that are done."""
        return self.venv / "mu0"

    @property
    def renderer_file(self) -> Path:
        """Holds the name of the OpenGL back end that works here."""
        return self.state / "renderer"

    @property
    def install(self) -> Path:
        """Where colcon installs the workspace."""
        return self.root / "install"

    @property
    def compat(self) -> Path:
        """Stand-ins for ROS packages that the wheels lack."""
        return self.root / "compat"

    @property
    def compat_install(self) -> Path:
        """Where the interface packages among the stand-ins are installed."""
        return self.venv / "compat" / "install"

    @property
    def fastdds_profile(self) -> Path:
        """Transport settings with room for camera images."""
        return self.root / "launch" / "config" / "fastdds_profile.xml"


def detect(root: Path, environment: Mapping[str, str] = os.environ) -> Layout:
    """Tell which ROS 2 this shell has.

    Raises:
        SetupError: Another ROS distribution is sourced.
    """
    distro = environment.get("ROS_DISTRO", "")
    if distro and distro != DISTRO:
        raise SetupError(
            f"this shell has ROS {distro!r} sourced, the workspace needs {DISTRO!r}. Source "
            f"/opt/ros/{DISTRO}/setup.bash instead, or open a shell without ROS: then the wheels "
            f"are used."
        )
    layout = Layout(root=root, ros_installed=False)
    # Inside `./mu0 run bash` the variables are those of the wheels, not of an installation.
    own = str(layout.venv) in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return replace(layout, ros_installed=distro == DISTRO and not own)
