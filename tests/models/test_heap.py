"""Free memory goes back to the operating system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from evfi.models import refiner
from evfi.models.heap import give_back

MIB = 2**20


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_what_lies_between_other_tensors_goes_back():
    blocks = [torch.ones(32 * 1024) for _ in range(2400)]  # 128 KiB each: not mapped one by one
    kept = blocks[::3]
    full = resident()
    del blocks
    give_back()
    assert resident() < full - 100 * MIB
    assert len(kept) == 800


def test_bands_give_back_what_they_took(monkeypatch: pytest.MonkeyPatch):
    calls: list[None] = []
    monkeypatch.setattr(refiner, "give_back", lambda: calls.append(None))
    pictures = torch.arange(64.0).view(1, 1, 16, 4)
    for bands in (1, 4):
        (made,) = refiner._in_bands(lambda top, part: (part + 1,), [(pictures, 1)], bands, halo=2)
        assert torch.equal(made, pictures + 1)
    assert len(calls) == 4
