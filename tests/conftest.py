"""Fixtures that several test files use."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: more threads only wait for each other on a busy machine

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what tests compute out of the user's cache."""
    os.environ["EVFI_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of shared real recordings and reference numbers; skips where it is absent."""
    folder = Path(os.environ.get("EVFI_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"shared data absent ({folder}); set EVFI_SHARED to its folder")
    return folder
