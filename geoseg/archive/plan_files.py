"""The files of a plan, ``plan.csv`` and ``plan.geojson``: a row, or a feature, for each scene.

They are written row by row into hidden files beside their places, and renamed at the end.
"""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from geoseg.archive.place import PLANS
from geoseg.archive.writing import check_replaceable
from geoseg.core.files import replace_file
from geoseg.core.jsontext import json_text
from geoseg.core.ownership import PLAN_COLUMNS, PLAN_MARK
from geoseg.core.write_errors import explain_write_error

__all__ = ["check_plan_files", "write_plan_files"]


Rows: TypeAlias = Iterable[tuple[Mapping[str, Any], Mapping[str, Any] | None]]


def check_plan_files(out: Path) -> None:
    """Refuse to replace files that geoseg did not make.

    Raises:
        OutputError: there is one with the name of a plan's.
    """
    for name in PLANS:
        check_replaceable(out / name)


def write_plan_files(out: Path, rows: Rows, version: str) -> tuple[Path, Path]:
    """Write a plan, whole or not at all.

    Args:
        out: the archive's folder.
        rows: values by :data:`geoseg.core.ownership.PLAN_COLUMNS`, None for unknown ones; and a
            GeoJSON geometry, or None.
        version: of geoseg.

    Returns:
        The paths of the table and of the GeoJSON.

    Raises:
        OutputError: the folder or the disk refuses, or geoseg did not make what is there.
    """
    check_plan_files(out)
    paths = table, places = out / PLANS[0], out / PLANS[1]
    partials = [path.with_name(f".geoseg-{path.name}-{secrets.token_hex(4)}") for path in paths]
    try:
        with _new(partials[0]) as lines, _new(partials[1]) as text:
            _write_rows(lines, text, rows, version)
            for file in (lines, text):
                file.flush()
                os.fsync(file.fileno())
        for partial, path in zip(partials, paths, strict=True):
            replace_file(partial, path)
    except OSError as error:
        raise explain_write_error(error, table) from error
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    return table, places


def _new(path: Path) -> TextIO:
    # Names of files that are no text are written as what can be read.
    return open(path, "x", encoding="utf-8", errors="backslashreplace", newline="")


def _write_rows(lines: TextIO, text: TextIO, rows: Rows, version: str) -> None:
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(PLAN_COLUMNS)
    text.write(f'{PLAN_MARK}{json_text(version)}, "features": [')
    for number, (values, geometry) in enumerate(rows):
        writer.writerow(["" if values[c] is None else values[c] for c in PLAN_COLUMNS])
        text.write(",\n" if number else "\n")
        text.write(json_text(_feature(values, geometry)))
    text.write("\n]}\n")


def _feature(values: Mapping[str, Any], geometry: Mapping[str, Any] | None) -> dict[str, Any]:
    box = [values[side] for side in ("west", "south", "east", "north")]
    return {
        "type": "Feature",
        **({} if geometry is None or None in box else {"bbox": box}),
        "geometry": geometry,
        "properties": {column: values[column] for column in PLAN_COLUMNS},
    }
