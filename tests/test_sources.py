"""What files may point to: nothing outside their folder, and no server, in any command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from rasterio.vrt import WarpedVRT

import geoseg
from geoseg.errors import GeosegError, SceneError, UsageError
from geoseg.evaluation.seam_check import check_seams
from geoseg.prediction.border_probe import probe_border
from geoseg.prediction.quantizing import quantize
from geoseg.prediction.scene_info import scene_info
from geoseg.scene.opening import open_scene
from geoseg.training.make_recipe import make_recipe
from geoseg.training.options import TrainOptions
from tests.canary import SIDE, Server, disguises, plain, serving, vectors, virtual
from tests.helpers import make_raster, tiny_model


@pytest.fixture
def canary() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "model", ("red",), ("dark", "bright"))


@pytest.fixture
def private(tmp_path: Path) -> Path:
    (tmp_path / "private").mkdir()
    return plain(tmp_path / "private" / "secret.tif", 77)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return plain(tmp_path / "sound.tif")


Command = Callable[[Path, Path, Path], Any]


def _predict(bad: Path, sound: Path, model: Path) -> Any:
    return geoseg.predict(bad, sound.with_name("o.tif"), model=model, bands="1", no_vector=True)


def _info(bad: Path, sound: Path, model: Path) -> Any:
    return scene_info(bad, models=[model], bands="1")


def _training(images: Path, labels: Path) -> Any:
    # Of two images and labels, so that they are also paired by place.
    other = shutil.copy(images.parent / "near.tif", images.parent / "other.tif")
    options = TrainOptions(images=[str(images), other], labels=[str(labels)], band_names="red")
    return make_recipe(options, images.parent / "trained")


def _temporary(bad: Path, sound: Path) -> Path:
    """A folder beside the disguises for a file that is not the matter."""
    return Path(shutil.copy(sound, bad.parent / "near.tif"))


#: What a command does with a raster that leads elsewhere.
COMMANDS: dict[str, Command] = {
    "predict": _predict,
    "info": _info,
    "vectorize": lambda bad, sound, model: geoseg.vectorize(bad, sound.with_name("v.gpkg")),
    "vectorize --confidence": lambda bad, sound, model: geoseg.vectorize(
        sound, sound.with_name("v.gpkg"), confidence=bad
    ),
    "vectorize --probs": lambda bad, sound, model: geoseg.vectorize(
        sound, sound.with_name("v.gpkg"), probs=bad
    ),
    "mosaic": lambda bad, sound, model: geoseg.mosaic(
        bad, sound.with_name("m.tif"), top="first", no_vector=True
    ),
    "sample": lambda bad, sound, model: geoseg.sample(bad, count=4),
    "check-seams": lambda bad, sound, model: check_seams(bad, size=32, overlap=16),
    "evaluate a map": lambda bad, sound, model: geoseg.evaluate(bad, labels=sound),
    "evaluate by labels": lambda bad, sound, model: geoseg.evaluate(sound, labels=bad),
    "evaluate by a mask": lambda bad, sound, model: geoseg.evaluate(
        sound, labels=bad, colors=["class 3=#000000"]
    ),
    "evaluate --probs": lambda bad, sound, model: geoseg.evaluate(sound, labels=sound, probs=bad),
    "evaluate a model": lambda bad, sound, model: geoseg.evaluate(
        model, labels=sound, scene=bad, bands="1"
    ),
    "train on images": lambda bad, sound, model: _training(bad, _temporary(bad, sound)),
    "train on labels": lambda bad, sound, model: _training(_temporary(bad, sound), bad),
    "models probe": lambda bad, sound, model: probe_border(model, bad, bands="1", size=32),
    "models quantize": lambda bad, sound, model: quantize(
        model, bad, sound.with_name("q"), bands="1"
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_raster_leads_elsewhere(
    command: str, tmp_path: Path, canary: Server, private: Path, sound: Path, model: Path
) -> None:
    wrong = {}
    for kind, path in disguises(tmp_path / "in", canary, private).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                COMMANDS[command](path, sound, model)
                wrong[kind] = "was taken"
            except GeosegError as error:
                told = str(error)
                if "\n" in told or "--allow-vrt any" not in told:
                    wrong[kind] = told
        if canary.hits:
            wrong[kind] = f"asked for {canary.hits}"
            canary.hits.clear()
    assert not wrong


#: What a command does with a vector file that leads elsewhere.
VECTOR_COMMANDS: dict[str, Callable[[str, Path, Path], Any]] = {
    "predict --aoi": lambda bad, sound, model: geoseg.predict(
        sound, sound.with_name("o.tif"), model=model, bands="1", no_vector=True, aoi=bad
    ),
    "evaluate by polygons": lambda bad, sound, model: geoseg.evaluate(sound, labels=bad),
    "evaluate by points": lambda bad, sound, model: geoseg.evaluate(sound, points=bad),
}


@pytest.mark.parametrize("command", VECTOR_COMMANDS)
def test_no_vector_file_leads_elsewhere(
    command: str, tmp_path: Path, canary: Server, sound: Path, model: Path
) -> None:
    wrong = {}
    for kind, path in vectors(tmp_path / "in", canary).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                VECTOR_COMMANDS[command](path, sound, model)
                wrong[kind] = "was taken"
            except GeosegError as error:
                if "\n" in str(error) or "--allow-vrt any" not in str(error):
                    wrong[kind] = str(error)
        if canary.hits:
            wrong[kind] = f"asked for {canary.hits}"
            canary.hits.clear()
    assert not wrong


def test_no_polygons_to_learn_from_lead_elsewhere(
    tmp_path: Path, canary: Server, sound: Path
) -> None:
    for path in vectors(tmp_path / "in", canary).values():
        if os.path.exists(path):
            options = TrainOptions(images=[str(sound)], labels=[path], band_names="red")
            with pytest.raises(UsageError, match="--allow-vrt any"):
                make_recipe(options, tmp_path / "trained")
    assert not canary.hits


def test_a_zip_does_not_hide_what_leads_elsewhere(
    tmp_path: Path, canary: Server, sound: Path, model: Path
) -> None:
    inside = Path(vectors(tmp_path / "in", canary)["OGR VRT"])
    with zipfile.ZipFile(tmp_path / "shapes.zip", "w") as archive:
        archive.write(inside, "shapes.vrt")
    with pytest.raises(UsageError, match="--allow-vrt any"):
        VECTOR_COMMANDS["predict --aoi"](str(tmp_path / "shapes.zip"), sound, model)
    assert not canary.hits


@pytest.mark.parametrize(
    "name",
    [
        "<VRTDataset rasterXSize='9' rasterYSize='9'></VRTDataset>" + " " * 300,
        "<GDAL_WMS></GDAL_WMS>",
        "vrt://{sound}?bands=1",
        "WMS:http://127.0.0.1:9/wms",
        "WCS:http://127.0.0.1:9/wcs",
        "DERIVED_SUBDATASET:AMPLITUDE:{sound}",
        "/vsisparse/{sound}",
        'HDF5:"{sound}"://a',
    ],
)
def test_names_in_gdals_own_spelling_are_refused(name: str, sound: Path) -> None:
    with pytest.raises(SceneError, match="--allow-vrt any") as caught:
        open_scene(name.format(sound=sound))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


# What goes on working


def read(path: Path | str, **rules: Any) -> Any:
    """A scene's pixels as geoseg opens it."""
    from geoseg.geo.window import Window
    from geoseg.scene.reader import SceneReader
    from geoseg.scene.sources import Rules

    scene = open_scene(path, Rules.of(**rules))
    grid = scene.grid
    with SceneReader(scene.bands, grid) as reader:
        return reader.read(Window(0, 0, grid.height, grid.width))


