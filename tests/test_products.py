"""Products as their makers deliver them: bands, numbers, validity and clouds, found by evidence."""

from __future__ import annotations

import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from geoseg.errors import BandError, RadiometryError, SceneError
from geoseg.geo.window import Window
from geoseg.scene.cloud_reader import CloudReader
from geoseg.scene.containers import files_under
from geoseg.scene.opening import open_scene
from geoseg.scene.radiometry import Radiometry, find_radiometry
from geoseg.scene.scene import Scene
from tests import products
from tests.helpers import make_raster
from tests.products import SIX, ground, sentinel2_metadata

GROUND = ground()
BOTH = "--scale 0.0001 --offset -0.1 if .*else --scale 0.0001 --offset 0"


def reflectance_of(
    scene: Scene, wanted: tuple[str, ...] = SIX
) -> tuple[Radiometry, list[NDArray[np.float64]]]:
    """What geoseg takes a scene's numbers for, band by band in the files' own pixels."""
    bands = scene.choose(wanted)
    found = find_radiometry(scene, bands, "reflectance")
    read = []
    for band, gain, bias in zip(bands, found.gain, found.bias, strict=True):
        with rasterio.open(band.path) as dataset:
            numbers = dataset.read(band.index).astype(float)
        read.append(np.where(numbers == band.nodata, np.nan, numbers * gain + bias))
    return found, read


def check(source: Any, within: float = 1e-4, wanted: tuple[str, ...] = SIX) -> Scene:
    """A scene's reflectance is the ground's, up to the rounding of its numbers."""
    scene = open_scene(source)
    _, read = reflectance_of(scene, wanted)
    for name, values in zip(wanted, read, strict=True):
        step = GROUND.shape[1] // values.shape[0]
        truth = GROUND[SIX.index(name.replace("nir08", "nir")), ::step, ::step]
        difference = values - truth
        assert np.isfinite(difference).mean() > 0.9
        assert np.nanmax(np.abs(difference)) < within, name
    return scene


def changed(folder: Path, change: Callable[[str], str | None]) -> Path:
    """A .SAFE folder whose MTD_MSIL2A.xml is another one, or gone."""
    path = folder / "MTD_MSIL2A.xml"
    text = change(path.read_text())
    path.unlink()
    if text is not None:
        path.write_text(text)
    return folder


@pytest.mark.parametrize("level", ["1C", "2A"])
@pytest.mark.parametrize("added", [0, 1000])
@pytest.mark.parametrize("suffix", [".jp2", ".tif"])
@pytest.mark.parametrize("name", ["july.SAFE", "july"])
def test_a_safe_says_itself_what_its_numbers_mean(
    tmp_path: Path, level: str, added: int, suffix: str, name: str
) -> None:
    folder = products.safe(tmp_path, GROUND, name, level=level, added=added, suffix=suffix)
    scene = check(folder)
    assert scene.name == "july"
    assert scene.sensor is not None and scene.sensor.name == "Sentinel-2"
    found, _ = reflectance_of(scene)
    assert f"MTD_MSIL{level}.xml" in found.source
    assert any(path.endswith(f"MTD_MSIL{level}.xml") for path in scene.files)
    assert {band.nodata for band in scene.bands} == {0}


def test_the_metadata_come_before_the_name(tmp_path: Path) -> None:
    name = "S2A_MSIL2A_20220601T101559_N0301_R065_T33UUP_20220601T162012.SAFE"
    check(products.safe(tmp_path, GROUND, name))


