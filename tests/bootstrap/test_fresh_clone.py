"""A fresh clone sets itself up and passes tests, with each Python that is supported.

Downloads everything and builds it: minutes long, run by name with `-m slow`.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def _python(version):
    """Return an interpreter of that version that works, or skip."""
    name = f"python{version}"
    candidates = [shutil.which(name), *Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}")]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return str(candidate)
    pytest.skip(f"no {name} on this machine")


@pytest.fixture
def clone(tmp_path):
    """Return a clone of what is committed here."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "mu0")], check=True)
    return tmp_path / "mu0"


def _clean_environment(version):
    """The environment of a shell that knows nothing of this workspace."""
    kept = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL", "HOME", "TERM"))}
    return {**kept, "PATH": "/usr/local/bin:/usr/bin:/bin", "MU0_PYTHON": _python(version)}


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_a_fresh_clone_passes_its_core_tests(clone, version):
    environment = _clean_environment(version)
    result = subprocess.run(
        ["./mu0", "test", "src/mu0_core"],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    start = time.monotonic()
    subprocess.run(["./mu0", "run", "true"], cwd=clone, env=environment, check=True)
    assert time.monotonic() - start < 10.0


def test_an_interrupted_set_up_goes_on(clone):
    environment = _clean_environment("3.11")
    process = subprocess.Popen(
        ["./mu0", "setup"],
        cwd=clone,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stderr:
        if "Python packages" in line:
            break
    time.sleep(5.0)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    result = subprocess.run(
        ["./mu0", "setup"], cwd=clone, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "virtual environment" not in result.stderr, "what was done is done again"
    assert "set-up complete" in result.stderr