def _copied(source: Path, path: Path, driver: str, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rasterio.shutil.copy(source, path, driver=driver, **options)
    return path


@pytest.mark.parametrize(
    ("suffix", "driver", "options"),
    [
        (".tif", "COG", {}),
        (".tif", "GTiff", {"BIGTIFF": "YES"}),
        (".tif", "GTiff", {"ENDIANNESS": "BIG"}),
        (".png", "PNG", {"WORLDFILE": "YES"}),
        (".jp2", "JP2OpenJPEG", {"REVERSIBLE": "YES", "QUALITY": "100"}),
        (".img", "HFA", {}),
        (".dat", "ENVI", {}),
        (".bil", "EHdr", {}),
        (".bmp", "BMP", {}),
        (".gif", "GIF", {}),
        (".webp", "WEBP", {"LOSSLESS": "YES"}),
        (".asc", "AAIGrid", {}),
        (".ntf", "NITF", {}),
        (".nc", "netCDF", {"FORMAT": "NC"}),
        (".vrt", "VRT", {}),
    ],
)
def test_rasters_of_all_kinds_are_read_whatever_they_are_called(
    tmp_path: Path, suffix: str, driver: str, options: dict[str, str]
) -> None:
    source = tmp_path / "source.tif"
    values = np.random.default_rng(0).integers(1, 250, (3, SIDE, SIDE)).astype(np.uint8)
    if driver in ("GIF", "AAIGrid", "BMP", "netCDF"):
        values = values[:1]
    make_raster(source, values)
    path = _copied(source, tmp_path / f"copy{suffix}", driver, **options)
    np.testing.assert_array_equal(read(path)[0], values)
    if driver not in ("ENVI", "EHdr", "AAIGrid", "netCDF"):  # known by what lies beside, or suffix
        os.rename(path, tmp_path / "renamed.xyz")
        np.testing.assert_array_equal(read(tmp_path / "renamed.xyz")[0], values)


def test_virtual_rasters_of_what_lies_in_their_folder_are_read(tmp_path: Path, sound: Path) -> None:
    expected = read(sound)[0]
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    shutil.copy(sound, tiles / "a.tif")
    for path in (
        virtual(tmp_path / "plain.vrt", "tiles/a.tif", relative=True),
        virtual(tmp_path / "absolute.vrt", str(tiles / "a.tif"), source="Complex"),
        virtual(tmp_path / "nested.vrt", "plain.vrt", relative=True),
        _copied(tmp_path / "plain.vrt", tmp_path / "copied.vrt", "VRT"),
    ):
        np.testing.assert_array_equal(read(path)[0], expected)
        np.testing.assert_array_equal(read(shutil.copy(path, tmp_path / "vrt.tif"))[0], expected)
    with rasterio.open(sound) as dataset, WarpedVRT(dataset, crs="EPSG:32633") as warped:
        rasterio.shutil.copy(warped, tmp_path / "warped.vrt", driver="VRT")
    np.testing.assert_array_equal(read(tmp_path / "warped.vrt")[0], expected)


def test_a_virtual_raster_of_the_current_folder(
    tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    virtual(Path("here.vrt"), "sound.tif")
    np.testing.assert_array_equal(read("here.vrt")[0], read(sound)[0])


def test_what_lies_beside_a_raster_is_used(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 250, (1, 600, 600)).astype(np.uint8)
    mask = values[0] > 90
    path = make_raster(tmp_path / "a.tif", values, mask=mask, internal_mask=False, tiled=True)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2])
    with rasterio.open(path) as dataset:
        dataset.statistics(1)
        dataset.tags(ns="OVERVIEWS")
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">:::BASE:::a.tif.ovr'
        '</MDI></Metadata><PAMRasterBand band="1"><Description>red</Description>'
        "</PAMRasterBand></PAMDataset>"
    )
    assert (tmp_path / "a.tif.ovr").exists() and (tmp_path / "a.tif.msk").exists()
    assert open_scene(path).bands[0].name == "red"
    np.testing.assert_array_equal(read(path)[1], mask)


