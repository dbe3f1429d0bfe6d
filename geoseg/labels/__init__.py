"""Labels of others: rasters, polygons and colours, as class ids on a scene's grid.

In go files, and names or numbers of classes; out come windows of class ids, and which pixels are
labelled. Both training and evaluation read labels here. ``open_labels`` in ``labels.py`` decides
between rasters, :mod:`~geoseg.labels.polygons` and :mod:`~geoseg.labels.colours`;
:mod:`~geoseg.labels.classes` matches names with a legend, :mod:`~geoseg.labels.vector_files` reads
features. Start with ``labels.py``.

For other rooms:
    classes: class_ids, match_classes, spelled
    colours: ColorLabels, color_table, colors_on_grid, open_color_labels, parse_colors
    labels: RasterLabels, open_labels
    polygons: PixelsOfFeatures, PlacedPolygons, PolygonFile, read_polygons
    vector_files: class_column, is_vector, read_features, read_vector, vector_file
    window: Bounds, check_crs
"""
