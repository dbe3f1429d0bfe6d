"""What GDAL raises through rasterio."""

from __future__ import annotations

import rasterio.errors

# GDAL's own errors mostly arrive as rasterio.errors.RasterioError, but those found while a file is
# flushed or its overviews are made come as they are, and have no public name (rasterio 1.4).
from rasterio._err import CPLE_BaseError

__all__ = ["GDAL_ERRORS"]

#: For ``except``.
GDAL_ERRORS: tuple[type[Exception], ...] = (
    rasterio.errors.RasterioError,
    CPLE_BaseError,
    OSError,
)
