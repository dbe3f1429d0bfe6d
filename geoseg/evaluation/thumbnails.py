"""Small pictures of a map and its labels, gathered while the strips go by."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["THUMBNAIL_SIDE", "Pictures", "class_colors", "png"]

#: Longest side of a picture, px.
THUMBNAIL_SIDE = 900
RIGHT, WRONG = (158, 202, 160), (203, 24, 29)

RGB = tuple[int, int, int]


class Pictures:
    """Keeps every n-th pixel of every n-th row of a map and of its labels: nearest neighbours."""

    def __init__(self, height: int, width: int) -> None:
        """Begin before the first strip.

        Args:
            height: of the map, px.
            width: of the map, px.
        """
        self.every = max(1, -(-max(height, width) // THUMBNAIL_SIDE))
        self._first = self.every // 2
        self._cols = np.s_[min(self._first, width - 1) :: self.every]
        self._height = height
        self._mapped: list[NDArray[Any]] = []
        self._labels: list[NDArray[Any]] = []

    def add(
        self,
        top: int,
        ids: NDArray[Any],
        valid: NDArray[np.bool_],
        labels: NDArray[Any] | None = None,
        known: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take the next strip.

        Args:
            top: its first row.
            ids: (H, W) of the map.
            valid: (H, W), where they mean something.
            labels: (H, W) ids of the labels.
            known: (H, W), where they mean something.
        """
        first = min(self._first, self._height - 1)
        start = (first - top) % self.every
        place = (np.s_[start :: self.every], self._cols)
        self._mapped.append(_signed(ids[place], valid[place]))
        if labels is not None and known is not None:
            self._labels.append(_signed(labels[place], known[place]))

    @property
    def mapped(self) -> NDArray[np.int32]:
        """(h, w) ids; -1 for none."""
        return np.concatenate(self._mapped)

    @property
    def labels(self) -> NDArray[np.int32] | None:
        """(h, w) ids; -1 for none. None where no labels came."""
        return np.concatenate(self._labels) if self._labels else None

    def paint(self, ids: NDArray[np.int32], colors: Mapping[int, RGB]) -> NDArray[np.uint8]:
        """Paint ids, (h, w, 4) RGBA; transparent where there is none."""
        out = np.zeros((*ids.shape, 4), np.uint8)
        for i in np.unique(ids).tolist():
            if i in colors:
                out[ids == i] = (*colors[i], 255)
        return out

    def agreement(self) -> NDArray[np.uint8] | None:
        """Paint where map and labels are the same, (h, w, 4) RGBA; None without labels."""
        labels, mapped = self.labels, self.mapped
        if labels is None:
            return None
        out = np.zeros((*mapped.shape, 4), np.uint8)
        both = (labels >= 0) & (mapped >= 0)
        out[both & (labels == mapped)] = (*RIGHT, 255)
        out[both & (labels != mapped)] = (*WRONG, 255)
        return out


def _signed(ids: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Put -1 where ids mean nothing, whatever their dtype."""
    return np.where(valid, ids.astype(np.int32), np.int32(-1))


def class_colors(dataset: Any, ids: list[int]) -> dict[int, RGB]:
    """Choose colours of the classes: the raster's colour table, or where it has none, any.

    Args:
        dataset: rasterio's.
        ids: of the classes.
    """
    try:
        table = dataset.colormap(1)
    except ValueError:  # it has none
        table = {}
    if all(i in table for i in ids) and len({table[i][:3] for i in ids}) == len(ids):
        return {i: (table[i][0], table[i][1], table[i][2]) for i in ids}
    from matplotlib import colormaps

    some = (np.asarray(colormaps["tab20"].colors)[:, :3] * 255).round().astype(int).tolist()  # type: ignore[attr-defined]
    picked = [some[(2 * k + (k // 10) % 2) % 20] for k in range(len(ids))]
    return {i: (c[0], c[1], c[2]) for i, c in zip(ids, picked, strict=True)}


def png(rgba: NDArray[np.uint8]) -> bytes:
    """Write a picture as a PNG file."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, rgba, format="png")
    return buffer.getvalue()
