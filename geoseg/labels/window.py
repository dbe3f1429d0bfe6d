"""What all kinds of labels have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import LabelError

__all__ = ["Bounds", "Labels", "check_crs"]


Bounds = tuple[float, float, float, float]


class Labels(NamedTuple):
    """What is known of the pixels of a window.

    Attributes:
        ids: (H, W) whole numbers; where nothing is known they mean nothing.
        known: (H, W), True where there is a label.
        disputed: (H, W), True where polygons of different classes overlap: nothing is known there.
        ignored: (H, W), True where the label is one that means no class; not known either.
    """

    ids: NDArray[Any]
    known: NDArray[np.bool_]
    disputed: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


def check_crs(has: bool, path: str, other_has: bool, other: str) -> None:
    """Refuse a CRS on one side only.

    Raises:
        LabelError: it is so.
    """
    if has != other_has:
        bare, bound = (other, path) if has else (path, other)
        raise LabelError(
            f"{bare} has no CRS and {bound} has one, so they can't be brought together; give it "
            f"its CRS (gdal_edit.py -a_srs or ogr2ogr -a_srs)"
        )
