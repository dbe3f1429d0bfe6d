"""geoseg predict against the forward passes alone, and against what one would take instead.

    python benchmarks/peers.py [--side 8192] [--rounds 3] [--only NAME ...] [--model M --scene S]

One scene (three bands of uint8, tiled, deflate), one network (U-Net on ResNet-18, eight classes),
chips of 512 px that share 128. Each contestant runs in a process of its own, in turn, so many
rounds; what counts is the median of the clock's time and of the process's CPU time without its
imports, the loading of the model and its compiling, and the peak of memory. Peers that are not
installed are left out: pip install monai pytorch-toolbelt geoai-py geo-inference terratorch
rastervision-core rastervision-pytorch-learner. All of them together ask for more, and for other
versions, than what is used of them here: pip install --no-deps --target FOLDER, with FOLDER on
PYTHONPATH, takes them and one by one the modules that are found missing (of these, pystac<1.15 and
albucore==0.0.24).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import rasterio
from common import PEAK, make_scene, measured, save_rgb_model  # the script beside this one

SIZE, OVERLAP, CLASSES = 512, 128, 8
#: Chips at a time of the peers. On a CPU four took geoai and raster-vision longer and terratorch as
#: long; MONAI and pytorch-toolbelt were not tried.
BATCH = 1

#: What every process begins with.
COMMON = (
    PEAK
    + """
import json, os, sys, time
import numpy as np
scene, model, out, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
def done(start, cpu, **more):
    print(json.dumps({"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu,
                      "peak": peak(), **more}))
"""
)

GEOSEG = (
    """
import pyproj
import geoseg
from geoseg.prediction import blending
from geoseg.prediction import run as pipeline
from geoseg.prediction import plan
from geoseg.core.jit import warm_up
from geoseg.runtimes.graph_runtime import CpuRuntime
warm_up()
import threading
runtime, precision = sys.argv[5:7]
spent = {"wall": 0.0, "cpu": 0.0}
def timed(function):
    def call(*args):
        wall, cpu = time.perf_counter(), time.thread_time()
        made = function(*args)
        # Another thread compiles while the first row is read: then only what is waited for counts.
        if threading.current_thread() is threading.main_thread():
            spent["wall"] += time.perf_counter() - wall
        spent["cpu"] += time.thread_time() - cpu
        return made
    return call
