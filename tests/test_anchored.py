"""Real networks call a pixel the same whatever the map was asked with; see test_anchor_laws.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from geoseg.cards.card import Normalization
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.quantizing import quantize
from geoseg.zoo import find_model
from tests.anchors import (
    CLASSES,
    Map,
    Near,
    assert_same,
    from_ends,
    ground,
    mapped,
    write_aoi,
)
from tests.helpers import make_raster, tiny_model
from tests.stacitems import earth_search, save

SCENE = Path(__file__).parents[1] / "examples" / "landsat7_nc_2000.tif"
#: px, of landcover-ms.
EXACT = 21
SIZE = 128
#: At odd places and of odd sides: less than a chip, and several.
BOXES = (Window(131, 200, 64, 64), Window(57, 13, 201, 162))
#: What a file has of the scene.
FILE = Window(83, 101, 231, 205)
#: A scene for what takes long, and parts of it: boxes, and a file, which is one of the example.
SMALL, SMALLER = Window(51, 77, 219, 197), Window(84, 90, 141, 133)
SMALL_BOXES = (Window(71, 40, 64, 64), Window(37, 13, 141, 99))

RUNTIMES = [
    pytest.param("openvino", "fp32"),
    pytest.param("openvino", "bf16"),
    pytest.param("onnxruntime", "fp32", marks=pytest.mark.extra("onnxruntime")),
    pytest.param("torch", "fp32", marks=pytest.mark.extra("torch")),
]


def able(runtime: str, precision: str) -> None:
    """Skip what this machine doesn't compute."""
    if runtime == "openvino":
        from geoseg.runtimes.on_openvino import precisions

        if precision not in precisions():
            pytest.skip(f"this CPU has no {precision}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("anchored")


class Runs:
    """Maps of the example, or of a small part of it, and of parts of that, by one way."""

    def __init__(self, folder: Path, *, small: bool = False, **options: Any) -> None:
        self.folder = folder
        self.scene = part_of(folder / "small.tif", SMALL) if small else SCENE
        self.options = {"model": "landcover-ms", "size": SIZE, **options}

    def map(self, scene: Path | None = None, **part: Any) -> Map:
        return mapped(scene or self.scene, self.folder, **{**self.options, **part})

    def check_boxes(self, whole: Map, count: int = 2) -> None:
        """A bbox has the whole map's bits."""
        for box in (BOXES if self.scene == SCENE else SMALL_BOXES)[:count]:
            part = self.map(bbox=bounds(whole.grid, box))
            assert part.grid.same_pixels(whole.grid.crop(box))
            assert_same(part, whole, what=f"a bbox of {box}")

    def check_fields(self, whole: Map) -> None:
        """An AOI has them, too."""
        turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        rings = [
            [whole.grid.transform @ (x + 4 * np.cos(t), y + 4 * np.sin(t)) for t in turns]
            for x, y in ((150.3, 90.1), (163, 101), (50.5, 180))
        ]
        aoi = write_aoi(self.folder / "fields.fgb", rings, whole.grid.crs)
        part = self.map(aoi=aoi)
        assert 100 < part.labelled.sum() < 200
        assert_same(part, whole, part.labelled, what="an AOI")

    def check_file(self, whole: Map, border: int) -> None:
        """And so has a file of a part, but for its border."""
        place = FILE if self.scene == SCENE else SMALLER
        part = self.map(part_of(self.folder / "part.tif", place))
        inner = from_ends(part.labelled) >= border
        assert inner.any()
        assert_same(part, whole, inner, what="a file")


def bounds(grid: PixelGrid, window: Window) -> tuple[float, float, float, float]:
    (west, north), (east, south) = (
        grid.transform @ corner
        for corner in ((window.col, window.row), (window.right, window.bottom))
    )
    return west, south, east, north


def part_of(path: Path, place: Window) -> Path:
    """A file of a part of the example."""
    with rasterio.open(SCENE) as source:
        area = rasterio.windows.Window(place.col, place.row, place.width, place.height)
        profile = {**source.profile, "height": place.height, "width": place.width}
        profile["transform"] = source.transform @ Affine.translation(place.col, place.row)
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.descriptions = source.descriptions
            dataset.scales, dataset.offsets = source.scales, source.offsets
            dataset.update_tags(**source.tags())
            dataset.write(source.read(window=area))
    return path


def member(path: Path, depth: int, multiple: int) -> Path:
    """A network of random numbers with the bands and classes of landcover-ms."""
    card = find_model("landcover-ms").card
    return tiny_model(
        path,
        card.bands,
        [c.name for c in card.classes],
        network="small_unet",
        network_options={"width": 8, "depth": depth},
        multiple=multiple,
        quantity="reflectance",
        normalization=Normalization("z-score", {"mean": (0.15,) * 6, "stddev": (0.02,) * 6}),
        seed=depth,
        overlap=20,
    )


@pytest.mark.parametrize(("runtime", "precision"), RUNTIMES)
def test_every_runtime_and_precision(folder: Path, runtime: str, precision: str) -> None:
    able(runtime, precision)
    # Of the slow ones a small scene.
    small = runtime != "openvino"
    runs = Runs(folder, small=small, runtime=runtime, precision=precision)
    whole = runs.map()
    runs.check_boxes(whole)
    runs.check_fields(whole)
    runs.check_file(whole, EXACT)


def test_chips_that_are_larger_than_a_part(folder: Path) -> None:
    """As they are by default: 512 px, larger than the scene."""
    runs = Runs(folder, runtime="openvino", precision="fp32", size=None)
    whole = runs.map()
    runs.check_boxes(whole, 1)
    runs.check_file(whole, EXACT)


def test_probabilities_of_32_bits(folder: Path) -> None:
    """Whatever is rounded off in others."""
    runs = Runs(folder, runtime="openvino", precision="fp32", probs_dtype="float32")
    whole = runs.map()
    runs.check_boxes(whole, 1)
    part = runs.map(part_of(folder / "part.tif", FILE))
    # Where a card says that a border is exact, a millionth is left.
    inner = from_ends(part.labelled) >= EXACT
    expected = whole.crop(part.grid).probs
    np.testing.assert_allclose(part.probs[:, inner], expected[:, inner], atol=2e-6)


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    """A small network, as 8 bits take a while to be made."""
    model = member(folder / "small", 1, 2)
    from geoseg.networks.export import write_graph

    write_graph(model)
    return model


@pytest.mark.extra("onnxruntime", "torch")
def test_8_bits_of_the_models_own(folder: Path, small: Path) -> None:
    quantize(small, SCENE, folder / "int8", size=64)
    options = {"runtime": "openvino", "precision": "int8", "size": 64}
    runs = Runs(folder, small=True, model=folder / "int8", **options)
    whole = runs.map()
    runs.check_boxes(whole)
    runs.check_fields(whole)
    runs.check_file(whole, 64)


@pytest.mark.extra("onnxruntime", "torch")
def test_8_bits_made_for_the_scene(folder: Path, small: Path) -> None:
    """They depend on the chips that they were calibrated on: a file of a part has others."""
    runs = Runs(folder, model=small, runtime="openvino", precision="int8", size=64)
    whole = runs.map()
    runs.check_boxes(whole)
    runs.check_fields(whole)


@pytest.mark.parametrize(
    "options",
    [
        {"exact": True},
        {"tta": "flips"},
        {"tta": "d4", "exact": True},
        {"overlap": "auto", "taper": "gaussian"},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_that_change_how_chips_are_put_together(
    folder: Path, options: dict[str, Any]
) -> None:
    runs = Runs(folder, small=True, runtime="openvino", precision="fp32", **options)
    whole = runs.map()
    runs.check_boxes(whole, 1)
    runs.check_fields(whole)
    runs.check_file(whole, EXACT)


@pytest.mark.extra("torch")
def test_several_models_that_halve_at_other_steps(folder: Path) -> None:
    models = [member(folder / f"member{multiple}", d, multiple) for d, multiple in ((1, 2), (2, 4))]
    options = {"runtime": "torch", "size": 64, "probs_dtype": "float32"}
    runs = Runs(folder, small=True, model=models, **options)
    whole = runs.map(agreement=folder / "agreement.tif")
    runs.check_boxes(whole)
    runs.check_fields(whole)
    # Neither card has a border.
    runs.check_file(whole, 64)


@pytest.mark.extra("torch")
def test_a_crf_which_looks_at_the_whole_chip(folder: Path) -> None:
    options = {"crf": True, "crf_options": ["iterations=1"], "size": 64, "overlap": 16}
    runs = Runs(folder, small=True, runtime="openvino", precision="fp32", **options)
    whole = runs.map()
    runs.check_boxes(whole, 1)
    runs.check_fields(whole)
    runs.check_file(whole, 64)


@pytest.mark.extra("torch")
def test_chips_that_are_cut_on_a_device(tmp_path: Path) -> None:
    """Where they are filled, and put together, too; the device is played by the CPU."""
    from tests.test_on_device import BANDS, FakeDevice
    from tests.test_on_device import CLASSES as NAMES

    options = {"network": "small_unet", "network_options": {"width": 4, "depth": 1}}
    model = tiny_model(tmp_path / "model", BANDS, NAMES, multiple=2, **options)
    values = np.concatenate([ground(seed, 150, 141, gaps=2) for seed in (1, 2)])
    scene = make_raster(tmp_path / "scene.tif", values, descriptions=BANDS, nodata=0)
    given = {"model": model, "size": 40, "overlap": 12, "probs_dtype": "float32"}
    whole = mapped(scene, tmp_path, runtime=FakeDevice(model), **given)
    box, place = Window(31, 22, 63, 70), Window(15, 10, 115, 121)
    part = mapped(scene, tmp_path, runtime=FakeDevice(model), bbox=bounds(whole.grid, box), **given)
    assert_same(part, whole, what="a bbox")
    ring = [whole.grid.transform @ corner for corner in ((20, 30), (90, 15), (120, 99), (44, 80))]
    aoi = write_aoi(tmp_path / "aoi.fgb", [ring], whole.grid.crs)
    part = mapped(scene, tmp_path, runtime=FakeDevice(model), aoi=aoi, **given)
    assert part.labelled.any()
    assert_same(part, whole, part.labelled, what="an AOI")
    here = values[:, place.rows, place.cols]
    file = make_raster(
        tmp_path / "part.tif",
        here,
        transform=whole.grid.crop(place).transform,
        descriptions=BANDS,
        nodata=0,
    )
    part = mapped(file, tmp_path, runtime=FakeDevice(model), **given)
    inner = from_ends((here != 0).any(axis=0)) >= 40
    assert inner.any()
    assert_same(part, whole, inner, what="a file")


def test_clouds_are_left_out_beyond_a_part_too(tmp_path: Path) -> None:
    """What fills them is seen in the part."""
    scene = save(tmp_path, earth_search(tmp_path))
    model = tiny_model(
        tmp_path / "model", ("red",), CLASSES, multiple=2, quantity="reflectance", graph=False
    )

    class Dim(Near):
        """Takes the large numbers of the item."""

        def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
            return super().answer(pixels * 0.01)

    given = {"model": model, "size": 40, "overlap": 12, "runtime": Dim(), "cloud_buffer": 0}
    whole = mapped(scene, tmp_path, **given)
    assert 0.2 < whole.report["clouds"]["share"] < 0.8
    for box in (Window(15, 69, 34, 25), Window(43, 52, 20, 41)):
        part = mapped(scene, tmp_path, bbox=bounds(whole.grid, box), **given)
        assert part.report["clouds"]["pixels"] == (~part.labelled).sum() > 0
        assert_same(part, whole, what=f"a bbox of {box}")
