"""Which band is which: what programs call bands, what users say of them, what is marked alpha."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import scipy.io
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

import geoseg
from geoseg.core.importing import missing
from geoseg.errors import BandError, SceneError, UsageError
from geoseg.geo.window import Window
from geoseg.scene.opening import open_scene
from geoseg.scene.reader import SceneReader
from geoseg.scene.sensors import BAND_NAMES, SENSORS, band_name
from tests import forked
from tests.helpers import make_raster, tiny_model

SIX = ("blue", "green", "red", "nir", "swir1", "swir2")
CODES = ("B2", "B3", "B4", "B8", "B11", "B12")
WAVELENGTHS = {"blue": 490, "green": 560, "red": 665, "nir": 842, "swir1": 1610, "swir2": 2190}
GRID = Affine(10, 0, 500000, 0, -10, 5000000)


def picture(bands: int, side: int = 40, dtype: str = "uint8") -> np.ndarray[Any, Any]:
    """Bands unlike each other, with all numbers of a byte but 0."""
    rng = np.random.default_rng(3)
    blocks = rng.integers(1, 255, (bands, side // 4, side // 4))
    return blocks.repeat(4, 1).repeat(4, 2).astype(dtype)


def predict(tmp_path: Path, scene: Any, wanted: Sequence[str], **options: Any) -> Any:
    model = tmp_path / f"model-{'-'.join(wanted)}"
    if not model.exists():
        tiny_model(model, wanted, ("a", "b", "c", "d"), size=32, overlap=8)
    out = tmp_path / "map.tif"
    options = {"no_vector": True, "runtime": "openvino", "overwrite": True, **options}
    result = geoseg.predict(scene, out, model=model, **options)
    with rasterio.open(out) as dataset:
        return dataset.read(1), result


# B1: one meaning of --bands


@pytest.mark.parametrize("order", list(itertools.permutations(("red", "green", "blue"))))
def test_names_in_any_order_give_the_same_map(tmp_path: Path, order: tuple[str, ...]) -> None:
    named = make_raster(tmp_path / "s.tif", picture(3), descriptions=("blue", "green", "red"))
    wanted = ("red", "green", "blue")
    plain, _ = predict(tmp_path, named, wanted)
    chosen, _ = predict(tmp_path, named, wanted, bands=",".join(order))
    np.testing.assert_array_equal(chosen, plain)
    numbers, _ = predict(tmp_path, named, wanted, bands="3,2,1")
    np.testing.assert_array_equal(numbers, plain)
    swapped, _ = predict(tmp_path, named, wanted, bands="1,2,3")
    assert (swapped != plain).mean() > 0.05
    unnamed = make_raster(tmp_path / "u.tif", picture(3, dtype="uint16"))
    said, _ = predict(tmp_path, unnamed, wanted, band_names="blue,green,red")
    np.testing.assert_array_equal(said, plain)
    with pytest.raises(BandError, match=r"3 bands without names.*--band-names"):
        predict(tmp_path, unnamed, wanted, bands=",".join(order))


@given(st.data())
def test_names_choose_the_same_bands_in_whatever_order_and_spelling(data: st.DataObject) -> None:
    scene = _scene(data.draw(st.permutations(SIX)))
    wanted = data.draw(st.lists(st.sampled_from(SIX), min_size=1, unique=True))
    spelled = [data.draw(st.sampled_from(_spellings(name, code=False))) for name in wanted]
    spec = ",".join(s for s in data.draw(st.permutations(spelled)))
    if not any("," in one for one in spelled):
        assert [b.name for b in scene.choose(wanted, spec)] == wanted


def _scene(names: Sequence[str]) -> Any:
    from rasterio.io import MemoryFile

    from geoseg.scene.bands import bands_of
    from geoseg.scene.scene import Scene
    from geoseg.scene.sources import LOCAL

    about = {"driver": "GTiff", "height": 2, "width": 2, "dtype": "uint8", "crs": "EPSG:32633"}
    with MemoryFile() as memory:
        with memory.open(**about, count=len(names), transform=GRID) as dataset:
            dataset.descriptions = tuple(names)
        with memory.open() as dataset:
            bands = tuple(bands_of(dataset, "s.tif", LOCAL))
    return Scene("s", ("s.tif",), bands, None, (), {})


# B2: names as programs write them


def _spellings(name: str, *, code: bool = True) -> list[str]:
    """What programs call a band; with a code only for who knows the sensor."""
    nm, said = WAVELENGTHS[name], CODES[SIX.index(name)]
    words = {"nir": "Near Infrared", "swir1": "SWIR 1", "swir2": "SWIR 2"}.get(name, name.title())
    number = 1 + SIX.index(name)
    plain = [
        f"{said}, central wavelength {nm} nm",
        f"{said} ({nm}.0 Nanometers)",
        f"{nm / 1000:.3f} Micrometers",
        f"Band {number} - {words}",
        f"Band {number}: {words}",
        f"{number} - {words}",
        f"{words} ({said})",
        f"{said} {words}",
        f"{words.lower().replace(' ', '')}_median",
        f"{words}_p50",
        f"mean {words}",
        f"{words} band",
        f"Surface reflectance {words.lower()}",
        f"rhos_{nm}",
        f"20200318_{words}",
    ]
    bare = [f"{said}_median", f"0_{said}", f"{said}_p25", f"20200318_{said}", f"SR_{said}", said]
    return plain + (bare if code else [])


SENTINEL2 = next(s for s in SENSORS if s.name == "Sentinel-2")


@pytest.mark.parametrize("name", SIX)
def test_what_programs_call_a_band_is_understood(name: str) -> None:
    for text in _spellings(name, code=False):
        assert band_name(text, None) == name, text
    for text in _spellings(name):
        assert band_name(text, SENTINEL2) == name, text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "B4_stdDev",
            "red_count",
            "B4_variance",
            "nir_quality",
            "Band 4",
            "band4",
            "4",
            "Layer_1",
        ),
        *("NDVI", "QA60", "B4 (Near Infrared)", "Red, central wavelength 842 nm", "B4 B8"),
        *("red edge", "reddish", "fill", "B123", "first", "median", "", "665", "Red Sea"),
    ],
)
def test_what_is_no_bands_name_is_not_taken_for_one(text: str) -> None:
    assert band_name(text, SENTINEL2) is None


@given(st.text(max_size=30))
def test_any_text_is_a_band_or_none(text: str) -> None:
    assert band_name(text, None) in (None, *BAND_NAMES)


@given(st.data())
def test_any_programs_spelling_gives_the_bands_or_a_refusal_that_shows_them(
    data: st.DataObject,
) -> None:
    order = data.draw(st.permutations(SIX))
    called = [
        data.draw(st.sampled_from([*_spellings(name), f"X{i}", f"Band {i}"]))
        for i, name in enumerate(order, start=1)
    ]
    scene = _scene(called)
    try:
        chosen = scene.choose(SIX)
    except BandError as error:
        assert "--band-names" in str(error) and "carry no names" not in str(error)
        assert all(text in str(error) for text in called)
    else:
        assert [called[order.index(name)] for name in SIX] == [b.label for b in chosen]


def test_gdals_sentinel_2_names_give_the_map_of_the_plain_names(tmp_path: Path) -> None:
    values = picture(6, dtype="uint16")
    plain = make_raster(tmp_path / "plain.tif", values, descriptions=SIX)
    want, _ = predict(tmp_path, plain, SIX)
    called = [
        f"{c}, central wavelength {WAVELENGTHS[n]} nm" for c, n in zip(CODES, SIX, strict=True)
    ]
    for texts in (called, [f"Band {i} - {n.title()}" for i, n in enumerate(SIX, start=1)]):
        path = make_raster(tmp_path / "s.tif", values, descriptions=texts)
        np.testing.assert_array_equal(predict(tmp_path, path, SIX)[0], want)


def test_wavelengths_in_the_metadata_name_bands(tmp_path: Path) -> None:
    path = make_raster(tmp_path / "s.tif", picture(6))
    with rasterio.open(path, "r+") as dataset:
        for index, name in enumerate(SIX, start=1):
            dataset.update_tags(index, WAVELENGTH=WAVELENGTHS[name], WAVELENGTH_UNIT="nm")
    assert [b.name for b in open_scene(path).bands] == [None] * 6  # of a band without a word
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = [f"Band {i}" for i in range(1, 7)]
    assert [b.name for b in open_scene(path).bands] == list(SIX)


def test_names_that_are_not_understood_are_shown(tmp_path: Path) -> None:
    path = make_raster(tmp_path / "s.tif", picture(3), descriptions=("B3", "B4", "rot"))
    with pytest.raises(BandError) as caught:
        open_scene(path).choose(("red", "green"))
    said = str(caught.value)
    assert "is not understood (codes mean nothing without the sensor" in said
    assert "B3, B4, rot" in said and "--band-names" in said and "carry no names" not in said
    many = make_raster(tmp_path / "m.tif", picture(30), descriptions=[f"x{i}" for i in range(30)])
    with pytest.raises(BandError, match="x18, x19 and 10 more"):
        open_scene(many).choose(("red",))


# B3: alpha only where the values say so


def rgbn(path: Path, nir: np.ndarray[Any, Any], values: np.ndarray[Any, Any] | None = None) -> Path:
    """As GDAL writes four bands with PHOTOMETRIC=RGB."""
    rgb = picture(3, len(nir)) if values is None else values
    make_raster(path, np.concatenate([rgb, nir[None].astype(rgb.dtype)]), photometric="RGB")
    with rasterio.open(path, "r+") as dataset:
        red, green, blue, alpha = (ColorInterp[name] for name in ("red", "green", "blue", "alpha"))
        dataset.colorinterp = [red, green, blue, alpha]
    return path


def lake(side: int = 40) -> np.ndarray[Any, Any]:
    """Near infrared, 0 over water."""
    nir = picture(5, side)[4] // 2 + 1
    nir[: side // 2] = 0
    return nir


def test_near_infrared_that_is_marked_as_alpha_is_a_band(tmp_path: Path) -> None:
    path = rgbn(tmp_path / "s.tif", lake())
    scene = open_scene(path)
    assert [b.name for b in scene.bands] == ["red", "green", "blue", None]
    assert "band 4 is marked as alpha, but its values" in scene.notes[0]
    found, result = predict(tmp_path, path, ("red", "green", "blue"))
    assert (found != 255).all()
    assert any("marked as alpha" in line for line in result.report["warnings"])
    names = {"band_names": "red,green,blue,nir"}
    assert not open_scene(path, **names).notes
    found, _ = predict(tmp_path, path, ("nir", "red"), **names)
    assert (found != 255).all()
    with pytest.raises(BandError, match=r"band nir not found among red .*, #4.*--band-names"):
        predict(tmp_path, path, ("nir", "red"))


@pytest.mark.extra("train")
def test_near_infrared_that_is_marked_as_alpha_is_trained_on(tmp_path: Path) -> None:
    from geoseg.training.from_data import recipe_from_data
    from geoseg.training.options import TrainOptions

    image = rgbn(tmp_path / "a.tif", lake(64))
    labels = make_raster(tmp_path / "b.tif", (lake(64) > 0).astype(np.uint8)[None], nodata=255)

    def made(**options: str) -> Any:
        given = TrainOptions(images=[str(image)], labels=[str(labels)], **options)
        return recipe_from_data(given, tmp_path / "model")

    named = made(band_names="red,green,blue,nir")
    assert named["bands"] == ["red", "green", "blue", "nir"]
    assert made(band_names="red,green,blue,nir", bands="nir,red")["bands"] == ["nir", "red"]
    assert made(bands="1,2,3,4")["bands"] == ["red", "green", "blue", "band4"]
    with pytest.raises(UsageError, match=r"'nir' is no band of a; .*#4.*--band-names"):
        made(bands="red,green,blue,nir")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("full", [1, 255, 65535])
@pytest.mark.parametrize("feather", [False, True])
def test_alpha_is_told_by_its_values(tmp_path: Path, dtype: str, full: int, feather: bool) -> None:
    if dtype == "uint8" and full > 255:
        return
    alpha = np.zeros((40, 40), dtype)
    alpha[5:35, 5:35] = full
    if feather and full > 1:
        alpha[5, 5:35] = full // 2
    path = rgbn(tmp_path / "s.tif", alpha, picture(3, dtype=dtype))
    is_alpha = full < 65535 or dtype == "uint16"
    scene = open_scene(path)
    assert len(scene.bands) == (3 if is_alpha else 4) and bool(scene.notes) != is_alpha
    with SceneReader(scene.bands[:3], scene.grid) as reader:
        valid = reader.read(Window(0, 0, 40, 40))[1]
    np.testing.assert_array_equal(valid, (alpha != 0) | (not is_alpha))


def test_alpha_that_was_packed_with_loss_is_alpha(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    alpha = np.where(
        np.arange(40) < 20, rng.integers(0, 4, (40, 40)), rng.integers(252, 256, (40, 40))
    )
    assert len(open_scene(rgbn(tmp_path / "s.tif", alpha.astype(np.uint8))).bands) == 3


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.95), st.sampled_from(["uint8", "uint16"]))
def test_no_picture_is_taken_for_a_mask(seed: int, water: float, dtype: str) -> None:
    """Whatever share of it is 0."""
    from geoseg.scene.alpha import _is_mask

    rng = np.random.default_rng(seed)
    most = int(np.iinfo(dtype).max)
    values = rng.integers(1, most, 4096) * (rng.random(4096) >= water)
    assert not any(_is_mask(values.astype(dtype), full) for full in (1.0, 255.0, float(most)))


def test_what_is_transparent_everywhere_is_not_measured(tmp_path: Path) -> None:
    path = rgbn(tmp_path / "s.tif", np.zeros((40, 40), np.uint8))
    assert len(open_scene(path).bands) == 3
    with pytest.raises(SceneError, match="no pixel was measured"):
        predict(tmp_path, path, ("red",))


# B5: netCDF with a variable a band


def netcdf(path: Path, values: np.ndarray[Any, Any], names: Sequence[str], **other: Any) -> Path:
    """As xarray writes a cube, in the classic format."""
    with scipy.io.netcdf_file(path, "w") as file:
        _, height, width = values.shape
        file.createDimension("y", height)
        file.createDimension("x", width)
        for axis, at in (
            ("x", 500005.0 + 10 * np.arange(width)),
            ("y", 4999995.0 - 10 * np.arange(height)),
        ):
            variable = file.createVariable(axis, "d", (axis,))
            variable[:] = at
            variable.standard_name = f"projection_{axis}_coordinate"
            variable.units = "m"
        crs = file.createVariable("spatial_ref", "i", ())
        crs.spatial_ref = rasterio.crs.CRS.from_epsg(32633).to_wkt()
        crs.grid_mapping_name = "transverse_mercator"
        for name, band in zip(names, values, strict=True):
            variable = file.createVariable(name, "f", ("y", "x"))
            variable[:] = band
            variable.grid_mapping = "spatial_ref"
    return path


def test_a_netcdf_files_variables_are_its_bands(tmp_path: Path) -> None:
    values = picture(8, dtype="float32")
    plain = make_raster(tmp_path / "plain.tif", values[:6], descriptions=SIX)
    want, _ = predict(tmp_path, plain, SIX)
    order = (3, 1, 0, 2, 5, 4)
    names = [f"B{int(CODES[i][1:]):02}" for i in order]
    path = netcdf(tmp_path / "cube.nc", values[[*order, 6]], [*names, "scl"])
    scene = open_scene(path)
    assert scene.name == "cube" and [b.label for b in scene.bands] == names
    assert scene.sensor is not None and scene.sensor.name == "Sentinel-2"
    assert scene.ignored == ("scl: a variable that is not named after a band",)
    found, _ = predict(tmp_path, path, SIX)
    np.testing.assert_array_equal(found, want)
    # All subdatasets, as GDAL spells them; and with names that say nothing.
    given = [f'NETCDF:"{path}":{name}' for name in names]
    np.testing.assert_array_equal(predict(tmp_path, given, SIX)[0], want)
    dull = netcdf(tmp_path / "dull.nc", values[:6], [f"v{i}" for i in range(6)])
    with pytest.raises(BandError, match="is not understood: v0, v1, v2, v3, v4, v5"):
        predict(tmp_path, dull, SIX)
    np.testing.assert_array_equal(predict(tmp_path, dull, SIX, band_names=",".join(SIX))[0], want)


def test_a_netcdf_file_of_one_variable_is_a_scene(tmp_path: Path) -> None:
    path = netcdf(tmp_path / "one.nc", picture(1, dtype="float32"), ["nir"])
    assert [(b.name, b.label) for b in open_scene(path).bands] == [("nir", "nir")]


def test_dates_of_a_netcdf_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "dates.nc"
    with scipy.io.netcdf_file(path, "w") as file:
        for name, size in (("time", 2), ("y", 5), ("x", 5)):
            file.createDimension(name, size)
            file.createVariable(name, "d", (name,))[:] = np.arange(size)[
                :: -1 if name == "y" else 1
            ]
        for name in ("red", "nir"):
            file.createVariable(name, "f", ("time", "y", "x"))[:] = 1
    with pytest.raises(SceneError, match=r"variable red holds 2 layers \(time: 1 0, 2 1\)"):
        open_scene(path)


# The command line


def test_options_of_bands_on_the_command_line(tmp_path: Path) -> None:
    make_raster(tmp_path / "u.tif", picture(3, dtype="uint16"))
    tiny_model(tmp_path / "model", ("red", "green", "blue"), ("a", "b"), size=32, overlap=8)

    def run(*options: str) -> Any:
        command = [sys.executable, "-m", "geoseg", *options]
        return forked.run(command, cwd=tmp_path)

    info = run("info", "u.tif", "-m", "model", "--band-names", "blue,green,red")
    assert info.returncode == 0 and "model model: fits" in info.stdout, info.stdout + info.stderr
    wrong = run("predict", "u.tif", "-m", "model", "--bands", "red,green,blue")
    assert wrong.returncode == 1 and "--band-names" in wrong.stderr
    done = run("predict", "u.tif", "-m", "model", "--band-names", "blue,green,red", "--no-vector")
    assert done.returncode == 0, done.stderr
    if missing("batch"):
        return
    (tmp_path / "l.csv").write_text('scene,band_names\nu.tif,"blue,green,red"\n')
    done = run("batch", "l.csv", "-o", "archive", "-m", "model", "--workers", "1", "--no-vector")
    assert done.returncode == 0, done.stdout + done.stderr


# B4: one scene in tiles


def cut(tmp_path: Path, values: np.ndarray[Any, Any], **options: Any) -> list[Path]:
    """Four tiles, named as Earth Engine names them, and with one empty corner where asked."""
    paths = []
    for row, col in ((0, 0), (0, 24), (24, 0), (24, 24)):
        path = tmp_path / f"scene-{row:010}-{col:010}.tif"
        part = values[:, row : row + 24, col : col + 24]
        make_raster(path, part, transform=GRID @ Affine.translation(col, row), **options)
        paths.append(path)
    return paths


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("kept", [4, 3])
def test_tiles_of_one_scene_are_one_map(tmp_path: Path, dtype: str, kept: int) -> None:
    values = picture(6, dtype=dtype)
    options = {"descriptions": CODES, "nodata": 7 if dtype == "uint16" else None}
    whole = values.copy()
    if kept == 3:
        whole[:, 24:, 24:] = 7 if dtype == "uint16" else np.nan
    plain = make_raster(tmp_path / "plain.tif", whole, **options)
    want, _ = predict(tmp_path, plain, SIX)
    tiles = cut(tmp_path, values, **options)[:kept]
    found, result = predict(tmp_path, tiles[::-1], SIX)
    np.testing.assert_array_equal(found, want)
    with rasterio.open(result.raster) as ours, rasterio.open(plain) as theirs:
        assert ours.transform == theirs.transform and ours.crs == theirs.crs
    assert open_scene(tiles).name == tiles[0].stem
    # The tiles are inputs: they are watched, and never overwritten.
    assert {str(tile) for tile in tiles} <= set(open_scene(tiles).all_files)
    with pytest.raises(UsageError, match="is an input of this run"):
        predict(tmp_path, tiles, SIX, confidence=tiles[0])


def test_what_a_tile_says_of_its_bands_is_kept(tmp_path: Path) -> None:
    options = {"scales": [0.5] * 2, "offsets": [0.25] * 2, "tags": {"SPACECRAFT_ID": "LANDSAT_7"}}
    tiles = cut(
        tmp_path, picture(2, dtype="uint16"), descriptions=("B3", "B4"), nodata=0, **options
    )
    for one, joined in zip(open_scene(tiles[0]).bands, open_scene(tiles).bands, strict=True):
        about = ("name", "label", "dtype", "nodata", "scale", "offset", "index")
        assert [getattr(one, a) for a in about] == [getattr(joined, a) for a in about]
    assert [b.name for b in open_scene(tiles).bands] == ["red", "nir"]


def test_tiles_that_are_not_joined_are_told_what_to_do(tmp_path: Path) -> None:
    values = picture(3, dtype="uint16")
    tiles = cut(tmp_path, values, descriptions=("B2", "B3", "B4"))
    gap = [tiles[0], tiles[3]]
    with pytest.raises(BandError, match=r"nothing says what is between.*gdalbuildvrt scene\.vrt"):
        open_scene(gap)
    off = GRID @ Affine.translation(24.5, 0)
    make_raster(tiles[1], values, descriptions=("B2", "B3", "B4"), transform=off)
    with pytest.raises(BandError, match=r"not on one grid.*gdalwarp"):
        open_scene(tiles[:2])


def test_two_dates_of_one_place_are_no_tiles(tmp_path: Path) -> None:
    for name in "ab":
        make_raster(tmp_path / f"{name}.tif", picture(6), descriptions=CODES)
    with pytest.raises(BandError, match="are both blue at the same pixel size; give only one"):
        open_scene([tmp_path / "a.tif", tmp_path / "b.tif"])