# Read, made ready and compiled: what the others' clocks leave out, too.
plan.find_model = timed(plan.find_model)
pipeline.load_members = timed(pipeline.load_members)
CpuRuntime.prepare = timed(CpuRuntime.prepare)
start, cpu = time.perf_counter(), time.process_time()
result = geoseg.predict(scene, out, model=model, runtime=runtime, precision=precision,
                        device="cpu", threads=threads, no_vector=True, overwrite=True,
                        """
    + f"size={SIZE}, overlap={OVERLAP})"
    + """
report = result.report
done(start + spent["wall"], cpu + spent["cpu"], seconds=report["seconds"],
     choice=report["runtime"]["choice"])
"""
)

#: The same chips through the same runtime, from memory, and nothing else.
FORWARD = (
    """
from geoseg.prediction.plan import PredictOptions, make_plan
from geoseg.prediction.preflight import sample_chips
from geoseg.runtimes import load_runtime
runtime, precision = sys.argv[5:7]
plan = make_plan(scene, PredictOptions(model=model, output=out, no_vector=True, overwrite=True,
                                       """
    + f"size={SIZE}, overlap={OVERLAP}))"
    + """
chips = sample_chips(plan, 16)
made = load_runtime(plan.files, plan.radiometry, runtime=runtime, precision=precision,
                    device="cpu", threads=threads, sample=lambda: chips, chips=len(plan.chips))
for _ in made.run(enumerate(chips[:2])):
    pass
start, cpu = time.perf_counter(), time.process_time()
for _ in made.run((i, chips[i % len(chips)]) for i in range(len(plan.chips))):
    pass
done(start, cpu, chips=len(plan.chips))
"""
)

#: What every peer begins with, after the imports of its own.
PEER = """
import rasterio, torch
from geoseg.cards.files import read_model
from geoseg.networks import load_network
torch.set_num_threads(threads)
files = read_model(model)
network, K = load_network(files).eval(), len(files.card.classes)
"""
START = """
start, cpu = time.perf_counter(), time.process_time()
"""
READ = (
    START
    + """
with rasterio.open(scene) as dataset:
    pixels, profile = dataset.read(), dataset.profile
"""
)
WRITE = """
profile.update(driver="GTiff", count=1, dtype="uint8", compress="deflate")
with rasterio.open(out, "w", **profile) as dataset:
    dataset.write(labels.astype("uint8"), 1)
done(start, cpu)
"""
MONAI = (
    PEER
    + """
from monai.inferers import sliding_window_inference
"""
    + READ
    + f"""
x = torch.from_numpy(pixels)[None].float() / 255
with torch.inference_mode():
    logits = sliding_window_inference(x, {SIZE}, {BATCH}, network,
                                      overlap={OVERLAP / SIZE}, mode="gaussian")
labels = logits[0].argmax(0).numpy()
"""
    + WRITE
)
TOOLBELT = (
    PEER
    + """
from pytorch_toolbelt.inference.tiles import ImageSlicer, TileMerger
"""
    + READ
    + f"""
image = np.moveaxis(pixels, 0, -1)
slicer = ImageSlicer(image.shape, tile_size={SIZE}, tile_step={SIZE - OVERLAP}, weight="pyramid")
merger = TileMerger(slicer.target_shape, K, slicer.weight, device="cpu")
with torch.inference_mode():
    tiles = list(slicer.iter_split(image))
    for i in range(0, len(tiles), {BATCH}):
        some = tiles[i:i + {BATCH}]
        x = torch.from_numpy(np.stack([np.moveaxis(t, -1, 0) for t, _ in some])).float() / 255
        merger.integrate_batch(network(x).softmax(1), np.array([c for _, c in some]))
merged = np.moveaxis(merger.merge().numpy(), 0, -1)
labels = slicer.crop_to_orignal_size(merged).argmax(-1)
"""
    + WRITE
)
#: The logits of the whole scene are added up in memory; the labels are all that is written.
GEOAI = (
    PEER
    + """
import geoai.utils, tqdm.auto
from geoai.inference import predict_geotiff
"""
    + START
    + f"""
predict_geotiff(network, scene, out, tile_size={SIZE}, overlap={OVERLAP}, batch_size={BATCH},
                num_classes=K, output_dtype="uint8", output_nodata=255, device="cpu",
                preprocess_fn=lambda tile: tile / 255, postprocess_fn=lambda p: p.argmax(0),
                compress="deflate", verbose=False)
done(start, cpu)
"""
)

#: It takes a TorchScript file that is fed the scene's numbers, one chip at a time, and its chips
#: always share half of their side: about (384 / 256)^2 = 2.25 times as many as the others need.
#: ``threads`` are dask's workers, which share out the blending, too; each computes with one.
GEO_INFERENCE = (
    PEER
    + """
import tempfile
from geo_inference.geo_inference import GeoInference
class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network
    def forward(self, x):
        return self.network(x.float() / 255)
folder = tempfile.TemporaryDirectory(dir=os.path.dirname(out))
script = os.path.join(folder.name, "model.pt")
"""
    + f"""
with torch.no_grad():
    chip = torch.zeros((1, 3, {SIZE}, {SIZE}), dtype=torch.uint8)
    torch.jit.save(torch.jit.freeze(torch.jit.trace(Scaled().eval(), chip)), script)
torch.set_num_threads(1)
geo_inference = GeoInference(script, folder.name, device="cpu", num_classes=K)
"""
    + START
    + f"""
name = geo_inference(scene, patch_size={SIZE}, workers=threads)
os.replace(os.path.join(folder.name, name), out)
done(start, cpu)
"""
)

#: With its default padding there would be more chips at some sides. Of each chip, a rim of 8 px
#: (``delta``) is cut off before the blending: its default.
TERRATORCH = (
    PEER
    + """
from terratorch.tasks.tiled_inference import tiled_inference
"""
    + READ
    + f"""
x = torch.from_numpy(pixels)[None].float() / 255
with torch.inference_mode():
    logits = tiled_inference(network, x, crop={SIZE}, stride={SIZE - OVERLAP},
                             batch_size={BATCH}, padding=False)
labels = logits[0].argmax(0).numpy()
"""
    + WRITE
)

#: Half of the overlap is cut off at each side (``crop_sz="auto"``), so that the chips' labels can
#: be laid side by side, which is less work than its mean of scores. Processes of its own for
#: reading would be cores beyond ``threads``, and their CPU time would not be counted; its ONNX mode
#: takes no number of threads. One of the classes has to be called null; ``img_sz`` is the side that
#: chips are brought to before the network.
RASTER_VISION = (
    PEER
    + f"""
import tempfile
from rastervision.core.data import ClassConfig, SemanticSegmentationLabelStore
from rastervision.core.data.utils import make_ss_scene
from rastervision.core.rv_pipeline import SemanticSegmentationPredictOptions
from rastervision.pytorch_learner import (
    SemanticSegmentationGeoDataConfig, SemanticSegmentationLearner,
    SemanticSegmentationLearnerConfig, SolverConfig)
from rastervision.pytorch_learner.utils import predict_scene_ss
classes = ClassConfig(names=[f"class {{k}}" for k in range(K - 1)] + ["null"])
data = SemanticSegmentationGeoDataConfig(class_config=classes, img_sz={SIZE}, num_workers=0)
config = SemanticSegmentationLearnerConfig(data=data, solver=SolverConfig())
learner = SemanticSegmentationLearner(config, model=network, training=False)
learner.device = torch.device("cpu")
network.to(learner.device)
options = SemanticSegmentationPredictOptions(chip_sz={SIZE}, stride={SIZE - OVERLAP},
                                             crop_sz="auto", batch_sz={BATCH})
folder = tempfile.TemporaryDirectory(dir=os.path.dirname(out))
"""
    + START
    + """
place = make_ss_scene(scene)
place.label_store = SemanticSegmentationLabelStore(
    folder.name, place.raster_source.crs_transformer, classes)
place.label_store.save(predict_scene_ss(learner, place, options),
                       {"tiled": True, "compress": "deflate"})
os.replace(os.path.join(folder.name, "labels.tif"), out)
done(start, cpu)
"""
)

CONTESTANTS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "forward, openvino bf16": (FORWARD, ("openvino", "bf16"), "openvino"),
    "geoseg, openvino bf16": (GEOSEG, ("openvino", "bf16"), "openvino"),
    "forward, openvino int8": (FORWARD, ("openvino", "int8"), "onnxruntime"),
    "geoseg, openvino int8": (GEOSEG, ("openvino", "int8"), "onnxruntime"),
    "forward, openvino fp32": (FORWARD, ("openvino", "fp32"), "openvino"),
    "geoseg, openvino fp32": (GEOSEG, ("openvino", "fp32"), "openvino"),
    "geoseg, torch fp32": (GEOSEG, ("torch", "fp32"), "torch"),
    "MONAI sliding_window_inference": (MONAI, (), "monai"),
    "pytorch-toolbelt ImageSlicer": (TOOLBELT, (), "pytorch_toolbelt"),
    "geoai predict_geotiff": (GEOAI, (), "geoai"),
    "geo-inference GeoInference": (GEO_INFERENCE, (), "geo_inference"),
    "terratorch tiled_inference": (TERRATORCH, (), "terratorch"),
    "raster-vision predict_scene_ss": (RASTER_VISION, (), "rastervision"),
}


#: Whose versions are told.
PACKAGES = (
    "torch",
    "openvino",
    "onnxruntime",
    "monai",
    "pytorch-toolbelt",
    "geoai-py",
    "geo-inference",
    "terratorch",
    "rastervision-core",
    "rastervision-pytorch-learner",
    "rasterio",
)


def make_model(path: Path) -> Path:
    """The network with random weights: in floating point they change nothing in what it costs.

    In 8 bits they do, since layers that change too many labels are left in floating point, and of
    random weights these are many: there ``--model`` is wanted, and a ``--scene`` as it was taught.
    The peers feed it the numbers over 255, which changes its answers, not what they cost.
    """
    import torch

    from geoseg.networks import create_model

    torch.manual_seed(0)
    network = create_model("unet", "resnet18", 3, CLASSES)
    return save_rgb_model(
        path,
        network.eval(),
        "unet",
        CLASSES,
        options={"encoder": "resnet18"},
        size=SIZE,
        overlap=OVERLAP,
        multiple=32,
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--model", type=Path, help="a model's folder, of three bands of uint8")
    parser.add_argument("--scene", type=Path, help="three bands of uint8, in place of a made one")
    parser.add_argument("--only", nargs="*", default=[], help="parts of contestants' names")
    options = parser.parse_args()
    wanted = {
        name: (code, more)
        for name, (code, more, package) in CONTESTANTS.items()
        if importlib.util.find_spec(package)
        and (not options.only or any(o in name for o in options.only))
    }
    results: dict[str, list[dict[str, float]]] = {name: [] for name in wanted}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        scene = options.scene or make_scene(place / "scene.tif", options.side, options.side)
        with rasterio.open(scene) as dataset:
            height, width = dataset.shape
        model = options.model or make_model(place / "model")
        for number in range(options.rounds):
            for name, (code, more) in wanted.items():
                arguments = scene, model, place / "out.tif", options.threads, *more
                try:
                    results[name].append(measured(COMMON + code, *arguments))
                except RuntimeError as error:
                    print(f"{name} failed: {error}")
                    continue
                print(f"round {number + 1}  {name:32s} {json.dumps(results[name][-1])}", flush=True)
    print(f"\n{height} x {width} x 3, {options.threads} threads, {options.rounds} rounds")
    installed = []
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            installed.append(f"{package} {version(package)}")
    print(", ".join(installed))
    print(f"| {'what':32s} | wall s | CPU s | Mpx/s | peak GB |\n|---|---|---|---|---|")
    for name, runs in results.items():
        if runs:
            wall, cpu, peak = (
                statistics.median(r[k] for r in runs) for k in ("wall", "cpu", "peak")
            )
            speed = height * width / 1e6 / wall
            print(f"| {name:32s} | {wall:.1f} | {cpu:.1f} | {speed:.2f} | {peak / 1e9:.2f} |")


if __name__ == "__main__":
    main()
