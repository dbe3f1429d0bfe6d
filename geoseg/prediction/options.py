"""What a user may ask of a prediction, checked one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geoseg.core.jsontext import builtin_fields
from geoseg.errors import UsageError
from geoseg.prediction.chip_crf import parse_options
from geoseg.prediction.tapers import TAPERS
from geoseg.rasters.writing import (
    PROBABILITY_DTYPES,
    check_creation_options,
)
from geoseg.runtimes.ensemble import POSITIONS
from geoseg.scene.by_numbers import Asked
from geoseg.scene.clouds import CLOUD_BUFFER, CLOUDS, MOST_BUFFER
from geoseg.scene.sources import Rules

__all__ = ["PredictOptions"]


@dataclass(frozen=True)
class PredictOptions:
    """The options of :func:`geoseg.predict`, most of them under the command line's names.

    Attributes:
        model: an embedded model's name, or a model folder or .zip; None for the embedded one that
            suits the scene's bands and gsd; several for the mean of their probabilities.
        output: the class raster, or None for ``<scene>_landcover.tif`` in the current folder.
        vector: the polygons, or None for the class raster's name with .gpkg.
        no_vector: write no polygons.
        probs: a raster of all probabilities.
        confidence: a raster of the winning probability.
        min_confidence: pixels whose winning probability is below this are "not sure": of an id of
            their own, which is in the legend; 0 for none.
        agreement: a raster of the share of members (models and turned chips) that say the class.
        probs_dtype: of these three rasters: ``uint8`` or ``float32``.
        border: a raster of where a class may depend on what lies beyond the measured ground: 1
            within the model's border of an end of the scene or of a pixel that was not measured, 0
            elsewhere, 255 nodata.
        applicability: a raster of how far each pixel is like what the model was taught on: the
            share of the taught pixels that are at least as strange, as ``probs_dtype``.
        preview: a PNG of the scene beside its map.
        bands: band numbers in the model's order, such as ``3,2,1``; or names, codes or labels that
            the scene carries, in any order.
        band_names: what the scene's bands are, where its files don't say it: one name a band, in
            the files' order.
        scale: quantity per number.
        offset: quantity at number 0.
        src_nodata: the scene's number for "not measured".
        nearblack: make what is near black and connected to the scene's edge nodata.
        stretch: two percentiles of the whole scene, all bands alike, that become 0 and 255, for
            models that take pictures of 8 bits; None for the numbers as they are.
        assets: keys of the STAC item's assets that are the scene's bands; none for all that are
            known to be.
        clouds: ``auto``: where the scene has a layer that says which pixels are clouds, these and
            their shadows are nodata, and without a layer what csmask finds, where it is installed
            and the scene has its six bands; else, where a scene with these bands looks cloudy and
            the map's model says that clouds are no class of its own, what the embedded model
            clouds-ms finds; ``none``: they are mapped; ``clouds-ms``; ``csmask``; or a file of
            clouds: a raster of 0 and 1 (or 255), a product's cloud layer, polygons, or the folder
            of a model of clouds.
        cloud_buffer: how far around clouds and their shadows all is nodata, too, metres on the
            ground.
        input_root: a folder, or several, into which the scene's and the AOI's files may point; into
            their own they may anyway.
        allow_vrt: ``local``: what a file names lies in these folders, and virtual rasters have
            neither raw nor derived bands; ``any``: whatever GDAL follows, servers included.
        bbox: (west, south, east, north) of the part to predict.
        bbox_crs: the CRS of ``bbox``; None means the scene's.
        aoi: a vector file; only what lies in its polygons is predicted.
        size: chip side, px of the model's grid; None for the card's.
        overlap: px that neighbouring chips share, in total; ``auto`` for no more than the card's
            border needs; None for the card's.
        exact: choose overlap and margin so that the probabilities are those of the untiled scene.
        taper: how a chip's weight falls off towards its edges: ``cosine``, ``linear``,
            ``gaussian`` or ``none``.
        tta: ``none``; ``flips`` averages the probabilities of mirrored chips, ``d4`` those of
            turned ones, too.
        crf: smooth the map along the edges of the image by a dense CRF.
        crf_options: ``NAME=VALUE`` for it: ``filter``, ``iterations``, ``alpha``, ``beta``,
            ``gamma``, ``spatial``, ``bilateral`` or ``radius``.
        batch_size: chips in one forward pass; None for the device's default.
        runtime: ``auto``, ``openvino``, ``onnxruntime`` or ``torch``.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``cuda:all`` or ``mps``.
        threads: how many compute on a CPU; None for one a core.
        mem_limit: bytes that the run may take in all; None for most of what is free. A wide scene
            goes in lanes then; the result does not change.
        max_pixels: the most pixels that a raster may have, None for 1e11; blocks that a sparse
            file leaves out don't count.
        restart: forget the strips that a stopped run of the same outputs has finished.
        min_area: the area of the smallest polygon, m2; measured before ``simplify``, which may
            take a little off.
        simplify: tolerance of the polygons' borders, m.
        force: make the polygons even if there are more than 10 million.
        creation_options: ``NAME=VALUE`` for GDAL's COG driver.
        overwrite: replace outputs that exist.
    """

    model: str | Path | Sequence[str | Path] | None = None
    output: str | Path | None = None
    vector: str | Path | None = None
    no_vector: bool = False
    probs: str | Path | None = None
    confidence: str | Path | None = None
    min_confidence: float = 0.0
    agreement: str | Path | None = None
    probs_dtype: str = "uint8"
    border: str | Path | None = None
    applicability: str | Path | None = None
    preview: str | Path | None = None
    bands: str | None = None
    band_names: str | None = None
    scale: float | None = None
    offset: float | None = None
    src_nodata: float | None = None
    nearblack: bool = False
    stretch: tuple[float, float] | None = None
    assets: Sequence[str] = ()
    clouds: str | Path = "auto"
    cloud_buffer: float = CLOUD_BUFFER
    input_root: str | Path | Sequence[str | Path] = ()
    allow_vrt: str = "local"
    bbox: tuple[float, float, float, float] | None = None
    bbox_crs: str | None = None
    aoi: str | Path | None = None
    size: int | None = None
    overlap: int | Literal["auto"] | None = None
    exact: bool = False
    taper: str = "cosine"
    tta: str = "none"
    crf: bool = False
    crf_options: Sequence[str] = ()
    batch_size: int | None = None
    runtime: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    mem_limit: int | None = None
    max_pixels: float | None = None
    restart: bool = False
    min_area: float = 0.0
    simplify: float = 0.0
    force: bool = False
    creation_options: Sequence[str] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without a scene.

        Raises:
            UsageError: an option is out of range or contradicts another.
        """
        builtin_fields(self)
        if self.taper not in TAPERS:
            raise UsageError(f"taper is {self.taper!r}; it must be one of {', '.join(TAPERS)}")
        if self.tta not in POSITIONS:
            raise UsageError(f"tta is {self.tta!r}; it must be one of {', '.join(POSITIONS)}")
        if self.agreement is not None and self.tta == "none" and len(self.models) < 2:
            raise UsageError(
                "--agreement says how far several members agree, and here is one; give --tta flips "
                "or d4, or several -m"
            )
        if self.probs_dtype not in PROBABILITY_DTYPES:
            raise UsageError(f"probs dtype is {self.probs_dtype!r}; uint8 or float32")
        # 0 and 0.0 are the same in the rasters' tags.
        object.__setattr__(self, "min_confidence", float(self.min_confidence))
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(
                f"min confidence is {self.min_confidence}; it is a probability, 0 to 1"
            )
        if not str(self.clouds):
            raise UsageError(f"clouds is empty; give one of {', '.join(CLOUDS)}, or a file")
        if not 0 <= self.cloud_buffer <= MOST_BUFFER:
            raise UsageError(
                f"cloud buffer is {self.cloud_buffer}; it must be 0 to {MOST_BUFFER:g} m"
            )
        if isinstance(self.assets, str):
            raise UsageError(f"assets is {self.assets!r}; give a list of keys")
        if self.bbox_crs is not None and self.bbox is None:
            raise UsageError("--bbox-crs says in which CRS --bbox is; give --bbox too")
        if self.no_vector and self.vector is not None:
            raise UsageError("--vector and --no-vector contradict each other; give one of them")
        if self.crf_options and not self.crf:
            raise UsageError("--crf-option says how --crf works; give --crf too")
        parse_options(self.crf_options)
        if isinstance(self.overlap, str) and self.overlap != "auto":
            raise UsageError(f"overlap is {self.overlap!r}; it must be a number of px, or auto")
        if self.exact:
            self._check_exact()
        for name in ("size", "batch_size", "threads", "mem_limit"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise UsageError(f"{name} is {value!r}; it must be a whole number, at least 1")
        if self.max_pixels is not None and not self.max_pixels >= 1:
            raise UsageError(f"max_pixels is {self.max_pixels!r}; it must be a number, at least 1")
        for name in ("min_area", "simplify"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} is {value}; it must be at least 0")
        check_creation_options(self.creation_options)
        _ = self.asked  # is checked as it is made

    @property
    def rules(self) -> Rules:
        """What input files may point to."""
        return Rules.of(self.input_root, self.allow_vrt)

    @property
    def cloud_file(self) -> str | Path | None:
        """The file that shows the clouds, or None where none was named."""
        return None if self.clouds in CLOUDS else self.clouds

    @property
    def models(self) -> tuple[str | Path, ...]:
        """The models that were asked for by name; none for the embedded one that suits."""
        if self.model is None:
            return ()
        return (self.model,) if isinstance(self.model, str | Path) else tuple(self.model)

    @property
    def asked(self) -> Asked:
        """What is said of the scene's numbers."""
        scaled = self.scale is not None or self.offset is not None
        return Asked(self.src_nodata, self.nearblack, self.stretch, scaled)

    @property
    def raster_dtypes(self) -> list[str]:
        """The dtypes of the rasters that a run writes."""
        rasters = (self.probs, self.confidence, self.agreement, self.applicability)
        return sorted({"uint8"} | ({self.probs_dtype} if any(rasters) else set()))

    def _check_exact(self) -> None:
        """Refuse what --exact can't be kept with.

        Raises:
            UsageError: it is so.
        """
        if self.taper == "none":
            raise UsageError(
                "--exact gives no weight to a chip's outermost pixels, and --taper none gives all "
                "the same; leave one of them out"
            )
        if self.crf:
            raise UsageError(
                "--crf brings each chip's pixels into line with all others of the chip, so that "
                "chips of another size give something else; leave it or --exact out"
            )
        if self.precision not in ("auto", "fp32"):
            raise UsageError(
                f"--precision {self.precision} errs by more than the 1e-5 that --exact promises; "
                f"leave one of them out"
            )
