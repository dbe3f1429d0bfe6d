"""From a class raster to polygons, and to files of them.

Rows of class ids go in, strip by strip from the top; regions that are closed come out as polygons
with areas and confidence, in memory that does not grow with the raster.
:mod:`~geoseg.polygons.polygonize` leads; :mod:`~geoseg.polygons.coverage` keeps the regions that
are open between strips and joins them; :mod:`~geoseg.polygons.arcs` has the kernels that trace
borders; :mod:`~geoseg.polygons.merging` gives small regions to neighbours;
:mod:`~geoseg.polygons.generalize` simplifies and smooths borders that two polygons share;
:mod:`~geoseg.polygons.formats` writes GeoPackage, GeoParquet and the others. Start with
``polygonize.py``.
"""
