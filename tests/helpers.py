"""Rasters and models made for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from geoseg.card import ClassInfo, ModelCard
from geoseg.models import create_model, save_model

COLORS = ("#419BDF", "#397D49", "#E49635", "#C4281B", "#A59B8F", "#B39FE1")


def make_raster(
    path: Path,
    values: NDArray[Any],
    *,
    crs: Any = "EPSG:32633",
    transform: Affine = Affine(10, 0, 500000, 0, -10, 5000000),
    descriptions: Sequence[str | None] | None = None,
    nodata: float | None = None,
    mask: NDArray[np.bool_] | None = None,
    internal_mask: bool = True,
    alpha: NDArray[np.uint8] | None = None,
    scales: Sequence[float] | None = None,
    offsets: Sequence[float] | None = None,
    tags: dict[str, str] | None = None,
    **profile: Any,
) -> Path:
    """Write a GeoTIFF of values (C, H, W), with alpha as a further band."""
    if alpha is not None:
        values = np.concatenate([values, alpha[None].astype(values.dtype)])
    count, height, width = values.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal_mask),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=count,
            dtype=values.dtype,
            crs=crs,
            transform=transform,
            nodata=nodata,
            **profile,
        ) as dataset,
    ):
        if alpha is not None:
            dataset.colorinterp = [ColorInterp.gray] * (count - 1) + [ColorInterp.alpha]
        if descriptions is not None:
            for i, text in enumerate(descriptions, start=1):
                if text is not None:
                    dataset.set_band_description(i, text)
        if scales is not None:
            dataset.scales = tuple(scales)
        if offsets is not None:
            dataset.offsets = tuple(offsets)
        if tags:
            dataset.update_tags(**tags)
        dataset.write(values)
        if mask is not None:
            dataset.write_mask(mask)
    return path


def tiny_model(
    folder: Path,
    bands: Sequence[str],
    classes: Sequence[str],
    *,
    network: str = "linear",
    seed: int = 0,
    **card: Any,
) -> Path:
    """Write a model folder with a seeded network."""
    torch.manual_seed(seed)
    options = card.get("network_options", {})
    net = create_model(network, in_channels=len(bands), classes=len(classes), **options)
    legend = tuple(ClassInfo(i, n, COLORS[i % len(COLORS)]) for i, n in enumerate(classes))
    defaults: dict[str, Any] = {
        "name": folder.name,
        "description": "made for a test",
        "network": network,
        "bands": tuple(bands),
        "classes": legend,
        "gsd": 10.0,
        "gsd_range": (0.1, 100_000.0),
        "quantity": "number",
        "size": 64,
        "overlap": 16,
        "license": "Apache-2.0",
    }
    save_model(ModelCard(**{**defaults, **card}), net.eval(), folder)
    return folder
