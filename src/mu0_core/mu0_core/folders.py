"""Own folders as commands take them: many by globs, and those that are replaced whole.

A folder that is replaced, such as a checkpoint, is never half old, half new.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mu0_core.errors import EpisodeError


def matching_folders(patterns: Sequence[str], what: str = "episodes") -> list[Path]:
    """Return the folders that globs match, sorted, each once even if it has several names.

    What begins with a dot is left out, as a shell does: unfinished episodes, states of commands.

    Args:
        patterns: The globs.
        what: The folders are, for the message.

    Raises:
        EpisodeError: A glob matches no folder.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern)
        relative = str(path.relative_to(path.anchor)) if path.anchor else str(path)
        found_here = Path(path.anchor or ".").glob(relative)
        matches = [p for p in found_here if p.is_dir() and not p.name.startswith(".")]
        if not matches:
            raise EpisodeError(f"{what}: no folder matches {pattern!r}")
        for match in sorted(matches):
            found.setdefault(match.resolve(), match)
    return sorted(found.values())


def replace_folder(source: Path, target: Path) -> None:
    """Put a complete folder in the place of another; stopped half-way, see `recover_folder`."""
    old = target.with_name(f".{target.name}.old")
    for path in source.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(source, target)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Bring back a folder whose replacement was stopped half-way, and remove what it left."""
    old = target.with_name(f".{target.name}.old")
    if old.is_dir() and not target.exists():
        os.rename(old, target)
    for path in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(path, ignore_errors=True)
