"""How predict's memory grows with a scene's height: 10,000 and 100,000 rows of 20,000 columns.

    python benchmarks/memory.py [--width 20000] [--heights 10000 100000] [--mem-limit 0] [--peers]

The scene is a virtual raster over a small one, so that it takes no disk; the model is linear with
nine classes, so that what is left is the pipeline. Each height runs in a process of its own. The
runtime's own memory is that of the same process with a scene of one chip. ``--peers`` gives the
same scenes and model to the peers of peers.py that are installed, too; one that takes more than
``--most`` GB fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
import rasterio.shutil
from common import measured, save_rgb_model  # the scripts beside this one
from peers import COMMON, CONTESTANTS

RUN = """
import json, sys
import geoseg
limit = int(sys.argv[4]) or None
result = geoseg.predict(sys.argv[1], sys.argv[2], model=sys.argv[3], no_vector=True,
                        runtime="openvino", precision="fp32", mem_limit=limit)
print(json.dumps({"peak": result.report["peak_memory_bytes"], "seconds": result.report["seconds"],
                  "lanes": result.report["memory"]["lanes"]}))
"""
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_DATA, ({0}, {0}))
"""
SMALL = 50
CLASSES = 9


def make_scene(folder: Path, height: int, width: int) -> Path:
    """A virtual raster in which each pixel of a small one is a large square."""
    small = folder / "small.tif"
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "count": 3, "height": SMALL, "width": SMALL, "dtype": "uint8"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(small, "w", **profile) as dataset:
            dataset.write(rng.integers(1, 255, (3, SMALL, SMALL)).astype(np.uint8))
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><Description>{name}</Description>'
        f'<SimpleSource><SourceFilename relativeToVRT="1">small.tif</SourceFilename>'
        f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="{SMALL}" '
        f'ySize="{SMALL}"/><DstRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f"</SimpleSource></VRTRasterBand>"
        for band, name in enumerate(("red", "green", "blue"), start=1)
    )
    path = folder / f"scene-{height}.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000, 0.5, 0, 5000000, 0, -0.5</GeoTransform>{bands}</VRTDataset>",
        encoding="utf-8",
    )
    return path


def make_model(folder: Path) -> Path:
    """A linear network with random weights, and its graph."""
    import torch

    from geoseg.networks import create_model
    from geoseg.networks.export import write_graph

    torch.manual_seed(0)
    network = create_model("linear", in_channels=3, classes=CLASSES)
    save_rgb_model(folder, network, "linear", CLASSES, size=512, overlap=64)
    write_graph(folder)
    return folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=20_000)
    parser.add_argument("--heights", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--mem-limit", type=int, default=0, help="bytes, 0 for none")
    parser.add_argument("--peers", action="store_true", help="measure the peers, too")
    parser.add_argument("--most", type=float, default=20.0, help="GB that a peer may take")
    options = parser.parse_args()
    peers = {
        name: code
        for name, (code, more, package) in CONTESTANTS.items()
        if options.peers and not more and importlib.util.find_spec(package)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "model")
        sizes = [(512, 512), *((height, options.width) for height in options.heights)]
        for height, width in sizes:
            scene = make_scene(folder, height, width)
            out = folder / f"out-{height}.tif"
            found = measured(RUN, scene, out, model, options.mem_limit)
            print(f"{height} x {width}: peak {found['peak'] / 1e9:.3f} GB, {found['lanes']} lanes")
            print(f"  {json.dumps(found['seconds'])}", flush=True)
            out.unlink()
            if peers:  # some of them write with what the scene was written by
                taken = {"tiled": True, "compress": "deflate"}
                packed = scene.with_suffix(".tif")
                rasterio.shutil.copy(scene, packed, "GTiff", **taken)
                scene = packed
            for name, code in peers.items():
                limited = LIMITED.format(int(options.most * 1e9)) + COMMON + code
                try:
                    found = measured(limited, scene, model, out, os.cpu_count() or 1)
                except (RuntimeError, ValueError) as error:
                    print(f"  {name}: failed: {error}", flush=True)
                    continue
                print(f"  {name}: peak {found['peak'] / 1e9:.3f} GB, {found['wall']:.0f} s")


if __name__ == "__main__":
    main()
