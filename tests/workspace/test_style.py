"""The linters run clean."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("command", [["ruff", "check"], ["ruff", "format", "--check"]])
def test_ruff(command):
    result = subprocess.run(
        [sys.executable, "-m", *command, str(ROOT)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_mypy():
    folders = sorted(str(path.parent) for path in ROOT.glob("src/*/*/__init__.py"))
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "bootstrap", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
