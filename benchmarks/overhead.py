"""What predict costs beyond the forward passes, and how its memory grows with the scene's height.

    python benchmarks/overhead.py [--rounds 5] [--side 2048]

Both are measured in CPU seconds of the process with one thread, interleaved in one run, since wall
time on a shared machine proves nothing. Memory is the peak of a new process for each height.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import make_scene, measured  # the script beside this one

import geoseg
from geoseg.prediction.chips import chip_rows
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.runtimes import load_runtime

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
RUN = """
import json, sys
import geoseg
result = geoseg.predict(sys.argv[1], sys.argv[2], no_vector=sys.argv[3] == "raster", threads=1)
print(json.dumps({"peak": result.report["peak_memory_bytes"]}))
"""


def reflectance_scene(path: Path, height: int, width: int) -> Path:
    """Six bands of uint16 with a scale tag."""
    options: dict[str, Any] = {"bands": BANDS, "dtype": "uint16", "levels": (300, 4000)}
    return make_scene(path, height, width, **options, square=32, noise=50, gsd=10, scale=1e-4)


def forward_only(scene: Path) -> tuple[float, int]:
    """CPU seconds of the bare forward passes, and how many chips."""
    plan = make_plan(scene, PredictOptions(output="unused.tif", no_vector=True))
    runtime = load_runtime(
        plan.files,
        plan.radiometry,
        runtime="openvino",
        precision="fp32",
        device="cpu",
        threads=1,
    )
    with plan.ground_reader() as reader:
        chips = [
            chip
            for row in chip_rows(reader, plan.chips)
            for window in row.windows
            if (chip := row.chip(window)) is not None
        ]
    runtime.probs(chips[0][None])
    start = time.process_time()
    for _ in runtime.run(enumerate(chips)):
        pass
    return time.process_time() - start, len(chips)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=2048)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        scene = reflectance_scene(place / "scene.tif", options.side, options.side)
        ratios: dict[str, list[float]] = {"raster": [], "raster and polygons": []}
        forward: list[float] = []
        for _ in range(options.rounds):
            bare, _ = forward_only(scene)
            forward.append(bare)
            for name, values in ratios.items():
                start = time.process_time()
                geoseg.predict(
                    scene,
                    place / "out.tif",
                    no_vector=name == "raster",
                    overwrite=True,
                    threads=1,
                    runtime="openvino",
                    precision="fp32",
                    device="cpu",
                )
                values.append((time.process_time() - start) / bare)
        mpx = options.side**2 / 1e6
        print(f"forward: {statistics.median(forward) / mpx:.2f} CPU s per Mpx of scene")
        for name, values in ratios.items():
            print(
                f"predict, {name}: {statistics.median(values):.2f} x forward "
                f"[{min(values):.2f}-{max(values):.2f}], {options.rounds} rounds"
            )
        peaks = {}
        for height in (1024, 4096, 8192):
            tall = reflectance_scene(place / f"{height}.tif", height, 1024)
            out = place / f"out-{height}.tif"
            peaks[height] = measured(RUN, tall, out, "raster")["peak"] / 1e6
        print("peak memory, MB, by height at width 1024:", json.dumps(peaks))


if __name__ == "__main__":
    main()
