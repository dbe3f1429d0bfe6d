"""Which class a pixel takes where maps overlap: a function for each rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.mosaicking.reading import Layer
from geoseg.rasters.writing import NODATA

__all__ = ["RULES", "Composed", "score_type"]

Shape = tuple[int, int]


@dataclass
class Composed:
    """A window of the mosaic.

    Attributes:
        ids: uint8 (H, W); 255 where no map has a class.
        pixels: number of a map -> pixels that show its class; with ``frequent``, of which it has
            a vote.
    """

    ids: NDArray[np.uint8]
    pixels: dict[int, int] = field(default_factory=dict)


def _highest(layers: Iterable[Layer], most: int, shape: Shape, ids: Sequence[int]) -> Composed:
    """Take the first map that has a class; those below it are not even read where it has all."""
    done = Composed(np.full(shape, NODATA, np.uint8))
    for layer in layers:
        new = (done.ids == NODATA) & (layer.ids != NODATA)
        done.ids[new] = layer.ids[new]
        done.pixels[layer.number] = int(new.sum())
        if (done.ids != NODATA).all():
            break
    return done


def _confident(layers: Iterable[Layer], most: int, shape: Shape, ids: Sequence[int]) -> Composed:
    """Take the map with the highest probability; of equals, and where none is known, the first."""
    done = Composed(np.full(shape, NODATA, np.uint8))
    best = np.full(shape, -1.0, np.float32)
    number = np.full(shape, -1, np.int32)
    for layer in layers:
        assert layer.confidence is not None
        # One that is not known is below all that are, and above none.
        confidence = np.where(np.isnan(layer.confidence), np.float32(-0.5), layer.confidence)
        new = (layer.ids != NODATA) & (confidence > best)
        done.ids[new], best[new], number[new] = layer.ids[new], confidence[new], layer.number
    numbers, counts = np.unique(number[number >= 0], return_counts=True)
    done.pixels = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    return done


def _frequent(layers: Iterable[Layer], most: int, shape: Shape, ids: Sequence[int]) -> Composed:
    """Take the class that most maps have; of equals the one that a map of higher rank has.

    A vote counts more than all ranks, and a class's first vote brings its map's rank: so no two
    classes of a pixel are equal, and one number for each pixel and class is enough.
    """
    vote = most + 1
    score = np.zeros((len(ids), *shape), score_type(most))
    code = np.zeros(256, np.intp)
    code[list(ids)] = np.arange(len(ids))
    done = Composed(np.full(shape, NODATA, np.uint8))
    for rank, layer in enumerate(layers):
        y, x = np.nonzero(layer.ids != NODATA)
        place = code[layer.ids[y, x]], y, x
        score[place] += np.where(score[place] == 0, vote + most - rank, vote).astype(score.dtype)
        done.pixels[layer.number] = len(y)
    voted = score.any(axis=0)
    done.ids[voted] = np.asarray(ids, np.uint8)[score.argmax(axis=0)[voted]]
    return done


def score_type(most: int) -> np.dtype[Any]:
    """Choose the numbers in which the votes of so many maps are counted."""
    return np.min_scalar_type((most + 1) * (most + 1))


#: Word -> function of the layers by rank, how many they are at most, the window's shape and the
#: classes' ids.
RULES: dict[str, Callable[[Iterable[Layer], int, Shape, Sequence[int]], Composed]] = {
    "newest": _highest,
    "confident": _confident,
    "frequent": _frequent,
    "first": _highest,
    "last": _highest,
}
