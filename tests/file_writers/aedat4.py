"""Writes small AEDAT 4 files for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

START_US = 1_600_000_000_000_000
SIZE = (32, 24)
EXPOSURE_US = 400
FRAME_STEP_US = 10_000


def write_aedat4(
    path: Path,
    *,
    frames: NDArray[np.uint8] | None = None,
    events: NDArray[np.int64] | None = None,
    compression: str = "LZ4",
) -> Path:
    """Write frames [N, H, W] or [N, H, W, 3] (BGR) every 10 ms and events [M, 4] (t, x, y, 0/1); None: no stream."""
    import dv_processing as dv

    config = dv.io.MonoCameraWriter.Config("camera", getattr(dv.CompressionType, compression))
    if events is not None:
        config.addEventStream(SIZE)
    if frames is not None:
        config.addFrameStream(SIZE)
    writer = dv.io.MonoCameraWriter(str(path), config)
    for i, image in enumerate(() if frames is None else frames):
        start = START_US + i * FRAME_STEP_US
        writer.writeFrame(dv.Frame(start, EXPOSURE_US, 0, 0, image, dv.FrameSource.SENSOR))
    if events is not None and len(events):
        for part in np.array_split(events, max(1, len(events) // 100)):
            store = dv.EventStore()
            for t, x, y, p in part.tolist():
                store.push_back(t, x, y, bool(p))
            writer.writeEvents(store)
    del writer
    return path


def random_events(count: int, duration_us: int, seed: int = 0) -> NDArray[np.int64]:
    """Time-ordered events [M, 4] (t, x, y, 0/1) within `duration_us` from START_US on."""
    rng = np.random.default_rng(seed)
    times = START_US + np.sort(rng.integers(0, duration_us, count))
    return np.stack(
        [times, rng.integers(0, SIZE[0], count), rng.integers(0, SIZE[1], count), rng.integers(0, 2, count)], 1
    )
