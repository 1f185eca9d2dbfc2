"""Own the list of sources: each module of this package knows one kind of recording.

A source module has NAME; `matches(path)`, whether a path is one of its recordings or a data set of
several; `find(path, config)`, which names the recordings there without opening them; and
`open_recording(found, config)`. Where a recording is not all that lies at its path, the module
also has `stamp(found, config)`, a text that changes when the recording does. To add a source, add
a file.
"""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from mu0_core.config import option, validate
from mu0_core.errors import ConfigError, unknown_name_message
from mu0_perception.extract.recording import Found, Recording, SourceError
from mu0_perception.extract.state import fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """Say what to read of a recording where it does not say so, or has several of a kind."""

    kind: str = option("", description="Kind of source; empty: found by looking")
    color_topic: str = option("", description="Colour topic or picture key; empty: as found")
    depth_topic: str = option("", description="Depth topic; empty: by type and name")
    info_topic: str = option("", description="CameraInfo topic of the colour; empty: beside it")
    camera_frame: str = option("", description="Optical frame; empty: the pictures' frame_id")
    fixed_frame: str = option(
        "",
        description="Frame that does not move; empty: odom, world, map, or the root of a robot "
        "that stands",
    )
    depth_unit_m: float | None = option(
        None,
        description="Metres of one unit of depth, where the encoding does not say",
        unit="m",
        low=1e-6,
    )
    folder_rate_hz: float = option(
        10.0, description="Rate of pictures that say no times", unit="Hz", low=0.1
    )
    max_pair_s: float = option(
        0.02, description="Time by which depth may miss its colour", unit="s", low=0.0
    )
    max_tf_gap_s: float = option(
        0.25, description="Longest gap in transforms that is bridged", unit="s", low=0.0
    )
    instruction: str = option("", description="The task in words; empty: as recorded")

    def __post_init__(self) -> None:
        validate(self)


def source_modules() -> dict[str, ModuleType]:
    """Return {NAME: module} of all sources."""
    modules = [
        importlib.import_module(f"{__name__}.{info.name}")
        for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name)
        if not info.name.startswith("_")
    ]
    return {module.NAME: module for module in modules}


def find_recordings(path: Path, config: SourceConfig) -> list[Found]:
    """Find the recordings at a path, or in the folders below it; their names are unique.

    Raises:
        SourceError: There is nothing at the path, or nothing that any source knows.
        ConfigError: The kind of source is unknown.
    """
    modules = source_modules()
    if config.kind and config.kind not in modules:
        raise ConfigError(f"source.kind: {unknown_name_message('source', config.kind, modules)}")
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    path = path.absolute()  # it is kept, and may be read from elsewhere
    wanted = [modules[config.kind]] if config.kind else list(modules.values())
    found = [r for module, at in _walk(path, wanted) for r in module.find(at, config)]
    if not found:
        known = ", ".join(module.NAME for module in wanted)
        raise SourceError(f"{path}: no recording of a known kind ({known}) here or below")
    return _with_unique_names(found, path)


def open_recording(found: Found, config: SourceConfig) -> Recording:
    """Open a recording.

    Raises:
        SourceError: It is damaged or lacks what is needed.
    """
    recording: Recording = source_modules()[found.source].open_recording(found, config)
    return recording


def recording_stamp(found: Found, config: SourceConfig) -> str:
    """Return a text that changes when a recording does.

    Raises:
        SourceError: Its files are not there, or it does not say where they are.
    """
    own = getattr(source_modules()[found.source], "stamp", None)
    try:
        return str(own(found, config)) if own else fingerprint(found.path)
    except OSError as error:
        raise SourceError(f"{found.path}: not readable: {error}") from error


def _with_unique_names(found: list[Found], root: Path) -> list[Found]:
    """Put the folders above before names that occur more than once."""
    counts = Counter(r.name for r in found)
    result = []
    for r in found:
        above = r.path.relative_to(root).parent.parts if r.path != root else ()
        name = "__".join([*above, r.name]) if counts[r.name] > 1 else r.name
        result.append(replace(r, name=name))
    doubled = [name for name, n in Counter(r.name for r in result).items() if n > 1]
    if doubled:
        raise SourceError(f"{root}: several recordings are called {doubled[0]!r}; rename one")
    return result


def _walk(path: Path, modules: list[ModuleType]) -> Iterator[tuple[ModuleType, Path]]:
    """Find what the sources know, without looking inside of it."""
    for module in modules:
        if _matches(module, path):
            yield module, path
            return
    if path.is_dir():
        try:
            children = sorted(path.iterdir())
        except OSError as error:
            raise SourceError(f"{path}: cannot be looked into: {error}") from error
        for child in children:
            if not child.name.startswith("."):
                yield from _walk(child, modules)


def _matches(module: ModuleType, path: Path) -> bool:
    try:
        return bool(module.matches(path))
    except OSError:  # such as a link that leads nowhere
        return False
