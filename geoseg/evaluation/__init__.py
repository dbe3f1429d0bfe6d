"""How right a map or a model is, by points or by labels.

In go a map or a model, and what is true; out comes a report: counts, accuracies with confidence
intervals, areas, as JSON (``report.py``), a table (``csv_table.py``) and a page (``html_page.py``).
:mod:`~geoseg.evaluation.run` leads, with the options of :mod:`~geoseg.evaluation.options`; what
only models have is in :mod:`~geoseg.evaluation.of_models`. Points are drawn in
:mod:`~geoseg.evaluation.sample_design`, read in :mod:`~geoseg.evaluation.points` and judged in
:mod:`~geoseg.evaluation.area_estimates`; whole labels in :mod:`~geoseg.evaluation.by_labels`, with
:mod:`~geoseg.evaluation.metrics`, :mod:`~geoseg.evaluation.boundary_f1`,
:mod:`~geoseg.evaluation.polygon_scores` and :mod:`~geoseg.evaluation.calibration`.
:mod:`~geoseg.evaluation.seam_check` looks for seams, and :mod:`~geoseg.evaluation.lattice` for what
recurs at any period. Start with ``run.py``.

For other rooms:
    calibrating: calibrate
    metrics: confusion, iou, mean_iou, pixel_accuracy
    run: evaluate
    sample_design: sample
    seam_check: check_seams
"""
