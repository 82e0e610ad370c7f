"""The background activity filter's loop over events, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evfi.compiled import compiled


@compiled
def mark_supported(
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    t: NDArray[np.int64],
    support_us: int,
    latest: NDArray[np.int64],
    keep: NDArray[np.bool_],
) -> None:
    """Set `keep` for each event with an event of one of the 8 pixels around it in the `support_us` before.

    Args:
        x: columns [N].
        y: rows [N].
        t: times in order [N], µs.
        support_us: how far back support may lie, inclusive.
        latest: time of each pixel's latest event, int64 [H + 2, W + 2]; it is brought up to date.
        keep: result, bool [N].
    """
    for i in range(len(t)):
        row, column, since = y[i] + 1, x[i] + 1, t[i] - support_us
        supported = False
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                if (dy != 0 or dx != 0) and latest[row + dy, column + dx] >= since:
                    supported = True
        keep[i] = supported
        latest[row, column] = t[i]