def test_metadata_that_is_no_sound_xml_and_names_nothing_is_gdals_to_judge(
    tmp_path: Path, sound: Path
) -> None:
    (tmp_path / "sound.tif.aux.xml").write_bytes(
        b'<PAMDataset><Metadata><MDI key="OWNER">M\xfcnchen</MDI></Metadata></PAMDataset>'
    )
    assert read(sound)[0].max() == 5


def test_a_file_in_an_archive_is_read(tmp_path: Path, sound: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(sound, "deep/scene.tif")
        archive.write(virtual(tmp_path / "v.vrt", str(sound)), "scene.vrt")
    np.testing.assert_array_equal(
        read(f"/vsizip/{tmp_path}/a.zip/deep/scene.tif")[0], read(sound)[0]
    )
    with pytest.raises(SceneError, match="--allow-vrt any"):
        open_scene(f"/vsizip/{tmp_path}/a.zip/scene.vrt")


def test_parts_of_a_file_are_read(tmp_path: Path, sound: Path) -> None:
    _copied(sound, tmp_path / "a.nc", "netCDF", FORMAT="NC")
    for name in (f"GTIFF_DIR:1:{sound}", f'NETCDF:"{tmp_path}/a.nc":Band1'):
        np.testing.assert_array_equal(read(name)[0], read(sound)[0])


def test_advice_that_is_followed_works(tmp_path: Path, private: Path) -> None:
    (tmp_path / "in").mkdir()
    path = virtual(tmp_path / "in" / "scene.vrt", str(private))
    with pytest.raises(SceneError) as caught:
        read(path)
    found = re.search(r"--input-root (\S+), or --allow-vrt (any)", str(caught.value))
    assert found is not None
    for rules in ({"input_root": found[1]}, {"allow_vrt": found[2]}):
        np.testing.assert_array_equal(read(path, **rules)[0], read(private)[0])
    with pytest.raises(UsageError, match="is no folder"):
        read(path, input_root=[tmp_path / "nowhere"])


def test_any_lifts_it_all(tmp_path: Path, canary: Server, private: Path, model: Path) -> None:
    found = disguises(tmp_path / "in", canary, private)
    assert read(found["raw band"], allow_vrt="any")[0].tobytes().startswith(b"root:")
    with pytest.raises(SceneError, match="can't be read"):
        read(found["bare URL"], allow_vrt="any")
    assert canary.hits


@pytest.mark.parametrize("allowed", [{}, {"input_root": "private"}, {"allow_vrt": "any"}])
def test_predict_and_its_record_go_by_the_rules(
    tmp_path: Path, private: Path, model: Path, allowed: dict[str, str], monkeypatch: Any
) -> None:
    """Rules are no reason to begin a run anew, and change no byte."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    scene = virtual(tmp_path / "in" / "scene.vrt", str(private))
    options: dict[str, Any] = {"model": model, "bands": "1", "no_vector": True}
    if not allowed:
        with pytest.raises(SceneError, match="--input-root"):
            geoseg.predict(scene, "o.tif", **options, **allowed)
        return
    geoseg.predict(scene, "o.tif", **options, **allowed)
    geoseg.predict(private, "direct.tif", **options)
    with rasterio.open("o.tif") as one, rasterio.open("direct.tif") as other:
        np.testing.assert_array_equal(one.read(), other.read())
        assert one.tags()["GEOSEG_OPTIONS"] == other.tags()["GEOSEG_OPTIONS"]


SQUARE = shapely.box(500000, 4999800, 500200, 5000000)


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        ("a.gpkg", "GPKG"),
        ("a.geojson", "GeoJSON"),
        ("a.shp", "ESRI Shapefile"),
        ("a.fgb", "FlatGeobuf"),
        ("a.gml", "GML"),
        ("a.kml", "KML"),
        ("a.sqlite", "SQLite"),
        ("a.parquet", None),
        ("a.zip", None),
    ],
)
def test_vector_files_of_all_kinds_are_read(
    tmp_path: Path, sound: Path, model: Path, name: str, driver: str | None
) -> None:
    frame = geopandas.GeoDataFrame(
        {"link": ["https://example.org/a link?b"]}, geometry=[SQUARE], crs="EPSG:32633"
    )
    path = tmp_path / "shapes" / name
    path.parent.mkdir()
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name.endswith(".zip"):
        frame.to_file(tmp_path / "a.shp")
        with zipfile.ZipFile(path, "w") as archive:
            for part in tmp_path.glob("a.*"):
                archive.write(part, part.name)
    else:
        in_degrees = driver in ("KML", "GeoJSON")
        (frame.to_crs(4326) if in_degrees else frame).to_file(path, driver=driver)
    result = geoseg.predict(
        sound, tmp_path / "o.tif", model=model, bands="1", no_vector=True, aoi=path
    )
    # 20 x 20 px; a pixel more on each side where the square was turned on the way.
    assert 400 <= result.report["pixels"]["valid"] <= 484


def test_a_wfs_answer_that_was_saved_asks_for_nothing(
    tmp_path: Path, canary: Server, sound: Path, model: Path
) -> None:
    schema = f"{canary.address}/wfs?SERVICE=WFS&amp;REQUEST=DescribeFeatureType&amp;TYPENAME=x:a"
    path = tmp_path / "saved.gml"
    ring = "500000 4999800 500200 4999800 500200 5000000 500000 5000000 500000 4999800"
    path.write_text(
        f'<?xml version="1.0"?><wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs" '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://x '
        f'{schema}" xmlns:x="http://x" xmlns:gml="http://www.opengis.net/gml"><gml:featureMember>'
        f'<x:a gml:id="a.0"><x:g><gml:Polygon srsName="EPSG:32633"><gml:exterior><gml:LinearRing>'
        f"<gml:posList>{ring}</gml:posList></gml:LinearRing></gml:exterior></gml:Polygon></x:g>"
        f"</x:a></gml:featureMember></wfs:FeatureCollection>"
    )
    geoseg.predict(sound, tmp_path / "o.tif", model=model, bands="1", no_vector=True, aoi=path)
    assert not canary.hits


def test_options_stand_in_every_command_that_reads() -> None:
    from click.testing import CliRunner

    from geoseg.cli.app import _cli

    commands: Sequence[Sequence[str]] = (
        *(["predict"], ["vectorize"], ["mosaic"], ["info"], ["train"], ["sample"], ["check-seams"]),
        *(["evaluate"], ["models", "quantize"], ["models", "probe"]),
    )
    for command in commands:
        told = CliRunner().invoke(_cli, [*command, "--help"]).output
        assert "--input-root" in told and "--allow-vrt" in told


#: Runs a command of geoseg's and prints whatever it asks of a network, or of other processes.
WATCHED = """
import os, sys
def hears(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "os.fork",
                         "os.exec", "os.posix_spawn", "subprocess.", "os.system")):
        os.write(1, f"{event} {arguments!r}\\n".encode())
