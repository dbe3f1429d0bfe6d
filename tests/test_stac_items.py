"""A STAC item is a scene: which assets are bands, what numbers mean, what is refused."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import geoseg
from geoseg.core import download as downloads
from geoseg.errors import BandError, GeosegError, RadiometryError, SceneError, UsageError
from geoseg.geo.window import Window
from geoseg.prediction.scene_info import scene_info
from geoseg.scene.item import address_of, parse_item
from geoseg.scene.opening import open_scene
from geoseg.scene.radiometry import find_radiometry
from geoseg.scene.reader import SceneReader
from geoseg.scene.scene import Scene
from geoseg.scene.sources import Rules
from tests import stacitems
from tests.helpers import make_raster, tiny_model
from tests.oracles import OneHot
from tests.servers import FaultyServer
from tests.stacitems import SIX, earth_search, planetary_sentinel2, save

MAKERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "earth search": earth_search,
    "planetary computer": planetary_sentinel2,
    "landsat": stacitems.planetary_landsat,
    "hls l30": lambda folder: stacitems.hls(folder, "L30"),
    "hls s30": lambda folder: stacitems.hls(folder, "S30"),
    "stac 1.1": stacitems.stac11,
}


def opened(folder: Path, value: dict[str, Any], **options: Any) -> Scene:
    return open_scene(save(folder, value), **options)


def reflectance(scene: Scene, wanted: tuple[str, ...] = SIX, **options: Any) -> Any:
    return find_radiometry(scene, scene.choose(wanted), "reflectance", **options)


# Which assets are bands


@pytest.mark.parametrize("maker", MAKERS)
def test_the_bands_of_archives_are_found(tmp_path: Path, maker: str) -> None:
    scene = opened(tmp_path, MAKERS[maker](tmp_path))
    bands = scene.choose(SIX)
    files = {
        "landsat": [f"SR_B{n}" for n in range(2, 8)],
        "hls l30": [f"B0{n}" for n in range(2, 8)],
        "hls s30": ["B02", "B03", "B04", "B8A", "B11", "B12"],
        "stac 1.1": ["B02_10m", "B03_10m", "B04_10m", "B08_10m", "B11_20m", "B12_20m"],
    }.get(maker, ["B02", "B03", "B04", "B08", "B11", "B12"])
    assert [Path(b.path).stem for b in bands] == files
    assert scene.item is not None and scene.notes == ()
    assert scene.sensor is not None


def test_a_file_of_several_bands_is_named_by_the_item(tmp_path: Path) -> None:
    value = stacitems.naip(tmp_path)
    scene = opened(tmp_path, value)
    assert [(b.name, b.index) for b in scene.bands] == [
        ("red", 1), ("green", 2), ("blue", 3), ("nir", 4),
    ]  # fmt: skip
    assert [line.partition(":")[0] for line in scene.ignored] == ["thumbnail"]
    with SceneReader(scene.choose(("red", "green")), scene.grid) as reader:
        valid = reader.read(Window(0, 0, scene.grid.height, scene.grid.width))[1]
    assert valid.all()  # near infrared that is 0 is no gap
    value["assets"]["image"]["eo:bands"][3] = {"name": "alpha"}
    scene = opened(tmp_path, value)
    assert [b.name for b in scene.bands] == ["red", "green", "blue"] and not scene.notes
    with SceneReader(scene.bands, scene.grid) as reader:
        assert not reader.read(Window(0, 0, scene.grid.height, scene.grid.width))[1].all()


def test_what_is_not_used_is_said_with_the_reason(tmp_path: Path) -> None:
    scene = opened(tmp_path, earth_search(tmp_path))
    assert set(scene.ignored) == {
        *(f"{key}-jp2: its band is there as GeoTIFF" for key, _, _ in stacitems.SENTINEL2.values()),
        "visual: it is a picture for the screen",
        "aot: it has no name of a band that geoseg knows",
        "thumbnail: its type is image/jpeg, and bands are GeoTIFF or JPEG 2000",
        "tileinfo_metadata: its type is application/json, and bands are GeoTIFF or JPEG 2000",
    }


def test_codes_mean_nothing_without_a_sensor(tmp_path: Path) -> None:
    value = stacitems.hls(tmp_path, "L30") | {"id": "a", "collection": "b"}
    value["properties"] = {}
    with pytest.raises(SceneError, match=r"no asset .*B02: it has no name.*--asset KEY"):
        opened(tmp_path, _described(value))
    scene = opened(tmp_path, value, assets=["B02", "B03"])
    assert [(b.name, b.label) for b in scene.bands] == [(None, "B02"), (None, "B03")]


def _described(value: dict[str, Any]) -> dict[str, Any]:
    """With a name for each band, so that no file is opened to look for one."""
    for key, asset in value["assets"].items():
        asset["eo:bands"] = [{"name": key}]
    return value


def test_two_assets_of_one_band_are_not_chosen_between(tmp_path: Path) -> None:
    value = earth_search(tmp_path)
    value["assets"]["red2"] = value["assets"]["red"]
    scene = opened(tmp_path, value)
    with pytest.raises(BandError, match="red and red2 are all red; say with --bands"):
        scene.choose(SIX)
    chosen = opened(tmp_path, value, assets=["red2", "nir"])
    assert [b.label for b in chosen.choose(("nir", "red"))] == ["nir", "red2"]


def test_two_files_of_several_bands_are_not_chosen_between(tmp_path: Path) -> None:
    value = stacitems.naip(tmp_path)
    value["assets"]["other"] = value["assets"]["image"]
    with pytest.raises(SceneError, match=r"image, other all may hold .* choose with --asset KEY"):
        opened(tmp_path, value)
    assert len(opened(tmp_path, value, assets=["other"]).bands) == 4


def test_a_picture_serves_where_there_is_nothing_else(tmp_path: Path) -> None:
    value = stacitems.naip(tmp_path)
    value["assets"]["visual"] = {**value["assets"].pop("image"), "roles": ["visual"]}
    assert [b.name for b in opened(tmp_path, value).bands] == ["red", "green", "blue", "nir"]


def test_an_asset_that_is_not_there_is_named(tmp_path: Path) -> None:
    value = stacitems.naip(tmp_path)
    with pytest.raises(UsageError, match=r"--asset nir: .* no such asset; it has image, thumbnail"):
        opened(tmp_path, value, assets=["nir"])
    with pytest.raises(UsageError, match="assets are chosen of a STAC item"):
        open_scene(tmp_path / "m.tif", assets=["nir"])


def test_bands_that_are_not_those_of_the_file_are_not_taken(tmp_path: Path) -> None:
    value = stacitems.naip(tmp_path)
    value["assets"]["image"]["eo:bands"] = [{"name": "a"}, {"name": "b"}]
    scene = opened(tmp_path, value)
    assert [b.name for b in scene.bands] == ["red", "green", "blue", None]  # by the file's colours
    assert "band 4 is marked as alpha, but its values are not those" in scene.notes[0]
    assert "describes 2 bands of its asset image and the file has 4" in scene.notes[1]


def test_another_crs_than_the_files_is_noted(tmp_path: Path) -> None:
    value = earth_search(tmp_path)
    value["properties"]["proj:epsg"] = 32634
    notes = opened(tmp_path, value).notes
    assert any("EPSG:32634, and red is in EPSG:32633: the file's is taken" in n for n in notes)


# What the numbers mean


@pytest.mark.parametrize(
    ("applied", "baseline", "offset", "bias"),
    [
        (True, "05.09", -0.1, 0.0),  # the flag is the truth, not the offset
        (True, "02.14", 0.0, 0.0),
        (False, "05.09", -0.1, -0.1),
        (False, "02.14", 0.0, 0.0),
        (None, "05.00", -0.1, -0.1),  # collection 1
        (None, "03.01", 0.0, 0.0),
    ],
)
def test_the_offset_of_earth_search_is_added_once(
    tmp_path: Path, applied: bool | None, baseline: str, offset: float, bias: float
) -> None:
    value = earth_search(tmp_path, applied=applied, baseline=baseline, offset=offset)
    found = reflectance(opened(tmp_path, value))
    assert found.gain == (0.0001,) * 6 and found.bias == (bias,) * 6
    assert ("wrong of some items" in found.doubt) == (applied is False and bias != 0)


@pytest.mark.parametrize(
    ("applied", "baseline", "offset"), [(False, "02.14", -0.1), (None, "05.09", 0.0)]
)
def test_an_item_that_contradicts_itself_is_refused_with_both_commands(
    tmp_path: Path, applied: bool | None, baseline: str, offset: float
) -> None:
    scene = opened(
        tmp_path, earth_search(tmp_path, applied=applied, baseline=baseline, offset=offset)
    )
    wanted = "contradict .*--scale 0.0001 --offset -0.1 if .*else --scale 0.0001 --offset 0"
    with pytest.raises(RadiometryError, match=wanted):
        reflectance(scene)
    assert reflectance(scene, scale=1e-4, offset=0.0).source == "given by --scale/--offset"


@pytest.mark.parametrize(("baseline", "bias"), [("04.00", -0.1), ("02.14", 0.0)])
def test_a_baseline_alone_tells_the_offset(tmp_path: Path, baseline: str, bias: float) -> None:
    """As in names of products."""
    scene = opened(tmp_path, planetary_sentinel2(tmp_path, baseline))
    found = reflectance(scene)
    assert found.gain == (1e-4,) * 6 and found.bias == (bias,) * 6
    assert f"N{baseline.replace('.', '')}" in found.source


def test_an_item_without_baseline_and_offset_is_refused_whatever_its_date(tmp_path: Path) -> None:
    value = planetary_sentinel2(tmp_path)
    del value["properties"]["s2:processing_baseline"]
    for year in ("2016", "2021", "2023"):
        value["properties"]["datetime"] = f"{year}-06-28T07:24:41Z"
        with pytest.raises(RadiometryError, match="no processing baseline found"):
            reflectance(opened(tmp_path, value))
    value["properties"]["processing:version"] = "05.09"
    assert reflectance(opened(tmp_path, value)).bias == (-0.1,) * 6
    del value["properties"]["processing:version"]
    value["properties"]["s2:product_uri"] = "S2B_MSIL2A_20230628T072441_N0509_R106_T33UXP_x.SAFE"
    assert reflectance(opened(tmp_path, value)).bias == (-0.1,) * 6


@pytest.mark.parametrize(
    ("maker", "gain", "bias"),
    [
        ("landsat", 2.75e-5, -0.2),
        ("hls l30", 1e-4, 0.0),
        ("hls s30", 1e-4, 0.0),
        ("stac 1.1", 1e-4, -0.1),
    ],
)
def test_scale_and_offset_of_archives(tmp_path: Path, maker: str, gain: float, bias: float) -> None:
    found = reflectance(opened(tmp_path, MAKERS[maker](tmp_path)))
    assert found.gain == (gain,) * 6 and found.bias == (bias,) * 6 and not found.doubt


def test_the_item_comes_before_the_files_tags_and_differences_are_noted(tmp_path: Path) -> None:
    value = stacitems.planetary_landsat(tmp_path)
    for path in tmp_path.glob("SR_*.tif"):
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = (0.5,), (0.25,)
            dataset.nodata = 7
    scene = opened(tmp_path, value)
    assert reflectance(scene).bias == (-0.2,) * 6
    assert {b.nodata for b in scene.choose(SIX)} == {0.0}
    assert any("(0.5, 0.25): the item's are taken" in note for note in scene.notes)
    for asset in value["assets"].values():
        asset.pop("raster:bands", None)
    scene = opened(tmp_path, value)
    assert reflectance(scene).gain == (0.5,) * 6
    assert {b.nodata for b in scene.choose(SIX)} == {7.0}


# The map is that of the files


@pytest.mark.parametrize("maker", ["earth search", "landsat"])
def test_the_map_is_that_of_a_folder_of_the_same_files(tmp_path: Path, maker: str) -> None:
    bands = ("red", "swir1")
    model = tiny_model(tmp_path / "model", bands, ("a", "b", "c"), size=32, overlap=8)
    folder = tmp_path / "product"
    folder.mkdir()
    value = MAKERS[maker](folder)
    (folder / "SCL.tif").unlink(missing_ok=True)
    (folder / "QA_PIXEL.tif").unlink(missing_ok=True)
    results = {}
    for name, source in {"folder": folder, "item": save(folder, value)}.items():
        results[name] = geoseg.predict(
            source,
            tmp_path / f"{name}.tif",
            model=model,
            clouds="none",
            probs=tmp_path / f"{name}_probs.tif",
            vector=tmp_path / f"{name}.parquet",
            # Of codes alone a folder can't tell its sensor.
            bands="3,5" if (maker, name) == ("landsat", "folder") else None,
        )
    for suffix in (".tif", "_probs.tif"):
        one, two = (tmp_path / f"{name}{suffix}" for name in results)
        with rasterio.open(one) as ours, rasterio.open(two) as theirs:
            np.testing.assert_array_equal(ours.read(), theirs.read())
            assert ours.transform == theirs.transform and ours.crs == theirs.crs
    assert (tmp_path / "folder.parquet").read_bytes() == (tmp_path / "item.parquet").read_bytes()
    assert results["item"].report["clouds"] is None


def test_names_and_records_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny_model(tmp_path / "model", ("red",), ("a", "b"), size=32, overlap=8)
    value = earth_search(tmp_path) | {"id": "S2B/33UXP 2023"}
    path = save(tmp_path, value)
    result = geoseg.predict(path, model=model, runtime=OneHot(2), no_vector=True)
    assert result.raster == Path("S2B_33UXP_2023_landcover.tif")
    wanted = {
        "id": "S2B/33UXP 2023",
        "collection": "sentinel-2-l2a",
        "href": str(path),
        "datetime": "2023-06-28T07:24:41.632000Z",
    }
    assert result.report["scene"]["item"] == wanted
    with rasterio.open(result.raster) as dataset:
        assert json.loads(dataset.tags()["GEOSEG_ITEM"]) == wanted
    with pytest.raises(UsageError, match="is an input of this run"):
        geoseg.predict(path, model=model, no_vector=True, output="B04.tif", overwrite=True)


# Where an item may lead


def test_an_item_leads_into_its_own_folder_only(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir(), outside.mkdir()
    make_raster(outside / "m.tif", np.ones((4, 8, 8), np.uint8))
    value = stacitems.naip(inside)
    os.symlink(outside / "m.tif", inside / "link.tif")
    image = value["assets"]["image"]
    for href in ("../out/m.tif", str(outside / "m.tif"), "link.tif"):
        image["href"] = href
        with pytest.raises(SceneError, match=f"give --input-root {outside}"):
            opened(inside, value)
        assert len(opened(inside, value, rules=Rules.of(outside)).bands) == 4
    image["href"] = str(inside / "m.tif")
    assert len(opened(inside, value).bands) == 4


HREFS = (
    *("/vsicurl/http://127.0.0.1:9/a.tif", "/vsizip/a.zip/a.tif", "file:///etc/passwd"),
    *("WMS:http://127.0.0.1:9/", "<VRTDataset/>", "NETCDF:a.nc:b", "zip+https://a.org/a.zip!a"),
    *(
        "ftp://a.org/a.tif",
        "vrt://m.tif",
        "",
        "a\nb.tif",
        "a\0.tif",
        '{"a": 1}',
        "GTIFF_DIR:1:m.tif",
    ),
)


@pytest.mark.parametrize("href", HREFS)
@pytest.mark.parametrize("place", ["", "https://a.org/items/x", "s3://bucket/x.json"])
def test_no_item_leads_elsewhere(tmp_path: Path, href: str, place: str) -> None:
    value = stacitems.naip(tmp_path)
    value["assets"]["image"]["href"] = href
    with pytest.raises(SceneError, match=r"no address of a file|may name files by|in GDAL's own"):
        if place:
            open_scene({**value, "links": [{"rel": "self", "href": place}]})
        else:
            opened(tmp_path, value)


def test_a_remote_item_names_no_local_file(tmp_path: Path) -> None:
    value = stacitems.naip(tmp_path)
    for href, base, wanted in [
        ("/etc/passwd", "https://a.org/x/item.json?sig=1", "https://a.org/etc/passwd"),
        ("./m.tif", "https://a.org/x/item.json?sig=1", "https://a.org/x/m.tif"),
        ("../y/m.tif", "s3://bucket/x/item.json", "s3://bucket/y/m.tif"),
        ("../../../m.tif", "s3://bucket/x/item.json", "s3://bucket/m.tif"),
        ("//b.org/m.tif", "https://a.org/x/item.json", "https://b.org/m.tif"),
    ]:
        value["assets"]["image"]["href"] = href
        found = parse_item(value, base)
        assert address_of(found.assets["image"], found, Rules.of(tmp_path)) == wanted


def test_a_relative_address_needs_a_place(tmp_path: Path) -> None:
    value = stacitems.naip(tmp_path)
    with pytest.raises(SceneError, match="relative, and where the item lies is not known"):
        open_scene(value)
    path = str(tmp_path / "item.json")
    with pytest.raises(SceneError, match="relative, and where the item lies is not known"):
        # It may say what it likes: only who read it knows.
        open_scene({**value, "links": [{"rel": "self", "href": path}]})
    assert len(open_scene(parse_item(value, path)).bands) == 4
    pystac = pytest.importorskip("pystac")
    save(tmp_path, value | {"links": []})
    assert len(open_scene(pystac.Item.from_file(path)).bands) == 4


# What is no item


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON .*nested too deeply"),
        ("[1]", "holds a JSON list; a STAC item is an object"),
        ('{"type": "Feature"}', 'it has no "id"'),
        ('{"type": "Feature", "id": "a"}', 'it has no "assets"'),
        ('{"type": "Feature", "id": "a", "assets": {}}', r"no asset .*\(it has none\)"),
        ('{"type": "Point"}', "its \"type\" is 'Point'"),
        (
            '{"type": "FeatureCollection", "features": [{}, {}]}',
            "an ItemCollection with 2 items, and a scene is one item: give one",
        ),
        ('{"type": "Collection"}', "is a STAC Collection, which lists items"),
        ('{"type": "Catalog"}', "is a STAC Catalog, which lists items"),
        (" " * 10_000_001, "has more than 10 MB"),
    ],
)
def test_what_is_no_item_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SceneError, match=message):
        open_scene(path)


def test_an_item_is_given_alone(tmp_path: Path) -> None:
    value = stacitems.naip(tmp_path)
    with pytest.raises(
        SceneError, match="is a STAC item, and so a scene of its own; give it alone"
    ):
        open_scene([save(tmp_path, value), tmp_path / "m.tif"])
    assert len(open_scene([save(tmp_path, value)]).bands) == 4


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=JSON)
@settings(max_examples=200, deadline=None)
def test_no_json_is_an_accident(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(GeosegError):
        open_scene(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sound")
    return folder, earth_search(folder)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where anything stands in JSON."""
    if at:
        yield at
    entries = value.items() if isinstance(value, dict) else ()
    entries = enumerate(value) if isinstance(value, list) else entries
    for key, inner in entries:
        yield from _paths(inner, (*at, key))


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_in_an_item_is_an_accident(
    sound: tuple[Path, dict[str, Any]], data: st.DataObject
) -> None:
    """Whatever stands anywhere, it is refused with a message, or is a scene."""
    folder, value = sound
    changed = copy.deepcopy(value)
    kept = {"assets": {k: changed["assets"][k] for k in ("red", "nir", "scl", "visual")}}
    changed |= kept
    for _ in range(data.draw(st.integers(1, 4))):
        *where, last = data.draw(st.sampled_from(list(_paths(changed))))
        inner: Any = changed
        for key in where:
            inner = inner[key]
        inner[last] = data.draw(JSON)
    try:
        scene = open_scene(save(folder, changed, "changed.json"))
        scene.choose(("red", "nir"))
        reflectance(scene, ("red", "nir"))
    except GeosegError as error:
        assert "\n" not in str(error)


