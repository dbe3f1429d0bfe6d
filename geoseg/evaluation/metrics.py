"""How well a map agrees with the truth, in numbers.

Everything comes from one confusion matrix, int64 (K, K), truth in rows and prediction in columns,
over all pixels of all images. Matrices of parts add up to that of the whole, so a large raster is
counted strip by strip. The mean over images of each image's IoU is another number, which changes
with how a scene is cut, and is not given here.

A measure that is undefined (0 / 0) is NaN, never 0 or 1; means leave it out. The formulas are those
of Everingham et al. 2010, VOC (https://doi.org/10.1007/s11263-009-0275-4) for IoU; Long et al.
2015, FCN, section 5 (https://arxiv.org/abs/1411.4038) for pixel accuracy, mean accuracy and
frequency-weighted IoU; Cohen 1960 (https://doi.org/10.1177/001316446002000104) for kappa.

To add a measure: one function of the matrix, and one line in :data:`MEASURES` or
:data:`CLASS_MEASURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import EvaluationError

__all__ = [
    "CLASS_MEASURES",
    "MEASURES",
    "class_mean",
    "confusion",
    "f1",
    "frequency_weighted_iou",
    "iou",
    "kappa",
    "mean_iou",
    "pixel_accuracy",
    "precision",
    "recall",
]


def confusion(
    truth: NDArray[Any],
    predicted: NDArray[Any],
    classes: int | Sequence[int],
    *,
    ignore_index: int | None = 255,
) -> NDArray[np.int64]:
    """Count pixels by truth and prediction.

    Args:
        truth: integers, any shape: class ids, or ``ignore_index`` where nothing is known.
        predicted: integers of the same shape: class ids. What stands where truth is ignored does
            not matter.
        classes: the ids in the order of the matrix, 0 to 65535; a number K stands for 0 to K - 1.
        ignore_index: the id in truth that is left out; None leaves out nothing.

    Returns:
        int64 (K, K): row i, column j counts the pixels of class i that were called class j.

    Raises:
        EvaluationError: shapes differ, an array is not of integers, the table is unsound, or a
            pixel holds an id that is not in it.

    Examples:
        >>> truth, predicted = np.array([3, 3, 7, 255]), np.array([3, 7, 7, 7])
        >>> confusion(truth, predicted, [3, 7])
        array([[1, 1],
               [0, 1]])
        >>> confusion(truth[:0], predicted[:0], 2)
        array([[0, 0],
               [0, 0]])
    """
    ids = np.asarray(range(classes) if isinstance(classes, int) else classes, np.int64)
    if not len(ids) or len(np.unique(ids)) < len(ids) or ids.min() < 0 or ids.max() > 65535:
        raise EvaluationError(
            f"the classes are {ids.tolist()}; they must be ids of 0 to 65535, each once"
        )
    if truth.shape != predicted.shape:
        raise EvaluationError(
            f"the truth has the shape {truth.shape} and the prediction {predicted.shape}; both "
            f"must lie on the same pixels: bring one to the grid of the other"
        )
    if ignore_index is not None:
        known = truth != ignore_index
        truth, predicted = truth[known], predicted[known]
    pairs = _places(truth, ids, "truth") * len(ids) + _places(predicted, ids, "prediction")
    # bincount gives what the machine indexes with, which may be 32 bits; sums must not overflow.
    counts = np.bincount(pairs.ravel(), minlength=len(ids) ** 2).astype(np.int64)
    return counts.reshape(len(ids), len(ids))


def _places(array: NDArray[Any], ids: NDArray[np.int64], what: str) -> NDArray[np.int64]:
    """Look up the place of each pixel's id in the table.

    Raises:
        EvaluationError: an id is not in it, or the array is not of integers.
    """
    if array.dtype.kind not in "iu":
        raise EvaluationError(
            f"the {what} is of {array.dtype}; class ids are integers: take the class raster, not "
            f"probabilities"
        )
    # Every id below and above the classes looks up the last entry, which is no class.
    table = np.full(ids.max() + 2, -1, np.int64)
    table[ids] = np.arange(len(ids))
    place: NDArray[np.int64] = table[array.astype(np.int64).clip(-1, len(table) - 1)]
    stray = place < 0
    if stray.any():
        raise EvaluationError(
            f"the {what} holds {np.unique(array[stray])[:8].tolist()} in {int(stray.sum())} "
            f"pixels; the classes are {ids.tolist()}: name all classes, or put the ignored id into "
            f"the truth where a pixel shall not count"
        )
    return place


def _hits_truth_predicted(
    counts: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count of each class pixels that are right, pixels of it in truth, and pixels called it."""
    return np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Divide; NaN where the whole is 0."""
    result = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=result, where=np.asarray(whole) > 0)
    return result


def class_mean(values: NDArray[np.float64]) -> float:
    """Average a measure over the classes for which it is defined.

    Args:
        values: float64 (K,), NaN where undefined.

    Returns:
        The mean; NaN where nothing is defined, without numpy's warning.

    Examples:
        >>> class_mean(np.array([0.5, np.nan, 1.0]))
        0.75
    """
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class, TP / (TP + FP + FN).

    Args:
        counts: int64 (K, K) of :func:`confusion`.

    Returns:
        float64 (K,), 0 to 1; NaN for a class that is neither in truth nor in prediction.

    Examples:
        >>> iou(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
        array([0.75, 0.8 ,  nan])
    """
    hits, truth, predicted = _hits_truth_predicted(counts)
    return _ratio(hits, truth + predicted - hits)


