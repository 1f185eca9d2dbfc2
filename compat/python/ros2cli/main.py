"""Dispatch `ros2 <command>` to the module `ros2cli.commands.<command>`.

A command is found by its file name and has a docstring (its help), `add_arguments(parser)` and
`main(args)`, which returns the exit code or raises RuntimeError with a text for the user. Only
the module of the chosen command is imported.
"""

import argparse
import ast
import difflib
import importlib
import io
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ros2cli import commands

REAL_COMMANDS_ELSEWHERE = "the real ros2 command (apt install ros-jazzy-ros2cli) may have it"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ros2` with the given arguments (default: those of the process)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    known = _known_commands()
    if not argv or argv[0] in ("-h", "--help"):
        _print_help(known)
        return 0
    name, rest = argv[0], argv[1:]
    if name not in known:
        print(_unknown_command(name, known), file=sys.stderr)
        return 2
    module = importlib.import_module(f"ros2cli.commands.{name}")
    parser = argparse.ArgumentParser(prog=f"ros2 {name}", description=module.__doc__)
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        return int(module.main(args))
    except KeyboardInterrupt:
        return signal.SIGINT
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _known_commands() -> dict[str, Path]:
    return {
        m.name: Path(m.module_finder.path) / f"{m.name}.py"  # type: ignore[union-attr]
        for m in pkgutil.iter_modules(commands.__path__)
        if not m.name.startswith("_")
    }


def _print_help(known: dict[str, Path]) -> None:
    print("usage: ros2 <command> ...\n\nCommands:")
    for name, path in sorted(known.items()):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        print(f"  {name:<10} {text.partition(chr(10))[0]}")


def _unknown_command(name: str, known: dict[str, Path]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return (
        f"ros2: '{name}' is not a command of this stand-in; {hint}"
        f"known: {', '.join(sorted(known))} ({REAL_COMMANDS_ELSEWHERE})"
    )


if __name__ == "__main__":
    sys.exit(main())
