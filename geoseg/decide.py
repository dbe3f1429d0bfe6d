"""From probabilities to a class, on the device where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["decide"]


def decide(probs: Any) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The likeliest class of each pixel, and how likely it is.

    Of equals the first one wins. A NaN among a pixel's probabilities makes its likeliest one NaN.

    Args:
        probs: float32 (K, H, W), K up to 255, a numpy array or a tensor on any device. It goes
            quickest where ``H * W`` numbers fit into the cache.

    Returns:
        Place in the legend, uint8 (H, W), and float32 (H, W); both numpy arrays.

    Examples:
        >>> winner, best = decide(np.array([[[0.25, 0.5]], [[0.75, 0.5]]], np.float32))
        >>> winner.tolist(), best.tolist()
        ([[1, 0]], [[0.75, 0.5]])
    """
    if isinstance(probs, np.ndarray):
        return _decide(probs)
    # Only these small arrays leave a GPU.
    index = probs.argmax(dim=0)
    best = probs.gather(0, index[None])[0]
    return index.byte().cpu().numpy(), best.cpu().numpy()


def _decide(probs: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Class by class: numpy's argmax over the first axis takes several times as long."""
    best = probs[0].copy()
    winner = np.zeros(best.shape, np.uint8)
    better = np.empty(best.shape, np.bool_)
    place = np.empty(best.shape, np.uint8)
    for k, own in enumerate(probs[1:], start=1):
        np.greater(own, best, out=better)
        np.maximum(own, best, out=best)
        # Where it is better it is the greatest place so far: the last to be better is the best.
        np.multiply(better.view(np.uint8), np.uint8(k), out=place)
        np.maximum(winner, place, out=winner)
    return winner, best
