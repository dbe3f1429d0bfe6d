"""Rasters that geoseg writes, and class rasters that it reads.

:mod:`~geoseg.rasters.writing` makes cloud-optimized GeoTIFFs with names, colours, overviews and a
style for QGIS, and says how probabilities are stored. :mod:`~geoseg.rasters.class_raster` opens a
map, of geoseg or of anyone, with its legend and nodata. Start with ``writing.py``.

For other rooms:
    class_raster: ClassRaster, MAX_ID, MapStrip, Survey, grid_as_written, open_class_raster,
        outside, read_class_window, read_window, survey
    writing: COG_BLOCK, NODATA, POLYGON_STRIP, PROBABILITY_DTYPES, PROBABILITY_STEPS, RasterSpec,
        check_creation_options, decode_probability, encode_probability, halve, try_creation_options,
        write_cog, write_overviews, write_qml, write_vrt
"""
