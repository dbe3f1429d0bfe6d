"""Shadows of houses and trees laid over training chips: dark ground is not water."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy.ndimage import gaussian_filter

from geoseg.training.augment import WAVELENGTH

__all__ = ["cast_shadows"]

Floats = NDArray[np.float32]

#: Shadows of one chip at most.
MOST = 6
#: Share of the lost light that the blue sky gives back in blue; it falls with the square of the
#: wavelength, so that shadows are bluish.
SKY = 0.3


def cast_shadows(
    rng: np.random.Generator, pixels: Floats, bands: Sequence[str], most: float
) -> Floats:
    """Darken parts of a chip as shadows do; elsewhere it stays to the last bit.

    One sun casts all of a chip's shadows: of boxes, with straight edges, and of crowns, which are
    round and ragged. They fall from things that need not be in the picture.

    Args:
        rng: all that is random.
        pixels: float32 (C, H, W), physical values.
        bands: C names.
        most: the most of the light that is lost, 0 to 1; at least a third of it is.

    Returns:
        float32 (C, H, W).
    """
    height, width = pixels.shape[-2:]
    away = rng.uniform(0, 2 * math.pi)
    shapes = [_shadow(rng, height, width, away) for _ in range(int(rng.integers(1, MOST + 1)))]
    dark = rasterize([(s, 1.0) for s in shapes], (height, width), dtype="float32")
    # Half shade: the sun is half a degree wide, and a pixel sees some of both.
    blurred = gaussian_filter(dark, rng.uniform(0.4, 1.2))
    shade = np.where(blurred > 0.02, blurred, np.float32(0))
    wave = np.array([WAVELENGTH.get(b, 1.0) for b in bands], np.float32)
    lost = rng.uniform(most / 3, most) * (1 - SKY * (WAVELENGTH["blue"] / wave) ** 2)
    taken = lost.astype(np.float32)[:, None, None] * shade * np.maximum(pixels, 0)
    return np.asarray(pixels - taken, np.float32)


def _shadow(rng: np.random.Generator, height: int, width: int, away: float) -> shapely.Geometry:
    """Draw the shadow of one thing, px: what it stands on, swept away from the sun."""
    side = max(min(height, width), 8)
    row, col = rng.uniform(0, height), rng.uniform(0, width)
    size = side * math.exp(rng.uniform(math.log(0.03), math.log(0.3)))
    if rng.random() < 0.5:
        across = size * rng.uniform(0.2, 1)
        foot = shapely.affinity.rotate(
            shapely.box(col - size / 2, row - across / 2, col + size / 2, row + across / 2),
            rng.uniform(0, 180),
        )
    else:
        count = int(rng.integers(1, 9))
        places = rng.normal((col, row), size / 2, (count, 2))
        radii = size * rng.uniform(0.15, 0.5, count)
        foot = shapely.union_all(shapely.buffer(shapely.points(places), radii, quad_segs=6))
    far = size * rng.uniform(0.2, 1.5)
    moved = shapely.affinity.translate(foot, far * math.cos(away), far * math.sin(away))
    parts = zip(shapely.get_parts(foot), shapely.get_parts(moved), strict=True)
    return shapely.union_all([shapely.convex_hull(shapely.union(a, b)) for a, b in parts])
