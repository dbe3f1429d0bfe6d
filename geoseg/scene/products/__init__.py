"""Products as their makers deliver them: which files are bands, and what the metadata say.

One file a maker, and the tables of them here. To add one: a module with ``layout``, which finds the
bands of a folder or archive, ``told``, which finds what metadata beside a file say of its band, or
both; and a line in each table. What the numbers of a product mean by its name alone stands in
:mod:`geoseg.scene.sensors`. Start with :func:`layout_of` and :func:`told_of`.
"""

from __future__ import annotations

from collections.abc import Callable

from geoseg.scene.products import airbus, dimap, landsat, maja, maxar, planet, sentinel2
from geoseg.scene.products.told import Layout, Told

__all__ = ["Layout", "Told", "layout_of", "told_of"]

#: Each gives None where a folder isn't of its kind.
LAYOUTS: tuple[Callable[[str], Layout | None], ...] = (
    sentinel2.layout,
    maja.layout,
    planet.layout,
    dimap.layout,
    maxar.layout,
    airbus.layout,
)
#: Each gives None where it knows nothing of the file.
TELLERS: tuple[Callable[[str, int, int], Told | None], ...] = (
    sentinel2.told,
    landsat.told,
    planet.told,
    dimap.told,
    maxar.told,
    airbus.told,
)


def layout_of(folder: str) -> Layout | None:
    """Find the bands of a product in a folder, or in what an archive holds.

    Args:
        folder: its path.

    Returns:
        None where it is no product that is laid out in a way of its own.
    """
    return next((found for layout in LAYOUTS if (found := layout(folder)) is not None), None)


def told_of(path: str, index: int, count: int) -> Told | None:
    """Find what a product's metadata say of a file's band.

    Args:
        path: of the file, on this machine.
        index: of the band, from 1.
        count: of the file's bands.

    Returns:
        None where nothing is said.
    """
    return next((said for tell in TELLERS if (said := tell(path, index, count)) is not None), None)
