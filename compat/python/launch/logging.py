"""Log lines of the launch and of its processes, on the screen and in the log file."""

import functools
import logging
import os
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from launch._missing import missing_attribute

_level = logging.INFO
_DESTINATIONS = {
    "screen": {"both": {"screen"}},
    "log": {"both": {"log"}, "stderr": {"screen"}},
    "both": {"both": {"log", "screen"}},
}


class _Screen(logging.StreamHandler):
    """A handler that always writes to the present sys.stdout."""

    def __init__(self, format_text: str) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter(format_text, style="{"))

    @property
    def stream(self) -> Any:
        return sys.stdout


@functools.cache
def log_dir() -> Path:
    """Return the folder of this launch's log files, made at the first call."""
    home = os.environ.get("ROS_HOME") or "~/.ros"
    base = Path(os.environ.get("ROS_LOG_DIR") or f"{home}/log").expanduser()
    now = datetime.now().strftime("%Y-%m-%d-%H-%M-%S-%f")
    path = base / f"{now}-{socket.gethostname()}-{os.getpid()}"
    path.mkdir(parents=True)
    latest = base / "latest"
    if latest.is_symlink() or not latest.exists():
        latest.unlink(missing_ok=True)
        latest.symlink_to(path)
    return path


@functools.cache
def get_logger(name: str = "launch") -> logging.Logger:
    """Return a logger that writes to the screen and to the log file."""
    logger = logging.Logger(name, _level)
    logger.addHandler(_Screen("[{levelname}] [{name}]: {message}"))
    logger.addHandler(_file("{created:.7f} [{levelname}] [{name}]: {message}"))
    return logger


def set_level(level: int) -> None:
    """Set the level of loggers made from now on."""
    global _level
    _level = level


def get_output_loggers(
    process_name: str, output_config: str | dict[str, Any]
) -> tuple[logging.Logger, logging.Logger]:
    """Return the loggers for a process's stdout and stderr."""
    if isinstance(output_config, str):
        if output_config not in _DESTINATIONS:
            raise ValueError(
                f"{output_config} is not a valid standard output config "
                'i.e. "screen", "log" or "both"'
            )
        output_config = _DESTINATIONS[output_config]
    for source, where in output_config.items():
        if source not in ("stdout", "stderr", "both") or not _set(where) <= {"screen", "log"}:
            raise ValueError(
                f"{{{source!r}: {where!r}}} is not a valid output config: sources are stdout, "
                "stderr, both; destinations screen, log"
            )
    both = _set(output_config.get("both", ()))
    stdout, stderr = (
        _output_logger(f"{process_name}-{source}", both | _set(output_config.get(source, ())))
        for source in ("stdout", "stderr")
    )
    return stdout, stderr


def _set(destinations: Any) -> set[str]:
    return {destinations} if isinstance(destinations, str) else set(destinations)


def _output_logger(name: str, destinations: set[str]) -> logging.Logger:
    logger = logging.Logger(name, logging.INFO)
    logger.addHandler(logging.NullHandler())
    if "screen" in destinations:
        logger.addHandler(_Screen("{message}"))
    if "log" in destinations:
        logger.addHandler(_file("{created:.7f} {message}"))
    return logger


def _file(format_text: str) -> logging.Handler:
    handler = logging.FileHandler(log_dir() / "launch.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter(format_text, style="{"))
    return handler


__getattr__ = missing_attribute(__name__)
