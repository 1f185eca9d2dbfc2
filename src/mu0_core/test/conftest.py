"""Fixtures that the tests of mu0_core share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Return the folder of numbers that the released code produced, or skip."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").is_file():
            golden = folder.parent / "shared" / "golden" / "mu0_tiny"
            if golden.is_dir():
                return golden
            pytest.skip(f"golden numbers of the released code are not at {golden}")
    pytest.skip("the repository root (the folder with pyproject.toml) is not above this test")
