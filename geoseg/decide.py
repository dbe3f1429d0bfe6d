"""From probabilities to a class, on the device where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["decide"]


def decide(probs: Any) -> tuple[NDArray[np.intp] | NDArray[np.uint8], NDArray[np.float32]]:
    """The likeliest class of each pixel, and how likely it is.

    Of equals the first one wins. A NaN among a pixel's probabilities makes its likeliest one NaN.

    Args:
        probs: float32 (K, H, W), a numpy array or a tensor on any device.

    Returns:
        Place in the legend (H, W), and float32 (H, W); both numpy arrays.

    Examples:
        >>> winner, best = decide(np.array([[[0.25, 0.5]], [[0.75, 0.5]]], np.float32))
        >>> winner.tolist(), best.tolist()
        ([[1, 0]], [[0.75, 0.5]])
    """
    if isinstance(probs, np.ndarray):
        winner = probs.argmax(axis=0)
        return winner, np.take_along_axis(probs, winner[None], axis=0)[0]
    # Only these small arrays leave a GPU.
    index = probs.argmax(dim=0)
    best = probs.gather(0, index[None])[0]
    return index.byte().cpu().numpy(), best.cpu().numpy()
