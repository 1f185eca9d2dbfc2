"""Own the extraction of many recordings at once: here, in local processes, or on a Ray cluster."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path

from mu0_core.config import to_dict
from mu0_core.errors import ConfigError
from mu0_perception.extract.config import ExtractConfig
from mu0_perception.extract.pipeline import Result, extract_recording
from mu0_perception.extract.recording import Found
from mu0_perception.extract.state import OutFolder, check_apart

Report = Callable[[str], None]
Work = Callable[[Found], Result]


def extract_all(
    found: list[Found],
    out: Path,
    config: ExtractConfig,
    *,
    jobs: int = 1,
    ray_address: str = "",
    report: Report = lambda text: None,
) -> Iterator[Result]:
    """Extract recordings, in any order; the folder of the episodes is claimed first.

    Args:
        found: The recordings.
        out: Folder of the episodes; it is made if it is not there.
        config: All stages.
        jobs: Processes beside each other; 1 works in this one.
        ray_address: Address of a Ray cluster, all of whose nodes see the same files; "" for none.
        report: Is told what is being done, where that is in this process.

    Returns:
        What became of each, as soon as it is known.

    Raises:
        ConfigError: The folder holds or is a recording, or belongs to another configuration.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs: expected 1 or more processes, got {jobs}")
    for path in {recording.path for recording in found}:
        check_apart(path, out)
    OutFolder(out).claim(to_dict(config))
    if ray_address:
        return _on_ray(found, out, config, ray_address)
    if jobs == 1 or len(found) == 1:
        return (extract_recording(r, out, config, _named(report, r)) for r in found)
    return _in_processes(found, partial(extract_recording, out=out, config=config), jobs)


def _in_processes(found: list[Found], work: Work, jobs: int) -> Iterator[Result]:
    """Work in processes; who may have brought one down is tried once more, alone."""
    todo = deque(found)
    while todo:
        suspects: list[Found] = []
        yield from _until_one_dies(todo, work, min(jobs, len(todo)), suspects)
        for recording in suspects:
            guilty: list[Found] = []
            yield from _until_one_dies(deque([recording]), work, 1, guilty)
            if guilty:
                yield _lost(recording, "it was killed twice, such as for want of memory")


def _until_one_dies(
    todo: deque[Found], work: Work, jobs: int, suspects: list[Found]
) -> Iterator[Result]:
    """Work until all is done, or a process died; then suspects are those that were worked on."""
    # Forked children would inherit locks of libraries that run threads.
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
    running: dict[Future[Result], Found] = {}
    try:
        while running or (todo and not suspects):
            while todo and len(running) < jobs and not suspects:
                recording = todo.popleft()
                try:
                    running[pool.submit(work, recording)] = recording
                except BrokenProcessPool:
                    suspects.append(recording)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                recording = running.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    suspects.append(recording)
                except Exception as error:  # such as a result that does not come across
                    yield _lost(recording, error)
    finally:
        pool.shutdown(cancel_futures=True)


def _on_ray(
    found: list[Found], out: Path, config: ExtractConfig, address: str
) -> Iterator[Result]:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--ray: Ray is not installed; requirements/ray.txt names the version"
        ) from error
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except Exception as error:  # Ray raises many kinds
        raise ConfigError(f"--ray {address}: no Ray cluster to be had there: {error}") from error
    task = ray.remote(num_cpus=1, max_retries=2)(extract_recording)
    # Nodes have working folders of their own.
    absolute = [replace(recording, path=recording.path.absolute()) for recording in found]
    waiting = {task.remote(r, out.resolve(), config): r for r in absolute}
    while waiting:
        done, _ = ray.wait(list(waiting), num_returns=1)
        for reference in done:
            recording = waiting.pop(reference)
            try:
                yield ray.get(reference)
            except Exception as error:  # Ray wraps whatever went wrong on the node
                yield _lost(recording, error)


def _named(report: Report, recording: Found) -> Report:
    return lambda text: report(f"{recording.name}: {text}")


def _lost(recording: Found, error: object) -> Result:
    return Result(name=recording.name, status="failed", reason=f"its process was lost: {error}")
