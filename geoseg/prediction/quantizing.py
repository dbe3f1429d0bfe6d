"""``geoseg models quantize``: a model in 8 bits, calibrated on a scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geoseg.core.cache import Cache
from geoseg.core.importing import require
from geoseg.errors import OutputError, SceneError
from geoseg.graphs.binding import bind, noted
from geoseg.networks.folder import save_files
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.preflight import sample_chips
from geoseg.runtimes.int8 import in_words, quantize_files

__all__ = ["Quantized", "quantize"]

#: Chips to calibrate and to judge on; more change little.
CALIBRATION_CHIPS = 16


@dataclass(frozen=True)
class Quantized:
    """What came out.

    Attributes:
        folder: of the new model.
        chips: how many of the scene it was judged on.
        agreement: share of fp32's labels that it gives on these.
        floating: layers that were left in floating point, so that labels stay the same.
        words: the same for people.
    """

    folder: Path
    chips: int
    agreement: float
    floating: int
    words: str


def quantize(
    model: str | Path,
    scene: str | Path | Sequence[str | Path],
    folder: str | Path,
    **options: Any,
) -> Quantized:
    """Write a model folder with a graph in 8 bits beside the weights.

    Up to 16 of the scene's chips, spread evenly, are looked at: every second one is calibrated on,
    the others are judged.

    Args:
        model: an embedded model's name, or a model folder or .zip.
        scene: as of :func:`geoseg.predict`; like those that the model is to be used on.
        folder: the new model folder.
        **options: fields of :class:`geoseg.prediction.options.PredictOptions` that say what the
        scene is.

    Raises:
        MissingExtraError: onnxruntime, which does it, is not installed.
        ModelError: the network can't be quantized.
        OutputError: the folder exists already, or can't be written.
        SceneError: the scene can't be read, or nothing in it was measured.
    """
    require("onnxruntime", "geoseg models quantize")
    if Path(folder).exists():
        raise OutputError(f"{folder} exists already; give another folder, or remove it first")
    plan = make_plan(scene, PredictOptions(model=model, **options))
    chips = sample_chips(plan, CALIBRATION_CHIPS)
    if not chips:
        raise SceneError(
            f"{plan.scene.name}: no pixel was measured where chips were looked for; take another "
            f"scene, or a part of it with --bbox"
        )
    files = plan.files
    if files.graph is None:
        from geoseg.networks.export import export_graph

        # With it the new model does without torch in fp32, too.
        files = replace(files, graph=export_graph(files)[0])
    files = quantize_files(files, plan.radiometry, chips, Cache())
    assert files.int8 is not None
    save_files(files, folder)
    found = noted(bind(files.int8, files))
    return Quantized(
        Path(folder),
        int(found["geoseg:chips"]),
        float(found["geoseg:agreement"]),
        int(found["geoseg:floating"]),
        in_words(found),
    )
