"""Scenes on grids of many kinds, networks that show where their chips lie, and maps compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

import geoseg
from geoseg.cards.card import ChipBorder
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from tests.helpers import make_raster, tiny_model
from tests.oracles import NumpyRuntime

CLASSES = ("water", "trees", "crops", "built")
NODATA = 255
#: Steps of a pixel's number that networks here tell apart: all that 32 bits of resampling do.
FINE = 1 << 16

#: Kinds of pixel grids: the CRS, and the place of the first pixel's corner for a gsd of 10 m.
GRIDS = ("utm", "shifted", "half", "south-up", "turned", "degrees", "no crs", "nowhere")


def laid(kind: str, gsd: float = 10.0) -> tuple[str | None, Affine]:
    """The CRS and the transform of a scene.

    Args:
        kind: one of :data:`GRIDS`. ``shifted`` and ``half`` are off the CRS's own grid by a share
            of a pixel, as Landsat's scenes are; ``half`` and ``degrees`` have numbers that no
            float holds.
        gsd: m; a degree is taken for 100 km.
    """
    if kind == "nowhere":
        return None, Affine.identity()
    if kind == "degrees":
        res = gsd * 1e-5
        return "EPSG:4326", Affine(res, 0, 13.1, 0, -res, 45.2)
    if kind == "far":  # from the zone's meridian, where a metre of the map is none on the ground
        return "EPSG:32633", Affine(gsd, 0, 833_010, 0, -gsd, 5_000_010)
    if kind == "half":
        res = 0.99 * gsd  # not even ten of these are a number that a float holds
        return "EPSG:32633", Affine(res, 0, 50_505.5 * res, 0, -res, 505_050.5 * res)
    off = 0.3 if kind == "shifted" else 0.0
    corner = Affine.translation(500_000 + off * gsd, 5_000_010 - off * gsd)
    turn = Affine.rotation(17.0) if kind == "turned" else Affine.identity()
    scale = Affine.scale(gsd, gsd if kind == "south-up" else -gsd)
    return None if kind == "no crs" else "EPSG:32633", corner @ turn @ scale


class Near(NumpyRuntime):
    """As a convolutional network: what it says depends on the pixels around and on their phase.

    Beyond the chip it sees zeros, as padded convolutions do. Its numbers are whole ones and sums,
    products and shares of them, so that equal ground gives equal bits wherever it lies in a chip.
    """

    def __init__(self, classes: int = 4, multiple: int = 2, radius: int = 3) -> None:
        super().__init__(classes)
        self.multiple, self.radius = multiple, radius

    @property
    def reach(self) -> int:
        """How far it sees, px: what a card calls the exact border."""
        return self.multiple - 1 + self.radius

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        own = np.rint(pixels[:, :1].astype(np.float64) * FINE).astype(np.int64)
        n, _, h, w = own.shape
        m = self.multiple
        halved = own.reshape(n, 1, h // m, m, w // m, m).sum(axis=(3, 5))
        halved = halved.repeat(m, axis=2).repeat(m, axis=3)
        score = 0.021 * own + 0.034 * halved / m**2 + 0.054 * self._around(halved) / m**2
        return self._probs((score + self._chip(own)) / FINE)

    def _around(self, values: NDArray[np.int64]) -> NDArray[Any]:
        r = self.radius
        sums = np.pad(values, ((0, 0), (0, 0), (r + 1, r), (r + 1, r))).cumsum(2).cumsum(3)
        side = 2 * r + 1
        total = sums[:, :, side:, side:] - sums[:, :, :-side, side:]
        return (total - sums[:, :, side:, :-side] + sums[:, :, :-side, :-side]) / side

    def _chip(self, own: NDArray[np.int64]) -> Any:
        """What the chip as a whole adds."""
        return 0.0

    def _probs(self, score: NDArray[Any]) -> NDArray[Any]:
        """Waves of another length for each class."""
        waves = score * (1 + np.arange(self.classes)[None, :, None, None] / 7)
        heights = 0.02 + np.abs(2 * (waves - np.floor(waves)) - 1)
        return heights / heights.sum(axis=1, keepdims=True)


class Whole(Near):
    """As a network that looks at all of the chip: every pixel of it and the place in it count."""

    def _chip(self, own: NDArray[np.int64]) -> Any:
        h, w = own.shape[2:]
        places = np.arange(h)[:, None] * 0.37 + np.arange(w) * 0.11
        weighed = (own * (1 + np.arange(h)[:, None] % 5 + np.arange(w) % 3)).sum(axis=(2, 3))
        return FINE * places + weighed[:, :, None, None] / (h * w) * 0.16


class Alone(Near):
    """Sees each pixel by itself."""

    reach = 0

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return self._probs(pixels[:, :1] * 0.13)


class Stops(Near):
    """Is interrupted after some chips."""

    def __init__(self, after: int, **options: Any) -> None:
        super().__init__(**options)
        self.after = after

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        if len(self.batches) > self.after:
            raise KeyboardInterrupt
        return super().answer(pixels)


def model_of(folder: Path, runtime: Near, **card: Any) -> Path:
    """A model whose card says of a runtime what is true: its multiple, and its border if any."""
    border = None
    if not isinstance(runtime, Whole):
        exact = runtime.reach
        curve = (0.1,) * exact
        border = ChipBorder(64, "made for a test", exact, exact, curve, curve, curve)
    multiple = 1 if isinstance(runtime, Alone) else runtime.multiple
    names = tuple(f"class{k}" for k in range(runtime.classes))
    return tiny_model(
        folder, ("red",), names, multiple=multiple, border=border, graph=False, **card
    )


def ground(seed: int, height: int, width: int, gaps: int = 0) -> NDArray[np.uint8]:
    """Patches and noise, (1, H, W), with some rectangles of 0, which is nodata."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 180, (height // 9 + 1, width // 9 + 1))
    values = np.kron(coarse, np.ones((9, 9), int))[None, :height, :width]
    values = values + rng.integers(0, 60, values.shape)
    for _ in range(gaps):
        row, col = rng.integers(0, height), rng.integers(0, width)
        values[:, row : row + rng.integers(1, 40), col : col + rng.integers(1, 40)] = 0
    return values.astype(np.uint8)