# Over a network


@pytest.fixture()
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / "items").mkdir()
    found = FaultyServer(tmp_path)
    yield found
    found.stop()


def test_an_item_over_http(tmp_path: Path, server: FaultyServer) -> None:
    """By the address of a file, and by one of an API, whose items have no suffix."""
    value = stacitems.naip(tmp_path)
    save(tmp_path, value)
    here = [(b.name, b.grid) for b in open_scene(tmp_path / "item.json").bands]
    scene = open_scene(f"{server.url}/item.json")
    assert [(b.name, b.grid) for b in scene.bands] == here
    assert scene.paths == (f"{server.url}/m.tif",)
    value["assets"]["image"]["href"] = f"{server.url}/m.tif"
    save(tmp_path / "items", value, "S2B_1.2")
    assert open_scene(f"{server.url}/items/S2B_1.2").paths == scene.paths


def test_secrets_in_addresses_stay_there(tmp_path: Path, server: FaultyServer) -> None:
    model = tiny_model(tmp_path / "model", ("red",), ("a", "b"), size=32, overlap=8)
    value = stacitems.naip(tmp_path)
    value["assets"]["image"]["href"] = f"{server.url}/m.tif?st=1&sig=SECRET"
    save(tmp_path, value)
    result = geoseg.predict(
        f"{server.url}/item.json?token=SECRET".replace("http://", "http://me:SECRET@"),
        tmp_path / "map.tif",
        model=model,
        runtime=OneHot(2),
        no_vector=True,
    )
    assert result.report["scene"]["item"]["href"] == f"{server.url}/item.json?..."
    assert result.report["scene"]["paths"] == [f"{server.url}/m.tif?..."]
    for path in tmp_path.glob("map.*"):
        assert b"SECRET" not in path.read_bytes()
    for name in ("none.json", "item.json"):
        value["assets"]["image"]["href"] = f"{server.url}/none.tif?sig=SECRET"
        save(tmp_path, value)
        with pytest.raises(SceneError, match="404") as told:
            open_scene(f"{server.url}/{name}?sig=SECRET")
        assert "SECRET" not in str(told.value)


