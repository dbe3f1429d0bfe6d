"""What a GPU does with geoseg: speed, memory and labels against a CPU's, to be run once by hand.

    python benchmarks/gpu_precisions.py [--model landcover-aerial] [--side 8192] [--device cuda]

Makes a scene, runs it with each precision and batch size, and prints one line each: Mpx/s of the
whole run after loading, peak of the device's memory, the share of labels that are those of torch
fp32 on the CPU on a corner of the scene, and the longest stages, since beside a fast GPU it is the
host that takes the time. --device cpu runs the same lines without a GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from common import make_scene  # the script beside this one
from rasterio.windows import Window

import geoseg

#: Side of the corner on which labels are compared, px.
CORNER = 1024


def labels(path: Path) -> Any:
    """The corner's labels."""
    with rasterio.open(path) as dataset:
        return dataset.read(1, window=Window(0, 0, CORNER, CORNER))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="landcover-aerial")
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    import torch

    cuda = options.device.startswith("cuda")
    print(torch.cuda.get_device_name(options.device) if cuda else options.device, torch.__version__)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        scene = make_scene(place / "scene.tif", options.side, options.side)
        common: dict[str, Any] = {"model": options.model, "no_vector": True, "overwrite": True}
        # In whole chips, so that the corner's inside is seen in the same context.
        bounds = (500000.0, 5000000 - 0.5 * 2 * CORNER, 500000 + 0.5 * 2 * CORNER, 5000000.0)
        geoseg.predict(
            scene, place / "cpu.tif", runtime="torch", device="cpu", bbox=bounds, **common
        )
        expected = labels(place / "cpu.tif")
        print("| precision | batch | Mpx/s | peak GB of the device | labels of a CPU | stages, s |")
        print("|---|---|---|---|---|---|")
        for precision in ("fp32", "bf16", "fp16") if cuda else ("fp32", "bf16"):
            for batch in (1, 4, 16, 64) if cuda else (1,):
                if cuda:
                    torch.cuda.reset_peak_memory_stats(options.device)
                result = geoseg.predict(
                    scene,
                    place / "gpu.tif",
                    runtime="torch",
                    precision=precision,
                    device=options.device,
                    batch_size=batch,
                    **common,
                )
                seconds = result.report["seconds"]
                speed = options.side**2 / 1e6 / (seconds["total"] - seconds["load"])
                peak = torch.cuda.max_memory_allocated(options.device) / 1e9 if cuda else 0.0
                alike = float(np.mean(labels(place / "gpu.tif") == expected))
                longest = sorted(seconds.items(), key=lambda item: -item[1])
                stages = ", ".join(f"{k} {v:.1f}" for k, v in longest if k != "total" and v >= 0.1)
                line = f"{precision} | {batch} | {speed:.1f} | {peak:.2f} | {100 * alike:.3f} %"
                print(f"| {line} | {stages} |", flush=True)


if __name__ == "__main__":
    main()
