"""The loops that `estimation` spends its time in, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evfi.compiled import compiled


@compiled
def sums_by_quarter(
    sums: NDArray[np.float32],
    usable: NDArray[np.float32],
    difference: NDArray[np.float32],
    top: int,
    left: int,
) -> NDArray[np.float64]:
    """What correlations need of the sums of polarity, added up over each quarter of the picture.

    Args:
        sums: of polarity [h, w].
        usable: 1 for usable cells, 0 for others, with a border [H, W].
        difference: of log levels, 0 where unusable, with a border [H, W].
        top: row of the bordered pictures on which the first row of `sums` lies.
        left: the same for columns.

    Returns:
        The sums, their squares, both over usable cells, and their products with the difference, float64 [4, 3]; the quarters
        of a picture one cell high or wide are that cell, twice.
    """
    height, width = sums.shape
    found = np.zeros((4, 3), np.float64)
    columns = np.zeros((3, width), np.float64)
    for lower in range(2):
        columns[:] = 0.0
        first = height // 2 if lower else 0
        last = height if lower else max(height // 2, 1)
        for row in range(first, last):
            for column in range(width):
                value = sums[row, column]
                is_usable = usable[top + row, left + column]
                columns[0, column] += value * is_usable
                columns[1, column] += value * value * is_usable
                columns[2, column] += value * difference[top + row, left + column]
        for right in range(2):
            start = width // 2 if right else 0
            stop = width if right else max(width // 2, 1)
            for column in range(start, stop):
                for kind in range(3):
                    found[2 * lower + right, kind] += columns[kind, column]
    return found


@compiled
def blurred(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Smoothed by (1, 2, 1) / 4 along both sides, so that neighbouring shifts and events of neighbouring cells agree.

    Args:
        image: float32 [H, W]; its outermost values continue beyond its edges.

    Returns:
        float32 [H, W].
    """
    height, width = image.shape
    two, sixteenth = np.float32(2), np.float32(1 / 16)
    smooth = np.empty((height, width), np.float32)
    rows = np.empty(width, np.float32)
    for row in range(height):
        above, below = max(row - 1, 0), min(row + 1, height - 1)
        for column in range(width):
            rows[column] = two * image[row, column] + image[above, column] + image[below, column]
        for column in range(width):
            left, right = max(column - 1, 0), min(column + 1, width - 1)
            smooth[row, column] = (two * rows[column] + rows[left] + rows[right]) * sixteenth
    return smooth


@compiled
def sums_at_shifts(
    cells: NDArray[np.int32],
    polarities: NDArray[np.int8],
    shape: tuple[int, int],
    factor: int,
    usable: NDArray[np.float32],
    difference: NDArray[np.float32],
    corners: NDArray[np.int64],
) -> NDArray[np.float64]:
    """What correlations need of the events between two frames, at several shifts.

    Args:
        cells: cell of each event, int32 [N].
        polarities: of each event, int8 [N].
        shape: (height, width) of the grid of cells.
        factor: how many of its cells are one here, along either side.
        usable: 1 for usable cells, 0 for others, with a border [H, W].
        difference: of log levels, 0 where unusable, with a border [H, W].
        corners: row and column of the bordered pictures on which the first cell lies at each shift, int64 [S, 2].

    Returns:
        For each shift and quarter, as `sums_by_quarter` does, float64 [S, 4, 3].
    """
    height, width = shape
    rows, columns = max(height // factor, 1), max(width // factor, 1)
    sums = np.zeros((rows, columns), np.float32)
    for index in range(len(cells)):
        row, column = cells[index] // width // factor, cells[index] % width // factor
        if row < rows and column < columns:  # an incomplete last row or column is left out
            sums[row, column] += polarities[index]
    smooth = blurred(sums)
    found = np.empty((len(corners), 4, 3), np.float64)
    for index in range(len(corners)):
        found[index] = sums_by_quarter(smooth, usable, difference, corners[index, 0], corners[index, 1])
    return found