@pytest.mark.parametrize("fault", ["503", "cut"])
def test_a_server_that_fails_is_asked_again(
    tmp_path: Path, server: FaultyServer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "DELAYS", (0.01, 0.01))
    save(tmp_path, stacitems.naip(tmp_path))
    server.fault = lambda number, first: fault if number < 2 else None
    assert len(open_scene(f"{server.url}/item.json").bands) == 4
    server.fault = lambda number, first: fault
    with pytest.raises(SceneError, match=r"item.json can't be read \(.*download the file"):
        open_scene(f"{server.url}/item.json")


def test_a_large_answer_is_not_read_to_its_end(tmp_path: Path, server: FaultyServer) -> None:
    (tmp_path / "large.json").write_bytes(b" " * 60_000_000)
    with pytest.raises(SceneError, match="has more than 10 MB"):
        open_scene(f"{server.url}/large.json")
    until = time.monotonic() + 30
    while not server.broken_off and time.monotonic() < until:  # it notices at its next write
        time.sleep(0.01)
    assert server.broken_off == 1


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "DELAYS", (0.01, 0.01))
    with pytest.raises(SceneError, match=r"can't be read .*check the address and the network"):
        open_scene("http://127.0.0.1:9/item.json")


def test_info_shows_the_item(tmp_path: Path) -> None:
    value = earth_search(tmp_path)
    model = tiny_model(tmp_path / "model", ("red",), ("a", "b"), quantity="reflectance")
    report = scene_info(save(tmp_path, value), models=[model])
    assert report["item"]["id"] == value["id"]
    layer = {"layer": "Sentinel-2 scene classification (SCL)", "source": "scl", "buffer_m": 60}
    assert report["clouds"] == layer
    assert report["models"][0]["fits"]


def test_more_assets_than_any_archive_has_are_not_opened(tmp_path: Path) -> None:
    value = earth_search(tmp_path)
    del value["assets"]["visual"]
    value["assets"] |= {f"red{i}": value["assets"]["red"] for i in range(100)}
    with pytest.raises(SceneError, match="108 assets of the item may be bands, and at most 100"):
        opened(tmp_path, value)


def test_pixel_sizes_that_are_not_said_decide_nothing(tmp_path: Path) -> None:
    value = earth_search(tmp_path)
    value["assets"]["other"] = {**value["assets"]["red"], "raster:bands": []}
    with pytest.raises(BandError, match="red and other are all red"):
        opened(tmp_path, value).choose(SIX)


def test_what_an_item_says_is_one_line(tmp_path: Path) -> None:
    value = stacitems.naip(tmp_path) | {"id": "a\nb\u001b[31m\ud800", "collection": "c\r\nd"}
    scene = opened(tmp_path, value)
    assert scene.name == "a_b__31m_"
    assert scene.item is not None and scene.item.collection == "c??d"
