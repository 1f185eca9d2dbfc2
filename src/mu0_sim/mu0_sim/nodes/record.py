"""Command line of the recorder: `ros2 run mu0_sim record --robot panda --out DIR`."""

import argparse
import json
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from mu0_core.config import add_arguments, from_namespace
from mu0_core.errors import Mu0Error
from mu0_sim.recorder import Outcome, RecorderConfig, TapeMaker, record, summary


def _tape_maker(config: RecorderConfig) -> TapeMaker | None:
    """Return what makes bags; only that needs ROS."""
    if not config.bag:
        return None
    from mu0_sim.nodes.bag import BagTape

    return BagTape


def main(arguments: Sequence[str] | None = None) -> int:
    """Record a series; the last line of the output is its summary as JSON."""
    parser = argparse.ArgumentParser(prog="record", description=__doc__)
    add_arguments(parser, RecorderConfig)
    started_s = time.monotonic()
    outcomes: list[Outcome] = []
    try:
        config = from_namespace(RecorderConfig, parser.parse_args(arguments))
        series = record(config, _tape_maker(config))
        for outcome in tqdm(series, total=config.episodes, unit="episode"):
            outcomes.append(outcome)
            for fault in outcome.faults:
                tqdm.write(f"seed {outcome.seed}: {fault}", file=sys.stderr)
    except Mu0Error as error:
        parser.exit(2, f"record: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "record: stopped; the same command goes on from here\n")
    sys.stdout.write(json.dumps(summary(outcomes, started_s)) + "\n")
    return 0 if all(o.recorded and not o.faults for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
