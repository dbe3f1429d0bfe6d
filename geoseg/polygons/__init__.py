"""From a class raster to polygons, and to files of them.

Rows of class ids go in, strip by strip from the top; regions that are closed come out as polygons
with areas and confidence, in memory that does not grow with the raster.
:mod:`~geoseg.polygons.polygonize` leads: :mod:`~geoseg.polygons.source` reads a map,
:mod:`~geoseg.polygons.merging` gives small regions to neighbours, :mod:`~geoseg.polygons.coverage`
keeps what is open between strips and gives polygons away when they are closed,
:mod:`~geoseg.polygons.table` makes rows of them, and :mod:`~geoseg.polygons.formats` has a file for
each format. The loops over pixels, edges and vertices are in :mod:`~geoseg.polygons.kernels`, one
file for each question: why is this polygon split, also where strips meet (``regions.py``), why does
this border run so (``simplifying.py``), who took this region (``absorbing.py``). Start with
``polygonize.py``.

For other rooms:
    formats: check_suffix, write_points
    formats.layers: OtherLayers
    inputs: MapRows, legend_of, with_not_sure
    options: MOST_POLYGONS
    polygonize: write_polygons, write_rows
    vectorizing: vectorize
"""
