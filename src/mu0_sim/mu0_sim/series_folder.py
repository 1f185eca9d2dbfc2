"""Own the folder of a series: the settings it was begun with, and its results, one a line."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mu0_core.errors import ConfigError

_SETTINGS_FILE = "settings.json"

Result = TypeVar("Result")


def claim_folder(folder: Path, settings: Mapping[str, Any], may_change: Collection[str]) -> None:
    """Write the settings into the folder, or check that they are those of the series in it.

    Args:
        folder: Made if it is not there.
        settings: Of the series, plain values.
        may_change: Names of those that may differ when it is resumed.

    Raises:
        ConfigError: The folder holds a series with other settings.
    """
    fixed = {name: value for name, value in settings.items() if name not in may_change}
    path = folder / _SETTINGS_FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(fixed, indent=2) + "\n", encoding="utf-8")
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    faults = [
        f"{name}: the series in {folder} has {stored.get(name)!r}, got {fixed.get(name)!r}"
        for name in sorted({*stored, *fixed})
        if stored.get(name) != fixed.get(name)
    ]
    if faults:
        raise ConfigError("\n".join([*faults, "choose another folder, or the same settings"]))


def read_results(path: Path, make: Callable[..., Result]) -> Iterator[Result]:
    """Read results, one JSON object a line.

    Raises:
        ConfigError: A line is none.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            yield make(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{path}, line {number}: not a result ({error}); delete the line, and its episode "
                "is run again"
            ) from error
