"""An evaluation's table, one measure a line."""

from __future__ import annotations

import csv as csv_format
import io
from typing import Any

from geoseg.core.ownership import TABLE_HEAD

__all__ = ["write_table"]


def write_table(report: dict[str, Any]) -> str:
    """Write a report as CSV: one measure a line, without class where it is of the whole map.

    The confusion matrix comes last, by label or reference class: ``pixels_mapped_as_3``.
    """
    text = io.StringIO()
    writer = csv_format.writer(text, lineterminator="\n")
    writer.writerow(TABLE_HEAD)
    whole = report.get("measures") or {"overall_accuracy": report["overall_accuracy"]}
    if "speed" in report:
        whole = {**whole, "mpx_s": report["speed"]["mpx_s"]}
    for (class_id, name), values in [
        (("", ""), whole),
        *(((c["id"], c["name"]), c) for c in report["classes"]),
    ]:
        for measure, value in values.items():
            if measure in ("id", "name"):
                continue
            if measure in ("area", "mapped_area"):
                measure = f"{measure}_{report['area_unit']}"
            row = list(value.values()) if isinstance(value, dict) else [value, None, None, None]
            writer.writerow((class_id, name, measure, *row))  # csv writes None as nothing
    matrices = {k: v for k, v in report["counts"].items() if k not in ("rows", "columns")}
    if "area_shares" in report:
        matrices["area_share"] = list(zip(*report["area_shares"]["shares"], strict=True))
    for kind, rows in matrices.items():
        for entry, row in zip(report["classes"], rows, strict=True):
            for other, value in zip(report["classes"], row, strict=True):
                if other["id"] is not None:  # the map has it
                    measure = f"{kind}_mapped_as_{other['id']}"
                    writer.writerow((entry["id"], entry["name"], measure, value, None, None, None))
    return text.getvalue()
