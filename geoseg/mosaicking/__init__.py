"""Many maps become one: ``geoseg mosaic``.

Class rasters go in, of scenes that overlap or adjoin, perhaps of several UTM zones; one class
raster and one layer of polygons come out. :mod:`~geoseg.mosaicking.run` leads:
:mod:`~geoseg.mosaicking.finding` says which files are meant, :mod:`~geoseg.mosaicking.maps` sees
that they have one legend, :mod:`~geoseg.mosaicking.grid` decides where the mosaic's pixels lie,
:mod:`~geoseg.mosaicking.places` where each of them lies in a map, :mod:`~geoseg.mosaicking.reading`
reads maps through few open files, :mod:`~geoseg.mosaicking.tops` says which map is on top, and
:mod:`~geoseg.mosaicking.pixels` writes what they give.

The mosaic is made window by window, so that memory depends neither on its size nor on the number of
maps. Laws: the window's size changes no byte, nor does a part (``bbox``) differ from the whole;
where one map lies alone on the mosaic's pixels, these are the map's; nodata never covers a class;
polygons are made of the mosaic, so none is cut where two scenes meet. Start with ``run.py``.

For other rooms:
    run: mosaic
"""