def test_offsets_and_quantification_may_differ_from_what_is_usual(tmp_path: Path) -> None:
    text = sentinel2_metadata(offset=-500, quantification=20000)
    text = text.replace('band_id="3">-500<', 'band_id="3">-700<')
    scene = open_scene(products.safe(tmp_path, GROUND, "july.SAFE", metadata=text))
    found, _ = reflectance_of(scene)
    assert found.gain == (1 / 20000,) * 6
    assert found.bias == (-0.025, -0.025, -0.035, -0.025, -0.025, -0.025)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: None,
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("?>\n", "?>\n<!DOCTYPE x [<!ENTITY a 'b'>]>"),
        lambda text: re.sub("<BOA_ADD_OFFSET.*LIST>", "", text),
        lambda text: text.replace(">-1000<", ">much<"),
        lambda text: re.sub('<BOA_ADD_OFFSET band_id="11">-1000</BOA_ADD_OFFSET>', "", text),
        lambda text: re.sub('"none">10000<', '"none">0<', text),
    ],
    ids=["gone", "empty", "cut", "entity", "no offsets", "words", "band missing", "quantification"],
)
def test_metadata_that_do_not_tell_are_no_evidence(
    tmp_path: Path, change: Callable[[str], str | None]
) -> None:
    """A band without an offset, among bands with one, leaves the scene without a unit, too."""
    folder = products.safe(tmp_path, GROUND, "july.SAFE")
    scene = open_scene(changed(folder, lambda text: change(text.replace("july.SAFE", ""))))
    with pytest.raises(RadiometryError, match=rf"{BOTH}|units differ.*--scale"):
        reflectance_of(scene)


@pytest.mark.parametrize(("tile", "added"), [("N04.00", 1000), ("N02.09", 0)])
def test_the_tile_tells_the_baseline_where_nothing_else_does(
    tmp_path: Path, tile: str, added: int
) -> None:
    name = f"S2A_OPER_MSI_L2A_TL_VGS4_20220601T162012_A036259_T33UUP_{tile}"
    folder = products.safe(tmp_path, GROUND, "july.SAFE", added=added, metadata=None, tile=name)
    check(folder)


def before_2016(folder: Path, tiles: tuple[str, ...] = ("T33UUP",)) -> Path:
    """A product of level 1C as it was until December 2016, with names of its own for all files."""
    root = folder / "S2A_OPER_PRD_MSIL1C_PDMC_20160601T162012_R065_V20160601T101559.SAFE"
    for tile in tiles:
        name = f"S2A_OPER_MSI_L1C_TL_SGS__20160601T101559_A004914_{tile}"
        granule = root / "GRANULE" / f"{name}_N02.02"
        for band, (code, metres) in enumerate(products.CODES):
            step = metres // 10
            values = products.numbers(GROUND[band, ::step, ::step])
            products.raster(granule / "IMG_DATA" / f"{name}_{code}.jp2", values, metres)
        tile_id = f"<TILE_ID>{name}_N02.02</TILE_ID>"
        (granule / f"S2A_OPER_MTD_L1C_TL_SGS__20160601T101559_A004914_{tile}.xml").write_text(
            f"<Level-1C_Tile_ID>{tile_id}</Level-1C_Tile_ID>"
        )
    (root / "S2A_OPER_MTD_SAFL1C_PDMC_20160601T162012_R065_V20160601T101559.xml").write_text(
        sentinel2_metadata("1C", "02.02", None)
    )
    return root


@pytest.mark.parametrize("by", ["product", "tile"])
def test_a_product_of_before_december_2016_is_read(tmp_path: Path, by: str) -> None:
    folder = before_2016(tmp_path)
    if by == "tile":
        next(folder.glob("*.xml")).unlink()
    scene = check(folder)
    assert "S2A_OPER_MTD" in reflectance_of(scene)[0].source
    assert scene.sensor is not None and scene.sensor.name == "Sentinel-2"
    check(products.zipped(folder, "june.zip"))


def test_tiles_of_before_december_2016_are_given_one_by_one(tmp_path: Path) -> None:
    folder = before_2016(tmp_path, ("T33UUP", "T33UVP"))
    with pytest.raises(BandError, match=r"both .* at the same pixel size; give only one of them"):
        open_scene(folder)
    check(sorted(folder.glob("GRANULE/*T33UVP*/IMG_DATA/*.jp2")))


def test_a_safe_in_a_tar_is_read_in_place(tmp_path: Path) -> None:
    folder = products.safe(tmp_path, GROUND)
    path = tmp_path / f"{folder.name}.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(folder, folder.name)
    scene = check(path)
    assert f"{scene.name}.SAFE" == folder.name and scene.clouds is not None
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(folder, folder.name)
    with pytest.raises(SceneError, match=r"long names.*unpack it \(tar -xf .*\.SAFE\.tar\)"):
        open_scene(path)
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    check(tmp_path / "unpacked")


