"""Pixels on the ground, without reading any file.

In go widths, heights, transforms and CRSs; out come grids: :mod:`~geoseg.geo.pixel_grid` is a
raster's own, :mod:`~geoseg.geo.chip_grid` cuts it into overlapping chips and lanes,
:mod:`~geoseg.geo.geodesy` measures areas and lengths on the ellipsoid,
:mod:`~geoseg.geo.disk` finds what lies within so many metres. A window is rows and columns of a
grid (:mod:`~geoseg.geo.window`). Start with ``pixel_grid.py``.

For other rooms:
    chip_grid: ChipGrid, Lane, Part
    disk: Disk
    geodesy: Floats, GroundGrid, Ints, Rings, runs
    model_grid: ModelGrid, Taps, on_model_grid
    pixel_grid: PixelGrid, ROUNDING
    window: Window
"""
