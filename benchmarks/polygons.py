"""Polygons of a class raster: geoseg against rasterio, shapely and geopandas.

    python benchmarks/polygons.py [--rounds 5] [--side 8192] [--large 40000]

The map has 8 classes in smooth patches with ragged borders and specks, some 130,000 regions at
8192 x 8192 (argmax of Gaussian random fields at two scales). Each way runs in a process of its own,
one after another in each round: CPU seconds (user and system) of the work without imports, and how
far the process's peak memory (VmHWM) rises above what it held before. Ratios are of each round.

With --large, the map is repeated to that size as a virtual raster and written to GeoParquet and
GeoPackage.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from scipy import ndimage

#: What is measured; each runs after START and before END in a process of its own.
WAYS = {
    "rasterio": """
with rasterio.open(path) as dataset:
    classes, transform, crs = dataset.read(1), dataset.transform, dataset.crs
shapes = rasterio.features.shapes(classes, classes != 255, transform=transform)
pairs = [(shapely.geometry.shape(s), int(v)) for s, v in shapes]
frame = geopandas.GeoDataFrame(
    {"class_id": [v for _, v in pairs]}, geometry=[g for g, _ in pairs], crs=crs)
""",
    "rasterio to gpkg": """
with rasterio.open(path) as dataset:
    classes, transform, crs = dataset.read(1), dataset.transform, dataset.crs
shapes = rasterio.features.shapes(classes, classes != 255, transform=transform)
pairs = [(shapely.geometry.shape(s), int(v)) for s, v in shapes]
frame = geopandas.GeoDataFrame(
    {"class_id": [v for _, v in pairs]}, geometry=[g for g, _ in pairs], crs=crs)
frame.to_file(out + ".gpkg", engine="pyogrio")
""",
    "geoseg": "frame = polygonize(path)",
    "geoseg, 2 threads": "frame = polygonize(path, threads=2)",
    "geoseg to gpkg": "frame = [0] * sum(vectorize(path, out + '.gpkg').polygons.values())",
    "geoseg to parquet": "frame = [0] * sum(vectorize(path, out + '.parquet').polygons.values())",
    "geoseg to gpkg, 2 threads": """
frame = [0] * sum(vectorize(path, out + ".gpkg", threads=2).polygons.values())
""",
    "geoseg to parquet, 2 threads": """
frame = [0] * sum(vectorize(path, out + ".parquet", threads=2).polygons.values())
""",
    "geoseg simplify": "frame = polygonize(path, simplify=15.0)",
    "geoseg douglas-peucker": """
frame = polygonize(path, simplify=15.0, algorithm="douglas-peucker")
""",
    "geoseg simplify, smooth": "frame = polygonize(path, simplify=15.0, smooth=2)",
    "coverage_simplify": """
# Of geoseg's polygons, which are a valid coverage; they are made before the clock starts.
frame = made.set_geometry(shapely.coverage_simplify(made.geometry.values, 15.0))
""",
}
#: Likewise, of a map so large that its polygons are too many but for those who insist.
LARGE_WAYS = {
    "geoseg to parquet, 2 threads, forced": """
made = vectorize(path, out + ".parquet", threads=2, most=float("inf"))
frame = [0] * sum(made.polygons.values())
""",
    "geoseg to gpkg, 2 threads, forced": """
made = vectorize(path, out + ".gpkg", threads=2, most=float("inf"))
frame = [0] * sum(made.polygons.values())
""",
}
START = """
import json, sys, time
import geopandas, numpy as np, rasterio, rasterio.features, shapely, shapely.geometry
from geoseg.polygons.polygonize import polygonize
from geoseg.polygons.vectorizing import vectorize
path, out, warm, made = sys.argv[1], sys.argv[2], sys.argv[3], None
polygonize(warm)
polygonize(warm, simplify=15.0, algorithm="douglas-peucker")
polygonize(warm, simplify=15.0, smooth=1)
if sys.argv[4] == "made":
    made = polygonize(path)
def memory(name):
    with open("/proc/self/status") as status:
        return next(int(s.split()[1]) * 1024 for s in status if s.startswith(name))
with open("/proc/self/clear_refs", "w") as refs:
    refs.write("5")
held, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
"""
END = """
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
memory_ = memory("VmHWM") - held
vertices = 0
valid = None
if not isinstance(frame, list):
    vertices = int(shapely.get_num_coordinates(frame.geometry.values).sum())
    if sys.argv[5] == "check":
        geometry = frame.geometry.values
        valid = [bool(shapely.coverage_is_valid(geometry)), bool(shapely.is_valid(geometry).all())]
