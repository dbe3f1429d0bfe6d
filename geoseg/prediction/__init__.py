"""From a scene to a map: what ``geoseg predict`` does.

:mod:`~geoseg.prediction.plan` decides everything beforehand, and ``geoseg predict --dry-run`` ends
there. :mod:`~geoseg.prediction.run` is the straight line: rows of chips
(:mod:`~geoseg.prediction.chips`) go through a runtime, :mod:`~geoseg.prediction.stitch` blends what
overlaps, :mod:`~geoseg.prediction.decide` takes classes, and finished strips go to the journal
(:mod:`~geoseg.prediction.journal`), from which a stopped run goes on.
:mod:`~geoseg.prediction.budget` keeps to memory, :mod:`~geoseg.prediction.report` counts and tells.
Start with ``run.py``.
"""
