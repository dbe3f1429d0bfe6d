"""Labels of others: rasters, polygons and colours, as class ids on a scene's grid.

In go files, and names or numbers of classes; out come windows of class ids, and which pixels are
labelled. Both training and evaluation read labels here. Everything is in ``labels.py``: start with
``open_labels``.
"""
