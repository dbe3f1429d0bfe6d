"""How much a map depends on what it was asked with: a crop, an AOI, a file's ends.

    python benchmarks/anchoring.py scene.tif [other.tif ...] [-m MODEL] [-b 1,2,3] [--size 512]

Each scene is mapped once as a whole, and then, always with the same runtime and precision:

- ``--bboxes`` boxes of 64 x 64 px at places of any parity, each with --bbox;
- each box once more with its first column left out, as a box that was drawn by hand might be;
- ``--fields`` round fields as one AOI, 160 m across, or 160 px where that is less;
- a file that holds the scene but for 33 rows at the top and 45 columns at the left, and 31 and 27
  at the bottom and the right.

What counts is the share of labels that the whole scene's map has, too: of all pixels of the boxes,
and of the worst box; of the fields' pixels; and of the file's pixels that are farther than 64 px
from its ends. Of a box that loses a column, the largest change of a class's share of the box, and
which class that is. A folder of one-band files is brought into one file first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as Area

import geoseg
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.runtimes.kept import keep

#: Side of the boxes, and how far from a file's ends its labels count, px.
SIDE = 64
FIELD = 160
#: What the file lacks of the scene: rows at the top, columns at the left, and so on.
CUT = (33, 45, 31, 27)
NODATA = 255

Labels = NDArray[np.uint8]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", type=Path, nargs="+", help="rasters, or folders of them")
    parser.add_argument("-m", "--model", help="by default the embedded one that suits")
    parser.add_argument("-b", "--bands", help="as for geoseg predict")
    parser.add_argument("--size", type=int, help="chip side; by default the model's")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--bboxes", type=int, default=20)
    parser.add_argument("--fields", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write what was found here, too")
    arguments = parser.parse_args()
    keep(2)
    rows = []
    for scene in arguments.scenes:
        rows.append(Measured(scene, arguments).row())
        print(table(rows[-1:]), flush=True)
    if len(rows) > 1:
        print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


class Measured:
    """One scene."""

    def __init__(self, scene: Path, arguments: argparse.Namespace) -> None:
        """Take note of what is asked for."""
        self.name, self._arguments = scene.name, arguments
        self._rng = np.random.default_rng(arguments.seed)
        self._folder = Path()
        self._scene = scene
        self._numbers: dict[str, Any] = {}

    def row(self) -> dict[str, Any]:
        """Map the scene and its parts, and compare."""
        with tempfile.TemporaryDirectory() as folder:
            self._folder = Path(folder)
            if self._scene.is_dir():
                self._scene = self._in_one_file(self._scene)
            begun = time.perf_counter()
            whole, report = self._map()
            seconds = time.perf_counter() - begun
            with rasterio.open(self._scene) as dataset:
                grid = PixelGrid.of(dataset)
            found: dict[str, Any] = {
                "scene": self.name,
                "model": report["model"]["name"],
                "size": f"{grid.width} x {grid.height}",
                "chips": report["options"]["size"],
                "whole_chips": report["chips"]["run"],
                "whole_seconds": round(seconds, 2),
            }
            found |= self._boxes(whole, grid, [c["name"] for c in report["classes"]])
            found |= self._fields(whole, grid)
            found |= self._file(whole)
            return found

    def _map(self, scene: Path | None = None, **part: Any) -> tuple[Labels, Mapping[str, Any]]:
        """Labels of the scene or of a part of it."""
        given = self._arguments
        made = geoseg.predict(
            scene or self._scene,
            self._folder / "map.tif",
            model=given.model,
            bands=given.bands,
            size=given.size,
            exact=given.exact,
            runtime=given.runtime,
            precision=given.precision,
            no_vector=True,
            overwrite=True,
            **self._numbers,
            **part,
        )
        with rasterio.open(made.raster) as dataset:
            return dataset.read(1), made.report

    def _in_one_file(self, folder: Path) -> Path:
        """The model's bands of a folder of rasters on the finest grid, in the card's quantity."""
        given = self._arguments
        plan = make_plan(folder, PredictOptions(model=given.model, bands=given.bands))
        with plan.reader(plan.grid) as reader:
            height, width = plan.grid.height, plan.grid.width
            pixels, valid = reader.read(Window(0, 0, height, width))
        gain, bias = (
            np.array(numbers, np.float32)[:, None, None]
            for numbers in (plan.radiometry.gain, plan.radiometry.bias)
        )
        values = np.where(valid, pixels * gain + bias, np.nan).astype(np.float32)
        path = self._folder / "scene.tif"
        profile = {"driver": "GTiff", "count": len(values), "dtype": "float32", "nodata": np.nan}
        place = {"crs": plan.grid.crs, "transform": plan.grid.transform}
        with rasterio.open(path, "w", height=height, width=width, **profile, **place) as dataset:
            dataset.descriptions = plan.card.bands
            dataset.write(values)
        self._numbers = {"scale": 1.0, "offset": 0.0}
        return path

    def _boxes(self, whole: Labels, grid: PixelGrid, classes: list[str]) -> dict[str, Any]:
        """Boxes of any parity, and the same without their first column."""
        shares, shifts, seconds, chips = [], [], [], []
        for _ in range(self._arguments.bboxes):
            row = int(self._rng.integers(0, grid.height - SIDE + 1))
            col = int(self._rng.integers(0, grid.width - SIDE + 1))
            begun = time.perf_counter()
            labels, report = self._map(bbox=_bounds(grid, row, col))
            seconds.append(time.perf_counter() - begun)
            chips.append(report["chips"]["run"])
            expected = whole[row : row + SIDE, col : col + SIDE]
            shares.append(_same(labels, expected))
            other, _ = self._map(bbox=_bounds(grid, row, col + 1, SIDE, SIDE - 1))
            shifts.append(_shares(other, len(classes)) - _shares(labels[:, 1:], len(classes)))
        change = np.abs(shifts)
        worst = np.unravel_index(change.argmax(), change.shape)
        return {
            "boxes_same": float(np.mean(shares)),
            "boxes_worst": float(min(shares)),
            "boxes_all_same": sum(share == 1 for share in shares),
            "boxes": len(shares),
            "column_changes": float(change.max()),
            "column_class": classes[int(worst[1])],
            "box_chips": float(np.mean(chips)),
            "box_seconds": round(float(np.median(seconds)), 3),
        }

    def _fields(self, whole: Labels, grid: PixelGrid) -> dict[str, Any]:
        """Round fields, all of them one AOI."""
        if grid.crs is None or not self._arguments.fields:
            return {}
        import geopandas
        from shapely.affinity import affine_transform
        from shapely.geometry import Point

        gsd = grid.gsd or (1.0, 1.0)
        radii = [min(FIELD, FIELD / one) / 2 for one in gsd]
        matrix = [getattr(grid.transform, letter) for letter in "abdecf"]
        fields = []
        for _ in range(self._arguments.fields):
            x, y = (
                self._rng.uniform(radius, side - radius)
                for radius, side in zip(radii, (grid.width, grid.height), strict=True)
            )
            circle = affine_transform(Point(0, 0).buffer(1), [radii[0], 0, 0, radii[1], x, y])
            fields.append(affine_transform(circle, matrix))
        path = self._folder / "fields.gpkg"
        geopandas.GeoSeries(fields, crs=grid.crs).to_file(path)
        begun = time.perf_counter()
        labels, report = self._map(aoi=path)
        seconds = time.perf_counter() - begun
        with rasterio.open(self._folder / "map.tif") as dataset:
            place = PixelGrid.of(dataset).place_in(grid)
        assert place is not None
        row, col = place
        expected = whole[row : row + labels.shape[0], col : col + labels.shape[1]]
        return {
            "fields_same": _same(labels, expected),
            "fields_px": int((labels != NODATA).sum()),
            "fields_chips": report["chips"]["run"],
            "fields_seconds": round(seconds, 2),
        }

    def _file(self, whole: Labels) -> dict[str, Any]:
        """A file that holds a part of the scene, at an odd place."""
        top, left, bottom, right = CUT
        inner = np.s_[SIDE:-SIDE, SIDE:-SIDE]
        crop = np.s_[top : whole.shape[0] - bottom, left : whole.shape[1] - right]
        if min(whole[crop].shape) <= 2 * SIDE:
            return {}
        labels, _ = self._map(_cropped(self._scene, self._folder / "part.tif"))
        return {"file_same": _same(labels[inner], whole[crop][inner])}


def _bounds(
    grid: PixelGrid, row: int, col: int, height: int = SIDE, width: int = SIDE
) -> tuple[float, float, float, float]:
    """(west, south, east, north) of some pixels of a grid that is not turned."""
    (x0, y0), (x1, y1) = (
        grid.transform @ corner for corner in ((col, row), (col + width, row + height))
    )
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _cropped(scene: Path, path: Path) -> Path:
    """A copy of a scene without what :data:`CUT` says."""
    top, left, bottom, right = CUT
    with rasterio.open(scene) as source:
        height, width = source.height - top - bottom, source.width - left - right
        area = Area(left, top, width, height)
        profile = {**source.profile, "height": height, "width": width}
        profile["transform"] = source.window_transform(area)
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.descriptions = source.descriptions
            dataset.scales, dataset.offsets = source.scales, source.offsets
            dataset.colorinterp = source.colorinterp
            dataset.update_tags(**source.tags())
            dataset.write(source.read(window=area))
    return path


def _same(labels: Labels, expected: Labels) -> float:
    """Share of the pixels with a label that have the label that is expected; 1 of none."""
    known = labels != NODATA
    return float((labels == expected)[known].mean()) if known.any() else 1.0


def _shares(labels: Labels, classes: int) -> NDArray[np.float64]:
    """Each class's share of the pixels with a label."""
    counts = np.bincount(labels[labels != NODATA], minlength=classes)[:classes]
    shares: NDArray[np.float64] = counts / max(1, counts.sum())
    return shares


def table(rows: list[dict[str, Any]]) -> str:
    """Give what was found as a Markdown table."""
    head = ["scene", "px", "model, chips", "boxes", "worst box", "all alike", "a column less"]
    head += ["fields", "file beyond 64 px", "chips: whole, a box, fields", "s"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        lines.append(
            [
                row["scene"],
                row["size"],
                f"{row['model']}, {row['chips']} px",
                _percent(row["boxes_same"]),
                _percent(row["boxes_worst"]),
                f"{row['boxes_all_same']} of {row['boxes']}",
                f"{row['column_class']} {_percent(row['column_changes'])}",
                _percent(row.get("fields_same")),
                _percent(row.get("file_same")),
                f"{row['whole_chips']}, {row['box_chips']:.1f}, {row.get('fields_chips', '')}",
                f"{row['whole_seconds']}, {row['box_seconds']}, {row.get('fields_seconds', '')}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


if __name__ == "__main__":
    main()
