"""Own what is remembered in an output folder: its configuration, and what became of recordings.

Everything stands in `.extract/`, written whole or not at all. A recording that is being worked on
is locked; the lock goes with its process.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mu0_core.errors import ConfigError, Mu0Error

_FOLDER = ".extract"


@dataclass(slots=True, kw_only=True)
class RecordState:
    """Hold what became of a recording.

    Attributes:
        source: Its path.
        stamp: Size and time of change of its files: another one means another recording.
        finished: Whether all parts were looked at.
        parts: For each part "episode", "still" or "failed: reason".
        caption_failures: For each episode without some of its captions, why.
        figures: For each part, numbers for the summary.
    """

    source: str
    stamp: str
    finished: bool = False
    parts: dict[str, str] = field(default_factory=dict)
    caption_failures: dict[str, list[str]] = field(default_factory=dict)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)


class OutFolder:
    """Remember what was done in an output folder.

    Args:
        path: The folder; is made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = path / _FOLDER
        self._own.mkdir(parents=True, exist_ok=True)

    def claim(self, config: dict[str, Any]) -> None:
        """Take the folder for a configuration.

        Raises:
            ConfigError: It holds episodes of another one; it says what differs.
        """
        file = self._own / "config.json"
        if not file.exists():
            write_json(file, config)
            return
        known = json.loads(file.read_text("utf-8"))
        different = sorted(_differences(known, config))
        if different:
            raise ConfigError(
                f"{self.path}: holds episodes made with another configuration; choose another "
                "folder, or the same values:\n  " + "\n  ".join(different)
            )

    def state(self, name: str) -> RecordState | None:
        """Return what became of a recording; None if nothing is known."""
        file = self._file(name)
        try:
            return RecordState(**json.loads(file.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # of another version: the recording is looked at again
            return None

    def remember(self, name: str, state: RecordState) -> None:
        """Write down what became of a recording."""
        write_json(self._file(name), asdict(state))

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep others away from a recording; what a killed process left of it is deleted.

        Raises:
            Mu0Error: Another process is at it.
        """
        with (self._own / f"{name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Mu0Error(
                    f"{name}: another process is extracting it into {self.path}"
                ) from error
            self._tidy(name)
            try:
                yield
            finally:
                self._tidy(name)

    def work_folder(self, name: str) -> Path:
        """Return where pictures of a locked recording may be kept while they are worked on."""
        folder = self._own / f"{name}.work"
        folder.mkdir(exist_ok=True)
        return folder

    def remove_episode(self, name: str) -> None:
        """Delete an episode, if it is there."""
        if (self.path / name).exists():
            shutil.rmtree(self.path / name)

    def _tidy(self, name: str) -> None:
        """Delete pictures that were worked on, and episodes that were being written."""
        shutil.rmtree(self._own / f"{name}.work", ignore_errors=True)
        unfinished = re.compile(rf"\.{re.escape(name)}(_part\d+)?\.\w{{8}}")  # of write_episode
        for folder in self.path.iterdir():
            if unfinished.fullmatch(folder.name):
                shutil.rmtree(folder, ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self._own / f"{name}.json"


def check_apart(source: Path, out: Path) -> None:
    """Refuse an output folder that could replace its own source, or be taken for one later.

    Raises:
        ConfigError: One of the two is the other, or lies inside of it.
    """
    source, out = source.resolve(), out.resolve()
    if source.is_relative_to(out) or out.is_relative_to(source):
        raise ConfigError(
            f"{out}: the recordings at {source} are not apart from it; choose a folder beside "
            "them, so that no recording is replaced"
        )


def fingerprint(path: Path) -> str:
    """Return size and time of change of a recording's files, as a text."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    size = sum(stat.st_size for stat in stats)
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    return f"{len(files)} files, {size} bytes, {newest}"


def _differences(known: Any, asked: Any, path: str = "") -> Iterator[str]:
    if isinstance(known, dict) and isinstance(asked, dict):
        for key in known.keys() | asked.keys():
            yield from _differences(known.get(key), asked.get(key), f"{path}.{key}".strip("."))
    elif known != asked:
        yield f"{path}: {known!r} there, {asked!r} asked for"


def write_json(file: Path, content: Any) -> None:
    """Write a file, whole or not at all."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(file)
