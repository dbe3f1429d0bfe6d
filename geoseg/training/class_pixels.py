"""How many pixels each class has, square by square."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoseg.training.scenes import TrainingScene

__all__ = ["pixels_by_class"]


def pixels_by_class(scene: TrainingScene, classes: int, side: int, cell: int) -> NDArray[np.int64]:
    """Count usable pixels in square cells.

    Args:
        scene: the scene.
        classes: K.
        side: of the split.
        cell: side of a cell, px.

    Returns:
        int64 (rows of cells, columns of cells, K).
    """
    height, width = scene.shape
    down, across = -(-height // cell), -(-width // cell)
    counts = np.zeros((down, across, classes), np.int64)
    columns = np.arange(width) // cell
    for row in range(down):
        rows = slice(row * cell, min((row + 1) * cell, height))
        keep = scene.usable(rows, side)
        place = columns[None].repeat(rows.stop - rows.start, axis=0)[keep]
        flat = place * classes + scene.target[rows][keep]
        counts[row] = np.bincount(flat, minlength=across * classes).reshape(across, classes)
    return counts