def test_single_files_of_a_safe_are_told_by_its_metadata(tmp_path: Path) -> None:
    folder = products.safe(tmp_path, GROUND, "july.SAFE")
    check(sorted(folder.glob("GRANULE/*/IMG_DATA/*/*_B*.jp2")))


def test_files_beside_metadata_that_name_them_are_told_by_these(tmp_path: Path) -> None:
    folder = products.safe(tmp_path, GROUND, "july.SAFE", metadata="")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in [*folder.glob("GRANULE/*/IMG_DATA/*/*_B*.jp2"), folder / "MTD_MSIL2A.xml"]:
        path.rename(flat / path.name)
    check(flat)
    (flat / "MTD_MSIL2A.xml").write_text(sentinel2_metadata())  # of another product
    with pytest.raises(RadiometryError, match=BOTH):
        check(flat)


@pytest.mark.parametrize("shell", [True, False])
def test_a_zipped_safe_is_read_in_place(tmp_path: Path, shell: bool) -> None:
    archive = products.zipped(products.safe(tmp_path, GROUND, "july.SAFE"), shell=shell)
    before = sorted(tmp_path.iterdir())
    scene = check(archive)
    assert scene.name == "july" and str(archive) in scene.all_files
    assert scene.clouds is not None
    assert sorted(tmp_path.iterdir()) == before == [archive]


def test_a_renamed_archive_and_a_folder_in_a_folder_are_the_same_scene(tmp_path: Path) -> None:
    check(products.zipped(products.safe(tmp_path, GROUND, "x.SAFE"), "holiday.zip"))
    check(products.safe(tmp_path / "shell", GROUND).parent)


def test_an_order_of_planet_is_found_below_its_lists_of_files(tmp_path: Path) -> None:
    inner = products.planet(tmp_path / "order" / "files", GROUND)
    (inner.parents[1] / "manifest.json").write_text("{}")
    check(inner.parents[1], wanted=SIX[:4])
    scene = check(products.zipped(inner.parents[1], "order.zip", shell=False), wanted=SIX[:4])
    assert scene.name == "order"
    # Beside another folder it isn't clear which one is meant.
    products.planet(tmp_path / "two" / "files", GROUND)
    (tmp_path / "two" / "others").mkdir()
    with pytest.raises(SceneError, match="holds 0 raster files"):
        open_scene(tmp_path / "two")


def test_the_files_own_tags_come_before_the_products_metadata(tmp_path: Path) -> None:
    folder = products.safe(tmp_path, GROUND, suffix=".tif")
    for path in folder.glob("GRANULE/*/IMG_DATA/*/*_B*.tif"):
        with rasterio.open(path, "r+") as dataset:
            dataset.write(np.round(dataset.read() / 10 - 100).astype("uint16"))
            dataset.scales = (1e-3,)
    found, _ = reflectance_of(check(folder, within=1e-3))
    assert "tags" in found.source


def test_floats_in_a_product_are_no_numbers_of_the_product(tmp_path: Path) -> None:
    folder = products.safe(tmp_path, GROUND, suffix=".tif")
    for band, (code, metres) in enumerate(products.CODES):
        (path,) = folder.glob(f"GRANULE/*/IMG_DATA/*/*_{code}_*.tif")
        step = metres // 10
        products.raster(path, GROUND[band, ::step, ::step].astype(np.float32), metres)
    check(folder)


@pytest.mark.parametrize("form", ["txt", "xml", "json"])
@pytest.mark.parametrize("level", ["L2SP", "L1TP"])
@pytest.mark.parametrize("satellite", ["8", "7"])
def test_landsat_is_told_by_its_mtl(tmp_path: Path, form: str, level: str, satellite: str) -> None:
    folder = products.landsat(tmp_path, GROUND, form=form, level=level, satellite=satellite)
    scene = check(folder)
    assert "MTL" in reflectance_of(scene)[0].source
    assert {band.nodata for band in scene.bands} == {0}
    assert scene.clouds is not None and "QA_PIXEL" in scene.clouds.source