print(json.dumps({"cpu": cpu, "wall": wall, "memory": memory_, "polygons": len(frame),
                  "vertices": vertices, "valid": valid}))
"""


def make_map(side: int, classes: int = 8, seed: int = 0) -> NDArray[np.uint8]:
    """Patches of 8 classes, (side, side)."""
    rng = np.random.default_rng(seed)
    best = np.full((side, side), -np.inf, np.float32)
    ids = np.zeros((side, side), np.uint8)
    for k in range(classes):
        total = np.zeros((side, side), np.float32)
        for sigma, weight in ((20, 1.0), (2, 0.125)):
            noise = rng.standard_normal((side, side), dtype=np.float32)
            field = ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=3)
            total += weight * field / field.std()
        ids[total > best] = k
        np.maximum(best, total, out=best)
    return ids


def write_map(path: Path, ids: NDArray[np.uint8]) -> None:
    """A GeoTIFF of 10 m pixels."""
    height, width = ids.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=1,
        dtype="uint8",
        nodata=255,
        crs="EPSG:32633",
        transform=from_origin(500_000, 6_600_000, 10, 10),
        tiled=True,
        compress="deflate",
    ) as dataset:
        dataset.write(ids, 1)


def repeat(path: Path, small: Path, side: int) -> None:
    """A virtual raster of copies of a small one."""
    with rasterio.open(small) as dataset:
        step = dataset.width
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{small.name}</SourceFilename>'
        f'<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="{w}" ySize="{h}"/>'
        f'<DstRect xOff="{x}" yOff="{y}" xSize="{w}" ySize="{h}"/></SimpleSource>'
        for x in range(0, side, step)
        for y in range(0, side, step)
        for w, h in ((min(step, side - x), min(step, side - y)),)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000, 10, 0, 6600000, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1"><NoDataValue>255</NoDataValue>{sources}'
        f"</VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )


def measure(name: str, path: Path, warm: Path, check: bool = False) -> dict[str, float]:
    """Run one way."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = "made" if "coverage_simplify" in name else "-"
        arguments = [str(path), folder + "/out", str(warm), made, "check" if check else "-"]
        done = subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                START + (WAYS | LARGE_WAYS)[name] + END,
                *arguments,
            ],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--large", type=int, default=0)
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, warm = folder / "map.tif", folder / "warm.tif"
        write_map(path, make_map(options.side))
        write_map(warm, make_map(256))
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(options.rounds):
            rounds.append({way: measure(way, path, warm, number == 0) for way in options.ways})
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        for way in options.ways if rounds else ():
            one = [r[way] for r in rounds]
            cpu = [o["cpu"] for o in one]
            line = (
                f"{way:<28} CPU {statistics.median(cpu):6.2f} s [{min(cpu):.2f}-{max(cpu):.2f}]  "
                f"wall {statistics.median(o['wall'] for o in one):6.2f} s  "
                f"memory {statistics.median(o['memory'] for o in one) / 1e6:5.0f} MB  "
                f"{one[0]['polygons']} polygons, {one[0]['vertices'] / 1e6:.2f} M vertices, "
                f"(coverage, polygons) valid {one[0]['valid']}"
            )
            if "rasterio" in options.ways:
                ratios = [r["rasterio"]["cpu"] / r[way]["cpu"] for r in rounds]
                line += f"  rasterio's CPU / this: {statistics.median(ratios):.2f}"
            print(line)
        if {"coverage_simplify", "geoseg", "geoseg simplify"} <= {*options.ways} and rounds:
            for way in ("geoseg simplify", "geoseg douglas-peucker"):
                ratios = [
                    r["coverage_simplify"]["cpu"] / max(r[way]["cpu"] - r["geoseg"]["cpu"], 1e-3)
                    for r in rounds
                    if way in r
                ]
                if ratios:
                    print(
                        f"coverage_simplify / what {way} takes more than geoseg: "
                        f"{statistics.median(ratios):.1f} [{min(ratios):.1f}-{max(ratios):.1f}]"
                    )
        if options.large:
            large = folder / "large.vrt"
            repeat(large, path, options.large)
            for way in LARGE_WAYS:
                found = measure(way, large, warm)
                print(
                    f"{options.large} x {options.large}, {way}: CPU {found['cpu']:.0f} s, wall "
                    f"{found['wall']:.0f} s, memory {found['memory'] / 1e6:.0f} MB, "
                    f"{found['polygons']} polygons",
                    flush=True,
                )


if __name__ == "__main__":
    main()
