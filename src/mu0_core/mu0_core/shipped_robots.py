"""Own where the shipped embodiment files are, wherever they are installed."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory

from mu0_core.errors import ConfigError, unknown_name_message


def embodiment_file(robot: str) -> Path | None:
    """Find the file of a robot.

    Args:
        robot: Name of a shipped one, path of a file (with a slash in it), or "none".

    Returns:
        The path; None for "none".

    Raises:
        ConfigError: There is no such name; the message lists the shipped ones.
    """
    if robot == "none":
        return None
    if "/" in robot:
        return Path(robot)
    known = shipped_embodiments()
    if robot not in known:
        hint = "for one of your own give the path of its file, with a slash in it"
        raise ConfigError(f"{unknown_name_message('robot', robot, known)}; {hint}")
    return known[robot]


def shipped_embodiments() -> dict[str, Path]:
    """Return the files of the shipped robots by name."""
    folder = Path(get_package_share_directory("mu0_policy")) / "config" / "embodiments"
    return {path.stem: path for path in folder.glob("*.yaml")}
