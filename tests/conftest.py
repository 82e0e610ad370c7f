"""Fixtures that several test files use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: more threads only wait for each other on a busy machine
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every command that a test starts compiles its modules anew

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


@pytest.fixture
def in_time() -> Iterator[None]:
    """Fails a test that waits for ever, as one that reads from a pipe into which nobody writes."""

    def stop(*_: object) -> None:
        raise AssertionError("still waiting after 30 s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
