"""Times of frames as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evfi.errors import OutputError
from evfi.video.timecodes import write_timecodes


def test_times_are_milliseconds_with_three_decimals(tmp_path: Path):
    write_timecodes(tmp_path / "a.txt", iter([0, 7, 40_000, np.int64(3_600_000_040)]))
    assert (tmp_path / "a.txt").read_bytes() == b"# timecode format v2\n0.000\n0.007\n40.000\n3600000.040\n"


def test_failure_leaves_nothing(tmp_path: Path):
    def broken():
        yield 0
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_timecodes(tmp_path / "a.txt", broken())
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="there is no folder"):
        write_timecodes(tmp_path / "no" / "a.txt", [0])