@pytest.mark.parametrize("level", ["L2SP", "L1TP"])
def test_landsat_is_read_out_of_a_tar_and_file_by_file(tmp_path: Path, level: str) -> None:
    folder = products.landsat(tmp_path, GROUND, level=level)
    check(sorted(folder.glob("*_B?.TIF")))
    scene = check(products.tarred(folder))
    assert scene.name == f"LC08_{level}_193024_20200407_20200822_02_T1"


def test_landsat_under_other_names_is_told_by_its_mtl(tmp_path: Path) -> None:
    scene = check(products.landsat(tmp_path, GROUND, name="july"))
    assert scene.sensor is not None and scene.sensor.name == "Landsat 8-9 level 2"


def test_level_1_without_mtl_is_refused_and_level_2_is_not(tmp_path: Path) -> None:
    check(products.landsat(tmp_path / "2", GROUND, form=None))
    with pytest.raises(RadiometryError, match="REFLECTANCE_MULT"):
        check(products.landsat(tmp_path / "1", GROUND, level="L1TP", form=None))


@pytest.mark.parametrize("spoil", ["SUN_ELEVATION = 51.84", "REFLECTANCE_MULT_BAND_4 = 2.0000E-05"])
def test_an_mtl_that_lacks_a_number_is_no_evidence(tmp_path: Path, spoil: str) -> None:
    folder = products.landsat(tmp_path, GROUND, level="L1TP")
    (path,) = folder.glob("*_MTL.txt")
    text = path.read_text()
    assert spoil in text
    path.write_text(text.replace(spoil, ""))
    with pytest.raises(RadiometryError, match="--scale"):
        check(folder)


@pytest.mark.parametrize("which", ["S30", "L30"])
def test_hls_folders_are_read_with_their_clouds(tmp_path: Path, which: str) -> None:
    nir = "nir08" if which == "S30" else "nir"
    wanted = (*SIX[:3], nir, *SIX[4:])
    scene = check(products.hls(tmp_path, GROUND, which), wanted=wanted)
    assert scene.clouds is not None and scene.clouds.rule.name == "HLS Fmask"


@pytest.mark.parametrize("archive", [False, True])
def test_maja_is_read_with_slopes_corrected(tmp_path: Path, archive: bool) -> None:
    folder = products.maja(tmp_path, GROUND)
    scene = check(products.zipped(folder) if archive else folder)
    assert scene.sensor is not None and scene.sensor.name == "MAJA Sentinel-2"
    assert {band.nodata for band in scene.bands} == {-10000}
    assert sum("slopes" in line for line in scene.ignored) == 6
    assert scene.clouds is not None and scene.clouds.source.endswith("_CLM_R1.tif")


def test_maja_without_slopes_corrected_is_read_as_it_is(tmp_path: Path) -> None:
    folder = products.maja(tmp_path, GROUND)
    for path in folder.glob("*_FRE_*"):
        path.unlink()
    _, read = reflectance_of(open_scene(folder))
    assert np.nanmax(np.abs(read[0] - GROUND[0] / 2)) < 1.1e-4


@pytest.mark.parametrize("count", [4, 8])
@pytest.mark.parametrize("surface", [True, False])
@pytest.mark.parametrize("single", [True, False])
def test_planet_orders_are_read(tmp_path: Path, count: int, surface: bool, single: bool) -> None:
    folder = products.planet(tmp_path, GROUND, count=count, surface=surface)
    (image,) = folder.glob("*AnalyticMS*.tif")
    scene = check(image if single else folder, wanted=SIX[:4])
    assert len(scene.bands) == count and {band.nodata for band in scene.bands} == {0}
    assert (scene.clouds is not None) != single


def test_planet_radiance_without_its_metadata_is_refused(tmp_path: Path) -> None:
    folder = products.planet(tmp_path, GROUND, surface=False, metadata=False)
    with pytest.raises(RadiometryError, match="reflectanceCoefficient"):
        reflectance_of(open_scene(folder), SIX[:4])


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [("uint16", 1e-4, -0.1), ("uint16", 1e-4, 0.0), ("int16", 5e-5, 0.0), ("float32", 1.0, 0.0)],
)
def test_dimap_of_snap_is_told_by_its_header(
    tmp_path: Path, dtype: str, scale: float, offset: float
) -> None:
    header = products.dimap(tmp_path, GROUND, dtype=dtype, scale=scale, offset=offset)
    archive = shutil.make_archive(str(tmp_path.with_suffix(".packed")), "zip", tmp_path)
    for source in (header, header.with_suffix(".data"), tmp_path, archive):
        scene = check(source)
        assert scene.sensor is not None and scene.sensor.name == "Sentinel-2"


