"""Own the command that shows runs in TensorBoard: `ros2 run mu0_world_model watch`.

It is TensorBoard without the plugins of other packages: one that cannot be loaded on a machine
would keep all of it from starting.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mu0_core.config import add_arguments, from_namespace, option, validate
from mu0_core.errors import Mu0Error


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """Say what is shown and where."""

    runs: Path = option(Path("out"), description="Folder of a run, or one that holds several")
    port: int = option(6006, description="Port of the page", low=1, high=65535)
    everywhere: bool = option(False, description="Show it to other machines too")

    def __post_init__(self) -> None:
        fault = None
        if not self.runs.is_dir():
            fault = f"runs: expected a folder, there is no {self.runs}"
        validate(self, fault)


def tensorboard_words(config: WatchConfig) -> list[str]:
    """Return the command line of TensorBoard, the program's name first."""
    words = ["tensorboard", "--logdir", str(config.runs), "--port", str(config.port)]
    return words + ["--bind_all"] * config.everywhere


def main(arguments: Sequence[str] | None = None) -> None:
    """Show runs until interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description="Show training runs in TensorBoard.")
    add_arguments(parser, WatchConfig)
    try:
        config = from_namespace(WatchConfig, parser.parse_args(arguments))
    except Mu0Error as error:
        parser.exit(2, f"error: {error}\n")
    from tensorboard import default, program

    board = program.TensorBoard(plugins=default.get_static_plugins())
    board.configure(argv=tensorboard_words(config))
    parser.exit(board.main())


if __name__ == "__main__":
    main()
