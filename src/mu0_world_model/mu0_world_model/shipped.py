"""Own where the checkpoints that come with this package are, wherever it is installed."""

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

from mu0_core.errors import CheckpointError, unknown_name_message

DEFAULT_CHECKPOINT = "mu0-tiny"


def shipped_checkpoints() -> dict[str, Path]:
    """Return the folders of the checkpoints in the package's share folder, by name."""
    try:
        share = Path(get_package_share_directory("mu0_world_model"))
    except PackageNotFoundError:
        return {}
    folders = sorted(path for path in (share / "models").glob("*") if path.is_dir())
    return {folder.name: folder for folder in folders}


def checkpoint_folder(checkpoint: str) -> str:
    """Return the folder of a shipped checkpoint, and anything that has a slash as it is.

    Args:
        checkpoint: Name of a shipped one, path of a folder, or a hub repository ("owner/name").

    Raises:
        CheckpointError: There is no such name; the message lists the shipped ones.
    """
    if "/" in checkpoint:
        return checkpoint
    shipped = shipped_checkpoints()
    if checkpoint not in shipped:
        known = unknown_name_message("shipped checkpoint", checkpoint, shipped)
        raise CheckpointError(
            f"{known}; for one of your own give the path of its folder, with a slash in it"
        )
    return str(shipped[checkpoint])
