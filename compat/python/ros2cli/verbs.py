"""What all commands share: verbs as sub-parsers, and how a verb fails."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from rclpy.executors import ExternalShutdownException


class CommandError(Exception):
    """A command cannot do what it was asked; the text goes to stderr, the exit code is 1."""


class VerbParser(argparse.ArgumentParser):
    """A parser that refuses unknown options itself, so that its own usage is shown."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse, refusing what is left over."""
        known, extras = super().parse_known_args(args, namespace)
        if extras:
            self._refuse(extras)
        return known, extras

    def _refuse(self, extras: list[str]) -> NoReturn:
        options = sorted(name for action in self._actions for name in action.option_strings)
        self.error(
            f"unrecognized arguments: {' '.join(extras)}; this stand-in for '{self.prog}' knows "
            f"{', '.join(options)}"
        )


class Verbs:
    """Adds the verbs of one command."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parsers = parser.add_subparsers(
            dest="verb", metavar="verb", required=True, parser_class=VerbParser
        )

    def add(self, name: str, run: Callable[[argparse.Namespace], None]) -> VerbParser:
        """Add a verb that calls `run(args)`; the docstring's first line is its help."""
        text = (run.__doc__ or "").partition("\n")[0]
        parser = self._parsers.add_parser(name, help=text, description=text)
        parser.set_defaults(run=run)
        return parser


def main(args: argparse.Namespace) -> int:
    """Run the chosen verb and return the exit code."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        args.run(args)
    except CommandError as error:
        print(error, file=sys.stderr)
        return 1
    except ExternalShutdownException:
        return signal.SIGTERM
    return 0


def positive_float(text: str) -> float:
    """Read a number above zero for argparse."""
    value = float(text)
    if not value > 0.0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def positive_int(text: str) -> int:
    """Read a whole number above zero for argparse."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text}")
    return value