def precision(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the pixels called a class that are of it, TP / (TP + FP): the user's accuracy.

    Args:
        counts: int64 (K, K) of :func:`confusion`.

    Returns:
        float64 (K,), 0 to 1; NaN for a class that no pixel was called.
    """
    hits, _, predicted = _hits_truth_predicted(counts)
    return _ratio(hits, predicted)


def recall(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of a class's pixels that were called it, TP / (TP + FN): the producer's accuracy.

    Args:
        counts: int64 (K, K) of :func:`confusion`.

    Returns:
        float64 (K,), 0 to 1; NaN for a class that is not in truth.
    """
    hits, truth, _ = _hits_truth_predicted(counts)
    return _ratio(hits, truth)


def f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN): the Dice coefficient.

    Args:
        counts: int64 (K, K) of :func:`confusion`.

    Returns:
        float64 (K,), 0 to 1; NaN for a class that is neither in truth nor in prediction.
    """
    hits, truth, predicted = _hits_truth_predicted(counts)
    return _ratio(2 * hits, truth + predicted)


def mean_iou(counts: NDArray[np.int64]) -> float:
    """Mean of :func:`iou` over the classes that are in truth or prediction (TP + FP + FN > 0).

    Args:
        counts: int64 (K, K) of :func:`confusion`.

    Returns:
        0 to 1; NaN where there is no pixel.

    Examples:
        >>> mean_iou(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
        0.775
    """
    return class_mean(iou(counts))


def pixel_accuracy(counts: NDArray[np.int64]) -> float:
    """Share of the pixels that are called what they are: overall accuracy.

    Args:
        counts: int64 (K, K) of :func:`confusion`.

    Returns:
        0 to 1; NaN where there is no pixel.
    """
    return float(_ratio(np.trace(counts), counts.sum()))


def frequency_weighted_iou(counts: NDArray[np.int64]) -> float:
    """Mean of :func:`iou` with the classes' shares of the truth as weights.

    Args:
        counts: int64 (K, K) of :func:`confusion`.

    Returns:
        0 to 1; NaN where there is no pixel.
    """
    share = _ratio(counts.sum(axis=1), counts.sum())
    # A class that is not in truth has no share, whether its IoU is 0 or undefined.
    return float(np.where(share == 0, 0.0, share * iou(counts)).sum())


def kappa(counts: NDArray[np.int64]) -> float:
    """Cohen's kappa: agreement beyond what chance would give, (a - e) / (1 - e).

    a is the pixel accuracy, e the sum over the classes of (share in truth) (share in prediction).

    Args:
        counts: int64 (K, K) of :func:`confusion`.

    Returns:
        At most 1, 0 for chance; NaN where there is no pixel, or truth and prediction are one and
        the same class everywhere: chance alone agrees then.
    """
    # Shares before their product: the product of two counts can exceed 64 bits.
    total = counts.sum()
    truth, predicted = (_ratio(counts.sum(axis=axis), total) for axis in (1, 0))
    chance = float(truth @ predicted)
    return float(_ratio(np.asarray(pixel_accuracy(counts) - chance), np.asarray(1.0 - chance)))


#: Name -> one number for the whole map.
MEASURES: dict[str, Callable[[NDArray[np.int64]], float]] = {
    "pixel_accuracy": pixel_accuracy,
    "mean_class_accuracy": lambda counts: class_mean(recall(counts)),
    "mean_iou": mean_iou,
    "frequency_weighted_iou": frequency_weighted_iou,
    "mean_f1": lambda counts: class_mean(f1(counts)),
    "kappa": kappa,
}

#: Name -> one number for each class.
CLASS_MEASURES: dict[str, Callable[[NDArray[np.int64]], NDArray[np.float64]]] = {
    "iou": iou,
    "precision": precision,
    "recall": recall,
    "f1": f1,
}