# Clouds


def left_out(scene: Scene) -> NDArray[np.bool_]:
    assert scene.clouds is not None
    reader = CloudReader(scene.clouds, scene.grid)
    try:
        return reader.read(Window(0, 0, scene.grid.height, scene.grid.width))
    finally:
        reader.close()


def test_clouds_of_a_zipped_safe_and_of_landsat_are_left_out(tmp_path: Path) -> None:
    scl = np.random.default_rng(0).integers(0, 12, (16, 16)).astype(np.uint8)
    scene = open_scene(products.zipped(products.safe(tmp_path, GROUND, scl=scl)))
    wanted = np.isin(scl, (0, 1, 3, 8, 9, 10)).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(left_out(scene), wanted)
    qa = np.random.default_rng(0).choice([21824, 22280, 23888, 30048], (32, 32)).astype(np.uint16)
    np.testing.assert_array_equal(
        left_out(open_scene(products.landsat(tmp_path, GROUND, qa=qa))), (qa & 31) != 0
    )


def test_clouds_of_maja_and_planet_are_left_out_and_snow_is_not(tmp_path: Path) -> None:
    clm = np.random.default_rng(0).choice([0, 0, 1, 16, 128], (32, 32)).astype(np.uint8)
    scene = open_scene(products.maja(tmp_path, GROUND, clm=clm))
    np.testing.assert_array_equal(left_out(scene), clm != 0)
    kinds = np.random.default_rng(0).integers(0, 6, (32, 32))  # clear, snow, shadow, ..., cloud
    udm2 = np.concatenate([kinds == np.arange(6)[:, None, None], np.zeros((2, 32, 32))])
    scene = open_scene(products.planet(tmp_path, GROUND, udm2=udm2.astype(np.uint8)))
    np.testing.assert_array_equal(left_out(scene), kinds >= 2)


def test_no_cloud_layer_is_opened_if_clouds_are_mapped(tmp_path: Path) -> None:
    folder = products.safe(tmp_path, GROUND)
    assert open_scene(folder, clouds="none").clouds is None


# Archives from strangers


def test_archives_that_cannot_be_read_in_place_are_refused(tmp_path: Path) -> None:
    folder = products.landsat(tmp_path, GROUND)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    with pytest.raises(SceneError, match=r"compressed archive.*tar -xf a\.tar\.gz"):
        open_scene(tmp_path / "a.tar.gz")
    for name in ("b.zip", "b.tar"):
        (tmp_path / name).write_bytes(b"PK\3\4 no archive" * 100)
        with pytest.raises(SceneError, match="is no archive that can be read"):
            open_scene(tmp_path / name)


@pytest.mark.parametrize("end", [".tif.ovr", ".tif.msk", ".tif.aux.xml", ".aux"])
def test_what_gdal_would_follow_in_an_archive_is_refused(tmp_path: Path, end: str) -> None:
    make_raster(tmp_path / "red.tif", np.ones((1, 8, 8), np.uint16))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "red.tif", "red.tif")
        archive.writestr(f"red{end}", "<VRTDataset/>")
    with pytest.raises(SceneError, match=re.escape(f"red{end} lies beside a band")):
        open_scene(tmp_path / "a.zip")


def test_members_that_lead_out_of_an_archive_are_none(tmp_path: Path) -> None:
    make_raster(tmp_path / "red.tif", np.ones((1, 8, 8), np.uint16))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "red.tif", "../red.tif")
        archive.writestr("x/../../MTD_MSIL2A.xml", "")
    assert list(files_under(f"/vsizip/{tmp_path}/a.zip")) == []
    with pytest.raises(SceneError, match="holds 0 raster files"):
        open_scene(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("red.tif", "<VRTDataset rasterXSize='8' rasterYSize='8'/>")
    with pytest.raises(SceneError):
        open_scene(tmp_path / "b.zip")
