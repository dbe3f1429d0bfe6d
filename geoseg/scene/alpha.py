"""Whether a band that a file marks as alpha is one: its values say so, not the mark.

Writers mark the fourth band of any picture of four as alpha (GDAL with PHOTOMETRIC=RGB), near
infrared included; where that is 0, which is water, nothing would count as measured.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS, retried

__all__ = ["is_alpha"]

#: So many windows along each side are looked at, each of so many px.
PLACES, SIDE = 5, 64
#: Of what is not 0, so much is full: a feathered edge is narrow.
FULL = 0.9


def is_alpha(dataset: Any, file: str) -> bool:
    """Whether the band that is marked as alpha holds 0 and one full value, in areas.

    Args:
        dataset: rasterio's, with a band so marked.
        file: its path or address.

    Returns:
        True too where all is 0, and where it can't be read, which reading the scene then says.
    """
    index = dataset.colorinterp.index(ColorInterp.alpha) + 1
    dtype = np.dtype(dataset.dtypes[index - 1])
    # Some writers keep 8 bits, or a fraction, in a wider band.
    full = {1.0, 255.0} | ({float(np.iinfo(dtype).max)} if dtype.kind in "iu" else set())
    try:
        values = retried(file, partial(_sample, dataset, index))
    except GDAL_ERRORS:
        return True
    return not values.any() or any(_is_mask(values, most) for most in full)


def _is_mask(values: NDArray[Any], full: float) -> bool:
    """Whether values are 0 and a full one; near them where it is a number that was packed."""
    near = 0.02 * full if full > 1 else 0.0
    opaque = (values >= full - near) & (values <= full)
    between = (values > near) & ~opaque
    # A dark picture has none that is full, a bright one many that are not.
    return bool(opaque.sum() > 0 and opaque.sum() >= FULL * (opaque.sum() + between.sum()))


def _sample(dataset: Any, index: int) -> NDArray[Any]:
    """Pixels of a band from all over a raster, (N,)."""
    height, width = min(SIDE, dataset.height), min(SIDE, dataset.width)
    tops = np.unique(np.linspace(0, dataset.height - height, PLACES).astype(int))
    lefts = np.unique(np.linspace(0, dataset.width - width, PLACES).astype(int))
    return np.concatenate(
        [
            dataset.read(index, window=RasterioWindow(left, top, width, height)).ravel()
            for top in tops.tolist()
            for left in lefts.tolist()
        ]
    )
