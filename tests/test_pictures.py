"""Pictures of 8 bits and others: near-black collars, and numbers of more bits or of 0 to 1."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow
from scipy import ndimage

import geoseg
from geoseg.cards.card import Normalization
from geoseg.errors import RadiometryError, UsageError
from geoseg.geo.window import Window
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.scene_info import scene_info
from geoseg.scene import collar as module
from geoseg.scene.collar import find_collar
from geoseg.scene.opening import open_scene
from tests.helpers import make_raster, tiny_model

RGB = ("red", "green", "blue")
SCREEN = Normalization("z-score", {"mean": (127.5,) * 3, "stddev": (127.5,) * 3})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(
        tmp_path_factory.mktemp("model") / "rgb",
        RGB,
        ("a", "b", "c", "d"),
        quantity="number",
        normalization=SCREEN,
    )


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Fields, roofs and some shadow, (3, 256, 300)."""
    random = np.random.default_rng(3)
    coarse = random.integers(25, 230, (3, 32, 38)).repeat(8, axis=1).repeat(8, axis=2)
    noise = random.normal(0, 4, (3, 256, 304))
    return (coarse + noise).clip(20, 255).astype(np.uint8)[:, :, :300]


def collared(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A picture that lies turned in a black frame, and where the frame is."""
    row, col = np.mgrid[: picture.shape[1], : picture.shape[2]]
    frame = (3 * row + col < 150) | (3 * row + col > 900) | (col - row // 4 > 270)
    return np.where(frame, 0, picture).astype(np.uint8), frame


def jpeg(path: Path, values: NDArray[np.uint8]) -> Path:
    options: dict[str, Any] = {"compress": "JPEG", "photometric": "YCBCR", "jpeg_quality": 75}
    return make_raster(path, values, tiled=True, blockxsize=256, blockysize=256, **options)


def labels(
    scene: Path, model: Path, folder: Path, **options: Any
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    wanted = {"model": model, "no_vector": True, "overwrite": True, "restart": True}
    done = geoseg.predict(scene, folder / "map.tif", **wanted, **options)
    with rasterio.open(done.raster) as dataset:
        return dataset.read(1), done.report


# --- the collar ---


def test_a_near_black_collar_is_noticed_and_the_advice_works(
    tmp_path: Path, model: Path, picture: NDArray[np.uint8]
) -> None:
    """N3."""
    values, frame = collared(picture)
    scene = jpeg(tmp_path / "s.tif", values)
    found, report = labels(scene, model, tmp_path)
    (said,) = report["warnings"]
    assert "near-black collar" in said and "--nearblack" in said
    assert (found != 255).all()
    found, report = labels(scene, model, tmp_path, nearblack=True)
    assert report["warnings"] == []
    gone = found == 255
    assert report["undeclared_nodata"]["pixels"] == gone.sum()
    # But for what JPEG makes beside the picture.
    inside = ndimage.binary_erosion(frame, iterations=17, border_value=1)
    outside = ndimage.binary_erosion(~frame, iterations=9, border_value=1)
    assert gone[inside].all() and not gone[outside].any()
    assert abs(int(gone.sum()) - int(frame.sum())) < 0.1 * frame.sum()


def test_a_part_has_the_collar_of_the_whole(
    tmp_path: Path, model: Path, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Black that is connected to the edge outside of the part alone, too."""
    monkeypatch.setattr(module, "BLOCK", 64)
    values = picture.copy()
    values[:, 60:200, 100:104] = 0
    values[:, 100:140, 60:140] = 0  # reaches the edge far away
    values[:, 196:200, 100:] = 0
    values[:, 30:40, 200:210] = 5  # a shadow
    scene = make_raster(tmp_path / "s.tif", values)
    whole, _ = labels(scene, model, tmp_path, nearblack=True)
    assert (whole[100:140, 60:140] == 255).all() and (whole[30:40, 200:210] != 255).all()
    part = {"bbox": (500400.0, 4998500.0, 501500.0, 4999200.0)}
    found, report = labels(scene, model, tmp_path, nearblack=True, **part)
    np.testing.assert_array_equal(found == 255, whole[80:150, 40:150] == 255)
    assert report["undeclared_nodata"]["pixels"] == (found == 255).sum() > 2000


@pytest.mark.parametrize("gsd", [4.0, 25.0])
def test_the_collar_holds_on_other_grids(
    tmp_path: Path, picture: NDArray[np.uint8], gsd: float
) -> None:
    card = {"gsd": gsd, "gsd_range": (gsd * 0.9, gsd * 1.1), "quantity": "number"}
    other = tiny_model(tmp_path / "model", RGB, ("a", "b"), normalization=SCREEN, **card)
    values, frame = collared(picture)
    masked = make_raster(tmp_path / "m.tif", values, mask=~frame)
    plain = make_raster(tmp_path / "p.tif", values)
    right, report = labels(masked, other, tmp_path)
    assert report["model_grid"]["resampled"]
    found, _ = labels(plain, other, tmp_path, nearblack=True)
    np.testing.assert_array_equal(found, right)


@given(seed=st.integers(0, 2**32), block=st.sampled_from([3, 8, 17, 64]), dark=st.floats(0.3, 0.75))
@settings(max_examples=25, deadline=None)
def test_the_collar_is_what_labelling_the_whole_picture_gives(
    tmp_path_factory: pytest.TempPathFactory, seed: int, block: int, dark: float
) -> None:
    """Winding ways through many blocks, by another method."""
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 70, 2).tolist())
    values = np.where(random.random(shape) < dark, random.integers(0, 16, shape), 90)
    path = tmp_path_factory.mktemp("collar") / "s.tif"
    scene = open_scene(make_raster(path, values[None].astype(np.uint8)))
    before = module.BLOCK
    module.BLOCK = block
    try:
        collar = find_collar(scene.bands)
        found = collar.mask(Window(0, 0, *shape))
    finally:
        module.BLOCK = before
    areas, _ = ndimage.label(values <= 15)
    edge = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
    right = np.isin(areas, edge[edge > 0])
    np.testing.assert_array_equal(np.zeros(shape, bool) if found is None else found, right)
    assert collar.pixels == right.sum()


