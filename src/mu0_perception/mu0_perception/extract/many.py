"""Own the extraction of many recordings at once: here, in local processes, or on a Ray cluster."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from mu0_core.errors import ConfigError
from mu0_perception.extract.config import ExtractConfig
from mu0_perception.extract.pipeline import Result, extract_recording
from mu0_perception.extract.recording import Found

Report = Callable[[str], None]


def extract_all(
    found: list[Found],
    out: Path,
    config: ExtractConfig,
    *,
    jobs: int = 1,
    ray_address: str = "",
    report: Report = lambda text: None,
) -> Iterator[Result]:
    """Extract recordings, in any order.

    Args:
        found: The recordings.
        out: Folder of the episodes, claimed for this configuration.
        config: All stages.
        jobs: Processes beside each other; 1 works in this one.
        ray_address: Address of a Ray cluster, all of whose nodes see the same files; "" for none.
        report: Is told what is being done, where that is in this process.

    Yields:
        What became of each, as soon as it is known.
    """
    if ray_address:
        yield from _on_ray(found, out, config, ray_address)
    elif jobs == 1 or len(found) == 1:
        for recording in found:
            yield extract_recording(recording, out, config, _named(report, recording))
    else:
        yield from _in_processes(found, out, config, jobs)


def _in_processes(
    found: list[Found], out: Path, config: ExtractConfig, jobs: int
) -> Iterator[Result]:
    # Forked children would inherit locks of libraries that run threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(found)), mp_context=context) as pool:
        waiting: dict[Future[Result], Found] = {
            pool.submit(extract_recording, r, out, config): r for r in found
        }
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                recording = waiting.pop(future)
                error = future.exception()
                if error is None:
                    yield future.result()
                else:  # the process itself died, such as for want of memory
                    yield _lost(recording, error)


def _on_ray(
    found: list[Found], out: Path, config: ExtractConfig, address: str
) -> Iterator[Result]:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--ray: Ray is not installed; requirements/ray.txt names the version"
        ) from error
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    task = ray.remote(num_cpus=1, max_retries=2)(extract_recording)
    waiting = {task.remote(r, out.resolve(), config): r for r in found}
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


def _lost(recording: Found, error: BaseException) -> Result:
    return Result(name=recording.name, status="failed", reason=f"its process was lost: {error}")
