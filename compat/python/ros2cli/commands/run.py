"""Run an executable of a package."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ros2 run`."""
    parser.add_argument("--prefix", help="command to put before the executable, one text")
    parser.add_argument("package_name", help="package")
    parser.add_argument("executable_name", help="executable in <prefix>/lib/<package>")
    parser.add_argument("argv", nargs=argparse.REMAINDER, help="arguments of the executable")


def main(args: argparse.Namespace) -> int:
    """Become the executable, so that terminal, signals and exit code are its own."""
    known = executables(args.package_name)
    found = [path for path in known if path.name == args.executable_name]
    if len(found) > 1:
        raise RuntimeError("\n- ".join(["Multiple executables found:", *map(str, found)]))
    if not found:
        names = ", ".join(path.name for path in known) or "none"
        raise RuntimeError(
            f"No executable found: '{args.executable_name}' in package '{args.package_name}', "
            f"which has: {names}"
        )
    command = [*shlex.split(args.prefix or ""), str(found[0]), *args.argv]
    sys.stdout.flush()
    os.execvp(command[0], command)


def executables(package: str) -> list[Path]:
    """Return the executables of a package."""
    try:
        prefix = get_package_prefix(package)
    except (PackageNotFoundError, ValueError) as error:
        raise RuntimeError(f"Package '{package}' not found") from error
    paths = sorted(Path(prefix, "lib", package).rglob("*"))
    return [p for p in paths if p.is_file() and os.access(p, os.X_OK)]
