"""What a scene is, from files to numbers that a model takes.

In go paths or addresses; out come bands whose sensor, meaning and place are known, and a reader of
windows of them. :mod:`~geoseg.scene.sources` decides which files may be opened and what they may
point to: ``pointers.py`` finds what virtual rasters and sidecars name, ``vector_sources.py`` looks
at vector files. :mod:`~geoseg.scene.declared` refuses sizes that are absurd,
:mod:`~geoseg.scene.sensors` recognises sensors by names and tags, :mod:`~geoseg.scene.radiometry`
turns stored numbers into reflectance, and :mod:`~geoseg.scene.reader` reads, resampling where bands
differ. Start with ``scene.py``.
"""
