"""Labels of others: rasters, polygons and colours, as class ids on a scene's grid.

In go files, and names or numbers of classes; out come windows of class ids, and which pixels are
labelled. Both training and evaluation read labels here. ``open_labels`` in ``labels.py`` decides
between rasters, :mod:`~geoseg.labels.polygons` and :mod:`~geoseg.labels.colours`;
:mod:`~geoseg.labels.classes` matches names with a legend, :mod:`~geoseg.labels.vector_files` reads
features. Start with ``labels.py``.
"""
