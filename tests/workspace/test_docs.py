"""Documents say what is: the printed topic table, links, and the commands they show."""

import re
from pathlib import Path

import pytest

from mu0_core.ros.interfaces import markdown_table

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