def write_scene(
    path: Path, values: NDArray[np.uint8], kind: str, gsd: float = 10.0, place: Window | None = None
) -> Path:
    """A scene of :func:`ground`, or a part of it in a file of its own."""
    crs, transform = laid(kind, gsd)
    if place is not None:
        values = values[:, place.rows, place.cols]
        if kind != "nowhere":
            transform = transform @ Affine.translation(place.col, place.row)
    return make_raster(path, values, crs=crs, transform=transform, descriptions=("red",), nodata=0)


@dataclass(frozen=True)
class Map:
    """What a run made: classes (H, W), probabilities (K, H, W) as stored, and where they lie."""

    classes: NDArray[np.uint8]
    probs: NDArray[Any]
    grid: PixelGrid
    report: dict[str, Any]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        return self.classes != NODATA

    def crop(self, part: PixelGrid) -> Map:
        """The pixels of another grid, all of which are here, too."""
        place = part.place_in(self.grid)
        assert place is not None, f"{part} has other pixels than {self.grid}"
        rows = slice(place[0], place[0] + part.height)
        cols = slice(place[1], place[1] + part.width)
        return Map(self.classes[rows, cols], self.probs[:, rows, cols], part, self.report)


def options_of(folder: Path, **options: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True, parents=True)
    return {"probs": folder / "probs.tif", "no_vector": True, "overwrite": True, **options}


def mapped(scene: Any, folder: Path, **options: Any) -> Map:
    made = geoseg.predict(scene, folder / "out.tif", **options_of(folder, **options))
    return read_map(made)


def read_map(made: Any) -> Map:
    """The rasters of a run."""
    with (
        rasterio.open(made.raster) as classes,
        rasterio.open(made.raster.with_name("probs.tif")) as probs,
    ):
        return Map(classes.read(1), probs.read(), PixelGrid.of(classes), made.report)


def from_ends(measured: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pixels between each pixel and the nearest one that is unmeasured or beyond the ends."""
    padded = np.pad(measured, 1)
    found = ndimage.distance_transform_cdt(padded, metric="chessboard")[1:-1, 1:-1]
    return np.asarray(found, dtype=np.int64) - 1


def assert_same(
    part: Map, whole: Map, where: NDArray[np.bool_] | None = None, what: str = "the part"
) -> None:
    """The part has the whole map's labels and probabilities, all bits of them.

    Args:
        part: that lies in the whole.
        whole: the other map.
        where: pixels of the part that count; None for all.
        what: for the message.
    """
    expected = whole.crop(part.grid)
    where = np.ones(part.classes.shape, bool) if where is None else where
    kinds = {
        "labels": part.classes != expected.classes,
        # The nodata of floats is NaN, which is unequal to itself.
        "probabilities": (
            (part.probs != expected.probs) & ~(np.isnan(part.probs) & np.isnan(expected.probs))
        ).any(axis=0),
    }
    for kind, other in kinds.items():
        other &= where
        if other.any():
            row, col = np.argwhere(other)[0]
            raise AssertionError(
                f"{kind} of {what} differ at {other.sum()} of {where.sum()} pixels, the first at "
                f"row {row}, col {col} of {other.shape}: {part.probs[:, row, col]} and "
                f"{expected.probs[:, row, col]}"
            )


def write_aoi(path: Path, rings: Iterable[Any], crs: Any) -> Path:
    """Polygons of corners (x, y) in the CRS."""
    import geopandas
    from shapely.geometry import Polygon

    geopandas.GeoSeries([Polygon(ring) for ring in rings], crs=crs).to_file(path)
    return path
