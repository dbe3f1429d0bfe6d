"""Fill what was not measured from the nearest measured pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.importing import IMPORTING

__all__ = ["fill_nearest"]


def fill_nearest(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Replace what was not measured by the nearest measured pixel.

    Args:
        pixels: (C, H, W), any dtype.
        valid: (H, W), at least one True.

    Returns:
        A new array like ``pixels``.
    """
    with IMPORTING:
        from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    filled, missing = pixels.copy(), ~valid
    filled[:, missing] = pixels[:, nearest[0][missing], nearest[1][missing]]
    return filled
