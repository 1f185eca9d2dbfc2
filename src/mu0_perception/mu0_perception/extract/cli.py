"""Command line of TraceExtract: `ros2 run mu0_perception extract SOURCE OUT`."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from mu0_core.config import add_arguments, from_namespace, load_yaml
from mu0_core.errors import Mu0Error
from mu0_perception.extract.config import ExtractConfig
from mu0_perception.extract.many import extract_all
from mu0_perception.extract.pipeline import Result
from mu0_perception.extract.sources import find_recordings
from mu0_perception.extract.state import check_apart

_COLUMNS = ("recording", "became", "episodes", "pictures", "points", "x real time")


def main(arguments: Sequence[str] | None = None) -> int:
    """Extract recordings; the last line of the output is a summary as JSON."""
    parser = _parser()
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR)
    started_s = time.monotonic()
    results: list[Result] = []
    try:
        base = load_yaml(ExtractConfig, given.config) if given.config else None
        config = from_namespace(ExtractConfig, given, base)
        check_apart(given.source, given.out)
        found = find_recordings(given.source, config.source)
        if given.max_recordings:
            found = found[: given.max_recordings]
        with tqdm(total=len(found), unit="recording", disable=None) as bar:
            series = extract_all(
                found,
                given.out,
                config,
                jobs=given.jobs,
                ray_address=given.ray,
                report=bar.set_postfix_str,
            )
            for result in series:
                results.append(result)
                bar.update()
                tqdm.write(_line(result), file=sys.stderr)
    except Mu0Error as error:
        parser.exit(2, f"extract: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "extract: stopped; the same command goes on from here\n")
    sys.stdout.write(table(results) + "\n")
    sys.stdout.write(json.dumps(summary(results, time.monotonic() - started_s)) + "\n")
    return int(any(r.status == "failed" for r in results))


def summary(results: Sequence[Result], wall_s: float) -> dict[str, object]:
    """Return the figures of a run, for a machine to read."""
    statuses = [r.status for r in results]
    fresh = [r for r in results if r.status != "kept"]
    duration_s = sum(r.figures.get("duration_s", 0.0) for r in fresh)
    stages: dict[str, float] = {}
    for result in fresh:
        for name, value in result.figures.items():
            if name.endswith("_cpu_s"):
                stages[name] = stages.get(name, 0.0) + value
    return {
        "recordings": len(results),
        **{status: statuses.count(status) for status in ("done", "kept", "still", "failed")},
        "episodes": sum(len(r.episodes) for r in results),
        "recorded_s": round(duration_s, 1),
        "wall_s": round(wall_s, 1),
        "realtime_factor": round(duration_s / wall_s, 2) if wall_s else None,
        "peak_memory_mb": round(max((r.peak_memory_mb for r in results), default=0.0)),
        "stages": {name: round(value, 2) for name, value in stages.items()},
        "failures": {r.name: r.reason for r in results if r.status == "failed"},
        "caption_failures": {r.name: r.caption_failures for r in results if r.caption_failures},
    }


def table(results: Sequence[Result]) -> str:
    """Return what became of all recordings, a line each."""
    rows = [_COLUMNS, *(_row(r) for r in sorted(results, key=lambda r: r.name))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _row(result: Result) -> tuple[str, ...]:
    figures = result.figures
    speed = figures.get("duration_s", 0.0) / figures["wall_s"] if figures.get("wall_s") else 0.0
    return (
        result.name,
        result.status,
        str(len(result.episodes)),
        str(int(figures.get("pictures", 0))),
        str(int(figures.get("points", 0))),
        f"{speed:.1f}" if result.status == "done" else "-",
    )


def _line(result: Result) -> str:
    """Say what became of a recording, what was read of it, and what was used for it."""
    details = ", ".join(
        f"{name}: {value}"
        for name, value in result.details.items()
        if isinstance(value, str | int | float)
    )
    backends = ", ".join(f"{stage}: {name}" for stage, name in result.backends.items())
    parts = [f"{result.name}: {result.status}", result.reason, details, backends]
    return "; ".join(part for part in parts if part)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="extract", description="Turn recordings into training episodes."
    )
    parser.add_argument("source", type=Path, help="a recording, or a folder with many")
    parser.add_argument("out", type=Path, help="folder of the episodes; a run in it is resumed")
    parser.add_argument("--config", type=Path, help="YAML file with the values below")
    parser.add_argument("--jobs", type=int, default=1, help="processes beside each other")
    parser.add_argument("--ray", default="", metavar="ADDRESS", help="address of a Ray cluster")
    parser.add_argument("--max-recordings", type=int, default=0, help="stop after so many")
    add_arguments(parser, ExtractConfig)
    return parser


if __name__ == "__main__":
    sys.exit(main())
