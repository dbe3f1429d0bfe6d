"""What several benchmarks share: a scene, a model, a process of its own for each measurement."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

if TYPE_CHECKING:
    from torch import nn

#: Code for a measured process: the peak of its memory, in bytes. Of getrusage the memory of the
#: process that started it would be a part.
PEAK = """
def peak():
    with open("/proc/self/status") as status:
        return 1024 * int(status.read().split("VmHWM:")[1].split()[0])
"""


def make_scene(
    path: Path,
    height: int,
    width: int,
    *,
    bands: Sequence[str] = ("red", "green", "blue"),
    dtype: str = "uint8",
    levels: tuple[int, int] = (20, 235),
    square: int = 64,
    noise: float = 6,
    gsd: float = 0.5,
    scale: float = 1.0,
) -> Path:
    """Squares of random numbers with some noise, so that it compresses as a photo does.

    Args:
        path: of the GeoTIFF, tiled and packed by deflate.
        height: rows.
        width: columns.
        bands: their names.
        dtype: of the numbers.
        levels: least and most of a square's number.
        square: side of a square, px.
        noise: standard deviation within a square.
        gsd: metres a pixel.
        scale: quantity per number.
    """
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": len(bands)}
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5000000, gsd, gsd)}
    options: dict[str, Any] = {**profile, **place, "tiled": True, "compress": "deflate"}
    with rasterio.open(path, "w", dtype=dtype, **options) as dataset:
        dataset.descriptions = tuple(bands)
        if scale != 1.0:
            dataset.scales = (scale,) * len(bands)
        most = np.iinfo(dtype).max - 1
        for band in range(1, len(bands) + 1):
            coarse = rng.integers(*levels, (height // square + 1, width // square + 1))
            plane = np.kron(coarse, np.ones((square, square), np.int16))[:height, :width]
            noisy = plane + rng.normal(0, noise, plane.shape)
            dataset.write(noisy.clip(1, most).astype(dtype), band)
    return path


def save_rgb_model(
    folder: Path,
    network: nn.Module,
    name: str,
    classes: int,
    *,
    options: Mapping[str, Any] | None = None,
    **card: Any,
) -> Path:
    """A model folder for the scenes of :func:`make_scene`.

    Args:
        folder: the new folder.
        network: in evaluation mode, of three bands.
        name: of the network.
        classes: how many it tells.
        options: of the network.
        **card: further fields of the card: size, overlap, multiple.
    """
    from geoseg.cards.card import ModelCard, Normalization
    from geoseg.cards.legend import ClassInfo
    from geoseg.networks import save_model

    made = ModelCard(
        name=f"bench-{name}",
        description=f"A {name} for a benchmark.",
        network=name,
        network_options=options or {},
        bands=("red", "green", "blue"),
        classes=tuple(ClassInfo(k, f"class {k}", "#000000") for k in range(classes)),
        gsd=0.5,
        gsd_range=(0.1, 2.0),
        quantity="number",
        normalization=Normalization("min-max", {"minimum": (0,) * 3, "maximum": (255,) * 3}),
        **card,
    )
    save_model(made, network, folder)
    return folder


def measured(code: str, *arguments: object) -> dict[str, Any]:
    """What Python code prints last, as JSON, when it is run in a process of its own.

    Args:
        code: finds the arguments in ``sys.argv``.
        *arguments: handed over as text.

    Raises:
        RuntimeError: it failed; with the last line of what it said.
    """
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("\n".join(done.stderr.strip().splitlines()[-1:]))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
