"""From a scene to a map: what ``geoseg predict`` does.

:mod:`~geoseg.prediction.options` is what a user may ask, :mod:`~geoseg.prediction.plan` decides
everything beforehand, and ``geoseg predict --dry-run`` ends there; where clouds are is decided in
:mod:`~geoseg.prediction.scene_clouds`. :mod:`~geoseg.prediction.run` is the straight line,
:mod:`~geoseg.prediction.engine` its loop: rows of chips (:mod:`~geoseg.prediction.chips`) go
through a runtime, :mod:`~geoseg.prediction.stitch` blends what overlaps by the weights of
:mod:`~geoseg.prediction.tapers`, :mod:`~geoseg.prediction.decide` takes classes (both with the
kernels of ``blending.py``), and :mod:`~geoseg.prediction.sink` takes finished strips to the journal
(:mod:`~geoseg.prediction.journal`), from which a stopped run goes on if its record
(``report.run_record``) is the same; :mod:`~geoseg.prediction.blocks` has several processes compute
one scene. :mod:`~geoseg.prediction.on_device` does the same on a GPU, where chips are cut, too.
:mod:`~geoseg.prediction.background` makes overviews and polygons meanwhile,
:mod:`~geoseg.prediction.border_raster` marks where what lies beyond may count,
:mod:`~geoseg.prediction.budget` keeps to memory (``block_memory.py``: that of
decoding), :mod:`~geoseg.prediction.report` counts and
reports. Start with ``run.py``.

For other rooms:
    blocks: predict_block, predict_or_split
    border_probe: probe_border
    dry_run: dry_run
    options: PredictOptions
    plan: Plan, make_plan
    quantizing: quantize
    report: file_state, grid_report
    run: Prediction, predict
    run_log: RunLog
    scene_info: scene_info
"""