sys.addaudithook(hears)
from geoseg.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("command", ["predict", "predict-auto", "vectorize", "evaluate", "info"])
def test_libraries_call_nobody_about_a_local_scene(tmp_path: Path, command: str) -> None:
    """OpenVINO told a server of each import, by a process that it forked for it."""
    example = Path(__file__).parents[1] / "examples" / "landsat7_nc_2000.tif"
    ids = (np.arange(600).reshape(1, 20, 30) % 3).astype(np.uint8)
    labels = make_raster(tmp_path / "labels.tif", ids)
    words = {
        "predict": ["predict", str(example), "-o", str(tmp_path / "a.tif"), "--precision", "fp32"],
        "predict-auto": ["predict", str(example), "-o", str(tmp_path / "a.tif"), "--size", "64"],
        "vectorize": ["vectorize", str(labels), "-o", str(tmp_path / "a.gpkg")],
        "evaluate": ["evaluate", str(labels), "--labels", str(labels)],
        "info": ["info", str(example)],
    }[command]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if re.match(r"\\w+\\.", line)] == []


@pytest.mark.parametrize("names", [("a.vrt",), ("a.vrt", "b.vrt"), ("a.vrt", "b.vrt", "c.tif")])
def test_virtual_rasters_that_name_each_other_in_a_circle_are_refused(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name, other in zip(names, (*names[1:], names[0]), strict=True):
        virtual(tmp_path / name, other, relative=True)
    with pytest.raises(SceneError, match=r", and so itself; write it anew \(gdalbuildvrt\)"):
        geoseg.open_scene(tmp_path / "a.vrt")
