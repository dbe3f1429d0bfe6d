"""Rasters that geoseg writes, and class rasters that it reads.

:mod:`~geoseg.rasters.writing` makes cloud-optimized GeoTIFFs with names, colours, overviews and a
style for QGIS, and says how probabilities are stored. :mod:`~geoseg.rasters.vrt` writes virtual
rasters of files that lie side by side. :mod:`~geoseg.rasters.class_raster` opens a map, of geoseg
or of anyone, with its legend and nodata. Start with ``class_raster.py``.
"""
