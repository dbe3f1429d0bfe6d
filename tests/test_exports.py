"""Files as Earth Engine and QGIS export them: all bands in one file, layers among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

import geoseg
from geoseg.errors import BandError, RadiometryError, SceneError
from geoseg.geo.window import Window
from geoseg.scene.cloud_reader import CloudReader
from geoseg.scene.clouds import LAYERS
from geoseg.scene.opening import open_scene
from tests import products
from tests.helpers import make_raster, tiny_model
from tests.oracles import NumpyRuntime

CODES = ("B2", "B3", "B4", "B8", "B11", "B12")
SIX = ("blue", "green", "red", "nir", "swir1", "swir2")
SIDE = 24
REFLECTANCE: dict[str, Any] = {"quantity": "reflectance"}


class OneClass(NumpyRuntime):
    """All is of the first class: only what was measured matters."""

    def __init__(self) -> None:
        super().__init__(2)

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return np.zeros_like(pixels[:, :1]) == np.arange(2)[None, :, None, None]


def export(
    folder: Path,
    layer: NDArray[Any],
    name: str = "SCL",
    codes: tuple[str, ...] = CODES,
    dtype: str = "uint16",
    product: str = "20220601T101559_20220601T101602_T33UUP",
) -> Path:
    """A scene with a layer among its bands: all bands of one type, as Export.image writes them."""
    values = np.round(products.ground(SIDE)[: len(codes)] * 10000)
    if codes[0].startswith("SR"):
        values = np.round((values / 10000 + 0.2) / 0.0000275)
    return make_raster(
        folder / f"{product}.tif",
        np.concatenate([values, layer[None]]).astype(dtype),
        descriptions=[*codes, name],
        transform=products.grid(10),
    )


def left_out(path: Path) -> NDArray[np.bool_]:
    scene = open_scene(path)
    assert scene.clouds is not None
    reader = CloudReader(scene.clouds, scene.grid)
    found = reader.read(Window(0, 0, SIDE, SIDE))
    reader.close()
    return found


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_a_layer_among_the_bands_shows_the_clouds(tmp_path: Path, dtype: str) -> None:
    layer = np.random.default_rng(0).integers(0, 12, (SIDE, SIDE))
    path = export(tmp_path, layer, dtype=dtype)
    np.testing.assert_array_equal(left_out(path), np.isin(layer, (0, 1, 3, 8, 9, 10)))
    assert open_scene(path, clouds="none").clouds is None


def test_a_layer_of_bits_among_landsats_bands(tmp_path: Path) -> None:
    layer = np.random.default_rng(0).choice([21824, 21826, 22280, 23888, 1], (SIDE, SIDE))
    codes = tuple(f"SR_B{n}" for n in products.LANDSAT["8"])
    for dtype in ("uint16", "float32"):
        path = export(tmp_path, layer, "QA_PIXEL", codes, dtype)
        rule = LAYERS["qa_pixel", "Landsat"]
        clouds, others = rule.left_out(layer)
        np.testing.assert_array_equal(left_out(path), clouds | others)


def test_pixels_without_a_class_are_left_out(tmp_path: Path) -> None:
    layer = np.full((SIDE, SIDE), 4.0)
    layer[3, 5] = np.nan
    found = left_out(export(tmp_path, layer, dtype="float32"))
    assert found[3, 5] and found.sum() == 1


def test_classes_that_were_averaged_are_refused(tmp_path: Path) -> None:
    layer = np.full((SIDE, SIDE), 4.0)
    layer[7, 7] = 6.5
    path = export(tmp_path, layer, dtype="float32")
    with pytest.raises(SceneError, match=r"SCL in .* holds 6\.5.*--clouds none"):
        left_out(path)


def test_a_layer_of_another_sensor_among_the_bands_shows_nothing(tmp_path: Path) -> None:
    layer = np.full((SIDE, SIDE), 9)
    codes = tuple(f"SR_B{n}" for n in products.LANDSAT["8"])
    path = export(tmp_path, layer, "SCL", codes, product="LC08_044034_20200318")
    assert open_scene(path).clouds is None
    # Whose Fmask it is nothing says: others than HLS's have classes, not bits.
    assert open_scene(export(tmp_path, layer, "Fmask")).clouds is None


def test_a_map_of_an_export_leaves_its_clouds_out(tmp_path: Path) -> None:
    layer = np.full((SIDE, SIDE), 4)
    layer[:, :6] = 9
    path = export(tmp_path, layer)
    model = tiny_model(tmp_path / "model", SIX, ("a", "b"), size=32, overlap=8, **REFLECTANCE)
    options = {"model": model, "scale": 1e-4, "offset": 0.0, "runtime": OneClass()}
    result = geoseg.predict(path, tmp_path / "map.tif", cloud_buffer=0, **options)
    assert result.report["pixels"]["nodata"] == 6 * SIDE
    assert result.report["clouds"]["source"].startswith("SCL in ")


def test_raw_data_of_qgis_have_no_names_and_ask_for_them(tmp_path: Path) -> None:
    """QGIS writes no descriptions when it exports a layer's raw data."""
    values = np.round(products.ground(SIDE)[:6] * 10000).astype("uint16")
    path = make_raster(tmp_path / "layer.tif", values, transform=products.grid(10))
    model = tiny_model(tmp_path / "model", SIX, ("a", "b"), size=32, overlap=8, **REFLECTANCE)
    options: dict[str, Any] = {"model": model, "scale": 1e-4, "offset": 0.0}
    with pytest.raises(BandError, match="--band-names"):
        geoseg.predict(path, tmp_path / "map.tif", **options, runtime=OneClass())
    names = ",".join(SIX)
    geoseg.predict(path, tmp_path / "map.tif", band_names=names, **options, runtime=OneClass())


def test_a_rendered_image_of_qgis_is_a_picture_with_an_alpha_band(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 256, (4, SIDE, SIDE)).astype(np.uint8)
    values[3] = 255
    values[3, :, :5] = 0
    path = make_raster(tmp_path / "rendered.tif", values, transform=products.grid(10))
    with rasterio.open(path, "r+") as dataset:
        names = "red", "green", "blue", "alpha"
        dataset.colorinterp = [ColorInterp[name] for name in names]
    reflectance = tiny_model(
        tmp_path / "reflectance", ("red", "green", "blue"), ("a", "b"), **REFLECTANCE
    )
    with pytest.raises(RadiometryError):
        geoseg.predict(path, tmp_path / "map.tif", model=reflectance, runtime=OneClass())
