"""Library modules stay free of ROS, and what needs no model stays free of torch."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mu0_world_model"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
WITHOUT_TORCH = {"config", "presets", "statistics", "metrics"}


def imported_by(*modules: str) -> set[str]:
    """Import modules in a fresh interpreter and return all that came with them."""
    lines = [f"import mu0_world_model.{module}" for module in modules]
    program = "; ".join([*lines, "import sys", "print(*sys.modules)"])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_library_modules_do_not_import_ros():
    found = imported_by(*MODULES)
    assert "mu0_world_model.train" in found
    assert not {"rclpy", "mu0_msgs", "launch"} & found


def test_sizes_and_measures_do_not_import_torch():
    assert "torch" not in imported_by(*sorted(WITHOUT_TORCH))


@pytest.mark.parametrize("module", MODULES)
def test_files_stay_readable(module):
    assert len((PACKAGE / f"{module}.py").read_text().splitlines()) < 500