def test_only_blocks_that_the_collar_reaches_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.full((1, 1000, 1000), 120, dtype=np.uint8)
    values[0, :, :300] = 0
    scene = open_scene(make_raster(tmp_path / "s.tif", values))
    monkeypatch.setattr(module, "BLOCK", 100)
    read: list[Window] = []
    real = module.SceneReader.read
    monkeypatch.setattr(module.SceneReader, "read", lambda self, w: read.append(w) or real(self, w))
    collar = find_collar(scene.bands)
    assert collar.pixels == 300_000 and len(collar.full) == 30 and not collar.parts
    # Those, the column beside, and the edge; each once.
    assert len(read) == len(set(read)) == 30 + 10 + 6 * 2 + 8


@pytest.mark.skipif(shutil.which("nearblack") is None, reason="GDAL's programs are not here")
def test_the_collar_is_about_that_of_gdals_nearblack(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    values, _ = collared(picture)
    path = make_raster(tmp_path / "s.tif", values)
    mask = tmp_path / "m.tif"
    subprocess.run(["nearblack", "-setmask", "-o", mask, path], check=True, capture_output=True)
    with rasterio.open(mask) as dataset:
        theirs = dataset.dataset_mask() == 0
    found = find_collar(open_scene(path).bands).mask(Window(0, 0, *theirs.shape))
    # GDAL goes line by line from the edge, and takes up to two bright pixels with it.
    assert found is not None and (found == theirs).mean() > 0.98


def test_dark_pictures_are_not_asked_about(
    tmp_path: Path, model: Path, picture: NDArray[np.uint8]
) -> None:
    """Night water along a whole side: dark, and noisy."""
    random = np.random.default_rng(0)
    values = picture.copy()
    values[:, :, :120] = random.integers(2, 14, (3, 256, 120))
    _, report = labels(jpeg(tmp_path / "s.tif", values), model, tmp_path)
    assert report["warnings"] == []


def test_a_frame_of_exact_zeros_needs_no_nearblack(
    tmp_path: Path, model: Path, picture: NDArray[np.uint8]
) -> None:
    values, _ = collared(picture)
    _, report = labels(make_raster(tmp_path / "s.tif", values), model, tmp_path)
    (said,) = report["warnings"]
    assert "--src-nodata 0" in said


def test_nearblack_is_for_pictures_of_one_grid_and_8_bits(tmp_path: Path, model: Path) -> None:
    deep = make_raster(tmp_path / "s.tif", np.full((3, 64, 64), 100, np.uint16), descriptions=RGB)
    options = {"model": model, "output": tmp_path / "o.tif", "no_vector": True}
    with pytest.raises(UsageError, match="pictures of 8 bits"):
        make_plan(deep, PredictOptions(**options, nearblack=True))


# --- numbers of more bits ---


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda p: p.astype(np.uint16) * 8, {"scale": 0.125}),
        (lambda p: p.astype(np.uint16) * 16, {"scale": 0.0625}),
        (lambda p: p.astype(np.uint16) * 256, {"scale": 1 / 256}),
        (lambda p: p.astype(np.float32) * 2, {"scale": 0.5}),
        (lambda p: (p / 255).astype(np.float32), {"scale": 255.0}),
        (lambda p: p.astype(np.float64) / 255, {"scale": 255.0}),
    ],
    ids=["11 bits", "12 bits", "16 bits", "9 bits", "0 to 1", "0 to 1, float64"],
)
def test_other_depths_are_refused_and_the_advice_gives_the_8_bit_map(
    tmp_path: Path, model: Path, picture: NDArray[np.uint8], make: Any, advice: dict[str, float]
) -> None:
    """U3."""
    right, _ = labels(make_raster(tmp_path / "8.tif", picture), model, tmp_path)
    scene = make_raster(tmp_path / "s.tif", make(picture), descriptions=RGB)
    with pytest.raises(RadiometryError) as error:
        labels(scene, model, tmp_path)
    (scale,) = (float(w.rstrip(",;")) for b, w in pairs(str(error.value)) if b == "--scale")
    assert scale == advice["scale"] and "--stretch 2,98" in str(error.value)
    found, report = labels(scene, model, tmp_path, **advice)
    assert (found == right).mean() > 0.999 and report["warnings"] == []
    (tried,) = scene_info(scene, models=[model])["models"]
    assert not tried["fits"] and "--scale" in tried["why"]


