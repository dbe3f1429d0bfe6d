"""Clouds by the network of the package ukis-csmask (Apache-2.0), for scenes without a cloud layer.

It is asked at 30 m, where it is good. Only the package's weights are used, by OpenVINO: those for
reflectance at the top of the atmosphere, also for that of the surface. On 58 real scenes and chips
without clouds they call at most 3 % cloud, whichever level it is, and the package's others call up
to 22 %; and no level has to be guessed.
"""

from __future__ import annotations

import json
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.importing import import_openvino, missing, package_version, require
from geoseg.core.machine import available_cores
from geoseg.errors import BandError, MissingExtraError, RadiometryError, SceneError, UsageError
from geoseg.geo.model_grid import ModelGrid, on_model_grid
from geoseg.prediction.cloud_network import CloudNetwork
from geoseg.prediction.options import PredictOptions
from geoseg.scene.radiometry import Radiometry, find_radiometry
from geoseg.scene.scene import FoundClouds, Scene
from geoseg.scene.scene_band import SceneBand, finest_grid

__all__ = ["by_csmask", "csmask_if_it_can"]

#: In the order in which the network takes them.
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
#: Metres per pixel at which it is asked, and such at which a scene is taken as it is.
GSD, GSD_RANGE = 30.0, (27.0, 33.0)
#: Side of its chips, and what of them is not trusted on each side, px. The network sees all of a
#: chip; more margin changes little.
SIDE, MARGIN = 256, 32
INNER = SIDE - 2 * MARGIN
#: Answers that are kept, of 4.6 kB each: those of 600,000 square km.
MOST_KEPT = 20_000
_PACKAGE = "ukis_csmask"
_GRAPH = "model_6b_l1c.onnx"


def csmask_if_it_can(scene: Scene, options: PredictOptions) -> FoundClouds | None:
    """Give a scene's clouds by csmask where the package is installed and the scene is one for it.

    Args:
        scene: that has no cloud layer.
        options: the user's.

    Returns:
        None where bands, unit or pixel size don't suit it, or the scene is less than a chip.
    """
    if missing("clouds"):
        return None
    try:
        found = by_csmask(scene, options)
    except (SceneError, BandError, RadiometryError, UsageError):
        return None
    return found if min(found.grid.height, found.grid.width) >= SIDE else None


def by_csmask(scene: Scene, options: PredictOptions) -> FoundClouds:
    """Have a scene's clouds found by csmask; nothing is computed before they are asked for.

    Args:
        scene: with blue, green, red, nir, swir1 and swir2 as reflectance, of up to 33 m.
        options: the user's.

    Raises:
        MissingExtraError: the package is not installed, or has another network.
        BandError: a band is missing.
        RadiometryError: nothing says what the numbers mean.
        UsageError: the pixels are too large, or of unknown size.
    """
    require("clouds", "--clouds csmask")
    graph = _graph()
    try:
        bands = scene.choose(BANDS)
    except BandError as error:
        raise BandError(f"--clouds csmask: {error}; or give --clouds FILE or none") from error
    radiometry = find_radiometry(
        scene, bands, "reflectance", scale=options.scale, offset=options.offset
    )
    full = finest_grid(bands)
    if full.gsd is None or max(full.gsd) > GSD_RANGE[1]:
        size = "unknown" if full.gsd is None else f"{max(full.gsd):.3g} m"
        raise UsageError(
            f"--clouds csmask: the size of the scene's pixels is {size}, and the network takes up "
            f"to {GSD_RANGE[1]:g} m; give --clouds FILE or none"
        )
    seen, _ = on_model_grid(full, GSD, GSD_RANGE, "csmask")
    network = _Csmask(graph, bands, radiometry, seen, options)
    version = package_version(_PACKAGE)
    return FoundClouds(
        f"the network of ukis-csmask at {GSD:g} m",
        f"ukis-csmask {version}",
        seen.grid,
        network.opened,
        paths=(str(graph),),
        about=(version, list(seen.place)),
    )


def _graph() -> Path:
    """Find the package's network, without importing what it imports.

    Raises:
        MissingExtraError: it isn't there.
    """
    spec = find_spec(_PACKAGE)
    assert spec is not None and spec.origin is not None, "it was required"
    graph = Path(spec.origin).with_name(_GRAPH)
    if not (graph.is_file() and graph.with_suffix(".json").is_file()):
        raise MissingExtraError(
            f"--clouds csmask: ukis-csmask {package_version(_PACKAGE)} has no {_GRAPH}, which "
            f"version 1.0 has; install it: pip install 'ukis-csmask==1.0.0'"
        )
    return graph


class _Csmask(CloudNetwork):
    """The package's network, for one scene."""

    def __init__(
        self,
        graph: Path,
        bands: tuple[SceneBand, ...],
        radiometry: Radiometry,
        seen: ModelGrid,
        options: PredictOptions,
    ) -> None:
        super().__init__(bands, seen, SIDE, MARGIN, options.src_nodata, MOST_KEPT)
        self._graph, self._radiometry, self._threads = graph, radiometry, options.threads

    def _ask(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        gain, bias = (np.array(v)[:, None, None] for v in self._numbers)
        logits = self._network((pixels * gain + bias).astype(np.float32)[None])[0][0]
        # Clear, cloud, shadow.
        found: NDArray[np.bool_] = logits.argmax(axis=0) != 0
        return found

    @cached_property
    def _numbers(self) -> tuple[list[float], list[float]]:
        """From the scene's numbers to what the network takes: gain and bias of each band."""
        about = json.loads(self._graph.with_suffix(".json").read_text(encoding="utf-8"))
        mean, spread = about["data"]["dataset_statistics"]["img"]
        gain = [g / s for g, s in zip(self._radiometry.gain, spread, strict=True)]
        bias = [(b - m) / s for b, m, s in zip(self._radiometry.bias, mean, spread, strict=True)]
        return gain, bias

    @cached_property
    def _network(self) -> Any:
        core = import_openvino().Core()
        model = core.read_model(str(self._graph))
        model.reshape([1, len(BANDS), SIDE, SIDE])
        settings = {
            # In fewer bits it would answer otherwise on another CPU.
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(self._threads or available_cores()),
            "ENABLE_CPU_PINNING": "NO",
        }
        return core.compile_model(model, "CPU", settings)
