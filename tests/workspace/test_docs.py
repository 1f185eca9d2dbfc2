"""Documents say what is: the printed topic table, links, and the commands they show."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from mu0_core.config import add_arguments
from mu0_core.ros.interfaces import markdown_table

# Programs whose options are those of a configuration: package/executable, module and class.
OPTIONS = {
    "mu0_policy/train_action_expert": (
        "mu0_policy.action_expert.training_config:ExpertTrainingConfig"
    ),
    "mu0_policy/ablate_action_expert": "mu0_policy.action_expert.ablation:AblationConfig",
    "mu0_policy/export_lerobot": "mu0_policy.demonstrations.export_lerobot:ExportConfig",
    "mu0_sim/libero": "mu0_sim.libero.series:LiberoConfig",
    "mu0_sim/record": "mu0_sim.recorder:RecorderConfig",
    "mu0_sim/rollouts": "mu0_sim.rollouts:RolloutConfig",
}
ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def test_the_topic_table_is_the_one_in_the_code():
    assert markdown_table() in (ROOT / "docs" / "topics.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_launch_files_and_executables_that_are_shown_exist(document):
    text = document.read_text()
    for name in re.findall(r"ros2 launch mu0_bringup (\S+)", text):
        assert (ROOT / "launch" / "launch" / name).is_file(), name
    for package, executable in re.findall(r"ros2 run (mu0_\w+) (\w+)", text):
        assert f"{executable} = " in (ROOT / "src" / package / "setup.py").read_text()


@pytest.mark.parametrize("program", OPTIONS)
def test_options_that_are_shown_exist(program):
    module, name = OPTIONS[program].split(":")
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser, getattr(importlib.import_module(module), name))
    package, executable = program.split("/")
    n_shown = 0
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        for words in re.findall(rf"ros2 run {package} {executable}\b([^`|\n]*)", text):
            given = [_as_declared(word) for word in shlex.split(words, comments=True)]
            _, unknown = parser.parse_known_args(given)
            assert not unknown, f"{document.name}: {words}"
            n_shown += 1
    assert n_shown


def _as_declared(word: str) -> str:
    """Spell an option as it is declared: the command of LIBERO takes hyphens for underscores."""
    if not word.startswith("--") or word.startswith("--no-"):
        return word
    return "--" + word.removeprefix("--").replace("-", "_")
