"""How much each class counts in the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoseg.errors import TrainingError
from geoseg.training.chips import ChipSource
from geoseg.training.recipe import TrainConfig

__all__ = ["class_weights", "median_frequency_weights"]


def class_weights(
    config: TrainConfig, source: ChipSource
) -> Sequence[float] | NDArray[np.float64] | None:
    """Take the class weights from the recipe, or measure them on the training side.

    Args:
        config: the recipe.
        source: has counted the pixels of the training side.

    Returns:
        K numbers; None where all classes count alike.
    """
    if isinstance(config.class_weights, tuple):
        return config.class_weights
    if config.class_weights == "none":
        return None
    return median_frequency_weights(source.class_pixels, source.class_appearances)


def median_frequency_weights(counts: ArrayLike, appearances: ArrayLike) -> NDArray[np.float64]:
    """Class weights by which rare classes count more: median frequency balancing.

    The frequency of a class is its share of the pixels of those images in which it occurs; its
    weight is the median of the frequencies divided by its own. Badrinarayanan et al. 2017, SegNet,
    section 4.1 (https://arxiv.org/abs/1511.00561), after Eigen and Fergus 2015.

    Args:
        counts: K numbers: pixels of each class.
        appearances: K numbers: labelled pixels of the images in which the class occurs, all of
            their pixels, whatever their class.

    Returns:
        float64 (K,); 1 for a class without pixels, which has no part in the median either.

    Raises:
        TrainingError: the numbers are no such counts.

    Examples:
        The second class is on one of two images of 100 px:

        >>> median_frequency_weights([150, 50, 0], [200, 100, 0]).round(3)
        array([0.833, 1.25 , 1.   ])
    """
    counts = np.asarray(counts, np.float64)
    appearances = np.asarray(appearances, np.float64)
    fits = counts.ndim == 1 and counts.shape == appearances.shape
    if not fits or not ((counts >= 0) & (counts <= appearances)).all() or not counts.any():
        raise TrainingError(
            f"the pixels of each class are {counts.tolist()} and those of the images with it "
            f"{appearances.tolist()}; give two lists of one number a class, the first nowhere "
            f"above the second and not all 0"
        )
    seen = counts > 0
    frequency = counts[seen] / appearances[seen]
    weights = np.ones(len(counts))
    weights[seen] = np.median(frequency) / frequency
    return weights
