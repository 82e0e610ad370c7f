"""Fixtures of the tests that disturb jobs; a module's `WINDOWS` says how long its recording is."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_jobs import NUM_WINDOWS, FaultJob, write_recording


@pytest.fixture(scope="module")
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    windows = getattr(request.module, "WINDOWS", NUM_WINDOWS)
    return write_recording(tmp_path_factory.mktemp("recording") / "scene", windows)


@pytest.fixture(scope="module")
def undisturbed(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Checksums of what a job makes that nothing disturbs."""
    job = FaultJob(recording, tmp_path_factory.mktemp("undisturbed"), seconds=0)
    finished = job.run_here()
    assert finished.status == 0, finished.err
    return job.results()
