"""Write demonstrations as a LeRobot v3 data set: `ros2 run mu0_policy export_lerobot`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mu0_core.config import add_arguments, from_namespace, option
from mu0_core.errors import Mu0Error
from mu0_policy.demonstrations.lerobot_writer import write_lerobot
from mu0_policy.demonstrations.reading import SourceConfig, read_demonstrations


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig(SourceConfig):
    """Say what is written where."""

    output: Path = option(description="Folder of the data set; must not exist")


def main(arguments: Sequence[str] | None = None) -> int:
    """Export; the last line of the output has the numbers as JSON."""
    parser = argparse.ArgumentParser(prog="export_lerobot", description=__doc__)
    add_arguments(parser, ExportConfig)
    try:
        config = from_namespace(ExportConfig, parser.parse_args(arguments))
        demonstrations = tqdm(read_demonstrations(config), unit="episode")
        numbers = write_lerobot(demonstrations, config.output)
    except Mu0Error as error:
        parser.exit(2, f"export_lerobot: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "export_lerobot: stopped; nothing was written\n")
    sys.stdout.write(json.dumps(numbers) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