def pairs(text: str) -> list[tuple[str, str]]:
    words = text.split()
    return list(pairwise(words))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int16])
def test_8_bits_in_a_wider_type_are_taken(
    tmp_path: Path, model: Path, picture: NDArray[np.uint8], dtype: Any
) -> None:
    right, _ = labels(make_raster(tmp_path / "8.tif", picture), model, tmp_path)
    scene = make_raster(tmp_path / "s.tif", picture.astype(dtype), descriptions=RGB)
    found, _ = labels(scene, model, tmp_path)
    assert (found == right).mean() > 0.995  # a precision may be chosen that rounds


def test_a_hot_pixel_and_a_fill_do_not_tell_the_depth(
    tmp_path: Path, model: Path, picture: NDArray[np.uint8]
) -> None:
    values = picture.astype(np.float32) * 8
    values[:, 5, 5] = 60000
    values[:, 100:] = -9999
    scene = make_raster(tmp_path / "s.tif", values, descriptions=RGB)
    with pytest.raises(RadiometryError, match=r"--scale 0\.125,"):
        labels(scene, model, tmp_path)
    found, report = labels(scene, model, tmp_path, scale=0.125)
    assert (found[100:] == 255).all() and "-9999" in report["warnings"][0]


def test_stretch_brings_percentiles_of_the_whole_scene_to_0_and_255(
    tmp_path: Path, model: Path, picture: NDArray[np.uint8]
) -> None:
    values = picture.astype(np.uint16) * 3 + 200  # hazy, 11 bits
    scene = make_raster(tmp_path / "s.tif", values, descriptions=RGB)
    low, high = np.percentile(values, (2, 98))
    found, report = labels(scene, model, tmp_path, stretch=(2.0, 98.0))
    gain = 255 / (high - low)
    assert report["scene"]["radiometry"]["gain"] == pytest.approx([gain] * 3)
    assert report["scene"]["radiometry"]["bias"] == pytest.approx([-low * gain] * 3)
    assert f"{low:g} to {high:g}" in report["scene"]["radiometry"]["source"]
    assert report["options"]["stretch"] == [2.0, 98.0]
    same, _ = labels(scene, model, tmp_path, scale=gain, offset=-low * gain)
    np.testing.assert_array_equal(found, same)
    part = {"bbox": (500400.0, 4998500.0, 501500.0, 4999200.0)}
    _, report = labels(scene, model, tmp_path, stretch=(2.0, 98.0), **part)
    assert report["scene"]["radiometry"]["gain"] == pytest.approx([gain] * 3)


@pytest.mark.parametrize(
    "options",
    [
        {"stretch": (2.0, 98.0), "scale": 0.125},
        {"stretch": (98.0, 2.0)},
        {"stretch": (-1.0, 98.0)},
        {"stretch": (2.0,)},
    ],
)
def test_what_can_not_be_stretched_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--stretch"):
        PredictOptions(**options)


def test_a_model_of_reflectance_is_not_stretched(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", RGB, ("a", "b"), quantity="reflectance")
    scene = make_raster(tmp_path / "s.tif", np.full((3, 9, 9), 0.2, "f4"), descriptions=RGB)
    with pytest.raises(UsageError, match="--stretch is for models"):
        make_plan(scene, PredictOptions(model=model, no_vector=True, stretch=(2.0, 98.0)))


def test_a_flat_picture_has_nothing_to_stretch(tmp_path: Path, model: Path) -> None:
    scene = make_raster(tmp_path / "s.tif", np.full((3, 9, 9), 700, "u2"), descriptions=RGB)
    with pytest.raises(RadiometryError, match="nothing to stretch"):
        make_plan(scene, PredictOptions(model=model, no_vector=True, stretch=(2.0, 98.0)))


# --- real pictures ---


def test_real_pictures_in_more_bits_are_refused_with_what_gives_their_map(
    shared: Path, tmp_path: Path
) -> None:
    (source, *_) = sorted((shared / "data/dubai/tile_1/images").glob("*.jpg"))
    with rasterio.open(source) as dataset:
        values = dataset.read(window=RasterioWindow(0, 0, 256, 256))
    place = {"transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "descriptions": RGB}
    plain = make_raster(tmp_path / "8.tif", values, **place)
    deep = make_raster(tmp_path / "11.tif", values.astype(np.uint16) * 8, **place)
    options = {"model": "landcover-aerial", "output": tmp_path / "o.tif", "no_vector": True}
    make_plan(plain, PredictOptions(**options))
    with pytest.raises(RadiometryError, match=r"11 bits: give --scale 0\.125"):
        make_plan(deep, PredictOptions(**options))
