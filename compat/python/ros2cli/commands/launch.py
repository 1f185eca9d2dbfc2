"""Run a launch file."""

import argparse
import os
import sys
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_context import LaunchContext
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch.utilities import describe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ros2 launch`."""
    parser.add_argument(
        "-n",
        "--noninteractive",
        action="store_true",
        default=not sys.stdin.isatty(),
        help="there is no terminal",
    )
    parser.add_argument("-d", "--debug", action="store_true", help="log more")
    parser.add_argument(
        "-s",
        "--show-args",
        "--show-arguments",
        action="store_true",
        help="show the arguments of the launch file",
    )
    parser.add_argument(
        "-a",
        "--show-all-subprocesses-output",
        action="store_true",
        help="show what every process prints",
    )
    parser.add_argument("--launch-prefix", help="command to put before all executables")
    parser.add_argument("package_name", help="package, or path of a launch file")
    parser.add_argument("launch_file_name", nargs="?", help="launch file of the package")
    parser.add_argument("launch_arguments", nargs="*", help="<name>:=<value>")


def main(args: argparse.Namespace) -> int:
    """Run or describe the launch file."""
    texts = list(args.launch_arguments)
    if os.path.isfile(args.package_name):
        path = args.package_name
        texts = [*([args.launch_file_name] if args.launch_file_name else []), *texts]
    else:
        path = find_launch_file(args.package_name, args.launch_file_name)
    if args.launch_prefix:
        texts.append(f"launch-prefix:={args.launch_prefix}")
    source = AnyLaunchDescriptionSource(path)
    if args.show_args:
        _show_arguments(source.get_launch_description(LaunchContext()))
        return 0
    if args.show_all_subprocesses_output:
        os.environ["OVERRIDE_LAUNCH_PROCESS_OUTPUT"] = "both"
    service = LaunchService(argv=texts, noninteractive=args.noninteractive, debug=args.debug)
    include = IncludeLaunchDescription(source, launch_arguments=parse_arguments(texts).items())
    service.include_launch_description(LaunchDescription([include]))
    return service.run()


def find_launch_file(package: str, file_name: str | None) -> str:
    """Return the path of a launch file anywhere in the share directory of a package."""
    try:
        share = get_package_share_directory(package)
    except (PackageNotFoundError, ValueError) as error:
        raise RuntimeError(f"Package '{package}' not found: {error}") from error
    if file_name is None:
        raise RuntimeError(f"no launch file given for package '{package}'")
    found = sorted(str(p) for p in Path(share).rglob(file_name) if p.is_file())
    if not found:
        raise RuntimeError(
            f"file '{file_name}' was not found in the share directory of package '{package}' "
            f"which is at '{share}'"
        )
    if len(found) > 1:
        raise RuntimeError(
            f"file '{file_name}' was found more than once in the share directory of package "
            f"'{package}': {found}"
        )
    return found[0]


def parse_arguments(texts: list[str]) -> dict[str, str]:
    """Return `<name>:=<value>` texts as a dict; the last of a name wins."""
    values: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition(":=")
        if not name or not separator or not value:
            raise RuntimeError(
                f"malformed launch argument '{text}', expected format '<name>:=<value>'"
            )
        values[name] = value
    return values


def _show_arguments(description: LaunchDescription) -> None:
    print("Arguments (pass arguments as '<name>:=<value>'):")
    arguments = description.get_launch_arguments()
    for argument in arguments:
        mark = "*" if argument.conditionally_included else ""
        print(f"\n    '{argument.name}':{mark}\n        {argument.description}")
        if argument.default_value is not None:
            print(f"        (default: {describe(argument.default_value)})")
    if not arguments:
        print("\n  No arguments.")
    if any(a.conditionally_included for a in arguments):
        print("\n* argument(s) which are only used if specific conditions occur")
