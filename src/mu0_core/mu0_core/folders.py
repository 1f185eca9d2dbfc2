"""Own folders that are replaced whole, such as checkpoints: none is ever half old, half new."""

import os
import shutil
from pathlib import Path


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
