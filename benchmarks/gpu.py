"""How fast scenes go through a device: end to end, forward passes alone, and without a network.

    python benchmarks/gpu.py [--device auto] [--side 8192] [--rounds 3] [--network unet:resnet18]

Three figures, in Mpx/s of the scene, medians of rounds that are interleaved, each in a process of
its own after a small run that loads everything:

- end to end: ``geoseg.predict`` from the GeoTIFF to the class raster, without polygons.
- forward passes: the same number of chips through the network, which are on the device already.
- without a network: end to end with one that gives every pixel the same probabilities and takes no
  time: what reading, copying, stitching, deciding and writing allow.

On a CPU the last one shows whether the rest of the program could feed a GPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from common import make_scene, measured, save_rgb_model  # the script beside this one

CLASSES = 6

START = """
import json, sys, time
from pathlib import Path
import numpy as np
import geoseg
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
model, scene, small, out, device, batch = sys.argv[1:]
batch = int(batch) or None
files = geoseg.load_model(model)
K = len(files.card.classes)

class Nothing:
    # A runtime of numpy arrays, of which every chip gets the same.
    name, precision, device, choice, graph, classes = "nothing", "fp32", "cpu", "", "", K
    def prepare(self, pixels): pass
    def run(self, chips, batch_size=None):
        same = None
        for item, pixels in chips:
            if same is None or same.shape[1:] != pixels.shape[1:]:
                same = np.full((K, *pixels.shape[1:]), 1 / K, np.float32)
                same[1] += 0.01
            yield item, same
    def zeros(self, shape): return np.zeros(shape, np.float32)
    def asarray(self, array): return array
    def to_numpy(self, array): return array

def torch_runtime(nothing):
    import torch
    from geoseg.networks.device import pick_device
    from geoseg.runtimes import load_runtime
    plan = make_plan(scene, PredictOptions(model=model, output=out, no_vector=True))
    made = load_runtime(files, plan.radiometry, runtime="torch", device=device)
    if nothing:
        class Constant(torch.nn.Module):
            def forward(self, x):
                return x.new_zeros((1, K, 1, 1)).expand(len(x), K, *x.shape[2:])
        made._network = Constant()
    return made

def is_cpu():
    if device not in ("auto", "cpu"):
        return False
    try:
        from geoseg.networks.device import pick_device
        return pick_device(device).type == "cpu"
    except ImportError:
        return True

def predict(path, runtime):
    options = {"overwrite": True, "restart": True, "no_vector": True, "batch_size": batch}
    if isinstance(runtime, str):
        options["device"] = device
    return geoseg.predict(path, out, model=model, runtime=runtime, **options).report

def timed(make):
    predict(small, make())
    runtime = make()
    start = time.perf_counter()
    report = predict(scene, runtime)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "stages": report["seconds"],
                      "runtime": report["runtime"]["device"]}))
"""
WAYS = {
    "end to end": START + "timed(lambda: 'auto' if is_cpu() else torch_runtime(False))",
    "without a network": START + "timed(Nothing if is_cpu() else lambda: torch_runtime(True))",
    "forward passes": START
    + """
from geoseg.runtimes import load_runtime
plan = make_plan(scene, PredictOptions(model=model, output=out, no_vector=True))
chips, shape = len(plan.chips), (3, plan.chips.chip_height, plan.chips.chip_width)
random = np.random.default_rng(0)
some = [random.integers(1, 255, shape, np.uint8) for _ in range(8)]
if is_cpu():
    runtime = load_runtime(files, plan.radiometry, device="cpu", precision="fp32")
else:
    import torch
    runtime = torch_runtime(False)
    some = [torch.from_numpy(chip).to(runtime.device) for chip in some]
def run(count):
    for _, probs in runtime.run(((i, some[i % 8]) for i in range(count)), batch):
        pass
    if not isinstance(probs, np.ndarray):
        probs.sum().item()
run(16)
start = time.perf_counter()
run(chips)
print(json.dumps({"seconds": time.perf_counter() - start, "runtime": runtime.device}))
""",
}


def save_model(folder: Path, network: str) -> Path:
    """A network with random weights."""
    import torch

    from geoseg.networks import create_model

    torch.manual_seed(0)
    name, _, encoder = network.partition(":")
    made = create_model(name, encoder or None, 3, CLASSES).eval()
    return save_rgb_model(
        folder,
        made,
        name,
        CLASSES,
        options={"encoder": encoder} if encoder else None,
        size=512,
        overlap=128,
        multiple=32,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--network", default="unet:resnet18", help="NAME or NAME:ENCODER")
    parser.add_argument("--only", nargs="*", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in options.only}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        scene = make_scene(place / "scene.tif", options.side, options.side)
        small = make_scene(place / "small.tif", 600, 600)
        model = save_model(place / "model", options.network)
        for _ in range(options.rounds):
            for name, found in seconds.items():
                arguments = model, scene, small, place / "out.tif", options.device
                result = measured(WAYS[name], *arguments, options.batch_size)
                found.append(result["seconds"])
                where, stages = result["runtime"], result.get("stages")
                shown = sorted((stages or {}).items(), key=lambda item: -item[1])[:6]
                text = ", ".join(f"{stage} {spent:.2f}" for stage, spent in shown)
                print(f"{name:18} {found[-1]:7.2f} s  {where}  {text}", flush=True)
    mpx = options.side**2 / 1e6
    print(f"{options.side} x {options.side} px, {os.cpu_count()} CPU cores, {where}")
    for name, found in seconds.items():
        spread = " - ".join(f"{mpx / s:.1f}" for s in (max(found), min(found)))
        print(f"{name:18} {mpx / statistics.median(found):6.1f} Mpx/s [{spread}]")


if __name__ == "__main__":
    main()
