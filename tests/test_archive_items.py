"""A map's STAC item: valid, true, and readable by others."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import shapely.geometry
from affine import Affine
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS

from geoseg.archive.acquired import acquired
from geoseg.archive.footprint import footprint
from geoseg.archive.model_item import model_href, write_model_item
from geoseg.archive.stac_item import make_item, write_item
from geoseg.cards.files import read_model
from geoseg.errors import OutputError, UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from tests.archives import EXAMPLE, KEY, add_map, example_archive, problems
from tests.helpers import make_raster, tiny_model


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("archive")
    example_archive(out)
    return out


@pytest.fixture
def item(out):
    return json.loads((out / KEY / "item.json").read_text())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", ("red", "nir"), ("a b", "ç"))


def report_of(folder: Path):
    return json.loads((folder / "landcover.json").read_text())


# --- what an item says


def test_an_item_keeps_stacs_schemas(item, shared):
    assert problems(item, shared) == []


def test_the_schemas_find_what_is_wrong(item, shared):
    for break_it in (
        lambda i: i.pop("bbox"),
        lambda i: i["properties"].update(datetime="yesterday"),
        lambda i: i["assets"]["landcover"].update({"file:checksum": "ABC"}),
        lambda i: i["assets"]["landcover"]["classification:classes"][0].pop("value"),
        lambda i: i["properties"].update({"proj:shape": [1]}),
        lambda i: i["properties"].update({"processing:software": {"geoseg": 1}}),
        lambda i: i["assets"]["probs"].update({"raster:scale": "1"}),
    ):
        broken = json.loads(json.dumps(item))
        break_it(broken)
        assert problems(broken, shared), "the schemas find nothing"


def test_every_file_of_the_folder_is_an_asset_with_its_hash(out, item):
    names = {path.name for path in (out / KEY).iterdir()} - {"item.json"}
    assert {asset["href"].removeprefix("./") for asset in item["assets"].values()} == names
    for asset in item["assets"].values():
        content = (out / KEY / asset["href"]).read_bytes()
        assert asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()


def test_an_item_says_what_the_map_is(out, item):
    with rasterio.open(out / KEY / "landcover.tif") as dataset:
        assert item["properties"]["proj:code"] == "EPSG:32119"
        assert item["properties"]["proj:shape"] == list(dataset.shape)
        assert item["properties"]["proj:transform"] == list(dataset.transform)[:6]
        assert item["properties"]["proj:bbox"] == list(dataset.bounds)
        colors = dataset.colormap(1)
    landcover = item["assets"]["landcover"]
    assert (landcover["data_type"], landcover["nodata"]) == ("uint8", 255)
    for c in landcover["classification:classes"]:
        assert c["color_hint"] == "{:02X}{:02X}{:02X}".format(*colors[c["value"]])
    report = report_of(out / KEY)
    assert [c["title"] for c in landcover["classification:classes"]] == [
        c["name"] for c in report["classes"]
    ]
    assert item["properties"]["gsd"] == 28.5
    assert item["properties"]["processing:software"]["openvino"]
    scale = item["assets"]["confidence"]["raster:scale"]
    assert scale == item["assets"]["probs"]["raster:scale"] == pytest.approx(1 / 254)


def test_links_lead_somewhere(out, item):
    for link in item["links"]:
        if link["rel"] == "derived_from" and "mlm:name" not in link:
            assert link["href"] == EXAMPLE.as_uri()
        elif link["rel"] == "derived_from":
            found = json.loads((out / KEY / link["href"]).read_text())
            assert found["properties"]["mlm:name"] == link["mlm:name"] == "landcover-ms"
        else:
            assert (out / KEY / link["href"]).resolve() == out / "collection.json"
    assert not [link for link in item["links"] if link["rel"] == "self"]
    expression = item["assets"]["landcover"]["processing:expression"]["expression"]
    assert (out / KEY / expression).is_file()


def test_the_same_folder_gives_the_same_bytes(out):
    before = (out / KEY / "item.json").read_bytes()
    write_item(out / KEY, KEY, {}, report_of(out / KEY))
    assert (out / KEY / "item.json").read_bytes() == before


def test_what_a_killed_worker_left_of_an_item_goes_with_the_next(out):
    """Else verify would find a file that no job wrote, for ever."""
    folder = out / KEY
    (folder / ".geoseg-item.json-0362c461").write_text("{")
    write_item(folder, KEY, {}, report_of(folder))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_others_read_an_item(out, item):
    pystac = pytest.importorskip("pystac")
    found = pystac.Item.from_file(str(out / KEY / "item.json"))
    assert found.datetime == datetime(2000, 3, 31, 15, 45, 43, tzinfo=UTC)
    assert Path(found.assets["landcover"].get_absolute_href()) == out / KEY / "landcover.tif"
    rustac = pytest.importorskip("rustac")
    again = rustac.read_sync(str(out / KEY / "item.json"))
    assert again["properties"] == item["properties"]
    assert again["assets"].keys() == item["assets"].keys()


def test_a_missing_output_is_reported_and_leaves_no_item(out, tmp_path):
    folder = tmp_path / KEY
    folder.mkdir()
    for path in (out / KEY).iterdir():
        if path.name not in ("polygons.gpkg", "item.json"):
            (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(OutputError, match=r"polygons\.gpkg is missing"):
        write_item(folder, KEY, {}, report_of(folder))
    assert not (folder / "item.json").exists()


# --- the model's item


def test_a_models_item_keeps_stacs_schemas(out, model, tmp_path, shared):
    (path,) = (out / "models").iterdir()
    assert problems(json.loads(path.read_text()), shared) == []
    files = read_model(model)
    again = write_model_item(tmp_path, files)
    assert again == tmp_path / model_href("tiny", files.sha256)
    found = json.loads(again.read_text())
    assert problems(found, shared) == []
    weights = found["assets"]["weights"]
    assert weights["href"] == (model / "weights.safetensors").as_uri()
    assert weights["file:checksum"] == "1220" + hashlib.sha256(files.weights).hexdigest()
    before = again.read_bytes()
    write_model_item(tmp_path, files)
    assert again.read_bytes() == before


# --- where


#: Around poles, across 180 degrees, in degrees, mirrored, turned.
CRSS = {
    "EPSG:32633": (300_000, 700_000, 5e6, 6e6),
    "EPSG:32601": (200_000, 800_000, 4e6, 8e6),
    "EPSG:32760": (200_000, 800_000, 4e6, 8e6),
    "EPSG:3995": (-3e6, 3e6, -3e6, 3e6),
    "EPSG:3031": (-3e6, 3e6, -3e6, 3e6),
    "EPSG:3035": (2.5e6, 6e6, 1.5e6, 5e6),
    "EPSG:3857": (-2e7, 2e7, -1e7, 1e7),
    "EPSG:4326": (-200, 200, -85, 85),
    "EPSG:4269": (-200, 200, -85, 85),
    "EPSG:2056": (2.5e6, 2.8e6, 1.1e6, 1.3e6),
}


@st.composite
def grids(draw):
    code = draw(st.sampled_from(sorted(CRSS)))
    west, east, south, north = CRSS[code]
    x, y = draw(st.floats(west, east)), draw(st.floats(south, north))
    height, width = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    res = draw(st.floats(1e-5, 2e-2)) * (east - west) / 300
    turn = Affine.rotation(draw(st.sampled_from([0, 0, 30, 90, 217])))
    flip = Affine.scale(res, draw(st.sampled_from([-res, res])))
    transform = Affine.translation(x, y) @ turn @ flip
    return PixelGrid(height, width, transform, CRS.from_user_input(code))


def polar(height, width, res, top) -> PixelGrid:
    """A grid whose left side is on the meridian that goes through the South Pole."""
    return PixelGrid(height, width, Affine(res, 0, 0, 0, -res, top), CRS.from_epsg(3031))


def inside(geometry, lonlat) -> bool:
    """Whether a place lies in a GeoJSON geometry; 180 and -180 degrees are one."""
    shape = shapely.geometry.shape(geometry)
    return any(shape.covers(shapely.Point(lonlat[0] + turn, lonlat[1])) for turn in (-360, 0, 360))


@given(grid=grids(), data=st.data())
@settings(max_examples=300)
@example(grid=polar(100, 100, 1e4, 1e6), data=None)
# A side that passes the pole within a pixel, on a point of its own or between two.
@example(grid=polar(120, 58, 0.2, 0.009765625), data=None)
@example(grid=polar(2, 1, 312.5, 0.0078125), data=None)
@example(grid=polar(4, 1, 312.5, 1.0), data=None)
@example(grid=polar(400, 300, 1e4, 123_456), data=None)
# So small that rounding has its outline cross itself.
@example(
    grid=PixelGrid(3, 3, Affine(-0.16, 0.12, 0.125, -0.12, -0.16, 0.5), CRS.from_epsg(3031)),
    data=None,
)
def test_a_footprint_holds_the_maps_ground_and_no_other(grid, data):
    found = footprint(grid, Window(0, 0, grid.height, grid.width))
    to_degrees = Transformer.from_crs(grid.crs.to_wkt(), "EPSG:4326", always_xy=True)
    shares = [0.5, 0.3] if data is None else [data.draw(st.floats(0, 1)) for _ in range(2)]
    within = [
        (share * (n - 2) + 1) for share, n in zip(shares, (grid.width, grid.height), strict=True)
    ]
    beside = [(-2.0, within[1]), (within[0], grid.height + 2.0), (grid.width + 2.0, within[1])]
    corners = [(0, 0), (0, grid.height), (grid.width, 0), (grid.width, grid.height)]
    places = [to_degrees.transform(*(grid.transform @ p)) for p in (*corners, within, *beside)]
    assume(all(np.isfinite(p).all() and abs(p[1]) < 90 for p in places))
    if CRS.from_user_input(grid.crs).is_geographic:
        assume(all(abs((grid.transform @ p)[1]) < 90 for p in (*corners, *beside)))
        assume(grid.width * abs(grid.transform.a) + grid.height * abs(grid.transform.b) < 350)
    assert found is not None
    geometry, (west, south, east, north) = found
    shape = shapely.geometry.shape(geometry)
    assert shape.is_valid
    for ring in shapely.get_parts(shape).tolist():
        assert ring.exterior.is_ccw
        assert -180 <= ring.bounds[0] <= ring.bounds[2] <= 180
    if min(grid.width, grid.height) >= 3:
        assert inside(geometry, places[4])
    assert not any(inside(geometry, place) for place in places[5:])
    assert (south, north) == pytest.approx((shape.bounds[1], shape.bounds[3]), abs=1e-6)
    if west <= east:
        assert (west, east) == pytest.approx((shape.bounds[0], shape.bounds[2]), abs=1e-6)
    else:
        assert geometry["type"] == "MultiPolygon"
        gap = shapely.box(east + 1e-6, -90, west - 1e-6, 90)
        assert not shape.intersects(gap)


@pytest.mark.parametrize(
    ("code", "transform", "bbox"),
    [
        ("EPSG:4326", Affine(1, 0, -180, 0, -1, 90), [-180, -90, 180, 90]),
        # Pixel centres on the poles: half a pixel reaches beyond.
        ("EPSG:4326", Affine(1, 0, -180.5, 0, -181 / 180, 90.5), [-180, -90, 180, 90]),
        ("EPSG:4326", Affine(1, 0, 0, 0, -1, 90), [-180, -90, 180, 90]),
        ("EPSG:3995", Affine(1e4, 0, -18e5, 0, -1e4, 9e5), [-180, None, 180, 90]),
        ("EPSG:3031", Affine(1e4, 0, -18e5, 0, -1e4, 9e5), [-180, -90, 180, None]),
        # A corner at the pole, and a side through it.
        ("EPSG:3031", Affine(1e4, 0, 0, 0, -1e4, 18e5), [0, -90, 90, None]),
        ("EPSG:3031", Affine(1e4, 0, -18e5, 0, -1e4, 18e5), [-90, -90, 90, None]),
        # The corners of a world in Mollweide's projection are no place.
        ("ESRI:54009", Affine(1e5, 0, -18e6, 0, -1e5, 9e6), [-180, -90, 180, 90]),
    ],
)
def test_footprints_of_poles_and_of_the_world(code, transform, bbox):
    grid = PixelGrid(180, 360, transform, CRS.from_user_input(code))
    geometry, found = footprint(grid, Window(0, 0, 180, 360))
    assert geometry["type"] == "Polygon"
    shape = shapely.geometry.shape(geometry)
    assert shape.is_valid
    close = 0.5 if code == "EPSG:4326" else 8
    for value, wanted in zip(found, bbox, strict=True):
        assert wanted is None or value == pytest.approx(wanted, abs=close)
    assert list(shape.bounds) == pytest.approx(found, abs=1e-6)


def test_ground_without_places_on_earth_has_no_footprint():
    local = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    for crs in (None, local, CRS.from_user_input("IAU_2015:30100")):
        grid = PixelGrid(10, 10, Affine(1, 0, 0, 0, -1, 0), crs)
        assert footprint(grid, Window(0, 0, 10, 10)) is None


def test_a_footprint_is_of_the_measured_pixels(tmp_path, model, shared):
    values = np.full((2, 50, 80), 0.0, np.float32)
    values[:, 10:30, 20:60] = np.random.default_rng(0).random((2, 20, 40)) + 1
    scene = make_raster(tmp_path / "s.tif", values, nodata=0, descriptions=("red", "nir"))
    item = add_map(tmp_path, "s-1", scene, model=model, no_vector=True)
    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
    west, south = to_degrees.transform(500200, 4999700)
    east, north = to_degrees.transform(500600, 4999900)
    assert item["bbox"] == pytest.approx([west, south, east, north], abs=1e-5)
    assert problems(item, shared) == []


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (None, Affine(1, 0, 0, 0, -1, 0)),
        ("EPSG:32601", Affine(1000, 0, 280000, 0, -1000, 6000000)),
        ("EPSG:3413", Affine(1000, 0, -20000, 0, -1000, 20000)),
        ("EPSG:32633", Affine.translation(5e5, 5e6) @ Affine.rotation(33) @ Affine.scale(10, -10)),
        # Nobody's code: told in words.
        ("+proj=laea +lat_0=47 +lon_0=9 +ellps=bessel", Affine(10, 0, 0, 0, -10, 0)),
    ],
    ids=["no CRS", "antimeridian", "pole", "rotated", "no code"],
)
def test_items_of_maps_in_odd_places(tmp_path, model, shared, crs, transform):
    values = np.random.default_rng(1).random((2, 40, 60)).astype(np.float32)
    names = ("red", "nir")
    scene = make_raster(
        tmp_path / "s.tif", values, crs=crs, transform=transform, descriptions=names
    )
    item = add_map(tmp_path, "s-1", scene, model=model, no_vector=True)
    assert problems(item, shared) == []
    properties = item["properties"]
    assert (item["geometry"] is None) == (crs is None) == ("bbox" not in item)
    assert properties["proj:transform"] == pytest.approx(list(transform)[:6])
    if crs is None or crs.startswith("+"):
        assert properties["proj:code"] is None
        assert ("proj:wkt2" in properties) == (crs is not None)
    else:
        assert properties["proj:code"] == crs
    if crs == "EPSG:32601":
        assert item["geometry"]["type"] == "MultiPolygon"
        assert item["bbox"][0] > item["bbox"][2]
    (first, second) = item["assets"]["landcover"]["classification:classes"]
    assert (first["name"], first["title"]) == ("a_b", "a b")
    assert second["title"] == "ç"
    rustac = pytest.importorskip("rustac")
    assert rustac.read_sync(str(tmp_path / "s-1" / "item.json"))["id"] == "s-1"


# --- when


def told(paths=(), source=None, **tags):
    return acquired(source or {}, {"scene": {"paths": list(paths)}})


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        (
            "S2A_MSIL2A_20200223T032739_N0214_R018_T48QUE_20200223T063207.SAFE/x.tif",
            "2020-02-23T03:27:39Z",
            None,
        ),
        ("T48QUE_20200223T032739_B02_10m.jp2", "2020-02-23T03:27:39Z", None),
        ("S2B_17SPV_20200403_0_L2A.tif", "2020-04-03T00:00:00Z", "2020-04-03T23:59:59Z"),
        ("HLS.L30.T17SPV.2021141T183540.v2.0.B04.tif", "2021-05-21T18:35:40Z", None),
        (
            "LC08_L2SP_016035_20200403_20200822_02_T1_SR_B4.TIF",
            "2020-04-03T00:00:00Z",
            "2020-04-03T23:59:59Z",
        ),
        ("LT50160351999200XXX02.tif", "1999-07-19T00:00:00Z", "1999-07-19T23:59:59Z"),
        ("20200403_153012_1032_3B_AnalyticMS.tif", "2020-04-03T15:30:12Z", None),
    ],
)
def test_products_names_say_when(name, start, end):
    found = told([f"https://example.com/a/{name}"])
    assert found is not None
    assert found.by == "the product's name"
    wanted = {"datetime": start}
    if end is not None:
        wanted = {"datetime": None, "start_datetime": start, "end_datetime": end}
    assert found.properties() == wanted


@pytest.mark.parametrize(
    "name",
    [
        "scene_2020-04-03.tif",
        "20200403.tif",
        "LC08_L2SP_016035_20209903_20200822_02_T1_SR_B4.TIF",
        "map_2000.tif",
    ],
)
def test_other_dates_in_names_say_nothing(name):
    assert told([f"https://example.com/{name}"]) is None


@pytest.mark.parametrize(
    ("tags", "start", "end"),
    [
        ({"TIFFTAG_DATETIME": "2000:03:31 15:45:43"}, "2000-03-31T15:45:43Z", None),
        (
            {
                "TIFFTAG_DATETIME": "2010:01:01 00:00:00",
                "DATE_ACQUIRED": "2000-03-31",
                "SCENE_CENTER_TIME": '"15:45:43.1234567Z"',
            },
            "2000-03-31T15:45:43.123456Z",
            None,
        ),
        ({"DATE_ACQUIRED": "2000-03-31"}, "2000-03-31T00:00:00Z", "2000-03-31T23:59:59Z"),
        (
            {"SENSING_TIME": "2021-05-21T18:35:40.7Z; 2021-05-21T18:36:04Z"},
            "2021-05-21T18:35:40.700000Z",
            "2021-05-21T18:36:04Z",
        ),
        ({"DATE_ACQUIRED": "soon", "TIFFTAG_DATETIME": "once"}, None, None),
    ],
)
def test_tags_say_when(tmp_path, tags, start, end):
    path = make_raster(tmp_path / "a.tif", np.ones((1, 4, 4), np.uint8), tags=tags)
    found = told([path])
    if start is None:
        assert found is None
    elif end is None:
        assert found.properties() == {"datetime": start}
    else:
        times = {"datetime": None, "start_datetime": start, "end_datetime": end}
        assert found.properties() == times


def test_the_jobs_source_is_believed_before_tags_and_names():
    item = {"properties": {"datetime": "2020-02-02T02:02:02+01:00"}}
    assert told([EXAMPLE], {"item": item}).properties() == {"datetime": "2020-02-02T01:02:02Z"}
    assert told([EXAMPLE], {"datetime": "2020-02-02T02:02:02Z"}).by == "the job's source"
    span = {"datetime": None, "start_datetime": "2020-01-01", "end_datetime": "2020-01-31"}
    found = told([EXAMPLE], {"item": {"properties": span}}).properties()
    assert found["end_datetime"] == "2020-01-31T23:59:59Z"
    # An item without a time leaves it to others.
    assert told([EXAMPLE], {"item": {"properties": {"datetime": None}}}).start.year == 2000
    with pytest.raises(UsageError, match="'soon'"):
        told([EXAMPLE], {"datetime": "soon"})
    day = told([], {"datetime": "2020-01-01/2020-01-05"}).properties()
    assert day["end_datetime"] == "2020-01-05T23:59:59Z"


def test_where_nothing_says_when_the_item_says_so(tmp_path, model, shared):
    values = np.random.default_rng(1).random((2, 40, 60)).astype(np.float32)
    scene = make_raster(tmp_path / "s.tif", values, descriptions=("red", "nir"))
    item = add_map(tmp_path, "s-1", scene, model=model, no_vector=True)
    p = item["properties"]
    assert p["geoseg:datetime_is_of_processing"] is True
    assert p["datetime"] == p["processing:datetime"] == p["created"]
    assert problems(item, shared) == []


# --- what it was made of


def test_links_to_sources_give_no_access(out):
    report = report_of(out / KEY)
    secret = "https://me:pw@example.com/item.json?sig=abc&token=def"
    source = {"item": {"id": "scene", "links": [{"rel": "self", "href": secret}]}}
    item = make_item(out / KEY, KEY, source, report)
    (link, *_) = [x for x in item["links"] if x["rel"] == "derived_from"]
    assert link["title"] == "scene"
    assert link["href"].startswith("https://example.com/item.json")
    assert not {"pw", "abc", "def"} & set(link["href"].replace("=", "&").split("&"))
    paths = ["/vsis3/bucket/a b.tif", "/vsicurl/https://me:pw@example.com/b.tif?sig=abc", "c d.tif"]
    item = make_item(out / KEY, KEY, {}, {**report, "scene": {**report["scene"], "paths": paths}})
    hrefs = [x["href"] for x in item["links"] if x["rel"] == "derived_from"][:3]
    assert hrefs[1] == "https://example.com/b.tif?..."
    assert hrefs[2].startswith("file://") and hrefs[2].endswith("c%20d.tif")
    assert "pw" not in json.dumps(item) and "abc" not in "".join(hrefs)
