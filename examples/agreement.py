"""Compare a Dynamic World map with the demo's land-cover labels.

Run ``python examples/agreement.py PREDICTION.tif LABELS.tif``. The map holds the nine Dynamic
World classes as 0 to 8, the labels hold 1 to 7 as in ``landsat7_nc_2000_labels.tif``; both must
be on one grid. Printed are the overall agreement, the share of each label class that was found
and the table of counts. Exit status is 0, or 2 if the two files cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio  # type: ignore[import-untyped, unused-ignore]
from rasterio.errors import RasterioError  # type: ignore[import-untyped, unused-ignore]

LABELS = {
    1: "developed",
    2: "agriculture",
    3: "herbaceous",
    4: "shrubland",
    5: "forest",
    6: "water",
    7: "sediment",
}

# Each Dynamic World class by value: its column head and the label it agrees with. The labels
# have no wetland: swamp forest is in their forest and marsh in their herbaceous, so flooded
# vegetation cannot be given to either and always counts as disagreement. So does snow and ice.
CLASSES: tuple[tuple[str, int | None], ...] = (
    ("water", 6),
    ("trees", 5),
    ("grass", 3),
    ("flooded", None),
    ("crops", 2),
    ("shrub", 4),
    ("built", 1),
    ("bare", 7),
    ("snow", None),
)

NOTE = (
    "The labels are of 1996 and the scene is of 2000, and the two legends differ:\n"
    "a map without a fault would not reach 100 %."
)

Counts = npt.NDArray[np.int64]


class CompareError(Exception):
    """The two rasters cannot be compared."""


@dataclass(frozen=True)
class ClassRaster:
    """A raster of class values.

    Attributes:
        path: The file it is from.
        values: Class values.
        valid: Where there is a value.
        shape: Rows and columns.
        transform: Affine transform of the grid.
        crs: Coordinate reference system, None if the file has none.
    """

    path: Path
    values: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_]
    shape: tuple[int, int]
    transform: Any
    crs: Any


def read(path: Path, known: list[int]) -> ClassRaster:
    """Read a raster of class values.

    Args:
        path: The file.
        known: Values it may hold.

    Returns:
        The raster.

    Raises:
        CompareError: If the file cannot be read, has several bands or holds another value.
    """
    try:
        with rasterio.open(path) as source:
            if source.count != 1:
                raise CompareError(f"{path} has {source.count} bands, one of classes is needed")
            raw = source.read(1)
            valid = source.read_masks(1) > 0
            shape = (source.height, source.width)
            transform, crs = source.transform, source.crs
    except RasterioError as error:
        raise CompareError(f"cannot read a raster: {error}") from error
    odd = np.unique(raw[valid][~np.isin(raw[valid], known)])
    if odd.size:
        listed = ", ".join(f"{value:g}" for value in odd[:5])
        raise CompareError(
            f"{path} holds {listed}, which is not a class; {known[0]} to {known[-1]} are expected"
        )
    return ClassRaster(path, np.where(valid, raw, 0).astype(np.int64), valid, shape, transform, crs)


def check_grids(one: ClassRaster, other: ClassRaster) -> None:
    """Check that two rasters are on one grid.

    Args:
        one: A raster.
        other: Another.

    Raises:
        CompareError: If size, placement or coordinate reference system differ.
    """
    if one.shape != other.shape:
        what = "size", f"{one.shape[0]} x {one.shape[1]}", f"{other.shape[0]} x {other.shape[1]}"
    elif not one.transform.almost_equals(other.transform, precision=1e-6):
        what = "transform", str(one.transform.to_gdal()), str(other.transform.to_gdal())
    elif one.crs != other.crs:
        what = "coordinate reference system", str(one.crs), str(other.crs)
    else:
        return
    raise CompareError(
        f"the grids differ in {what[0]}: {one.path} has {what[1]}, {other.path} has {what[2]}"
    )


def count(prediction: ClassRaster, labels: ClassRaster) -> Counts:
    """Count the pixels of each pair of classes.

    Args:
        prediction: The map.
        labels: The labels.

    Returns:
        Counts, label classes by Dynamic World classes.

    Raises:
        CompareError: If no pixel has both.
    """
    both = prediction.valid & labels.valid
    if not both.any():
        raise CompareError("no pixel has both a prediction and a label")
    pairs = (labels.values[both] - 1) * len(CLASSES) + prediction.values[both]
    table = np.bincount(pairs, minlength=len(LABELS) * len(CLASSES))
    return table.reshape(len(LABELS), len(CLASSES)).astype(np.int64)


def report(table: Counts, pixels: int) -> str:
    """Write the report.

    Args:
        table: Counts, label classes by Dynamic World classes.
        pixels: How many pixels the grid has.

    Returns:
        The report, several lines.
    """
    agrees = np.zeros(table.shape, dtype=np.bool_)
    for column, (_, label) in enumerate(CLASSES):
        if label is not None:
            agrees[label - 1, column] = True
    total = int(table.sum())
    right = int(table[agrees].sum())
    rows = table.sum(axis=1)
    commonest = int(rows.argmax())
    lines = [
        f"pixels compared    {total} of {pixels}",
        f"overall agreement  {right / total:.1%}",
        f"for comparison     {rows[commonest] / total:.1%} if all were called "
        f"{list(LABELS.values())[commonest]}",
        "",
        "Rows: labels. Columns: the map. [n] counts as agreement. Found: the share of the label's",
        "pixels that the map agrees with.",
        "",
        f"{'':12}" + "".join(f"{name:>9}" for name, _ in CLASSES) + f"{'total':>9}{'found':>8}",
    ]
    for row, name in enumerate(LABELS.values()):
        cells = "".join(
            f"{f'[{n}]' if agrees[row, column] else f'{n} ':>9}"
            for column, n in enumerate(table[row].tolist())
        )
        found = f"{table[row][agrees[row]].sum() / rows[row]:.1%}" if rows[row] else "-"
        lines.append(f"{name:12}{cells}{f'{rows[row]} ':>9}{found:>8}")
    sums = "".join(f"{f'{n} ':>9}" for n in table.sum(axis=0).tolist())
    lines += [f"{'total':12}{sums}{f'{total} ':>9}", "", NOTE]
    return "\n".join(line.rstrip() for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Compare a map with the labels.

    Args:
        argv: Arguments, those of the command line if None.

    Returns:
        Exit status: 0, or 2 if the two cannot be compared.
    """
    parser = argparse.ArgumentParser(
        description="Compare a Dynamic World map with the demo's labels."
    )
    parser.add_argument("prediction", type=Path, help="the map, classes 0 to 8")
    parser.add_argument("labels", type=Path, help="the labels, classes 1 to 7")
    options = parser.parse_args(argv)
    try:
        prediction = read(options.prediction, list(range(len(CLASSES))))
        labels = read(options.labels, list(LABELS))
        check_grids(prediction, labels)
        table = count(prediction, labels)
    except CompareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report(table, labels.valid.size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
