"""From probabilities to classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.failures import explained_failures
from geoseg.core.importing import IMPORTING
from geoseg.errors import ModelError

__all__ = ["Decision", "decide"]


@dataclass(frozen=True)
class Decision:
    """What pixels are.

    Attributes:
        ids: class ids, uint8 (H, W).
        best: the greatest probability of each pixel, valid or not, float32 (H, W).
        counts: valid pixels of each class, int64 (K,), and after them of those that are not sure,
            where that is asked for.
        finite: whether ``best`` is finite at all valid pixels.
    """

    ids: NDArray[np.uint8]
    best: NDArray[np.float32]
    counts: NDArray[np.int64]
    finite: bool


def decide(
    probs: Any,
    valid: NDArray[np.bool_],
    legend: NDArray[np.uint8],
    nodata: int,
    unsure: tuple[float, int] | None = None,
) -> Decision:
    """The likeliest class of each pixel, and how likely it is.

    Of equals the first one wins. A NaN among a pixel's probabilities makes its likeliest one NaN.

    Args:
        probs: float32 (K, H, W), K up to 255, a numpy array or a tensor on any device.
        valid: (H, W).
        legend: class ids, uint8 (K,), none of them ``nodata``.
        nodata: the id of pixels that are not valid.
        unsure: the least probability of a class, and the id of valid pixels that have none; None
            where any will do.

    Raises:
        DeviceError: the device that the tensor is on failed.
        ModelError: probabilities are not of so many classes and pixels.

    Examples:
        >>> probs = np.array([[[0.25, 0.5, 0.5]], [[0.75, 0.5, 0.5]]], np.float32)
        >>> valid = np.array([[True, True, False]])
        >>> decided = decide(probs, valid, np.array([4, 7], np.uint8), 255)
        >>> decided.ids.tolist(), decided.best.tolist(), decided.counts.tolist()
        ([[7, 4, 255]], [[0.75, 0.5, 0.5]], [1, 1])
    """
    # The kernel takes on trust that these fit.
    if tuple(probs.shape) != (len(legend), *valid.shape) or legend.dtype != np.uint8:
        raise ModelError(
            f"probabilities are {tuple(probs.shape)} where {len(legend)} classes are decided on "
            f"{valid.shape[0]}x{valid.shape[1]} px; correct the runtime or the model's card"
        )
    if isinstance(probs, np.ndarray):
        with IMPORTING:
            from geoseg.prediction import blending

        ids, best = np.empty(valid.shape, np.uint8), np.empty(valid.shape, np.float32)
        counts = np.zeros(len(legend), np.int64)
        probs = np.ascontiguousarray(probs)
        finite = blending.decide(probs, valid, legend, nodata, ids, best, counts)
    else:
        with explained_failures(str(probs.device)):
            # Only these small arrays leave a GPU.
            index = probs.argmax(dim=0)
            likeliest = probs.gather(0, index[None])[0]
            numbers, best = index.byte().cpu().numpy(), likeliest.cpu().numpy()
        ids = legend[numbers]
        np.copyto(ids, np.uint8(nodata), where=~valid)
        finite = bool((np.isfinite(best) | ~valid).all())
        counts = np.array([np.count_nonzero(ids == i) for i in legend])
    if unsure is not None:
        least, own = unsure
        doubted = valid & (best < np.float32(least))
        numbers = np.bincount(ids[doubted], minlength=256)[legend]
        ids[doubted] = own
        counts = np.append(counts - numbers, numbers.sum())
    return Decision(ids, best, counts, finite)
