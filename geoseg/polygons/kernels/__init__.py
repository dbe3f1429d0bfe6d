"""Loops over pixels, edges and vertices, compiled; words that all of them use.

Corners of pixels are the points of a lattice, (col, row) with row downwards. An **edge** is the
side of a pixel between unlike classes; nodata and what lies outside the raster are one class, code
0. A **node** is a corner where three or four edges meet; an **arc** is a run of edges between two
nodes, or a loop without any. Every edge is in exactly one arc, and an arc has one region on its
left and another on its right, all along. Where a strip ends, an arc is cut into **pieces**.
Headings are 0 east, 1 south, 2 west, 3 north.

In the order of their work: :mod:`~geoseg.polygons.kernels.regions` numbers regions,
:mod:`~geoseg.polygons.kernels.tracing` walks the pieces of arcs between them,
:mod:`~geoseg.polygons.kernels.joining` makes arcs of pieces,
:mod:`~geoseg.polygons.kernels.simplifying` takes vertices out of arcs,
:mod:`~geoseg.polygons.kernels.smoothing` cuts corners,
:mod:`~geoseg.polygons.kernels.rings` makes rings of arcs.
:mod:`~geoseg.polygons.kernels.absorbing` decides which region takes a small one. Start with
``arcs.py``, the table that most of them share.
"""
