"""One band of a scene: its name, its file, and what its numbers mean as far as files say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.file_blocks import FileBlocks
from geoseg.scene.sources import LOCAL, Rules

__all__ = ["Mask", "SceneBand", "finest_grid", "pixel_size"]


class Mask(Protocol):
    """Pixels of a file that were not measured, found before it is read."""

    def mask(self, window: Window) -> NDArray[np.bool_] | None:
        """Find them in a window of the file: (H, W), True = not measured; None for none."""


@dataclass(frozen=True)
class SceneBand:
    """One band of a scene.

    Attributes:
        name: geoseg's band name, or None where it is not known.
        label: as found: description or file stem; ``#3`` where there is neither.
        path: the file.
        index: in the file, from 1.
        dtype: of the numbers.
        nodata: the number that stands for "not measured", or None.
        scale: quantity per number by the item or the file's tags, or None.
        offset: quantity at number 0 by the item or the file's tags, or None.
        grid: of the file.
        rules: what the file may point to.
        by_item: whether scale and offset are those of a STAC item, not the file's.
        told_by: what else says scale and offset, in words: a product's metadata; "" for the file.
        alpha: whether a band that the file marks as alpha says what was measured; not where an
            item says that it is a band like others, or its values do.
        wavelength: of its middle by the file's metadata, nm, or None.
        named_by: what says the name, in words; "" for its label.
        nodata_by: what says nodata, in words; "" for the file.
        bits: of its numbers where they are fewer than the dtype has, by the file or a product's
            metadata: 11 of WorldView's counts in uint16; else None.
        fills: numbers that stand for "not measured" too, although no tag says so; 0 only where it
            is that in all bands.
        dark_zeros: whether 0 in some bands only, where nodata is 0, is dark ground; not where 0
            stands for less than any ground has.
        collar: which pixels of the file are a near-black collar, and so not measured; or None.
        blocks: what the file is decoded by; None where that isn't known.
    """

    name: str | None
    label: str
    path: str
    index: int
    dtype: str
    nodata: float | None
    scale: float | None
    offset: float | None
    grid: PixelGrid
    rules: Rules = LOCAL
    by_item: bool = False
    told_by: str = ""
    alpha: bool = True
    wavelength: float | None = None
    named_by: str = ""
    nodata_by: str = ""
    bits: int | None = None
    fills: tuple[float, ...] = ()
    dark_zeros: bool = True
    collar: Mask | None = None
    blocks: FileBlocks | None = None

    @property
    def has_words(self) -> bool:
        """Whether the file calls it anything."""
        return not self.label.startswith("#")

    def __str__(self) -> str:
        """Name and label, for messages."""
        return f"{self.name} ({self.label})" if self.name not in (None, self.label) else self.label


def finest_grid(bands: Sequence[SceneBand]) -> PixelGrid:
    """Find the grid of the band with the smallest pixels."""
    # Thousands of bands of one file share a grid, and measuring it takes milliseconds.
    return min({id(b.grid): b.grid for b in bands}.values(), key=pixel_size)


def pixel_size(grid: PixelGrid) -> float:
    """Measure a pixel: square metres, or square CRS units where metres are not known."""
    return grid.pixel_area or abs(grid.transform.determinant)
