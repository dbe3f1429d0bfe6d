"""An evaluation's report, as JSON has it: what is undefined is None."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.evaluation import metrics
from geoseg.evaluation.area_estimates import Accuracy, Estimate
from geoseg.evaluation.boundary_f1 import BoundaryScores
from geoseg.evaluation.calibration import BINS, Calibration
from geoseg.evaluation.polygon_scores import ObjectScores
from geoseg.labels.polygons import PlacedPolygons
from geoseg.labels.window import Bounds
from geoseg.rasters.class_raster import MAX_ID, Survey

__all__ = [
    "add_boundaries",
    "add_calibration",
    "add_objects",
    "class_entries",
    "estimates",
    "number",
    "shown_bounds",
    "shown_ids",
]


def class_entries(
    counts: NDArray[np.int64], unmapped: NDArray[np.int64], classes: dict[int, str]
) -> list[dict[str, Any]]:
    """Report of each class how many pixels it has, and its measures.

    Args:
        counts: int64 (K, K), pixels by label (rows) and map class (columns).
        unmapped: int64 (K,), labelled pixels on the map's nodata.
        classes: id -> name.
    """
    per_class = {name: measure(counts) for name, measure in metrics.CLASS_MEASURES.items()}
    return [
        {
            "id": i,
            "name": name,
            "labelled_pixels": int(counts[k].sum()),
            "mapped_pixels": int(counts[:, k].sum()),
            "labels_on_nodata": int(unmapped[k]),
            **{measure: number(values[k]) for measure, values in per_class.items()},
        }
        for k, (i, name) in enumerate(classes.items())
    ]


def add_boundaries(report: dict[str, Any], found: BoundaryScores, tolerance: float) -> None:
    """Add what is known of the borders; ``tolerance`` is in metres."""
    report["boundaries"] = {"tolerance_m": tolerance}
    report["measures"]["mean_boundary_f1"] = number(found.mean_f1)
    for k, entry in enumerate(report["classes"]):
        entry["labelled_border_pixels"] = int(found.labelled[k])
        entry["mapped_border_pixels"] = int(found.mapped[k])
        entry["boundary_precision"] = number(found.precision[k])
        entry["boundary_recall"] = number(found.recall[k])
        entry["boundary_f1"] = number(found.f1[k])


def add_objects(report: dict[str, Any], found: ObjectScores, labels: PlacedPolygons) -> None:
    """Add what is known of each polygon as one object."""

    def values(k: int) -> dict[str, Any]:
        return {
            "polygons": int(found.polygons[k]),
            "polygons_right": number(found.right[k]),
            "polygons_mean_share": number(found.mean_share[k]),
            "polygons_median_share": number(found.median_share[k]),
        }

    source = labels.source
    report["column"] = source.column
    report["objects"] = {
        "features": source.features,
        "unlabelled": source.unlabelled,
        "ignored": source.ignored,
        "without_pixel": int(found.empty[-1]),
        **values(-1),
    }
    report["measures"].update({k: v for k, v in values(-1).items() if k != "polygons"})
    for k, entry in enumerate(report["classes"]):
        entry.update(values(k))


def add_calibration(report: dict[str, Any], found: Calibration, probs: str) -> None:
    """Add what the probabilities in the raster ``probs`` are worth."""
    report["calibration"] = {
        "probs": probs,
        "pixels": int(found.pixels.sum()),
        "ece": number(found.ece),
        "mce": number(found.mce),
        "brier": number(found.brier),
        "nll": number(found.nll),
        "bins": [
            {
                "low": k / BINS,
                "high": (k + 1) / BINS,
                "pixels": int(found.pixels[k]),
                "confidence": number(found.confidence[k]),
                "accuracy": number(found.accuracy[k]),
            }
            for k in range(BINS)
        ],
        "temperature": {
            "value": number(found.temperature),
            "sampled_pixels": found.sampled,
            "ece_before": number(found.ece_sampled),
            "ece_after": number(found.ece_after),
            "nll_after": number(found.nll_after),
        },
    }
    for name in ("ece", "mce", "brier", "nll"):
        report["measures"][name] = report["calibration"][name]
    report["measures"]["temperature"] = report["calibration"]["temperature"]["value"]


def estimates(found: Survey, counts: NDArray[np.int64], accuracy: Accuracy) -> dict[str, Any]:
    """Report accuracies and areas with their intervals, of the map and of each class.

    Args:
        found: the map's classes and how large they are on it.
        counts: int64 (K, K), points by reference (rows) and map class (columns).
        accuracy: estimated from them.
    """
    return {
        "area_unit": "px" if found.area_m2 is None else "m2",
        "confidence_level": 0.95,
        "overall_accuracy": _interval(accuracy.overall),
        "classes": [
            {
                "id": None if found.ids[i] > MAX_ID else found.ids[i],
                "name": found.names[i],
                "points": int(counts[:, i].sum()),
                "reference_points": int(counts[i].sum()),
                "mapped_pixels": int(found.pixels[i]),
                "mapped_area": float(found.areas[i]),
                "area": _interval(accuracy.areas, i),
                "users_accuracy": _interval(accuracy.users, i),
                "producers_accuracy": _interval(accuracy.producers, i),
            }
            for i in range(len(found.ids))
        ],
        "counts": {"rows": "reference", "columns": "map", "points": counts.tolist()},
        "area_shares": {"rows": "map", "columns": "reference", "shares": accuracy.matrix.tolist()},
    }


def _interval(found: Estimate, place: Any = ()) -> dict[str, float | None]:
    """Report one number of an estimate with its interval."""
    return {
        "value": number(found.value[place]),
        "standard_error": number(found.standard_error[place]),
        "low": number(found.low[place]),
        "high": number(found.high[place]),
    }


def number(value: Any) -> float | None:
    """Give None for what is undefined: JSON has no NaN."""
    return float(value) if math.isfinite(value) else None


def shown_ids(counts: Counter[int]) -> str:
    """Write ids and their pixels for a message."""
    listed = ", ".join(f"{i} ({n} px)" for i, n in sorted(counts.items())[:8])
    return listed + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")


def shown_bounds(bounds: Bounds) -> str:
    """Write bounds for a message."""
    return ", ".join(f"{v:.7g}" for v in bounds)
