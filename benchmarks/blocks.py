"""What files cost whose blocks are decoded as a whole: JPEG 2000 and strips against a GeoTIFF.

    python benchmarks/blocks.py [--side 6000] [--rounds 3]

The same pixels (six bands of uint16) are mapped in each way that they are stored, by turns, each in
a process of its own: CPU seconds, since the wall time of a shared machine proves little, and the
peak of memory. "read" is how often the file was read from disk while its rows of chips were.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from common import PEAK, make_scene, measured  # the script beside this one

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
RUN = (
    PEAK
    + """
import json, os, sys
from pathlib import Path
import geoseg
from geoseg.core.gdal import block_cache
from geoseg.prediction.chips import chip_rows
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan

scene, out, numbers = Path(sys.argv[1]), Path(sys.argv[2]), {"scale": 1e-4, "offset": 0.0}
result = geoseg.predict(scene, out, no_vector=True, overwrite=True, **numbers)
used, most = os.times(), peak()
plan = make_plan(scene, PredictOptions(output=out, no_vector=True, **numbers))
count = lambda: int(Path("/proc/self/io").read_text().split()[1])
before = count()
with block_cache(plan.cache_bytes), plan.ground_reader() as reader:
    for _ in chip_rows(reader, plan.chips):
        pass
size = sum(Path(path).stat().st_size for path in plan.scene.paths)
print(json.dumps({"cpu": used.user + used.system, "peak": most, "read": (count() - before) / size,
                  "wall": result.report["seconds"]["total"]}))
"""
)


def stored(path: Path, folder: Path, side: int) -> dict[str, Path]:
    """Store a GeoTIFF's pixels in other ways.

    Args:
        path: of the GeoTIFF, in small blocks.
        folder: where the others go.
        side: of the scene, px.
    """
    strip = folder / "strip.tif"
    options = {"compress": "deflate", "interleave": "band", "blockysize": side, "tiled": False}
    rasterio.shutil.copy(path, strip, driver="GTiff", **options)
    jp2 = {"driver": "JP2OpenJPEG", "quality": 25, "reversible": "NO"}
    found = {"GeoTIFF": path, "GeoTIFF, a strip a band": strip}
    for width, height in ((1024, 1024), (side, 1024), (side, side)):
        size = {"blockxsize": min(width, side), "blockysize": min(height, side)}
        name = f"{size['blockxsize']} x {size['blockysize']}"
        found[f"JPEG 2000, {name}"] = folder / f"{name}.jp2"
        rasterio.shutil.copy(path, found[f"JPEG 2000, {name}"], **jp2, **size)
        if height == side:
            break
        several = found[f"JPEG 2000, {name}, a file a band"] = folder / name
        several.mkdir()
        with rasterio.open(path) as whole:
            for i, band in enumerate(BANDS, start=1):
                about = {**whole.profile, "count": 1, "compress": None}
                with rasterio.MemoryFile() as memory:
                    with memory.open(**about) as plane:
                        plane.write(whole.read(i), 1)
                    rasterio.shutil.copy(memory.name, several / f"{band}.jp2", **jp2, **size)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about: dict[str, Any] = {
            "bands": BANDS,
            "dtype": "uint16",
            "levels": (300, 4000),
            "square": 32,
        }
        scene = make_scene(
            folder / "scene.tif", options.side, options.side, **about, noise=50, gsd=10
        )
        scenes = stored(scene, folder, options.side)
        rounds = [
            {kind: measured(RUN, path, folder / "map.tif") for kind, path in scenes.items()}
            for _ in range(options.rounds)
        ]

    def middle(kind: str, what: str) -> float:
        return float(statistics.median(found[kind][what] for found in rounds))

    for kind in scenes:
        times = middle(kind, "cpu") / middle("GeoTIFF", "cpu")
        print(
            f"{kind}: {middle(kind, 'cpu'):.1f} CPU s ({times:.2f} x), "
            f"{middle(kind, 'wall'):.1f} s, peak {middle(kind, 'peak') / 1e9:.2f} GB, "
            f"read {middle(kind, 'read'):.2f} x"
        )


if __name__ == "__main__":
    main()
