"""Sentinel-2 level 2A by MAJA, as THEIA delivers it: FRE is corrected for slopes, SRE is not."""

from __future__ import annotations

import re

from geoseg.scene.containers import files_in, folders_in, within
from geoseg.scene.products.told import Layout

__all__ = ["layout"]

_BAND = re.compile(r"SENTINEL2[A-D]_.*_(FRE|SRE)_B\d+A?\.tiff?$", re.I)


def layout(folder: str) -> Layout | None:
    """Find the bands of a product's folder; None where it is none."""
    found = {name: match[1].upper() for name in files_in(folder) if (match := _BAND.match(name))}
    if not found:
        return None
    best = "FRE" if "FRE" in found.values() else "SRE"
    others = [
        f"{name}: FRE is there, which is corrected for slopes"
        for name, kind in found.items()
        if kind != best
    ]
    masks = files_in(within(folder, "MASKS")) if "MASKS" in folders_in(folder) else ()
    layers = [
        (within(folder, f"MASKS/{n}"), "CLM") for n in masks if re.search(r"_CLM_R\d\.tiff?$", n)
    ]
    files = [within(folder, name) for name, kind in found.items() if kind == best]
    return Layout(tuple(files), tuple(others), tuple(layers))
